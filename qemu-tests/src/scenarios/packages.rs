//! The packages of `make packages`, for scenarios that install them.

use crate::error::{Context as _, Result};
use crate::test_env::TestEnv;
use std::path::PathBuf;
use std::{env, fs};

/// The newest .deb whose file name begins so, of `HALFKEY_PACKAGES` or dist/packages.
///
/// # Errors
/// If there is none.
pub fn newest(env: &TestEnv, name: &str) -> Result<PathBuf> {
    let folder =
        env::var_os("HALFKEY_PACKAGES").map_or_else(|| env.paths.tree.join("dist/packages"), PathBuf::from);
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(name) && file.ends_with(".deb")
    };
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(is_it).max().context(format_args!(
        "expected {name}*.deb in {}, found none\nhint: make packages",
        folder.display()
    ))
}
