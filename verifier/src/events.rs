//! What has happened: published when it is on the disk, and not before.

use halfkey_protocol::NodeId;
use halfkey_protocol::wire::Outcome;
use std::sync::{Mutex, PoisonError};

/// Something that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What is recorded of a node changed: it asks again, if it waits.
    NodeChanged(NodeId),
    /// Evidence of a node was ruled on.
    Verdict {
        /// Whose.
        node: NodeId,
        /// Number of the evidence.
        evidence: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// Nothing is released to a node any more.
    Revoked(NodeId),
    /// A policy, its withdrawal, or additions were stored.
    PolicyApplied {
        /// What it is for.
        scope: String,
        /// Those that it governs now.
        nodes: Vec<NodeId>,
    },
    /// The audit trail has a new entry.
    Audited(u64),
}

impl Event {
    /// The nodes that it is about.
    pub fn nodes(&self) -> &[NodeId] {
        match self {
            Self::NodeChanged(node) | Self::Verdict { node, .. } | Self::Revoked(node) => {
                std::slice::from_ref(node)
            }
            Self::PolicyApplied { nodes, .. } => nodes,
            Self::Audited(_) => &[],
        }
    }
}

/// Called with the events of one request.
type Subscriber = Box<dyn Fn(&[Event]) + Send + Sync>;

/// Who wants to know.
#[derive(Default)]
pub struct Events(Mutex<Vec<Subscriber>>);

impl Events {
    /// Calls this from now on, on the thread of the request: it must not block.
    pub fn subscribe(&self, subscriber: impl Fn(&[Event]) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(subscriber));
    }

    /// Tells everybody.
    pub fn publish(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        for subscriber in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            subscriber(events);
        }
    }
}
