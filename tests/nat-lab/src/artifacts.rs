//! Which artifacts lie in a daemon's data folder.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;

/// Letters of an artifact's hash as text.
const HASH_LEN: usize = 52;

/// Their hashes: what is complete bears its hash as its name.
pub(crate) fn held(data: &Path) -> Result<BTreeSet<String>> {
    let mut held = BTreeSet::new();
    collect(&data.join("objects"), &mut held)?;
    Ok(held)
}

fn collect(folder: &Path, held: &mut BTreeSet<String>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // Nothing was ever stored, or it went while this looked.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            collect(&entry.path(), held)?;
        } else if name.len() == HASH_LEN {
            held.insert(name);
        }
    }
    Ok(())
}
