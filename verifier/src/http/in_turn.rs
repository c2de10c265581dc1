//! What operators add to the sequence of documents, in their turns.

use super::app::App;
use super::auth::Caller;
use super::refusal::Refusal;
use crate::domain::{Error, Records, Result};
use crate::limit::Busy;
use halfkey_protocol::Reason;

/// What is to have a place in the sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Adds {
    /// A document for the place after the newest.
    Signed,
    /// An entry, wherever its place is.
    Entry,
}

/// Does it when it is the turn of who asks, also if they go away meanwhile.
///
/// # Errors
/// `RateLimited` when too many requests of the same operator wait; those of `work`.
pub async fn in_turn<T: Send + 'static>(
    app: &App,
    caller: &Caller,
    adds: Adds,
    work: impl FnOnce(&Records) -> Result<T> + Send + 'static,
) -> std::result::Result<T, Refusal> {
    let busy = |_: Busy| Refusal::new(Reason::RateLimited, "too many requests of this operator at once");
    let turn = app.verifier()?.turns.turn(&caller.0).await.map_err(busy)?;
    let done = app.db.run(move |records| {
        let done = work(records);
        match (&done, adds) {
            (Ok(_), Adds::Signed) => turn.in_time(),
            (Err(Error::Refused(Reason::Sequence, _)), Adds::Signed) => turn.too_late(),
            (Ok(_), Adds::Entry) | (Err(_), Adds::Signed | Adds::Entry) => {}
        }
        done
    });
    Ok(done.await?)
}
