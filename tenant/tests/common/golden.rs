//! Files that hold what a person sees. `HALFKEY_BLESS=1 cargo test -p halfkey` writes them anew.

use std::path::Path;

#[track_caller]
pub fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let found = format!("{}\n", found.trim_end());
    if std::env::var_os("HALFKEY_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{name} differs\n--- expected\n{expected}\n--- found\n{found}");
}
