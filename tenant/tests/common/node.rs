//! A machine: a TPM, and what its agent says to the verifier.

use super::Desk;
use super::log::Boot;
use super::verifier::{CHALLENGE, Verifier};
use halfkey_protocol::keys::hpke::Ephemeral;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::name;
use halfkey_protocol::tpm::qualifying_data::{QualifyingData, Wanted};
use halfkey_protocol::wire::*;
use halfkey_protocol::{Bytes, Half, Key, identity};
use halfkey_testkit::tpm::Tpm;

/// SHA-256(r): what the fence is extended with. The verifier never sees r.
const R_SHA256: [u8; 32] = [6; 32];

pub struct Node<'a> {
    pub tpm: &'a Tpm,
    pub verifier: &'a Verifier,
}

/// What a quote is for.
struct Ask<'a> {
    purpose: &'a str,
    ephemeral: Option<&'a Ephemeral>,
    nonce_tpm: &'a [u8],
    purpose_data: &'a [u8],
    boot: Option<&'a Boot>,
}

impl Node<'_> {
    fn id(&self) -> String {
        self.tpm.node_id().to_string()
    }

    fn evidence(&self, ask: &Ask<'_>) -> (Evidence, [u8; 32]) {
        let begin = Begin {
            versions: vec![1],
            node_id: self.id(),
            purpose: ask.purpose.to_owned(),
            enrollments: vec![],
        };
        let begun: Begun = self.verifier.post("/v1/begin", &begin);
        let hpke_public = ask.ephemeral.map_or(vec![], |ephemeral| ephemeral.public.to_vec());
        let digest = QualifyingData {
            version: begun.version,
            node: &self.tpm.node_id().0,
            purpose: Purpose::parse(ask.purpose).unwrap(),
            nonce: &begun.nonce,
            hpke_public: &hpke_public,
            nonce_tpm: ask.nonce_tpm,
            srk_name: &name::object_name(&self.tpm.register.srk_public).unwrap(),
            purpose_data: ask.purpose_data,
        }
        .digest();
        let (quote, signature) = self.tpm.quote(PcrBank::Sha256, &digest);
        let evidence = Evidence {
            version: begun.version,
            node_id: self.id(),
            purpose: ask.purpose.to_owned(),
            nonce: begun.nonce,
            hpke_public: hpke_public.into(),
            nonce_tpm: ask.nonce_tpm.into(),
            purpose_data: ask.purpose_data.into(),
            quote: quote.into(),
            signature: signature.into(),
            bank: "sha256".into(),
            pcrs: self.tpm.pcrs(PcrBank::Sha256),
            event_log: ask.boot.map(|boot| boot.measure().1.into()),
            systemd_log: None,
            ima_log: None,
            command_line: ask.boot.map(|boot| Bytes::from(boot.cmdline.as_bytes())),
            agent: "test".into(),
        };
        (evidence, digest)
    }

    /// The machine's side of an enrollment by this desk.
    pub fn finish_enrollment(&self, desk: &Desk) {
        let ephemeral = Ephemeral::generate();
        let tenant_key = identity::read_fingerprint(desk.ok(&["key"]).stdout.trim()).unwrap();
        let wanted = Wanted { tenant_key, challenge: CHALLENGE }.bytes();
        let ask = Ask {
            purpose: "enroll",
            ephemeral: Some(&ephemeral),
            nonce_tpm: &[],
            purpose_data: &wanted,
            boot: None,
        };
        let (evidence, aad) = self.evidence(&ask);
        let verdict: Verdict = self.verifier.post("/v1/finish", &evidence);
        let released = ephemeral.open(verdict.sealed.as_ref().expect("released"), &aad).unwrap();
        let mut u = self.tpm.activate_with_ek(released.c_u.as_ref().unwrap());
        let mut v = self.tpm.activate_with_srk(&released.c_v);
        let key = Key::combine(&Half::take(&mut u).unwrap(), &Half::take(&mut v).unwrap());
        let document: Document = serde_json::from_slice(&verdict.enrollment.unwrap().document).unwrap();
        let document: Enrollment = serde_json::from_str(&document.body).unwrap();
        let proof = key.proof().into();
        let prove = Prove { node_id: self.id(), enrollment_id: document.enrollment_id, proof };
        let _: Proved = self.verifier.post("/v1/prove", &prove);
    }

    /// Power on, firmware, kernel, agent; the fence is extended if the disk was opened.
    pub fn boot(&self, boot: &Boot) -> Verdict {
        self.tpm.reset();
        for (pcr, digest) in boot.measure().0 {
            self.tpm.extend(pcr, &[(PcrBank::Sha256, digest)]);
        }
        self.ask_again(boot)
    }

    /// The same boot asks once more, as when an operator has decided.
    pub fn ask_again(&self, boot: &Boot) -> Verdict {
        let ephemeral = Ephemeral::generate();
        let ask = Ask {
            purpose: "boot",
            ephemeral: Some(&ephemeral),
            nonce_tpm: &[4; 32],
            purpose_data: &R_SHA256,
            boot: Some(boot),
        };
        let verdict: Verdict = self.verifier.post("/v1/finish", &self.evidence(&ask).0);
        if verdict.outcome == "released" {
            self.tpm.extend(15, &[(PcrBank::Sha256, R_SHA256.to_vec())]);
        }
        verdict
    }

    /// In the running system: what will be booted next.
    pub fn propose(&self, proposal: &Proposal) -> Proposed {
        let proposal = serde_json::to_vec(proposal).unwrap();
        let purpose_data = Hash::Sha256.digest(&[&proposal]);
        let ask = Ask {
            purpose: "propose",
            ephemeral: None,
            nonce_tpm: &[],
            purpose_data: &purpose_data,
            boot: None,
        };
        let evidence = self.evidence(&ask).0;
        self.verifier.post("/v1/propose", &Propose { evidence, proposal: proposal.into() })
    }
}
