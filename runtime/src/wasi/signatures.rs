//! What Orb offers to a command: WASI preview 1, by name and type.

use wasmparser::ValType;

/// The one module that a command may import from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// Every function of WASI preview 1: name, parameters, results; `i` is an i32, `I` an i64.
/// Source: `wasi_snapshot_preview1.witx`.
pub(crate) const FUNCTIONS: [(&str, &str, &str); 46] = [
    ("args_get", "ii", "i"),
    ("args_sizes_get", "ii", "i"),
    ("clock_res_get", "ii", "i"),
    ("clock_time_get", "iIi", "i"),
    ("environ_get", "ii", "i"),
    ("environ_sizes_get", "ii", "i"),
    ("fd_advise", "iIIi", "i"),
    ("fd_allocate", "iII", "i"),
    ("fd_close", "i", "i"),
    ("fd_datasync", "i", "i"),
    ("fd_fdstat_get", "ii", "i"),
    ("fd_fdstat_set_flags", "ii", "i"),
    ("fd_fdstat_set_rights", "iII", "i"),
    ("fd_filestat_get", "ii", "i"),
    ("fd_filestat_set_size", "iI", "i"),
    ("fd_filestat_set_times", "iIIi", "i"),
    ("fd_pread", "iiiIi", "i"),
    ("fd_prestat_dir_name", "iii", "i"),
    ("fd_prestat_get", "ii", "i"),
    ("fd_pwrite", "iiiIi", "i"),
    ("fd_read", "iiii", "i"),
    ("fd_readdir", "iiiIi", "i"),
    ("fd_renumber", "ii", "i"),
    ("fd_seek", "iIii", "i"),
    ("fd_sync", "i", "i"),
    ("fd_tell", "ii", "i"),
    ("fd_write", "iiii", "i"),
    ("path_create_directory", "iii", "i"),
    ("path_filestat_get", "iiiii", "i"),
    ("path_filestat_set_times", "iiiiIIi", "i"),
    ("path_link", "iiiiiii", "i"),
    ("path_open", "iiiiiIIii", "i"),
    ("path_readlink", "iiiiii", "i"),
    ("path_remove_directory", "iii", "i"),
    ("path_rename", "iiiiii", "i"),
    ("path_symlink", "iiiii", "i"),
    ("path_unlink_file", "iii", "i"),
    ("poll_oneoff", "iiii", "i"),
    ("proc_exit", "i", ""),
    ("proc_raise", "i", "i"),
    ("random_get", "ii", "i"),
    ("sched_yield", "", "i"),
    ("sock_accept", "iii", "i"),
    ("sock_recv", "iiiiii", "i"),
    ("sock_send", "iiiii", "i"),
    ("sock_shutdown", "ii", "i"),
];

/// Whether a function of this type is what the table's letters say.
pub(crate) fn matches(letters: &str, types: &[ValType]) -> bool {
    letters.len() == types.len()
        && letters.bytes().zip(types).all(|(letter, ty)| match letter {
            b'i' => *ty == ValType::I32,
            _ => *ty == ValType::I64,
        })
}

/// A type as people write it, for messages.
pub(crate) fn display(parameters: &str, results: &str) -> String {
    let words = |letters: &str| {
        let words: Vec<&str> = letters
            .bytes()
            .map(|letter| if letter == b'i' { "i32" } else { "i64" })
            .collect();
        words.join(", ")
    };
    format!("({}) -> ({})", words(parameters), words(results))
}
