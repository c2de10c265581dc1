//! What has happened: published when it is on the disk, and not before.

use halfkey_protocol::NodeId;
use halfkey_protocol::wire::Outcome;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Something that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What is recorded of a node changed: it asks again, if it waits.
    NodeChanged(NodeId),
    /// An operator decided about a node: a boot of it was approved or denied, it was held or let go on, it may unlock again, its
    /// group is another one.
    Decided(NodeId),
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
            Self::NodeChanged(node)
            | Self::Decided(node)
            | Self::Verdict { node, .. }
            | Self::Revoked(node) => std::slice::from_ref(node),
            Self::PolicyApplied { nodes, .. } => nodes,
            Self::Audited(_) => &[],
        }
    }

    /// What other servers over the same database are told of it at once. What machines do is not: there are thousands of verdicts a
    /// second, and whoever waits for one of these hears of it by looking.
    pub fn announcement(&self) -> Option<Announcement> {
        match self {
            Self::Decided(node) | Self::Revoked(node) => Some(Announcement::Node(*node)),
            Self::PolicyApplied { .. } => Some(Announcement::Documents),
            Self::NodeChanged(_) | Self::Verdict { .. } | Self::Audited(_) => None,
        }
    }
}

/// What servers over one database tell each other when an operator decided something, so that nobody who waits at another one has to
/// wait until it looks. It says where to look, and nothing else: whoever may connect to the database can say it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Announcement {
    /// An operator decided about this node.
    Node(NodeId),
    /// There are new documents, which may be about many nodes.
    Documents,
}

/// Most bytes of an announcement.
const LONGEST: usize = 64;
/// What one about a node begins with.
const NODE: &str = "node ";
/// What one about documents is.
const DOCUMENTS: &str = "documents";

impl Announcement {
    /// Reads one. None if it is not exactly what this build says: that of a newer one, or of somebody else.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            DOCUMENTS => Some(Self::Documents),
            text if text.len() <= LONGEST => text.strip_prefix(NODE).and_then(NodeId::parse).map(Self::Node),
            _ => None,
        }
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "{NODE}{node}"),
            Self::Documents => f.write_str(DOCUMENTS),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_announcement_is_what_this_build_says_or_nothing() {
        let node = NodeId([0xab; 16]);
        for said in [Announcement::Node(node), Announcement::Documents] {
            assert_eq!(Announcement::parse(&said.to_string()), Some(said));
        }
        let text = Announcement::Node(node).to_string();
        let upper = format!("node {}", node.to_string().to_uppercase());
        let long = format!("{text}{}", " ".repeat(8000));
        for other in [
            "",
            "node",
            "node ",
            "node x",
            "documents ",
            "Documents",
            &upper,
            &long,
            &text[1..],
            &text[..text.len() - 1],
        ] {
            assert_eq!(Announcement::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_one(text in ".{0,80}", node in any::<[u8; 16]>()) {
            if let Some(read) = Announcement::parse(&text) {
                prop_assert_eq!(read.to_string(), text);
            }
            let said = Announcement::Node(NodeId(node));
            prop_assert_eq!(Announcement::parse(&said.to_string()), Some(said));
        }
    }
}
