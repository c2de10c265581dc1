//! A machine that talks to the real verifier.

use super::Workstation;
use super::verifier::Verifier;
use halfkey_protocol::identity;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::{Proposal, Proposed, Proved, Verdict};
use halfkey_testkit::node::{Session, SimulatedNode, enrollment_of};
use halfkey_testkit::software::Software;

/// What a machine boots whose firmware is measured as well.
pub fn software(version: &str, command_line: &str) -> Software {
    Software::new(version, command_line).on_firmware(&Hash::Sha256.digest(&[b"firmware"]))
}

pub struct Node<'a> {
    pub machine: &'a SimulatedNode,
    pub verifier: &'a Verifier,
}

impl Node<'_> {
    fn begin(&self, purpose: &str, tenant_key: &[u8; 32]) -> Session {
        let begun = self.verifier.post("/v1/begin", &self.machine.begin(purpose, &[]));
        self.machine.session(purpose, begun, tenant_key)
    }

    /// The machine's side of an enrollment by this workstation.
    pub fn finish_enrollment(&self, workstation: &Workstation) {
        let tenant_key = identity::read_fingerprint(workstation.ok(&["key"]).stdout.trim()).unwrap();
        let session = self.begin("enroll", &tenant_key);
        let verdict: Verdict = self.verifier.post("/v1/finish", &self.machine.evidence("enroll", &session));
        let key = self.machine.key(&self.machine.open("enroll", &session, &verdict));
        let prove = self.machine.proves(&enrollment_of(&verdict).enrollment_id, &key);
        let _: Proved = self.verifier.post("/v1/prove", &prove);
    }

    /// Power on, firmware, kernel, agent; the fence is extended if the disk was opened.
    pub fn boot(&self, software: &Software) -> Verdict {
        self.machine.reboot_into(software);
        self.ask_again()
    }

    /// The same boot asks once more, as when an operator has decided.
    pub fn ask_again(&self) -> Verdict {
        let session = self.begin("boot", &[0; 32]);
        let verdict: Verdict = self.verifier.post("/v1/finish", &self.machine.evidence("boot", &session));
        if verdict.outcome == "released" {
            self.machine.received(&session, &verdict);
            self.machine.open_fence();
        }
        verdict
    }

    /// In the running system: what will be booted next.
    pub fn propose(&self, proposal: &Proposal) -> Proposed {
        let session = self.begin("propose", &[0; 32]);
        let proposal = serde_json::to_vec(proposal).unwrap();
        self.verifier.post("/v1/propose", &self.machine.proposes(session, proposal))
    }
}
