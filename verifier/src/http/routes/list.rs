//! The list of nodes, in pages. It is made of two: nodes that a tenant ever did something with, here, and
//! registrations, at the registrar. Both can be long: strangers register as well.

use crate::domain::{RegistrationLine, Which};
use crate::http::app::App;
use crate::http::parameters::{node_id, parameters, plain_text};
use crate::http::refusal::{Answer, Refusal};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{NodeList, NodeState, NodeSummary};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most lines of an answer: each page is a round trip, and some megabytes.
const MAX_LINES: u64 = 10_000;
/// Most lines by name: who sees several asks for more digits.
const MAX_NAMED: u64 = 100;

/// Which page.
#[derive(Deserialize, JsonSchema)]
pub struct ListQuery {
    /// Those after this node id.
    after: Option<String>,
    /// Those with this label, or whose id begins so.
    name: Option<String>,
    /// The one with this id.
    node: Option<String>,
    /// So many at most.
    limit: Option<u64>,
}

impl ListQuery {
    /// Lines at most.
    pub fn limit(&self) -> u64 {
        let most = if self.name.is_some() { MAX_NAMED } else { MAX_LINES };
        self.limit.unwrap_or(most).clamp(1, most)
    }

    /// Which lines.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn which(self) -> Result<Which, Refusal> {
        Ok(match self {
            Self { name: Some(name), .. } => Which::Named(plain_text("a name", &name, 256)?.to_owned()),
            Self { node: Some(node), .. } => Which::One(node_id(&node)?),
            Self { after, .. } => Which::After(after.as_deref().map(node_id).transpose()?),
        })
    }
}

/// `GET nodes`
pub async fn nodes(
    State(app): State<Arc<App>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer<NodeList> {
    let query = parameters(query)?;
    let (limit, which) = (query.limit(), query.which()?);
    let (mut all, more) = match which {
        Which::Named(name) => named(&app, name, limit).await?,
        which => page(&app, which, limit).await?,
    };
    let next = more.then(|| all.last().map(|last| last.id.clone())).flatten();
    all.truncate(limit as usize);
    Ok(axum::Json(NodeList { nodes: all, next }))
}

/// Merges a page of each list: what comes after the shorter one's end is not complete.
async fn page(app: &App, which: Which, limit: u64) -> Result<(Vec<NodeSummary>, bool), Refusal> {
    let registered = app.verifier()?.registrar.list(which.clone(), limit).await?;
    let now = app.clock.now();
    let known = app.db.run(move |records| records.nodes(&which, limit, now)).await?;
    let mut all = merge(known, registered);
    let more = all.len() as u64 >= limit;
    all.truncate(limit as usize);
    Ok((all, more))
}

/// Those that the tenant called so come first: whoever registers can call itself anything, any number of times.
async fn named(app: &App, name: String, limit: u64) -> Result<(Vec<NodeSummary>, bool), Refusal> {
    let which = Which::Named(name.clone());
    let registered = app.verifier()?.registrar.list(which.clone(), limit).await?;
    let suggested: Vec<_> = registered.iter().filter_map(|line| NodeId::parse(&line.node_id)).collect();
    let now = app.clock.now();
    let known = app.db.run(move |records| {
        let mut known = records.nodes(&which, limit, now)?;
        // What the tenant calls a node counts, and not what it calls itself.
        for node in suggested {
            if known.iter().all(|line| line.id != node.to_string()) {
                known.extend(records.nodes(&Which::One(node), 1, now)?);
            }
        }
        Ok(known)
    });
    let known = known.await?;
    // A full answer is not known to be all: whoever registers, or writes rows, can fill it.
    let full = registered.len() as u64 >= limit || known.len() as u64 >= limit;
    let mut all = merge(known, registered);
    let prefix = name.to_ascii_lowercase();
    all.retain(|node| node.label == name || node.id.starts_with(&prefix));
    all.sort_by_key(|node| node.state == NodeState::Registered);
    let more = full || all.len() as u64 > limit;
    Ok((all, more))
}

/// One line for each node, by id.
fn merge(known: Vec<NodeSummary>, registered: Vec<RegistrationLine>) -> Vec<NodeSummary> {
    let lines = registered.into_iter().map(|line| (line.node_id.clone(), registered_summary(line)));
    let mut all: BTreeMap<String, NodeSummary> = lines.collect();
    for mut line in known {
        if let Some(registered) = all.remove(&line.id) {
            line.last_seen = line.last_seen.max(registered.last_seen);
            if line.label.is_empty() {
                line.label = registered.label;
            }
        }
        all.insert(line.id.clone(), line);
    }
    all.into_values().collect()
}

fn registered_summary(line: RegistrationLine) -> NodeSummary {
    NodeSummary {
        id: line.node_id,
        label: line.label,
        state: NodeState::Registered,
        pending: false,
        held: false,
        cloned: false,
        last_seen: line.last_seen,
        last_outcome: None,
        last_code: None,
    }
}
