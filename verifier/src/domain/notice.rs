//! What systems of the operator's own are told by webhooks: kept in the transaction of what it tells about, until it was delivered.
//! What is told is no secret, and free text of a machine is only the label of one that was never enrolled.

use super::{Error, Result};
use crate::store::{NoticeRow, Tx};
use halfkey_protocol::{NodeId, Reason};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// Evidence that a node signed was refused.
    Denied,
    /// A boot waits for an operator. Once for each boot.
    Pending,
    /// An operator revoked a node.
    Revoked,
    /// A node was released something for the first time since its enrollment.
    FirstBoot,
    /// Two machines may run from one state of a TPM.
    Cloned,
}

impl NoticeKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Denied, Self::Pending, Self::Revoked, Self::FirstBoot, Self::Cloned];
}

/// Something to tell.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What happened.
    pub kind: NoticeKind,
    /// To whom.
    pub node: NodeId,
    /// Its label.
    pub label: String,
    /// Why, for evidence that was not released.
    pub reason: Option<Reason>,
    /// Number of the evidence.
    pub evidence: Option<u64>,
    /// The operator who did it.
    pub by: Option<String>,
    /// What the machine calls this boot.
    pub trace: Option<String>,
    /// Seconds since 1970.
    pub at: u64,
}

/// What is sent.
#[derive(Serialize)]
struct Body<'a, T: Serialize> {
    r#type: &'a str,
    timestamp: String,
    data: T,
}

#[derive(Serialize)]
struct Data<'a> {
    node_id: String,
    label: &'a str,
    reason: Option<&'static str>,
    evidence_id: Option<u64>,
    by: Option<&'a str>,
    trace_id: Option<&'a str>,
}

impl NoticeKind {
    /// As settings and bodies name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Pending => "pending",
            Self::Revoked => "revoked",
            Self::FirstBoot => "first_boot",
            Self::Cloned => "cloned",
        }
    }
}

/// A body, JSON: of this type, at this time, in seconds since 1970.
///
/// # Errors
/// Ours, if there is no JSON of it.
pub fn body(kind: &str, at: u64, data: impl Serialize) -> Result<String> {
    super::json(&Body { r#type: kind, timestamp: crate::rfc3339(at), data })
}

impl Notice {
    fn body(&self) -> Result<String> {
        let data = Data {
            node_id: self.node.to_string(),
            label: &self.label,
            reason: self.reason.map(Reason::code),
            evidence_id: self.evidence,
            by: self.by.as_deref(),
            trace_id: self.trace.as_deref(),
        };
        body(self.kind.as_str(), self.at, data)
    }
}

/// Who is told, and of what.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Name of the endpoint.
    pub endpoint: String,
    /// What it wants to know.
    pub kinds: Vec<NoticeKind>,
}

/// All who are told.
#[derive(Default)]
pub struct Subscriptions {
    each: std::sync::OnceLock<Vec<Subscription>>,
    /// Something was committed that has to be delivered.
    pub committed: Notify,
}

impl Subscriptions {
    /// From now on, once.
    pub fn set(&self, each: Vec<Subscription>) {
        // A second time would be our bug, and what was said first stays.
        let _ = self.each.set(each);
    }

    /// Keeps what somebody wants to know, in this transaction.
    ///
    /// # Errors
    /// When the database can't be written.
    pub fn keep(&self, rows: &dyn Tx, notices: &[Notice]) -> Result<()> {
        let Some(each) = self.each.get() else { return Ok(()) };
        for notice in notices {
            let wanted = || each.iter().filter(|subscription| subscription.kinds.contains(&notice.kind));
            if wanted().next().is_none() {
                continue;
            }
            let (message, body) = (new_message()?, notice.body()?);
            for subscription in wanted() {
                rows.insert_notice(&NoticeRow {
                    id: 0,
                    endpoint: subscription.endpoint.clone(),
                    message: message.clone(),
                    at: notice.at,
                    body: body.clone(),
                    attempts: 0,
                    due: notice.at,
                })?;
            }
        }
        Ok(())
    }
}

/// What a receiver knows a message by that it gets twice.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn new_message() -> Result<String> {
    let mut random = [0; 16];
    crate::keys::fill_random(&mut random).map_err(|e| Error::unavailable(e.to_string()))?;
    Ok(format!("msg_{}", crate::hex(&random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_settings() {
        for kind in NoticeKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
    }

    #[test]
    fn a_body_has_type_time_and_data() {
        let notice = Notice {
            kind: NoticeKind::Denied,
            node: NodeId([7; 16]),
            label: "web\"1\n".into(),
            reason: Some(Reason::PolicyMismatch),
            evidence: Some(9),
            by: None,
            trace: None,
            at: 1_614_265_330,
        };
        assert_eq!(
            notice.body().unwrap(),
            r#"{"type":"denied","timestamp":"2021-02-25T15:02:10Z","data":{"node_id":"07070707-0707-0707-0707-070707070707","label":"web\"1\n","reason":"policy_mismatch","evidence_id":9,"by":null,"trace_id":null}}"#
        );
    }
}
