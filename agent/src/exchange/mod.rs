//! An attestation, from `begin` at several servers to the answer; shared by `enroll`, `unlock` and `propose`.
//!
//! | module | what |
//! | --- | --- |
//! | [`evidence`] | one attempt: the quote, the logs, the answer |
//! | [`rules`] | what follows from what came of it |
//! | [`words`] | what is said meanwhile |
//! | [`repeat`] | a request beside it that can be repeated |
//!
//! [`run`] is the loop around them. A purpose brings an [`Ask`]: how its attempt is made and what its answer means.

pub mod evidence;
pub mod repeat;
pub mod rules;
pub mod words;

pub use evidence::{Attested, Attester, Commitments, Failed};

use crate::console;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::net::race::{BEGIN, Connection, Race, RaceConfig, acceptable, pause};
use crate::net::{self, Client};
use halfkey_protocol::wire;
use halfkey_protocol::{NodeId, Reason};
use rules::{Came, Next};
use std::time::{Duration, Instant};

/// A little longer than a server holds a wait open.
const WAIT: Duration = Duration::from_secs(30);
/// Between two waits that end at once: nobody is hammered.
const PAUSE: Duration = Duration::from_secs(1);

/// What a purpose brings to the loop.
pub trait Ask {
    /// What a verifier answers to an attempt.
    type Answer;

    /// Who asks, and what for.
    fn attester(&self) -> Attester<'_>;

    /// Whether the answer to `begin` is about what this asks for.
    ///
    /// # Errors
    /// When it is not: no attempt is made.
    fn accepts(&self, _begun: &wire::Begun) -> Result<()> {
        Ok(())
    }

    /// One attempt: quotes, sends, reads the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    fn attempt(
        &mut self,
        connection: &Connection,
        deadline: Deadline,
    ) -> std::result::Result<Self::Answer, Failed>;

    /// What the answer decides.
    fn came(answer: &Self::Answer) -> Came;

    /// Names this boot, while the verifier waits for people.
    fn ticket(answer: &Self::Answer) -> Option<&str>;

    /// The answer in words, where it is not what was asked for.
    fn refusal(answer: &Self::Answer) -> Error;

    /// A denial that is final: an error, if not even that is worth having.
    ///
    /// # Errors
    /// [`Ask::refusal`]
    fn denied(answer: Self::Answer) -> Result<Self::Answer> {
        Err(Self::refusal(&answer))
    }
}

/// Asks until the answer is there, is final, or the deadline has come. `begun` is what came of the race, which the caller
/// has started: there is something to be done beside it. Returns the answer and who gave it.
///
/// # Errors
/// The last refusal, the last error of the network, or what the TPM says.
pub fn run<A: Ask>(
    ask: &mut A,
    config: &RaceConfig,
    mut begun: Result<Connection>,
) -> Result<(A::Answer, Client)> {
    let Attester { node, purpose, .. } = ask.attester();
    let deadline = config.deadline;
    let (mut rounds, mut said) = (0, false);
    loop {
        let (client, came, answer) = match begun {
            Ok(connection) => {
                ask.accepts(&connection.begun)?;
                let (came, answer) = match ask.attempt(&connection, deadline) {
                    Ok(answer) => (A::came(&answer), Ok(answer)),
                    Err(Failed::Tpm(error)) => return Err(error),
                    Err(Failed::Net(error)) => {
                        let came = Came::Failed(error.again(), error.reason());
                        (came, Err(error.at(connection.client.server().as_str())))
                    }
                };
                (connection.client, came, answer)
            }
            Err(error) => {
                let Some(server) = config.servers.first() else { return Err(error) };
                let client = Client::new(server.clone(), config.tls.clone(), config.timeline.clone());
                let reason = error.code.as_deref().and_then(Reason::from_code);
                (client, Came::NotBegun(reason), Err(error))
            }
        };
        let refusal = |answer: &Result<A::Answer>| match answer {
            Ok(answer) => A::refusal(answer),
            Err(error) => error.clone(),
        };
        let next = rules::next(purpose, came, rounds, deadline.is_over());
        rounds += u32::from(next.is_round());
        match next {
            Next::Done => return answer.map(|answer| (answer, client)),
            Next::GiveUp => return answer.and_then(A::denied).map(|answer| (answer, client)),
            Next::TooLate(person) => return Err(words::too_late(person, node, refusal(&answer))),
            Next::Wait(person) => {
                if !said {
                    let lines = words::waiting(person, node, &refusal(&answer), deadline.seconds());
                    lines.iter().for_each(|line| console::say(line));
                    said = true;
                }
                wait(&client, node, answer.as_ref().ok().and_then(A::ticket), deadline)?;
                if deadline.is_over() {
                    return Err(words::too_late(person, node, refusal(&answer)));
                }
            }
            Next::FreshQuote => console::say(&words::fresh_quote(&refusal(&answer))),
            Next::TryAgain(again) => {
                console::say(&crate::words::trying_again(refusal(&answer), deadline.seconds()));
                pause(again, None, deadline);
            }
        }
        begun = begin_again(client, config);
    }
}

/// `begin` on the connection that is there already; if it broke, at all servers again.
///
/// # Errors
/// As [`Race::winner`].
pub fn begin_again(client: Client, config: &RaceConfig) -> Result<Connection> {
    let begun = client.post("/v1/begin", &config.begin, BEGIN, config.deadline);
    match begun.and_then(|begun: wire::Begun| acceptable(&begun).map(|()| begun)) {
        Ok(begun) => Ok(Connection { client, begun }),
        Err(error) if error.again() == net::Again::Never => Err(error.at(client.server().as_str())),
        Err(_) => Race::start(config)?.winner(),
    }
}

/// Waits until the server says that something about the node changed, it is worth asking
/// anyway, or the deadline. The server holds the request open; nobody polls.
///
/// # Errors
/// When the server refuses to let this node wait.
pub fn wait(client: &Client, node: NodeId, ticket: Option<&str>, deadline: Deadline) -> Result<()> {
    let request = wire::Wait { node_id: node.to_string(), ticket: ticket.map(str::to_owned) };
    let started = Instant::now();
    let answer = client.post::<_, wire::Waited>("/v1/wait", &request, WAIT, deadline);
    let changed = match answer {
        Ok(waited) => waited.changed,
        Err(error) if error.again() == net::Again::Never && error.reason() != Some(Reason::NotFound) => {
            return Err(error.at(client.server().as_str()));
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
