//! The cache of images: what is built once, and when it is forgotten.

use crate::error::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// Takes a path of the cache: `make` writes to a temporary name, which becomes the final one when all went well, so an
/// interrupted build leaves nothing that looks finished.
pub(crate) fn cached(path: PathBuf, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if path.exists() {
        // So that it is not among those that are forgotten.
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        touched.context(format_args!("can't touch {}", path.display()))?;
        return Ok(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_file_name(format!("{name}.{}-{number}.partial", std::process::id()));
    remove(&partial)?;
    make(&partial)?;
    // Someone else may have been faster: then theirs is as good.
    if let Err(error) = fs::rename(&partial, &path) {
        remove(&partial)?;
        if !path.exists() {
            return Err(error).context(format_args!("can't rename to {}", path.display()));
        }
    }
    forget_old(&path)?;
    Ok(path)
}

/// Deletes what nobody used for a while: with every build of the agent there is a new set, and a root is large.
fn forget_old(path: &Path) -> Result<()> {
    const UNUSED: Duration = Duration::from_secs(12 * 3600);
    let Some(folder) = path.parent() else { return Ok(()) };
    let entries = fs::read_dir(folder).context(format_args!("can't read {}", folder.display()))?;
    let old = |path: &Path| {
        let modified = fs::metadata(path).and_then(|meta| meta.modified()).ok();
        modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > UNUSED)
    };
    for other in entries.flatten().map(|entry| entry.path()) {
        let kind = other.extension().unwrap_or_default().to_string_lossy().into_owned();
        match kind.as_str() {
            "luks" | "img" | "efi" | "ext4" | "partial" if old(&other) => remove(&other)?,
            // Of a run that was killed.
            "tree" if old(&other) => super::tree::discard(&other)?,
            _ => {}
        }
    }
    Ok(())
}

/// Removes a file or a folder, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.context(format_args!("can't remove {}", path.display()))
}
