//! Files that hold what a person sees, or what is made of a definition. `HALFKEY_BLESS=1 cargo test -p halfkey-agent` writes
//! them anew.

use std::path::Path;

/// Compares `found` with the file at `path` below the crate's folder.
#[track_caller]
pub fn check(path: &str, found: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let found = format!("{}\n", found.trim_end());
    if std::env::var_os("HALFKEY_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(expected == found, "{path} differs\n--- expected\n{expected}\n--- found\n{found}");
}
