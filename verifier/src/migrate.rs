//! From the SQLite file of a state folder to a PostgreSQL database.

use crate::config::{DatabaseUrl, StateDir};
use crate::domain::Records;
use crate::init::{open_records, require_new};
use crate::store::postgres::Postgres;
use crate::store::sqlite::Sqlite;
use crate::store::{Location, Store, moving};
use crate::{Failure, domain};
use std::path::PathBuf;
use std::sync::Arc;

/// Moves all records into a database that nobody uses yet, looks whether they are what the state file says, and has the settings name
/// it. Gives how many rows there were, and the file that is left.
///
/// # Errors
/// While a server runs here; when the state file does not fit the records; when either database can't be used, or a row can't be
/// moved. The settings are as before then.
pub fn migrate(state: &StateDir, url: &DatabaseUrl) -> Result<(usize, PathBuf), Failure> {
    let _stopped = state.lock_stopped()?;
    let Location::File(file) = state.database()? else {
        return Err(Failure::new(format!("{} names a database already", state.config_file().display())));
    };
    url.require_no_password()?;
    let failed = |e: &dyn std::fmt::Display| Failure::new(e.to_string());
    let refused = |e: domain::Error| failed(&e);
    // What is not what this server has answered with is looked at before it goes anywhere.
    open_records(state)?.require_here().map_err(refused)?;
    let from = Sqlite::open(&file).map_err(|e| failed(&e))?;
    let to = Arc::new(Postgres::open(&url.address()?).map_err(|e| failed(&e))?);
    let there = || Records::in_folder(state, to.clone() as Arc<dyn Store>).map_err(refused);
    require_new(&there()?, &Location::Server(Box::new(url.address()?)))?;
    let rows = moving::copy(&from, &to).map_err(|e| failed(&e))?;
    there()?.require_here().map_err(refused)?;
    state.name_database(url)?;
    Ok((rows, file))
}
