//! Labels of nodes, where a table shows more than ids.

use crate::render::text::clean_short;
use halfkey_protocol::wire::operator::NodeList;
use std::collections::HashMap;

/// Labels by id.
pub struct Labels(HashMap<String, String>);

impl Labels {
    /// Those of all nodes.
    pub fn of(list: NodeList) -> Self {
        Self(list.nodes.into_iter().map(|node| (node.id, node.label)).collect())
    }

    /// `label (first digits of the id)`.
    pub fn short(&self, id: &str) -> String {
        let digits = clean_short(id, 36).chars().take(8).collect::<String>();
        match self.0.get(id) {
            Some(label) => format!("{} ({digits})", clean_short(label, 40)),
            None => digits,
        }
    }
}
