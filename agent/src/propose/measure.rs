//! From files to a [`Proposal`].

use super::find::Source;
use crate::error::{Error, Kind, Result};
use crate::firmware;
use halfkey_measure::predict::{self, Circumstances, ProposalError};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::Proposal;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Of an image or an initrd, in bytes. A UKI with firmware and drivers has 100 MiB.
const MAX_FILE: u64 = 1 << 30;

impl Source {
    /// Name of the file that is started, for people.
    pub fn file_name(&self) -> String {
        let (Self::Uki(path) | Self::Kernel { kernel: path, .. }) = self;
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Measures what will be started, in this bank.
///
/// # Errors
/// When a file can't be read, or is not what it must be.
pub fn measure(source: &Source, name: &str, bank: PcrBank) -> Result<Proposal> {
    let about = Circumstances { name, bank, secure_boot: firmware::secure_boot() == Some(true) };
    match source {
        Source::Uki(path) => predict::from_uki(&whole(path)?, &path.display().to_string(), &about)
            .map_err(|error| refused(path, &error)),
        Source::Kernel { kernel, initrds, command_line } => {
            let image = whole(kernel)?;
            let initrds = initrds.iter().map(|path| whole(path)).collect::<Result<Vec<_>>>()?;
            let initrds: Vec<&[u8]> = initrds.iter().map(Vec::as_slice).collect();
            let path = kernel.display().to_string();
            if predict::is_uki(&image) {
                return Err(Error::new(
                    Kind::System,
                    format!("{path}: expected a kernel, found a unified kernel image"),
                )
                .hint("propose it with --uki"));
            }
            predict::from_kernel(&image, &path, &initrds, command_line.as_deref(), &about)
                .map_err(|error| refused(kernel, &error))
        }
    }
}

fn refused(path: &Path, error: &ProposalError) -> Error {
    let found = Error::system(path.display(), error);
    match error {
        ProposalError::NoSection(_) => {
            found.hint("a kernel without a stub is proposed with --kernel and --initrd")
        }
        ProposalError::Stub(_) | ProposalError::ChosenAtBoot(_) => {
            found.hint("what this image will measure is known after its first boot: approve that one")
        }
        _ => found,
    }
}

/// A file in memory, once. Not mapped: a package manager may be about to replace it, and a file that shrinks under a
/// mapping kills the process.
fn whole(path: &Path) -> Result<Vec<u8>> {
    let io = |e| Error::system(path.display(), e);
    let file = File::open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    if !found.is_file() {
        return Err(Error::system(path.display(), "expected a file"));
    }
    if found.len() > MAX_FILE {
        return Err(Error::system(
            path.display(),
            format!("expected at most {MAX_FILE} bytes, found {}", found.len()),
        ));
    }
    let mut bytes = Vec::new();
    // One more, so that the end is found without growing.
    bytes.try_reserve_exact(found.len() as usize + 1).map_err(|e| Error::system(path.display(), e))?;
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}
