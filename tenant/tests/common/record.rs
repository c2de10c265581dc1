//! What a server says of a node, for servers that are none.

use halfkey_protocol::Bytes;
use halfkey_protocol::wire::operator::{NodeRecord, NodeState, NodeSummary};
use halfkey_protocol::wire::{Enrollment, Register};

/// Enrolled, without anything that could be checked.
pub fn node(id: &str, label: &str) -> NodeRecord {
    let empty = Bytes(vec![]);
    NodeRecord {
        summary: NodeSummary {
            id: id.into(),
            label: label.into(),
            state: NodeState::Enrolled,
            pending: false,
            held: false,
            cloned: false,
            last_seen: 1,
            last_outcome: None,
            last_code: None,
        },
        registration: Some(Register {
            versions: vec![1],
            ek_public: empty.clone(),
            ek_certificate: None,
            ek_chain: vec![],
            ak_public: empty.clone(),
            srk_public: empty.clone(),
            certify_info: empty.clone(),
            certify_signature: empty,
            label: label.into(),
        }),
        challenge: vec![0x33; 32].into(),
        registered_at: 1,
        enrollment: None,
        open: None,
        pending: None,
        policy: None,
        revoked_because: None,
        held: None,
        tpm_firmware: None,
    }
}

/// An enrollment that says nothing.
pub fn enrollment(label: &str) -> Enrollment {
    let empty = Bytes::default;
    Enrollment {
        enrollment_id: String::new(),
        challenge: empty(),
        ek_name: empty(),
        ak_name: empty(),
        srk_name: empty(),
        c_u_sha256: empty(),
        c_v_sha256: empty(),
        release_public: empty(),
        bank: "sha256".into(),
        proof_sha256: empty(),
        ca: String::new(),
        servers: vec![],
        label: label.into(),
    }
}
