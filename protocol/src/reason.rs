//! Every code that a verdict or a refusal can carry.
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
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $fault:ident, $retry:literal;)+) => {
        /// Why something was not released or not accepted.
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

            /// Whose turn it is.
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)+ }
            }

            /// Whether an agent that asks again at once, with a fresh quote, can
            /// expect another answer.
            pub fn retry(self) -> bool {
                match self { $(Self::$name => $retry,)+ }
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
    Malformed = "malformed", Node, false;
    /// no common protocol version
    Version = "version", Node, false;
    /// the message or a part of it is larger than the protocol allows
    TooLarge = "too_large", Node, false;
    /// too many requests at the moment
    RateLimited = "rate_limited", Server, true;
    /// the server can't do its work at the moment
    Unavailable = "unavailable", Server, true;
    /// this server does not have the role that the request needs
    WrongRole = "wrong_role", Operator, false;
    /// the operator's certificate is missing or not known
    Unauthorized = "unauthorized", Operator, false;
    /// there is no such thing
    NotFound = "not_found", Operator, false;
    /// the state of the node does not allow this
    Conflict = "conflict", Operator, false;

    // Registration
    /// the public area of the EK is not a supported endorsement key
    EkTemplate = "ek_template", Node, false;
    /// the EK is an RSA key that can be factored
    EkWeak = "ek_weak", Operator, false;
    /// the EK certificate is not for this EK
    EkCertificateMismatch = "ek_certificate_mismatch", Node, false;
    /// the EK certificate could not be read
    EkCertificateMalformed = "ek_certificate_malformed", Node, false;
    /// the EK certificate does not lead to a trusted root
    EkUntrusted = "ek_untrusted", Operator, false;
    /// the TPM has no EK certificate
    EkCertificateMissing = "ek_certificate_missing", Operator, false;
    /// the AK is not the key that the AK template makes
    AkTemplate = "ak_template", Node, false;
    /// the SRK is not the key that the SRK template makes
    SrkTemplate = "srk_template", Node, false;
    /// the AK did not certify this SRK
    Certification = "certification", Node, false;
    /// another AK is registered for this EK
    AkChanged = "ak_changed", Node, false;
    /// the SRK changed since the enrollment
    SrkChanged = "srk_changed", Operator, false;
    /// the credential was not activated by the TPM that was registered
    Activation = "activation", Node, false;

    // Enrollment
    /// the node is not registered
    UnknownNode = "unknown_node", Operator, false;
    /// the node is registered, but no tenant has enrolled it yet
    NotEnrolled = "not_enrolled", Operator, false;
    /// the node has not finished its enrollment
    EnrollmentOpen = "enrollment_open", Operator, false;
    /// the enrollment was already used; it takes a new one
    EnrollmentUsed = "enrollment_used", Operator, false;
    /// the proof is not that of the enrolled key
    Proof = "proof", Node, false;
    /// the enrollment is not signed by the tenant key, or is for something else
    EnrollmentSignature = "enrollment_signature", Operator, false;

    // The quote, in the order of the checks
    /// the nonce is not one of this verifier's, or for another node or purpose
    NonceForeign = "nonce_foreign", Node, false;
    /// the nonce is too old
    NonceExpired = "nonce_expired", Node, true;
    /// the quote is not signed by the AK
    Signature = "signature", Node, false;
    /// the signed structure is not a TPM-generated quote
    NotAQuote = "not_a_quote", Node, false;
    /// the quote is for other qualifying data
    QualifyingData = "qualifying_data", Node, false;
    /// the quote does not cover PCR 0 to 15 of the enrolled bank
    PcrSelection = "pcr_selection", Node, false;
    /// the PCR values are not those of the quote
    PcrDigest = "pcr_digest", Node, true;
    /// the bank is not the enrolled one, or the firmware did not extend it
    Bank = "bank", Node, false;
    /// the quote is not newer than the last accepted one
    Stale = "stale", Node, true;
    /// the counters of the TPM went backwards: a restored snapshot
    CounterRollback = "counter_rollback", Operator, false;
    /// an event log could not be read
    LogMalformed = "log_malformed", Node, false;
    /// an event log does not replay to the quoted PCRs
    LogReplay = "log_replay", Node, false;
    /// the boot is over: the fence was already extended
    FenceExtended = "fence_extended", Node, false;
    /// the node is revoked
    Revoked = "revoked", Operator, false;
    /// an operator holds this node: it boots with its passphrase
    Held = "held", Operator, false;
    /// no policy governs this node
    NoPolicy = "no_policy", Operator, false;
    /// what was booted is not what the policy allows
    PolicyMismatch = "policy_mismatch", Policy, false;
    /// an operator denied this boot
    OperatorDenied = "operator_denied", Operator, false;

    // Policies
    /// the document is not signed by the tenant key, or is for something else
    PolicySignature = "policy_signature", Operator, false;
    /// the policy could not be read
    PolicyMalformed = "policy_malformed", Operator, false;
    /// the policy allows more than any policy may
    PolicyFloor = "policy_floor", Operator, false;
    /// the document is not the next one of this deployment's sequence
    Sequence = "sequence", Operator, false;
    /// the document is for another deployment
    Deployment = "deployment", Operator, false;
    /// the server's database is older than what it has answered before
    RolledBack = "rolled_back", Operator, false;

    // Proposals
    /// the proposal could not be read
    ProposalMalformed = "proposal_malformed", Node, false;
    /// the node proposes from a boot that was not opened by attestation
    ProposalUnattested = "proposal_unattested", Node, false;
    /// no rule accepts the proposal: it waits for an operator
    ProposalWaits = "proposal_waits", Operator, false;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_are_unique_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
    }

    #[test]
    fn docs_list_every_reason() {
        let docs = include_str!("../../docs/protocol.md");
        for reason in Reason::ALL {
            let row = format!(
                "| `{}` | {} | {} | {} |",
                reason.code(),
                format!("{:?}", reason.fault()).to_lowercase(),
                if reason.retry() { "yes" } else { "no" },
                reason.summary()
            );
            assert!(docs.contains(&row), "docs/protocol.md lacks the row\n{row}");
        }
    }
}
