//! The folder of root certificates of TPM manufacturers.

use crate::error::{Error, Result};
use halfkey_evidence::ek::Roots;
use std::fs;
use std::path::{Path, PathBuf};

/// A file with all vendor roots there are is some 500 kB.
const MAX_FILE: u64 = 4 << 20;

/// Every certificate of the folder, and what was skipped.
pub struct Folder {
    /// Each one is an anchor.
    pub roots: Roots,
    /// Files that hold something else too, or only something else, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

/// Reads every file of the folder (not its subfolders) as DER or PEM.
///
/// # Errors
/// When the folder can't be read or has no certificate at all.
pub fn read(folder: &Path) -> Result<Folder> {
    let fail = |e| Error::usage(format!("can't read the folder {}: {e}", folder.display()));
    let mut paths = fs::read_dir(folder)
        .map_err(fail)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(fail)?;
    paths.sort();
    let (mut roots, _) = Roots::from_der([]);
    let mut skipped = Vec::new();
    for path in paths {
        match read_file(&path) {
            Ok((found, 0)) if !found.is_empty() => roots.extend(found),
            Ok((found, bad)) => {
                let why = match (found.len(), bad) {
                    (0, _) => "no certificate in it".to_owned(),
                    (_, bad) => format!("{bad} certificates in it can't be read; the others are used"),
                };
                roots.extend(found);
                skipped.push((path, why));
            }
            Err(why) => skipped.push((path, why)),
        }
    }
    if roots.is_empty() {
        return Err(Error::usage(format!("there is no certificate in {}", folder.display()))
            .hint("put the root certificates of your TPMs' manufacturers there, DER or PEM"));
    }
    Ok(Folder { roots, skipped })
}

fn read_file(path: &Path) -> std::result::Result<(Roots, usize), String> {
    let meta = fs::metadata(path).map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("not a file".to_owned());
    }
    if meta.len() > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    Ok(Roots::from_pem_or_der(&fs::read(path).map_err(|e| e.to_string())?))
}
