//! Files that hold what a person sees, or what is made of a definition. `HALFKEY_BLESS=1 cargo test -p CRATE` writes them anew.

use std::path::Path;

/// Compares `found` with the file at `path`; spaces and line feeds at its end don't count.
///
/// # Panics
/// When they differ, with both and what to do.
#[track_caller]
pub fn check(path: impl AsRef<Path>, found: &str) {
    let path = path.as_ref();
    let found = format!("{}\n", found.trim_end());
    if std::env::var_os("HALFKEY_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == found,
        "{} differs\nhint: if this is meant, HALFKEY_BLESS=1 with the same test writes it anew; then look at git diff\n\
         --- expected\n{expected}\n--- found\n{found}",
        path.display()
    );
}
