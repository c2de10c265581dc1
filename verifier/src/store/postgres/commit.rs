//! The end of a transaction.

use super::session::{Failure, Session, failure};
use super::statement::{Bound, Say, said};
use crate::store::{Changes, StoreError};

/// Lets go of what is held, then waits until the log is on the disk, as far as the server's settings want: for the commit of a
/// transaction that does nothing else.
const COMMIT_AND_FLUSH: &str = "COMMIT; SELECT pg_logical_emit_message(TRUE, 'halfkey', '')";

/// What became of it.
pub enum End {
    /// It is on the disk.
    Committed,
    /// Nothing was changed. The connection is of no use any more.
    Undone(Failure),
    /// Nobody has said.
    Unknown(Failure),
}

/// Says what was not said yet, and commits.
pub async fn commit(session: &Session, changes: Changes, unsaid: impl Iterator<Item = &Bound>) -> End {
    let commit = match changes {
        Changes::Rows => COMMIT_AND_FLUSH,
        Changes::Documents => "COMMIT",
    };
    let mut say: Vec<_> = unsaid.map(Say::Bound).collect();
    let before = say.len();
    // It is not sent then, and nobody has to wonder what became of it.
    if session.is_closed() {
        let error = StoreError::Unavailable("the connection was lost before the commit".to_owned());
        return End::Undone(Failure { error, again: true, gone: true });
    }
    say.push(Say::Text(commit));
    let answers = match said(session, say).await {
        Ok(answers) => answers,
        // Nothing was sent.
        Err(e) => return End::Undone(failure(&e)),
    };
    match answers.into_iter().zip(0..).find_map(|(answer, at)| Some((answer.err()?, at))) {
        None => End::Committed,
        // It said so before it came to the commit, which is none of a transaction that has failed.
        Some((e, at)) if at < before && e.as_db_error().is_some() => End::Undone(failure(&e)),
        Some((e, _)) => match failure(&e) {
            // Said by the server: it was not.
            failed if failed.again && !failed.gone => End::Undone(failed),
            failed => End::Unknown(failed),
        },
    }
}

/// For who asked, if it is not known.
pub fn undecided(failed: &Failure) -> StoreError {
    StoreError::Undecided(format!(
        "the connection was lost at the commit, and what became of it is not known: {}",
        failed.error
    ))
}
