//! Every code that a verdict or a refusal can carry: one table of the code, whose turn it is, whether asking again helps, the HTTP
//! status, and what to do.
//!
//! On the wire a reason is its code, a string: an older agent shows a newer
//! server's code without knowing it.

use std::fmt;

/// Whose turn it is after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The node sent something that an honest, current agent would not send.
    Node,
    /// The node is honest as far as can be told, but booted what no policy allows.
    Policy,
    /// An operator has to do something first.
    Operator,
    /// The server can't do its work at the moment.
    Server,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $fault:ident, $retry:literal, $status:literal, $hint:literal;)+) => {
        /// Why something was not released or not accepted.
        ///
        /// A row: the summary; variant, code, whose turn, whether to ask again, HTTP status, hint (empty: none).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// All of them, in the order of this page.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code on the wire.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The reason with this code.
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$name),)+ _ => None }
            }

            /// Whose turn it is, once something was refused for it.
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)+ }
            }

            /// Whether an agent that asks again at once, with a fresh quote, can
            /// expect another answer.
            pub fn retry(self) -> bool {
                match self { $(Self::$name => $retry,)+ }
            }

            /// The HTTP status of a request that is refused with it (RFC 9110).
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// What to do next, where that does not depend on more than the reason. Who knows better says something else.
            pub fn hint(self) -> Option<&'static str> {
                let hint = match self { $(Self::$name => $hint,)+ };
                (!hint.is_empty()).then_some(hint)
            }

            /// One sentence: what was found.
            pub fn summary(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    // The message
    /// the message could not be read
    Malformed = "malformed", Node, false, 400, "";
    /// no common protocol version
    Version = "version", Node, false, 400,
        "update the older of the two: agent and server are of the same release";
    /// the message or a part of it is larger than the protocol allows
    TooLarge = "too_large", Node, false, 413, "";
    /// too many requests at the moment
    RateLimited = "rate_limited", Server, true, 429, "";
    /// the server can't do its work at the moment
    Unavailable = "unavailable", Server, true, 503, "";
    /// this server does not have the role that the request needs
    WrongRole = "wrong_role", Operator, false, 421, "";
    /// the operator's certificate is missing or not known
    Unauthorized = "unauthorized", Operator, false, 403,
        "`halfkey-verifier operator add NAME` makes a bundle; import it with `halfkey login`";
    /// there is no such thing
    NotFound = "not_found", Operator, false, 404, "";
    /// the state of the node does not allow this
    Conflict = "conflict", Operator, false, 409, "";

    // Registration
    /// the public area of the EK is not a supported endorsement key
    EkTemplate = "ek_template", Node, false, 422, "";
    /// the EK is an RSA key that can be factored
    EkWeak = "ek_weak", Operator, false, 422,
        "update the firmware of the TPM and clear it; if it still has this ek, use another TPM";
    /// the EK certificate is not for this EK
    EkCertificateMismatch = "ek_certificate_mismatch", Node, false, 422, "";
    /// the EK certificate could not be read
    EkCertificateMalformed = "ek_certificate_malformed", Node, false, 422, "";
    /// the EK certificate does not lead to a trusted root
    EkUntrusted = "ek_untrusted", Operator, false, 422,
        "put the root certificate of the TPM's manufacturer among the EK roots (--ek-roots), or compare the EK fingerprint with the machine's console and give it with --trust-ek";
    /// the TPM has no EK certificate
    EkCertificateMissing = "ek_certificate_missing", Operator, false, 422,
        "compare the EK fingerprint with the machine's console, then give it with --trust-ek";
    /// the AK is not the key that the AK template makes
    AkTemplate = "ak_template", Node, false, 422, "";
    /// the SRK is not the key that the SRK template makes
    SrkTemplate = "srk_template", Node, false, 422, "";
    /// the AK did not certify this SRK
    Certification = "certification", Node, false, 422, "";
    /// another AK is registered for this EK
    AkChanged = "ak_changed", Node, false, 409,
        "both keys come from the same seed of the TPM: one does not change without the other";
    /// the SRK changed since the enrollment
    SrkChanged = "srk_changed", Operator, false, 409,
        "enroll the node again with `halfkey enroll NODE`";
    /// the credential was not activated by the TPM that was registered
    Activation = "activation", Node, false, 403,
        "register again; challenges live for some minutes";

    // Enrollment
    /// the node is not registered
    UnknownNode = "unknown_node", Operator, false, 404,
        "register it with `halfkey-agent enroll`";
    /// the node is registered, but no tenant has enrolled it yet
    NotEnrolled = "not_enrolled", Operator, false, 409,
        "a tenant enrolls it with `halfkey enroll NODE`";
    /// the node has not finished its enrollment
    EnrollmentOpen = "enrollment_open", Operator, false, 409,
        "finish the enrollment on the node with `halfkey-agent enroll`";
    /// the enrollment was already used; it takes a new one
    EnrollmentUsed = "enrollment_used", Operator, false, 409,
        "a tenant enrolls it again with `halfkey enroll NODE`";
    /// the proof is not that of the enrolled key
    Proof = "proof", Node, false, 403, "";
    /// the enrollment is not signed by the tenant key, or is for something else
    EnrollmentSignature = "enrollment_signature", Operator, false, 422,
        "if that is your tenant's key, give it with --tenant-key; else the tenant runs `halfkey enroll NODE`, whose enrollment takes the place of this one, and the machine then runs `halfkey-agent enroll` again";

    // The quote, in the order of the checks
    /// the nonce is not one of this verifier's, or for another node or purpose
    NonceForeign = "nonce_foreign", Node, false, 422, "";
    /// the nonce is too old
    NonceExpired = "nonce_expired", Node, true, 422, "";
    /// the quote is not signed by the AK
    Signature = "signature", Node, false, 422, "";
    /// the signed structure is not a TPM-generated quote
    NotAQuote = "not_a_quote", Node, false, 422, "";
    /// the quote is for other qualifying data
    QualifyingData = "qualifying_data", Node, false, 422, "";
    /// the quote does not cover PCR 0 to 15 of the enrolled bank
    PcrSelection = "pcr_selection", Node, false, 422, "";
    /// the PCR values are not those of the quote
    PcrDigest = "pcr_digest", Node, true, 422, "";
    /// the bank is not the enrolled one, or the firmware did not extend it
    Bank = "bank", Node, false, 422,
        "activate that bank in the firmware setup, or enroll the node again with one that is active and that the firmware extends (`halfkey enroll NODE --bank`)";
    /// the quote is not newer than the last accepted one
    Stale = "stale", Node, true, 422, "";
    /// the counters of the TPM went backwards: a restored snapshot
    CounterRollback = "counter_rollback", Operator, false, 422,
        "if the TPM or virtual machine was restored on purpose, enroll the node again";
    /// an event log could not be read
    LogMalformed = "log_malformed", Node, false, 422, "";
    /// an event log does not replay to the quoted PCRs
    LogReplay = "log_replay", Node, false, 422, "";
    /// the boot is over: the fence was already extended
    FenceExtended = "fence_extended", Node, false, 422,
        "keys are released to the initramfs only: reboot";
    /// the node is revoked
    Revoked = "revoked", Operator, false, 403,
        "an operator restores the node with `halfkey restore NODE`";
    /// an operator holds this node: it boots with its passphrase
    Held = "held", Operator, false, 422,
        "an operator lets it unlock again with `halfkey release NODE`";
    /// no policy governs this node
    NoPolicy = "no_policy", Operator, false, 422,
        "an operator approves this boot, and makes a policy of it, with `halfkey approve NODE`";
    /// what was booted is not what the policy allows
    PolicyMismatch = "policy_mismatch", Policy, false, 422,
        "if the change was intended, an operator approves it with `halfkey approve NODE`; `halfkey policy explain NODE` shows each event";
    /// an operator denied this boot
    OperatorDenied = "operator_denied", Operator, false, 422, "";

    // Policies
    /// the document is not signed by the tenant key, or is for something else
    PolicySignature = "policy_signature", Operator, false, 422, "";
    /// the policy could not be read
    PolicyMalformed = "policy_malformed", Operator, false, 422, "";
    /// the policy allows more than any policy may
    PolicyFloor = "policy_floor", Operator, false, 422, "";
    /// the document is not the next one of this deployment's sequence
    Sequence = "sequence", Operator, false, 409, "";
    /// the document is for another deployment
    Deployment = "deployment", Operator, false, 422,
        "what was signed for another server has to be signed for this one, after `halfkey login` with its bundle";
    /// the server's database is older than what it has answered before
    RolledBack = "rolled_back", Operator, false, 503,
        "find out who changed the verifier's database; signing again (`halfkey enroll`, `policy apply`, `group set`) mends a row. If it was restored from a backup on purpose, stop the server and run `halfkey-verifier accept-rollback`";

    // Proposals
    /// the proposal could not be read
    ProposalMalformed = "proposal_malformed", Node, false, 422,
        "update halfkey-agent: it has to be as new as the verifier";
    /// the node proposes from a boot that was not opened by attestation
    ProposalUnattested = "proposal_unattested", Node, false, 422,
        "proposals are taken from a boot that was opened by attestation: reboot without a passphrase, then propose again";
    /// no rule accepts the proposal: it waits for an operator
    ProposalWaits = "proposal_waits", Operator, false, 422,
        "an operator looks at it with `halfkey proposals`, and accepts it with `halfkey proposal accept NUMBER`";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Reason};

    fn row(reason: Reason) -> String {
        format!(
            "| `{}` | {} | {} | {} | {} | {} |",
            reason.code(),
            format!("{:?}", reason.fault()).to_lowercase(),
            if reason.retry() { "yes" } else { "no" },
            reason.status(),
            reason.summary(),
            reason.hint().unwrap_or_default()
        )
    }

    #[test]
    fn codes_are_unique_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
    }

    #[test]
    fn statuses_are_errors_and_hints_are_one_line() {
        for reason in Reason::ALL {
            assert!((400..=599).contains(&reason.status()), "{reason:?}");
            let server = reason.status() >= 500 || reason.status() == 429;
            assert_eq!(
                server,
                reason.fault() == Fault::Server || *reason == Reason::RolledBack,
                "{reason:?}"
            );
            if let Some(hint) = reason.hint() {
                assert!(!hint.contains('\n') && !hint.ends_with('.') && !hint.starts_with("hint"), "{hint}");
                assert!(hint.chars().next().is_some_and(|c| !c.is_uppercase()), "{hint}");
            }
        }
    }

    #[test]
    fn docs_list_every_reason() {
        let docs = include_str!("../../docs/protocol.md");
        for reason in Reason::ALL {
            let row = row(*reason);
            assert!(docs.contains(&row), "docs/protocol.md lacks the row\n{row}");
        }
        let table = docs.split_once("| code | whose turn |").expect("the table").1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|')).count();
        assert_eq!(rows, Reason::ALL.len(), "docs/protocol.md has rows of no reason");
    }
}
