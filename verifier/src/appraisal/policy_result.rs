//! What the policy in effect says of a boot, for people as well.

use crate::policies::{Governed, Rules, summary};
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::Appraisal;
use halfkey_evidence::policy::{Evaluation, Finding};
use halfkey_protocol::Reason;

/// Findings that are recorded of one boot.
const MAX_FINDINGS: usize = 100;

/// What a policy says of a boot.
#[derive(Clone, Debug)]
pub enum PolicyResult<'a> {
    /// It is allowed.
    Allowed {
        /// By which policy, for people.
        policy: &'a str,
    },
    /// Nothing: there is none, and why.
    NoPolicy(Rejection),
    /// It is not: why, with what was left out of the policy.
    Against(Rejection, Vec<Finding>),
}

impl<'a> PolicyResult<'a> {
    /// Of a boot that was appraised by just this policy. One whose logs don't replay is not allowed.
    pub fn of(governed: &'a Governed, appraisal: &Appraisal<'_>) -> Self {
        match &governed.rules {
            Err(why) => Self::NoPolicy(Rejection::new(Reason::NoPolicy, why.as_str())),
            Ok(rules) => match appraisal.result() {
                Some(result) if result.accepted() => Self::Allowed { policy: &rules.name },
                result => Self::against(rules, result),
            },
        }
    }

    fn against(rules: &Rules, result: Option<&Evaluation>) -> Self {
        let mut findings = result.map(|result| result.findings.clone()).unwrap_or_default();
        let mut message = format!("{}: {}", rules.name, summary(&findings));
        for note in &rules.notes {
            message.push_str("; left out: ");
            message.push_str(note);
        }
        findings.truncate(MAX_FINDINGS);
        Self::Against(Rejection::new(Reason::PolicyMismatch, message), findings)
    }
}
