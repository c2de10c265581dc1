//! `begin` at several servers at once. It has no effect there, so it can be raced and
//! repeated; `finish` then goes to the one server that answered first.
//!
//! Runs beside the TPM's work: the network may still be coming up.

use super::wait::NetworkEvents;
use super::{Again, Client, Error, Server, resolv};
use crate::console;
use crate::deadline::Deadline;
use crate::error::{self, Kind};
use crate::timing::Timeline;
use crate::words;
use halfkey_protocol::{VERSIONS, wire};
use rustls::ClientConfig;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// A server that takes longer for a nonce is not healthy: another attempt is.
pub const BEGIN: Duration = Duration::from_secs(10);
/// Between attempts when no event can tell that the server is back.
const PAUSE: Duration = Duration::from_secs(1);
/// Between attempts when the kernel said that there is no way to the server, and tells when addresses or routes change.
const QUIET: Duration = Duration::from_secs(5);
/// Enough for TLS and JSON, and it counts as locked memory.
const STACK: usize = 512 << 10;

/// What every attempt needs.
#[derive(Clone)]
pub struct RaceConfig {
    /// At least one.
    pub servers: Vec<Server>,
    /// With the pinned CA.
    pub tls: Arc<ClientConfig>,
    /// What is sent.
    pub begin: wire::Begin,
    /// When all must be over.
    pub deadline: Deadline,
    /// Where the durations go.
    pub timeline: Timeline,
}

/// A running race. Dropping it ends it.
pub struct Race {
    results: mpsc::Receiver<Result<Connection, error::Error>>,
    over: Arc<AtomicBool>,
    deadline: Deadline,
    runners: usize,
}

/// The first answer, and the connection it came over.
pub struct Connection {
    /// Further requests go to the same server.
    pub client: Client,
    /// Its answer.
    pub begun: wire::Begun,
}

impl Race {
    /// Starts one thread for each server.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(config: &RaceConfig) -> error::Result<Self> {
        let (sender, results) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        for server in &config.servers {
            let (config, server, sender, over) =
                (config.clone(), server.clone(), sender.clone(), over.clone());
            let run = move || {
                let client = Client::new(server, config.tls.clone(), config.timeline.clone());
                let _ = sender.send(attempt(client, &config, &over));
            };
            thread::Builder::new()
                .stack_size(STACK)
                .spawn(run)
                .map_err(|e| error::Error::system("thread", e))?;
        }
        Ok(Self { results, over, deadline: config.deadline, runners: config.servers.len() })
    }

    /// The first that answered; if none did by the deadline, the error of the last.
    ///
    /// # Errors
    /// As [`Error::at`] tells them.
    pub fn winner(self) -> error::Result<Connection> {
        let mut last = None;
        for _ in 0..self.runners {
            // A moment longer than the runners, so that their own words are heard.
            match self.results.recv_timeout(self.deadline.remaining() + PAUSE) {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    if self.runners > 1 {
                        console::say(&format!("{error}"));
                    }
                    last = Some(error);
                }
                Err(_) => break,
            }
        }
        Err(last
            .unwrap_or_else(|| error::Error::new(Kind::Network, "no server answered before the deadline")))
    }
}

impl Drop for Race {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Attempts `begin` until it works, can't work, or the deadline has come.
fn attempt(client: Client, config: &RaceConfig, over: &AtomicBool) -> error::Result<Connection> {
    let events = NetworkEvents::open();
    let mut waits_for = String::new();
    loop {
        // A name server may have become known meanwhile.
        resolv::provide();
        let error = match client.post::<_, wire::Begun>("/v1/begin", &config.begin, BEGIN, config.deadline) {
            Ok(begun) => match acceptable(&begun) {
                Ok(()) => return Ok(Connection { client, begun }),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let again = error.again();
        if again == Again::Never || config.deadline.is_over() || over.load(Ordering::Relaxed) {
            return Err(error.at(client.server().as_str()));
        }
        let what = error.to_string();
        if what != waits_for {
            let whose = format!("{}: {what}", client.server());
            console::say(&words::trying_again(whose, config.deadline.seconds()));
            waits_for = what;
        }
        pause(again, events.as_ref().ok(), config.deadline);
        if config.deadline.is_over() {
            return Err(error.at(client.server().as_str()));
        }
    }
}

/// How long an attempt is worth waiting for, if nothing is heard of the network.
fn patience(again: Again, hears_events: bool) -> Duration {
    match (again, hears_events) {
        (Again::AtOnce, _) => Duration::ZERO,
        // That a host is there again, which a router said was not, comes with no event here.
        (Again::OnNetworkChange, true) => QUIET,
        (Again::OnNetworkChange, false) | (Again::AfterPause | Again::Never, _) => PAUSE,
    }
}

/// Sleeps until another attempt is worth it.
pub fn pause(again: Again, events: Option<&NetworkEvents>, deadline: Deadline) {
    let patience = patience(again, events.is_some());
    if patience.is_zero() {
        return;
    }
    let until = deadline.within(patience);
    match events {
        Some(events) => drop(events.wait(until)),
        // Without netlink a pause is the best there is.
        None => thread::park_timeout(until.remaining()),
    }
}

/// Whether an answer to `begin` can be gone on with.
///
/// # Errors
/// [`Error::Malformed`]
pub fn acceptable(begun: &wire::Begun) -> Result<(), Error> {
    if !VERSIONS.contains(&begun.version) {
        return Err(Error::Malformed(format!("expected protocol version 1, found {}", begun.version)));
    }
    if begun.nonce.is_empty() || begun.nonce.len() > 128 {
        return Err(Error::Malformed(format!(
            "expected a nonce of 1 to 128 bytes, found {}",
            begun.nonce.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a power cut of a whole site the router says so of each verifier that is not up yet.
    #[test]
    fn a_host_that_was_not_there_is_asked_again_although_nothing_changes_here() {
        for (again, expected) in
            [(Again::OnNetworkChange, QUIET), (Again::AfterPause, PAUSE), (Again::AtOnce, Duration::ZERO)]
        {
            assert_eq!(patience(again, true), expected, "{again:?}");
        }
        assert_eq!(patience(Again::OnNetworkChange, false), PAUSE);
    }
}
