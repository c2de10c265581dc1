//! From files to a [`Proposal`].

use super::file::BootFile;
use super::find::Source;
use crate::error::{Error, Kind, Result};
use crate::firmware;
use halfkey_measure::predict::{self, Circumstances, ProposalError};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::Proposal;
use std::path::Path;

impl Source {
    /// Name of the file that is started, for people.
    pub fn file_name(&self) -> String {
        let (Self::Uki(file) | Self::Kernel { kernel: file, .. }) = self;
        file.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Measures what will be started, in this bank.
///
/// # Errors
/// When a file can't be read, or is not what it must be.
pub fn measure(source: &Source, name: &str, bank: PcrBank) -> Result<Proposal> {
    let about = Circumstances { name, bank, secure_boot: firmware::secure_boot() == Some(true) };
    match source {
        Source::Uki(uki) => predict::from_uki(&uki.whole()?, &uki.path().display().to_string(), &about)
            .map_err(|error| refused(uki.path(), &error)),
        Source::Kernel { kernel, initrds, command_line } => {
            let image = kernel.whole()?;
            let initrds = initrds.iter().map(BootFile::whole).collect::<Result<Vec<_>>>()?;
            let initrds: Vec<&[u8]> = initrds.iter().map(Vec::as_slice).collect();
            let path = kernel.path().display().to_string();
            if predict::is_uki(&image) {
                return Err(Error::new(
                    Kind::System,
                    format!("{path}: expected a kernel, found a unified kernel image"),
                )
                .hint("propose it with --uki"));
            }
            predict::from_kernel(&image, &path, &initrds, command_line.as_deref(), &about)
                .map_err(|error| refused(kernel.path(), &error))
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
