//! Folders for tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

/// A fresh folder that is gone when the value is dropped.
///
/// All lie in one folder of this process; a process that was killed leaves its own behind, and the
/// next one removes it.
///
/// # Panics
/// If no folder can be made.
pub fn folder(name: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(of_this_process())
        .expect("a scratch folder can be made")
}

fn of_this_process() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let all = std::env::temp_dir().join("orb-tests");
        remove_left_behind(&all);
        let mine = all.join(std::process::id().to_string());
        std::fs::create_dir_all(&mine).expect("the folder for temporary files takes one more");
        mine
    })
}

/// Removes the folders of processes that are no more.
fn remove_left_behind(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        let alive = Path::new("/proc").join(entry.file_name()).exists();
        if !alive {
            // Another test process may be doing the same.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
