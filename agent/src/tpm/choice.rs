//! Which of several TPMs an enrollment is of.

use super::{Error, Location, Object, Tpm};
use crate::error::{self, Kind};

/// A TPM that has the storage key of an enrollment.
pub struct Chosen {
    /// Where it is.
    pub location: Location,
    /// It.
    pub tpm: Tpm,
    /// The storage key.
    pub srk: Object,
    /// Which of the names that were asked for it has.
    pub index: usize,
}

/// The first of `locations` that `look` has nothing against and that has a storage key with one of these names, of which the first
/// counts most. One that fails keeps nobody from trying the others.
///
/// # Errors
/// What went wrong first, if one did not answer or `look` had something against it: that could be the one. Else
/// [`Kind::OtherTpm`].
pub fn by_srk(
    locations: &[Location],
    names: &[&[u8]],
    look: &mut dyn FnMut(&mut Tpm) -> error::Result<()>,
) -> error::Result<Chosen> {
    let mut failed = None;
    for location in locations {
        match with_srk(location, names, look) {
            Ok(Some(chosen)) => return Ok(chosen),
            Ok(None) => {}
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    let why = failed.unwrap_or_else(other_tpm);
    if locations.len() < 2 {
        return Err(why);
    }
    Err(why.context(format_args!("tried {}", Location::list(locations))))
}

fn with_srk(
    location: &Location,
    names: &[&[u8]],
    look: &mut dyn FnMut(&mut Tpm) -> error::Result<()>,
) -> error::Result<Option<Chosen>> {
    let mut tpm = Tpm::open(location)?;
    look(&mut tpm)?;
    for (index, name) in names.iter().enumerate() {
        match tpm.storage_key(Some(name)) {
            Err(Error::WrongSrk) => {}
            srk => return Ok(Some(Chosen { srk: srk?, location: location.clone(), tpm, index })),
        }
    }
    Ok(None)
}

/// This is not the TPM of the enrollment.
pub fn other_tpm() -> error::Error {
    error::Error { kind: Kind::OtherTpm, ..Error::WrongSrk.into() }
}
