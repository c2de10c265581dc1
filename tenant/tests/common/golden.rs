//! Files that hold what a person sees. `HALFKEY_BLESS=1 cargo test -p halfkey` writes them anew.

/// Compares `found` with the file of this name in `tests/golden`.
#[track_caller]
pub fn check(name: &str, found: &str) {
    halfkey_testkit::golden::check(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR")), found);
}
