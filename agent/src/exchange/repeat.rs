//! A request beside an attestation, which can be repeated without harm: registration, proof.

use crate::console;
use crate::deadline::Deadline;
use crate::error::Result;
use crate::net::race::pause;
use crate::net::wait::NetworkEvents;
use crate::net::{Again, Client};
use std::time::Duration;

/// For requests that only need the server's database.
const REQUEST: Duration = Duration::from_secs(20);

/// One request, again while the network or the server is not there yet. Said once.
///
/// # Errors
/// What the server says, or at the deadline the error of the last attempt.
pub fn until_answered<Q: miniserde::Serialize, A: miniserde::Deserialize>(
    client: &Client,
    path: &str,
    request: &Q,
    deadline: Deadline,
) -> Result<A> {
    let events = NetworkEvents::open();
    let mut said = false;
    loop {
        let error = match client.post(path, request, REQUEST, deadline) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let again = error.again();
        let error = error.at(client.server().as_str());
        if deadline.is_over() || !matches!(again, Again::OnNetworkChange | Again::AfterPause) {
            return Err(error);
        }
        if !said {
            console::say(&crate::words::trying_again(&error, deadline.seconds()));
            said = true;
        }
        pause(again, events.as_ref().ok(), deadline);
    }
}
