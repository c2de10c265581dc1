//! What the server says of its standbys.

use super::block::Background;
use super::session::{Sessions, ask};
use crate::store::{Result, Standbys};
use std::time::Instant;

/// A role without `pg_read_all_stats` is shown that a standby is there and no more. What makes a base backup is none.
const SQL: &str = "
    SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
           count(*) FILTER (WHERE state IS DISTINCT FROM 'backup'),
           count(*) FILTER (WHERE state IS NULL),
           count(*) FILTER (WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum'))
    FROM pg_stat_replication";

/// Asks it.
///
/// # Errors
/// When it does not answer.
pub fn said(sessions: &Sessions, background: &Background) -> Result<Standbys> {
    let session = sessions.take(background, Instant::now())?;
    let said = ask(background, async {
        let row = session.query_one(SQL, &[]).await?;
        let count = |column| row.try_get::<_, i64>(column).map(|count| u64::try_from(count).unwrap_or(0));
        let (hidden, synchronous) = (count(3)?, count(4)?);
        Ok(Standbys {
            names: row.try_get(0)?,
            commits: row.try_get(1)?,
            connected: count(2)?,
            synchronous: (hidden == 0).then_some(synchronous),
        })
    });
    said.map_err(|failed| sessions.named(failed.error))
}
