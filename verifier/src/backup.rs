//! A copy of a state folder while its server runs, and a state folder of a copy.

use crate::config::{Config, StateDir};
use crate::init::{self, FILES};
use crate::key_files::KeyForm;
use crate::keys::{sync, write_new, write_secret};
use crate::seal_keys::{self, From, Sealing};
use crate::store::Location;
use crate::store::sqlite::Sqlite;
use crate::{Failure, domain};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Files of a state folder that only some have: those of a verifier whose registrar is on another host, and of a cluster key that is
/// being rotated.
const OTHERS: [&str; 4] = ["peer.key", "peer.pem", "cluster.key.new", "cluster.key.old"];
/// Largest file that is copied beside the database, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What became of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// It is in the copy.
    Copied,
    /// It is on a server of PostgreSQL, which has means of its own.
    Elsewhere,
}

/// Copies a state folder, whose server may run, into a new one. The state file comes first: the database, as it is some moment later,
/// goes on from what that says. What is in the copy is looked at before this returns.
///
/// # Errors
/// When the new folder has files of one already; when something can't be read or written, or what was copied does not fit. Nothing of
/// the new folder is left then.
pub fn backup(state: &StateDir, out: &Path) -> Result<Database, Failure> {
    let out = StateDir::new(out);
    let database = state.database()?;
    init::fresh_folder(&out)?;
    let copied = || {
        copy_files(state, &out)?;
        match &database {
            Location::File(from) => {
                let to = out.database()?;
                let Location::File(to) = &to else {
                    return Err(Failure::new("our bug: a copy without a file"));
                };
                // It has C_U of open enrollments, and no server's umask says who reads it.
                write_secret(to, b"")?;
                Sqlite::copy(from, to).map_err(|e| Failure::new(format!("{}: {e}", from.display())))?;
                sync(to)?;
                if out.deployment().exists() {
                    let copy = init::open_records(&out)?;
                    let failed = |e: domain::Error| Failure::new(format!("the copy does not fit: {e}"));
                    copy.require_here().map_err(failed)?;
                }
                Ok(Database::Copied)
            }
            Location::Server(_) => Ok(Database::Elsewhere),
        }
    };
    let copied = copied().inspect_err(|_| clear(&out))?;
    sync(out.path())?;
    Ok(copied)
}

/// Makes a state folder of a copy, and accepts what its database is: as [`init::accept_rollback`]. None where there is no verifier, and
/// nothing to accept. A database on a server of PostgreSQL has to be put back before. `keys` is a recovery copy of keys that the TPM of
/// another host has sealed: that of this one seals them instead.
///
/// # Errors
/// When the folder is in use; when something can't be read or written, or the database can't be reached. Nothing of the new folder is
/// left then, and the database is as it was.
pub fn restore(
    state: &StateDir,
    from: &Path,
    keys: Option<&Path>,
) -> Result<Option<(String, String)>, Failure> {
    let from = StateDir::new(from);
    let database = from.database()?;
    init::fresh_folder(state)?;
    let restored = || {
        copy_files(&from, state)?;
        if let Location::File(from) = &database {
            let to = state.file("halfkey.db");
            write_secret(&to, b"")?;
            Sqlite::copy(from, &to).map_err(|e| Failure::new(format!("{}: {e}", from.display())))?;
            sync(&to)?;
        }
        if let Some(keys) = keys {
            let sign = Config::load(state)?.release_key == KeyForm::TpmSign;
            seal_keys::seal(state, &From::Copy(keys), &Sealing { sign, ..Sealing::default() })?;
        }
        sync(state.path())?;
        if state.deployment().exists() { init::accept_rollback(state, true) } else { Ok(None) }
    };
    restored().inspect_err(|_| clear(state))
}

/// All but the database, the state file first.
fn copy_files(from: &StateDir, to: &StateDir) -> Result<(), Failure> {
    let first = from.sequence();
    let state_file = first.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let others =
        FILES.iter().chain(&OTHERS).filter(|name| **name != state_file && !name.starts_with("halfkey.db"));
    for name in std::iter::once(&state_file).chain(others) {
        copy_file(&from.file(name), &to.file(name))?;
    }
    Ok(())
}

/// A file with its mode, if there is one.
fn copy_file(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", from.display()));
    let file = match File::open(from) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let found = file.metadata().map_err(failed)?;
    if found.len() > MAX_FILE {
        let what = format!("{}: expected at most {MAX_FILE} bytes, found {}", from.display(), found.len());
        return Err(Failure::new(what));
    }
    // Reserved at once: it may be a key.
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    write_new(to, &bytes, found.mode() & 0o777)
}

/// After a failure: none of these were there before.
fn clear(folder: &StateDir) {
    init::clear_folder(folder);
    for name in OTHERS {
        let _ = std::fs::remove_file(folder.file(name));
    }
}
