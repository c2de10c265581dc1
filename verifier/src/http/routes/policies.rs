//! What operators ask about policies, groups and proposals.

use super::operator::{decided, label_of, record};
use crate::domain::{By, NewDocument, NewPolicy, PolicySource as _, Records};
use crate::http::app::App;
use crate::http::auth::Caller;
use crate::http::body::Json;
use crate::http::described::{Asker, Routes};
use crate::http::in_turn::{Adds, in_turn};
use crate::http::parameters::{InPath, node_id, parameters, plain_text};
use crate::http::refusal::{Answer, Refusal};
use crate::policies::apply;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use halfkey_protocol::Reason;
use halfkey_protocol::document::{Scope, is_group_name};
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::operator::{Because, NodeRecord};
use halfkey_protocol::wire::policies::{
    GroupList, MAX_POLICY, NodePolicy, PolicyList, PolicyRecord, ProposalList, ProposalRecord,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use tracing::info;

/// Largest body with a policy, in bytes: TOML in JSON in base64.
const MAX_BODY: usize = 4 * MAX_POLICY;
/// Most proposals of a page.
const MAX_PROPOSALS: u64 = 1000;

/// The routes, to be merged with the operators' others.
pub fn routes() -> Routes {
    Routes::of(Asker::Operator)
        .get("/policies", "The newest policy of each scope.", policies)
        .get("/policies/{scope}", "A policy, whole.", policy)
        .post("/policies/{scope}", "Applies a policy, or withdraws it.", apply_policy)
        .get("/nodes/{id}/policy", "All that a node's boots are judged by.", node_policy)
        .post("/nodes/{id}/group", "Puts a node into a group, or out of it.", set_group)
        .get("/groups", "The groups and their nodes.", groups)
        .get("/proposals", "A page of the proposals, newest first.", proposals)
        .get("/proposals/{number}", "One proposal.", proposal)
        .post("/proposals/{number}/deny", "Denies a proposal.", deny_proposal)
}

async fn policies(State(app): State<Arc<App>>) -> Answer<PolicyList> {
    let policies = app.db.run(|records| records.policies()).await?;
    Ok(axum::Json(PolicyList { policies }))
}

#[derive(Deserialize, JsonSchema)]
struct Version {
    /// Which; without it the newest.
    version: Option<u64>,
}

async fn policy(
    State(app): State<Arc<App>>,
    InPath(scope): InPath,
    query: Result<Query<Version>, QueryRejection>,
) -> Answer<PolicyRecord> {
    let scope = read_scope(&scope)?.to_string();
    let version = parameters(query)?.version;
    let asked = scope.clone();
    let found = app.db.run(move |records| records.policy(&asked, version)).await?;
    found.map(axum::Json).ok_or_else(|| {
        let version = version.map(|version| format!(" version {version}")).unwrap_or_default();
        Refusal::new(Reason::NotFound, format!("there is no policy {scope}{version}"))
    })
}

async fn apply_policy(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(scope): InPath,
    message: Json<SignedDocument, MAX_BODY>,
) -> Answer<PolicyRecord> {
    let verifier = app.verifier()?;
    let (library, deployment, clock) = (verifier.library.clone(), verifier.deployment, app.clock.clone());
    let scope = read_scope(&scope)?;
    let actor = caller.clone();
    let work = move |records: &Records| {
        let signed = &message.value;
        let by = By { actor: &actor.0, now: clock.now() };
        let opened = match apply::check(&scope, signed, deployment, by.now) {
            Ok(opened) => opened,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let (name, version) = (scope.to_string(), opened.envelope.place.number);
        let document = NewDocument { opened: &opened.envelope, signed };
        let new = NewPolicy { name: opened.name(), document };
        let nodes = records.apply(&new, &*library, by)?;
        info!(scope = %name, version, nodes = nodes.len(), withdrawn = opened.name().is_empty(), "policy applied");
        Ok(Ok((records.policy(&name, Some(version))?, name)))
    };
    let (record, scope) = in_turn(&app, &caller, Adds::Signed, work).await??;
    record.map(axum::Json).ok_or_else(|| Refusal::new(Reason::Unavailable, format!("policy {scope} is gone")))
}

async fn node_policy(State(app): State<Arc<App>>, InPath(id): InPath) -> Answer<NodePolicy> {
    let node = node_id(&id)?;
    let library = app.verifier()?.library.clone();
    let look = move |records: &Records| {
        let Some(known) = records.node(node)? else { return Ok(None) };
        let governing = &known.governing;
        let whole = |policy: &Option<crate::domain::PolicyRef>| match policy {
            Some(policy) => records.policy(&policy.scope, Some(policy.version)),
            None => Ok(None),
        };
        let mut answer = NodePolicy {
            group: governing.group.clone(),
            membership: match &governing.membership {
                Some(membership) => records.signed_document(membership.version)?,
                None => None,
            },
            policy: whole(&governing.policy)?,
            additions: whole(&governing.additions)?,
            trusted: Vec::new(),
        };
        if let Ok(rules) = library.governed(&known, records)?.rules {
            for id in rules.effective.trusted() {
                answer.trusted.extend(records.stored_proposal(id)?.map(|stored| stored.record));
            }
        }
        Ok(Some(answer))
    };
    match app.db.run(look).await? {
        Some(answer) => Ok(axum::Json(answer)),
        // It may be registered and nothing else; else there is no such node.
        None => record(&app, node).await.map(|_| {
            axum::Json(NodePolicy {
                group: None,
                membership: None,
                policy: None,
                additions: None,
                trusted: Vec::new(),
            })
        }),
    }
}

async fn set_group(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<SignedDocument>,
) -> Answer<NodeRecord> {
    let node = node_id(&id)?;
    let verifier = app.verifier()?;
    let (library, clock) = (verifier.library.clone(), app.clock.clone());
    let signed = message.value;
    let opened = apply::check(&Scope::Membership(node), &signed, verifier.deployment, clock.now())?;
    // A node that only registered can be in a group already, and keeps its suggested label. Whatever is wrong with its record keeps
    // nobody from taking it out again.
    let label = label_of(&app, node).await?;
    let actor = caller.clone();
    let work = move |records: &Records| {
        let by = By { actor: &actor.0, now: clock.now() };
        let document = NewDocument { opened: &opened.envelope, signed: &signed };
        records.set_group(node, &label, document, &*library, by)
    };
    in_turn(&app, &caller, Adds::Signed, work).await?;
    info!(%node, "group set");
    decided(&app, node).await
}

async fn groups(State(app): State<Arc<App>>) -> Answer<GroupList> {
    let mut groups = app.db.run(|records| records.groups()).await?;
    // A row can say anything, of any size: what can't be a group's name is none.
    groups.retain(|group| is_group_name(&group.name));
    Ok(axum::Json(GroupList { groups }))
}

#[derive(Deserialize, JsonSchema)]
struct Which {
    /// Of this node, by its id.
    node: Option<String>,
    /// Only those that wait for an operator.
    waiting: Option<bool>,
    /// Those with a smaller number.
    before: Option<u64>,
}

async fn proposals(
    State(app): State<Arc<App>>,
    query: Result<Query<Which>, QueryRejection>,
) -> Answer<ProposalList> {
    let Which { node, waiting, before } = parameters(query)?;
    let node = node.as_deref().map(node_id).transpose()?;
    let waiting = waiting.unwrap_or(false);
    let look = move |records: &Records| records.proposals(node, waiting, before, MAX_PROPOSALS);
    Ok(axum::Json(app.db.run(look).await?))
}

async fn proposal(State(app): State<Arc<App>>, InPath(number): InPath) -> Answer<ProposalRecord> {
    let id = read_number(&number)?;
    let found = app.db.run(move |records| records.stored_proposal(id)).await?;
    found.map(|stored| axum::Json(stored.record)).ok_or_else(|| no_proposal(&number))
}

async fn deny_proposal(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(number): InPath,
    message: Json<Because>,
) -> Answer<ProposalRecord> {
    let id = read_number(&number)?;
    let because = message.value.because;
    plain_text("a reason", &because, 512)?;
    let clock = app.clock.clone();
    let work = move |records: &Records| {
        records.deny_proposal(id, &because, By { actor: &caller.0, now: clock.now() })?;
        records.stored_proposal(id)
    };
    let found = app.db.run(work).await?;
    info!(proposal = id, "proposal denied");
    found.map(|stored| axum::Json(stored.record)).ok_or_else(|| no_proposal(&number))
}

fn read_scope(text: &str) -> Result<Scope, Refusal> {
    Scope::parse(text).filter(Scope::is_of_policy).ok_or_else(|| {
        Refusal::new(Reason::Malformed, "expected a scope: node:ID, group:NAME or additions:ID")
    })
}

fn read_number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| no_proposal(text))
}

fn no_proposal(number: &str) -> Refusal {
    Refusal::new(Reason::NotFound, format!("there is no proposal {number:.20}"))
}
