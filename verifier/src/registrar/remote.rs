//! The registrar of another host, asked over mTLS.

use super::wire::{Kept, RegistrationList};
use super::{Future, Here, Registrar, Unreachable};
use crate::client::{Client, ClientError};
use crate::domain::{Registration, RegistrationLine, Which};
use crate::limit::{Rate, Source, SourceRate};
use halfkey_protocol::wire::operator::query_value;
use halfkey_protocol::{NodeId, Reason};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Questions at a time that anybody can cause.
const AT_A_TIME: usize = 16;
/// How often per minute a node that begins is asked about, and an address may cause a question about a node that was
/// never enrolled.
const PER_NODE: u32 = 6;
const PER_SOURCE: u32 = 60;
/// How long a node is remembered as unknown, and how many are: it may register in the meantime.
const REMEMBERED: Duration = Duration::from_secs(3);
const UNKNOWN: usize = 4096;

/// A registrar at an URL. What strangers can cause is bounded, so that they don't reach through to its host.
pub struct Remote {
    client: Client,
    at_a_time: Semaphore,
    by_node: Rate<NodeId>,
    by_source: SourceRate,
    unknown: Mutex<HashMap<NodeId, Instant>>,
}

impl Remote {
    /// At the other end of this client.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            at_a_time: Semaphore::new(AT_A_TIME),
            by_node: Rate::per_minute(PER_NODE),
            by_source: SourceRate::per_minute(PER_SOURCE),
            unknown: Mutex::default(),
        }
    }

    fn unknown(&self) -> MutexGuard<'_, HashMap<NodeId, Instant>> {
        // The map is whole after each statement.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registrar for Remote {
    fn lately(&self, node: NodeId, _: Here) -> Future<'_, Option<Registration>> {
        Box::pin(async move {
            let busy = || Unreachable("it is asked too often, or about this node".to_owned());
            let _turn = self.at_a_time.try_acquire().map_err(|_| busy())?;
            if !self.by_node.take(node) {
                return Err(busy());
            }
            self.registration(node).await
        })
    }

    fn knows(&self, node: NodeId, source: Source) -> Future<'_, Option<bool>> {
        Box::pin(async move {
            let fresh = |at: &Instant| at.elapsed() < REMEMBERED;
            if self.unknown().get(&node).is_some_and(fresh) {
                return Ok(Some(false));
            }
            let Ok(_turn) = self.at_a_time.try_acquire() else { return Ok(None) };
            if !self.by_source.take(source) {
                return Ok(None);
            }
            let known = !self.list(Which::One(node), 1).await?.is_empty();
            if known {
                self.by_source.give_back(source);
            } else {
                let mut unknown = self.unknown();
                unknown.retain(|_, at| fresh(at));
                if unknown.len() < UNKNOWN {
                    unknown.insert(node, Instant::now());
                }
            }
            Ok(Some(known))
        })
    }

    fn registration(&self, node: NodeId) -> Future<'_, Option<Registration>> {
        Box::pin(async move {
            match self.client.get(&format!("/v1/internal/registrations/{node}")).await {
                Ok(registration) => Ok(Some(registration)),
                Err(ClientError::Refused(_, problem)) if problem.code == Reason::UnknownNode.code() => {
                    Ok(None)
                }
                Err(e) => Err(unreachable(e)),
            }
        })
    }

    fn list(&self, which: Which, limit: u64) -> Future<'_, Vec<RegistrationLine>> {
        Box::pin(async move {
            let which = match which {
                Which::After(None) => String::new(),
                Which::After(Some(id)) => format!("&after={id}"),
                Which::Named(name) => format!("&name={}", query_value(&name)),
                Which::One(id) => format!("&node={id}"),
            };
            let path = format!("/v1/internal/registrations?limit={limit}{which}");
            let list: RegistrationList = self.client.get(&path).await.map_err(unreachable)?;
            Ok(list.registrations)
        })
    }

    fn keep(&self, node: NodeId) -> Future<'_, ()> {
        Box::pin(async move {
            let path = format!("/v1/internal/registrations/{node}/keep");
            self.client.post::<Kept>(&path, &()).await.map(|_| ()).map_err(unreachable)
        })
    }
}

fn unreachable(e: ClientError) -> Unreachable {
    match e {
        ClientError::Unreachable(what) => Unreachable(what),
        ClientError::Refused(status, problem) => {
            Unreachable(format!("{status}: {}: {}", problem.code, problem.message))
        }
    }
}
