//! Documents as they come: from files, from standard input.

use crate::documents::problems;
use crate::error::{Error, Result};
use halfkey_evidence::policy::{Additions, Policy};
use halfkey_protocol::wire::policies::MAX_POLICY;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A document as it came: where from, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// File name or scope.
    pub name: String,
    /// TOML.
    pub text: String,
}

impl Source {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// `Usage` when it can't be read, is too large or no text.
    pub fn file(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = read(path, MAX_POLICY as u64)?;
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::usage(format!("{name} is not text: byte {} is not UTF-8", e.utf8_error().valid_up_to()))
        })?;
        Ok(Self { name, text })
    }

    /// As a policy.
    ///
    /// # Errors
    /// With every problem, each with line and column.
    pub fn policy(&self) -> Result<Policy> {
        Policy::parse(&self.text).map_err(|found| problems::refuse(&self.name, &found))
    }

    /// As additions to a group's policy.
    ///
    /// # Errors
    /// With every problem, each with line and column.
    pub fn additions(&self) -> Result<Additions> {
        Additions::parse(&self.text).map_err(|found| problems::refuse(&self.name, &found))
    }
}

/// A file of at most `max` bytes, whole; `-` is standard input.
///
/// # Errors
/// `Usage` when it can't be read or is larger.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let fail = |e: io::Error| Error::usage(format!("can't read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    let limit = max + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(fail)?;
    } else {
        File::open(path).map_err(fail)?.take(limit).read_to_end(&mut bytes).map_err(fail)?;
    }
    if bytes.len() as u64 > max {
        return Err(too_large(path, max));
    }
    Ok(bytes)
}

/// What is said of a file that is larger than it may be.
pub fn too_large(path: &Path, max: u64) -> Error {
    Error::usage(format!("expected at most {max} bytes in {}, found more", path.display()))
}
