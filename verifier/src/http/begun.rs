//! Nodes that have begun, as they were read then. Their evidence comes within seconds, and nearly always nothing has changed: then
//! they need not be read once more before it is checked. Nothing is released by what is kept here: the transaction that records the
//! ruling reads the node, and what was checked by something else than what it finds is checked again.

use crate::cache::Cache;
use crate::domain::Node;
use halfkey_protocol::NodeId;
use std::sync::Arc;

/// All together, in bytes: some thousands of nodes.
const KEPT: usize = 16 << 20;

/// Such nodes, each until its evidence comes.
pub struct BegunNodes(Cache<Node, NodeId>);

impl Default for BegunNodes {
    fn default() -> Self {
        Self(Cache::of(KEPT))
    }
}

impl BegunNodes {
    /// Keeps a node that is about to boot, if it is as its tenant signed it. One whose enrollment is open has C_U: that is kept nowhere.
    pub fn remember(&self, node: Node) {
        let Some(current) = node.current.as_ref().filter(|_| node.open.is_none() && node.damage.is_none())
        else {
            return;
        };
        let registration = &current.registration;
        let certificates = registration.ek_certificate.iter().chain(&registration.ek_chain);
        let weight = 4096
            + current.signed.document.len()
            + certificates.map(|certificate| certificate.len()).sum::<usize>();
        self.0.keep(node.id, Arc::new(node), weight);
    }

    /// A node that has begun.
    pub fn take(&self, node: NodeId) -> Option<Arc<Node>> {
        self.0.take(&node)
    }
}
