//! Whether a failover of the database could forget what was answered.
//!
//! A primary that is gone takes along what no standby has. If commits wait for a standby, that is nothing that anybody was told. Else
//! it may be counters, approvals, revocations: the servers notice by their state files and refuse everything, until somebody has
//! looked.

use crate::Failure;
use crate::domain::Db;
use crate::store::Standbys;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// What is done about standbys that a commit does not wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StandbyMode {
    /// It is said, at the start and when it changes.
    #[default]
    Warn,
    /// A server does not start unless commits wait for a standby to have them on its disk. One that runs says when that changes.
    RequireSynchronous,
    /// Nothing: a failover that loses nothing is somebody else's work, or there is none.
    Ignore,
}

impl StandbyMode {
    /// For the settings: whether they say nothing else.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a failover means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failover {
    /// It forgets nothing that was answered.
    Safe,
    /// The same; but now no commit comes to an end.
    Stuck(String),
    /// There is none, as nothing is connected that could take over.
    NoStandby,
    /// It may forget what was answered last, for this reason.
    Forgets(String),
}

impl Failover {
    /// By what a server says.
    pub fn by(said: &Standbys) -> Self {
        let Standbys { names, commits, connected, synchronous } = said;
        if names.is_empty() {
            return match connected {
                0 => Self::NoStandby,
                _ => Self::Forgets(format!(
                    "{} and synchronous_standby_names is empty: a commit waits for none of them",
                    standbys(*connected)
                )),
            };
        }
        match commits.as_str() {
            "on" | "remote_apply" => {}
            "remote_write" => {
                return Self::Forgets(
                    "synchronous_commit is remote_write: a commit does not wait until a standby has it on its disk".into(),
                );
            }
            other => {
                return Self::Forgets(format!(
                    "synchronous_commit is {other:.32}: a commit does not wait for a standby"
                ));
            }
        }
        match synchronous {
            Some(0) => Self::Stuck(format!(
                "synchronous_standby_names is {names:.64?}, and no such standby is connected: nothing is answered until one is"
            )),
            Some(_) | None => Self::Safe,
        }
    }
}

fn standbys(connected: u64) -> String {
    if connected == 1 {
        "1 standby is connected".to_owned()
    } else {
        format!("{connected} standbys are connected")
    }
}

/// What to do about it.
const HINT: &str =
    "synchronous_standby_names in postgresql.conf, docs/service.md; or `standbys` in the settings";

/// Looks, and says what is new since it was looked at last.
pub struct Watch {
    mode: StandbyMode,
    last: Option<Failover>,
}

impl Watch {
    /// Nothing was looked at yet.
    pub fn new(mode: StandbyMode) -> Self {
        Self { mode, last: None }
    }

    /// For the start.
    ///
    /// # Errors
    /// When the settings ask for more than the database has, or it can't be asked.
    pub async fn require(&mut self, db: &Db) -> Result<(), Failure> {
        let wanted =
            |found: &str| Failure::new(format!("standbys = \"require-synchronous\": {found}")).hint(HINT);
        match self.mode {
            StandbyMode::Ignore => return Ok(()),
            StandbyMode::Warn => {
                self.look(db).await;
                return Ok(());
            }
            StandbyMode::RequireSynchronous => {}
        }
        let found = db.run(|records| records.standbys()).await;
        let Some(said) = found.map_err(|e| Failure::new(e.to_string()))? else {
            return Err(wanted("expected `database` to name one of PostgreSQL, found a file"));
        };
        match Failover::by(&said) {
            Failover::NoStandby => Err(wanted(
                "expected a standby that commits wait for, and synchronous_standby_names is empty",
            )),
            Failover::Forgets(why) => Err(wanted(&why)),
            found @ (Failover::Safe | Failover::Stuck(_)) => {
                self.tell(found);
                Ok(())
            }
        }
    }

    /// For a server that runs.
    pub async fn look(&mut self, db: &Db) {
        if self.mode == StandbyMode::Ignore {
            return;
        }
        // A database that is gone is said by everybody else.
        if let Ok(Some(said)) = db.run(|records| records.standbys()).await {
            self.tell(Failover::by(&said));
        }
    }

    fn tell(&mut self, found: Failover) {
        if self.last.as_ref() == Some(&found) {
            return;
        }
        match (&found, self.mode) {
            (Failover::Safe, _) => {
                info!("commits wait for a standby: a failover forgets nothing that was answered")
            }
            (Failover::Stuck(why), _) => warn!("{why}"),
            (Failover::NoStandby, StandbyMode::RequireSynchronous) => {
                tracing::error!(hint = HINT, "the database has no standby any more that commits wait for");
            }
            // One server of PostgreSQL, and its backups.
            (Failover::NoStandby, StandbyMode::Warn | StandbyMode::Ignore) => {}
            (Failover::Forgets(why), StandbyMode::RequireSynchronous) => {
                tracing::error!(hint = HINT, "a failover may forget what was answered last: {why}");
            }
            (Failover::Forgets(why), StandbyMode::Warn | StandbyMode::Ignore) => {
                warn!(hint = HINT, "a failover may forget what was answered last: {why}");
            }
        }
        self.last = Some(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &str, commits: &str, connected: u64, synchronous: Option<u64>) -> Failover {
        Failover::by(&Standbys { names: names.into(), commits: commits.into(), connected, synchronous })
    }

    #[test]
    fn a_failover_is_safe_where_commits_wait_for_the_disk_of_a_standby() {
        assert_eq!(found("", "on", 0, Some(0)), Failover::NoStandby);
        assert_eq!(found("*", "on", 1, Some(1)), Failover::Safe);
        assert_eq!(found("ANY 1 (a, b)", "remote_apply", 2, None), Failover::Safe, "not shown");
        assert!(matches!(found("a", "on", 0, Some(0)), Failover::Stuck(_)));
        for (names, commits, connected) in
            [("", "on", 2), ("*", "local", 1), ("*", "off", 1), ("*", "remote_write", 1), ("*", "new", 1)]
        {
            let found = found(names, commits, connected, Some(connected));
            assert!(matches!(found, Failover::Forgets(_)), "{names} {commits}: {found:?}");
        }
    }
}
