//! Another cluster key in the place of the one in use, while servers work: accepted by all before any uses it, used by all before any
//! forgets the one before.

use crate::config::{Config, StateDir};
use crate::init::open_records;
use crate::keys::{ClusterKey, NEW, OLD, write_secret};
use crate::{Failure, unix_now};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How far the clocks of hosts may be apart, and how long it takes to start all servers again.
const MARGIN: Duration = Duration::from_secs(60);

/// Makes a key that is accepted, beside the one in use, by servers that start from now on with this file. Gives the file.
///
/// # Errors
/// While another one is on its way; when the file can't be written.
pub fn new(state: &StateDir) -> Result<PathBuf, Failure> {
    let (new, old) = files(state);
    ClusterKey::load(&state.cluster_key())?;
    if old.exists() {
        return Err(Failure::new(format!("{}: expected no key of before, found one", old.display()))
            .hint("end that rotation first: halfkey-verifier cluster-key drop"));
    }
    ClusterKey::create(&new)?;
    Ok(new)
}

/// Has servers that start from now on use the new key, and accept the one before. May be said again after it was interrupted.
///
/// # Errors
/// When there is no new key; when something can't be written.
pub fn use_new(state: &StateDir) -> Result<(), Failure> {
    let (used, (new, old)) = (state.cluster_key(), files(state));
    if !new.exists() {
        return Err(Failure::new(format!("{}: expected a new key, found none", new.display()))
            .hint("halfkey-verifier cluster-key new, at one server; then copy the file to all"));
    }
    ClusterKey::load(&used)?;
    let key = ClusterKey::read(&used)?;
    match old.exists() {
        true if *ClusterKey::read(&old)? == *key => {}
        true => {
            return Err(Failure::new(format!("{}: expected no key of before, found one", old.display()))
                .hint("end that rotation first: halfkey-verifier cluster-key drop"));
        }
        false => write_secret(&old, &key)?,
    }
    fs::rename(&new, &used).map_err(|e| Failure::new(format!("{}: {e}", used.display())))?;
    sync(state)
}

/// Has everything in the database by the key in use, then forgets the one before. Gives how many rows it were. Servers that run accept
/// both; from their next start on they accept only the one.
///
/// # Errors
/// When there is no key of before, or it was used too lately: what lives for a time, as nonces and approvals, is still by it. When the
/// database can't be written.
pub fn drop_old(state: &StateDir) -> Result<usize, Failure> {
    let (new, old) = files(state);
    let failed = |e: std::io::Error| Failure::new(format!("{}: {e}", old.display()));
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
    // Its file was made when this server was told to use the other.
    let since = fs::metadata(&old).and_then(|found| found.modified()).map_err(failed)?;
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
    sync(state)?;
    Ok(count)
}

fn files(state: &StateDir) -> (PathBuf, PathBuf) {
    let used = state.cluster_key();
    (ClusterKey::beside(&used, NEW), ClusterKey::beside(&used, OLD))
}

fn sync(state: &StateDir) -> Result<(), Failure> {
    let synced = fs::File::open(state.path()).and_then(|folder| folder.sync_all());
    synced.map_err(|e| Failure::new(format!("{}: {e}", state.path().display())))
}
