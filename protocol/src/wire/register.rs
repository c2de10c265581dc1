//! Registration: node -> registrar.

use super::declare::wire;
use super::sealed::Credential;
use crate::Bytes;

wire! {
    /// A node introduces its TPM.
    pub struct Register {
        /// Protocol versions that the agent speaks, best first.
        pub versions: Vec<u32>,
        /// `TPMT_PUBLIC` of the EK.
        pub ek_public: Bytes,
        /// EK certificate, DER, if the TPM has one.
        pub ek_certificate: Option<Bytes>,
        /// Intermediate certificates found in the TPM, DER each.
        pub ek_chain: Vec<Bytes>,
        /// `TPMT_PUBLIC` of the AK.
        pub ak_public: Bytes,
        /// `TPMT_PUBLIC` of the SRK.
        pub srk_public: Bytes,
        /// `TPMS_ATTEST` of TPM2_Certify(SRK by AK), with empty qualifying data.
        pub certify_info: Bytes,
        /// `TPMT_SIGNATURE` over it.
        pub certify_signature: Bytes,
        /// Suggested label: the host name. Only a label.
        pub label: String,
    }

    /// The registrar's challenge.
    pub struct Registered {
        /// Protocol version that the server chose.
        pub version: u32,
        /// The node's id, derived from the EK's name; the agent derives it itself and compares.
        pub node_id: String,
        /// MakeCredential(EK, name(AK), secret).
        pub credential: Credential,
        /// When and for what the secret was made. It says nothing to the node, which sends it back: the registrar keeps nothing
        /// until then.
        pub state: Bytes,
    }

    /// The node activated the credential.
    pub struct Activate {
        /// The registration again, just as it was sent.
        pub register: Register,
        /// [`Registered::state`].
        pub state: Bytes,
        /// 32 random bytes that the node made for this enrollment and keeps until it is done. The tenant signs the newest that
        /// was activated, so that an enrollment of before is not taken.
        pub challenge: Bytes,
        /// HMAC-SHA256(secret, label || node id || challenge): [`crate::keys::half::activation_proof`].
        pub proof: Bytes,
    }

    /// The AK is bound to the EK.
    pub struct Activated {
        /// Node id.
        pub node_id: String,
    }
}
