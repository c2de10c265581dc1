//! Another cluster key in the place of the one in use, while servers work: accepted by all before any uses it, used by all before any
//! forgets the one before.

use crate::config::{Config, StateDir};
use crate::init::open_records;
use crate::key_files::{KeyFiles, is_whole};
use crate::keys::{ClusterKey, NEW, OLD, sync, write_secret};
use crate::{Failure, unix_now};
use halfkey_protocol::identity::sha256;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The mark of a server that has started with the key in use, while one of before is accepted: SHA-256 of that key, 32 bytes. Since
/// when nothing is made with the one before is when this file was written.
const USED: &str = "used";

/// How far the clocks of hosts may be apart, and how long it takes to start all servers again.
const MARGIN: Duration = Duration::from_secs(60);

/// Makes a key that is accepted, beside the one in use, by servers that start from now on with this file. Gives the file.
///
/// # Errors
/// While another one is on its way, or a command is at work that needs the server stopped; when the file can't be written.
pub fn new(state: &StateDir) -> Result<PathBuf, Failure> {
    let _serving = state.lock_serving()?;
    let (new, old) = files(state);
    KeyFiles::of(state)?.cluster(&state.cluster_key())?;
    if old.exists() {
        return Err(Failure::new(format!("{}: expected no key of before, found one", old.display()))
            .hint("end that rotation first: halfkey-verifier cluster-key drop"));
    }
    if is_whole(&new)? {
        return Err(Failure::new(format!("{}: expected no new key, found one", new.display()))
            .hint("halfkey-verifier cluster-key use, at every server, once all have started with it"));
    }
    forget_mark(state)?;
    put(state, &new, |file| ClusterKey::create(state, file))?;
    Ok(new)
}

/// Has servers that start from now on use the new key, and accept the one before. May be said again after it was interrupted.
///
/// # Errors
/// When there is no new key, or not all of it; while a command is at work that needs the server stopped; when something can't be
/// written.
pub fn use_new(state: &StateDir) -> Result<(), Failure> {
    let _serving = state.lock_serving()?;
    let (used, (new, old)) = (state.cluster_key(), files(state));
    if !new.exists() {
        return Err(Failure::new(format!("{}: expected a new key, found none", new.display()))
            .hint("halfkey-verifier cluster-key new, at one server; then copy the file to all"));
    }
    let keys = KeyFiles::of(state)?;
    keys.cluster(&new)?;
    let key = keys.cluster(&used)?;
    match is_whole(&old)? {
        true if keys.cluster(&old)? == key => {}
        true => {
            return Err(Failure::new(format!("{}: expected no key of before, found one", old.display()))
                .hint("end that rotation first: halfkey-verifier cluster-key drop"));
        }
        false => put(state, &old, |file| keys.put_cluster(file, &key))?,
    }
    fs::rename(&new, &used).map_err(|e| at(&used, &e))?;
    sync(state.path())
}

/// Has everything in the database by the key in use, then forgets the one before. Gives how many rows it were. Servers that run accept
/// both; from their next start on they accept only the one.
///
/// # Errors
/// When there is no key of before; when no server has started here since the new one is to be used, or too lately: what lives for a
/// time, as nonces and approvals, is still by the one before. While a command is at work that needs the server stopped. When the
/// database can't be written.
pub fn drop_old(state: &StateDir) -> Result<usize, Failure> {
    let _serving = state.lock_serving()?;
    let (new, old) = files(state);
    let failed = |e: std::io::Error| at(&old, &e);
    if new.exists() {
        return Err(Failure::new(format!("{}: expected it to be used, found it new", new.display()))
            .hint("halfkey-verifier cluster-key use, at every server, and start them again"));
    }
    if !old.exists() {
        return Err(Failure::new(format!("{}: expected a key of before, found none", old.display())));
    }
    let lifetimes = Config::load(state)?.lifetimes;
    let lives =
        Duration::from_secs(lifetimes.nonce.max(lifetimes.activation).max(lifetimes.approval)) + MARGIN;
    let mark = mark(state);
    if !is_mark(&mark, &digest(state)?)? {
        return Err(Failure::new(format!(
            "{}: expected a server that has started with the new key, found none",
            old.display()
        ))
        .hint(
            "start this server again; as long as it has not been, it makes everything with the key before",
        ));
    }
    let since = fs::metadata(&mark).and_then(|found| found.modified());
    let since = since.map_err(|e| at(&mark, &e))?;
    let since = since.elapsed().unwrap_or_default();
    if since < lives {
        let left = (lives - since).as_secs() + 1;
        return Err(Failure::new(format!(
            "{}: expected a key that nothing is made with for {} s, found one of {} s ago",
            old.display(),
            lives.as_secs(),
            since.as_secs()
        ))
        .hint(format!(
            "approvals and nonces may be by it: wait {left} s, from when the last server used the new one"
        )));
    }
    let records = open_records(state)?;
    let count = records.renew_tags(unix_now()).map_err(|e| Failure::new(e.to_string()))?;
    fs::remove_file(&old).map_err(failed)?;
    forget_mark(state)?;
    sync(state.path())?;
    Ok(count)
}

/// What a server is to say of the key in use once it has started ([`note_use`]), if it accepts one of before as well. To be asked
/// before the server reads its keys: one that is put in place meanwhile is not said to be used.
///
/// # Errors
/// When the key can't be read.
pub fn in_use(state: &StateDir) -> Result<Option<[u8; 32]>, Failure> {
    let (_, old) = files(state);
    old.exists().then(|| digest(state)).transpose()
}

fn digest(state: &StateDir) -> Result<[u8; 32], Failure> {
    Ok(sha256(&KeyFiles::of(state)?.cluster(&state.cluster_key())?[..]))
}

/// Marks this key, SHA-256, as used by a server. From its first start on: a later one does not count anew.
///
/// # Errors
/// When it can't be written.
pub fn note_use(state: &StateDir, key: &[u8; 32]) -> Result<(), Failure> {
    let mark = mark(state);
    if is_mark(&mark, key)? { Ok(()) } else { put(state, &mark, |file| write_secret(file, key)) }
}

fn files(state: &StateDir) -> (PathBuf, PathBuf) {
    let used = state.cluster_key();
    (ClusterKey::beside(&used, NEW), ClusterKey::beside(&used, OLD))
}

fn mark(state: &StateDir) -> PathBuf {
    ClusterKey::beside(&state.cluster_key(), USED)
}

/// Whether the file is there and marks this key.
fn is_mark(mark: &Path, key: &[u8; 32]) -> Result<bool, Failure> {
    match fs::metadata(mark) {
        Ok(found) if found.len() == key.len() as u64 => {
            fs::read(mark).map(|found| found == key).map_err(|e| at(mark, &e))
        }
        Ok(_) => Ok(false),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at(mark, &e)),
    }
}

fn forget_mark(state: &StateDir) -> Result<(), Failure> {
    remove(&mark(state))
}

/// Has a file of the folder written durably, all of it or none. One that is there is replaced.
fn put(
    state: &StateDir,
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let whole = ClusterKey::beside(path, "tmp");
    remove(&whole)?;
    write(&whole)?;
    fs::rename(&whole, path).map_err(|e| at(path, &e))?;
    sync(state.path())
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(at(path, &e)),
        _ => Ok(()),
    }
}

fn at(path: &Path, e: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {e}", path.display()))
}
