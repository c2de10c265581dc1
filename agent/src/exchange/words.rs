//! What an exchange says while it goes on, on the console and as its last word.

use super::rules::Person;
use crate::error::{Error, Kind};
use crate::net::client::{advice, printable};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire;

/// What a verifier says that does not release anything.
pub fn refusal(verdict: &wire::Verdict) -> Error {
    let code = printable(verdict.code.as_deref().unwrap_or("no code"), 64);
    let record = verdict.evidence_id.map(|id| format!(", evidence {id}")).unwrap_or_default();
    // It was read as one of the three.
    let outcome = printable(&verdict.outcome, 16);
    Error {
        kind: Kind::Refused,
        message: format!(
            "the verifier says {outcome}: {} [{code}{record}]",
            printable(&verdict.message, 500)
        ),
        hint: advice(verdict.hint.as_deref(), verdict.code.as_deref()),
        code: Some(code),
    }
}

/// Another attempt comes, after this refusal.
pub fn fresh_quote(refusal: &Error) -> String {
    format!("{refusal}; with a fresh quote")
}

/// The exchange waits for somebody; said once.
pub fn waiting(person: Person, node: NodeId, refusal: &Error, seconds: u64) -> [String; 2] {
    match person {
        Person::Operator => {
            [refusal.message.clone(), format!("waiting {seconds} s for an operator: halfkey approve {node}")]
        }
        Person::Tenant => [
            format!("waiting for the tenant, {seconds} s at most: halfkey enroll {node}"),
            "the tenant must see the EK fingerprint that stands above".into(),
        ],
    }
}

/// That somebody did not come before the deadline.
pub fn too_late(person: Person, node: NodeId, refusal: Error) -> Error {
    match person {
        Person::Operator => Error { kind: Kind::Pending, ..refusal },
        Person::Tenant => Error::new(Kind::Pending, "the tenant did not enroll this node in time")
            .hint(format!("run this again; the tenant runs: halfkey enroll {node}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([0xab; 16]);

    #[test]
    fn what_stands_on_the_console() {
        let refusal =
            Error::new(Kind::Refused, "the verifier says pending: another kernel [policy_mismatch]")
                .hint("approve it");
        assert_eq!(
            fresh_quote(&refusal),
            "the verifier says pending: another kernel [policy_mismatch]; with a fresh quote"
        );
        let node = "abababab-abab-abab-abab-abababababab";
        assert_eq!(
            waiting(Person::Operator, NODE, &refusal, 60),
            [refusal.message.clone(), format!("waiting 60 s for an operator: halfkey approve {node}")]
        );
        assert_eq!(
            waiting(Person::Tenant, NODE, &refusal, 3600)[0],
            format!("waiting for the tenant, 3600 s at most: halfkey enroll {node}")
        );
        let late = too_late(Person::Operator, NODE, refusal.clone());
        assert_eq!(
            (late.kind, late.message, late.hint),
            (Kind::Pending, refusal.message.clone(), refusal.hint.clone())
        );
        let late = too_late(Person::Tenant, NODE, refusal);
        assert_eq!(
            (late.kind, late.message.as_str()),
            (Kind::Pending, "the tenant did not enroll this node in time")
        );
        assert_eq!(late.hint, Some(format!("run this again; the tenant runs: halfkey enroll {node}")));
    }
}
