//! An attestation, from `begin` at several servers to the answer; shared by `enroll`, `unlock` and `propose`.
//!
//! | module | what |
//! | --- | --- |
//! | [`evidence`] | one attempt: the quote, the logs, the answer |
//! | [`rules`] | what follows from what came of it |
//! | [`words`] | what is said meanwhile |

pub mod evidence;
pub mod rules;
pub mod words;

pub use evidence::{Attested, Attester, Commitments, Failed};

use crate::deadline::Deadline;
use crate::error::Result;
use crate::net;
use crate::net::race::{Connection, Race, RaceConfig};
use halfkey_protocol::wire;
use halfkey_protocol::{NodeId, Reason};
use std::time::{Duration, Instant};

/// A little longer than a server holds a wait open.
const WAIT: Duration = Duration::from_secs(30);
/// Between two waits that end at once: nobody is hammered.
const PAUSE: Duration = Duration::from_secs(1);

/// `begin` on the connection that is there already; if it broke, at all servers again.
///
/// # Errors
/// As [`Race::winner`].
pub fn begin_again(connection: Connection, config: &RaceConfig) -> Result<Connection> {
    let begun = connection.client.post("/v1/begin", &config.begin, Duration::from_secs(10), config.deadline);
    match begun {
        Ok(begun) => Ok(Connection { client: connection.client, begun }),
        Err(error) if error.again() == net::Again::Never => {
            Err(error.at(connection.client.server().as_str()))
        }
        Err(_) => Race::start(config)?.winner(),
    }
}

/// Waits until the server says that something about the node changed, it is worth asking
/// anyway, or the deadline. The server holds the request open; nobody polls.
///
/// # Errors
/// When the server refuses to let this node wait.
pub fn wait(connection: &Connection, node: NodeId, ticket: Option<&str>, deadline: Deadline) -> Result<()> {
    let request = wire::Wait { node_id: node.to_string(), ticket: ticket.map(str::to_owned) };
    let started = Instant::now();
    let answer = connection.client.post::<_, wire::Waited>("/v1/wait", &request, WAIT, deadline);
    let changed = match answer {
        Ok(waited) => waited.changed,
        Err(error) if error.again() == net::Again::Never && error.reason() != Some(Reason::NotFound) => {
            return Err(error.at(connection.client.server().as_str()));
        }
        Err(_) => false,
    };
    // A server that answers at once, whatever it answers, is not asked more than once a second.
    if !changed || started.elapsed() < PAUSE {
        let rest = PAUSE.saturating_sub(started.elapsed());
        std::thread::park_timeout(deadline.within(rest).remaining());
    }
    Ok(())
}
