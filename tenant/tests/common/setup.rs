//! A verifier, an operator's workstation and a machine.

use super::Desk;
use super::log::Boot;
use super::node::Node;
use super::verifier::Verifier;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::policies::PolicyList;
use halfkey_testkit::tpm::{RSA_2048, Tpm};

pub const CMDLINE: &str = "root=/dev/mapper/root quiet efi=noruntime systemd.import_credentials=no";

/// Any PE image will do as a kernel.
pub const KERNEL: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// A verifier, a desk and a machine that is enrolled.
pub struct Setup {
    pub verifier: Verifier,
    pub desk: Desk,
    pub tpm: Tpm,
    pub id: String,
}

/// A machine, enrolled.
pub fn enrolled(verifier: &Verifier, desk: &Desk, label: &str) -> Tpm {
    let tpm = Tpm::new(RSA_2048);
    verifier.register(&tpm);
    tpm.reset();
    for (pcr, digest) in Boot::new("6.0", CMDLINE).measure().0 {
        tpm.extend(pcr, &[(PcrBank::Sha256, digest)]);
    }
    let id = tpm.node_id().to_string();
    desk.ok(&["enroll", &id, "--trust-ek", &tpm.fingerprint(), "--yes", "--label", label]);
    Node { tpm: &tpm, verifier }.finish_enrollment(desk);
    tpm
}

impl Setup {
    pub fn new() -> Self {
        let verifier = Verifier::start();
        let desk = Desk::logged_in(&verifier.file("operator-alice.bundle"));
        let tpm = enrolled(&verifier, &desk, "web1");
        let id = tpm.node_id().to_string();
        Self { verifier, desk, tpm, id }
    }

    pub fn node(&self) -> Node<'_> {
        Node { tpm: &self.tpm, verifier: &self.verifier }
    }

    /// Boots, and says `outcome code`.
    pub fn boot(&self, boot: &Boot) -> String {
        said(&self.node().boot(boot))
    }

    pub fn policies(&self) -> Vec<(String, u64)> {
        let list: PolicyList = json(&self.desk.ok(&["policy", "list", "--json"]).stdout);
        list.policies.into_iter().map(|policy| (policy.scope, policy.version)).collect()
    }

    pub fn path(&self, name: &str) -> String {
        self.desk.path(name).to_str().unwrap().to_owned()
    }
}

pub fn said(verdict: &halfkey_protocol::wire::Verdict) -> String {
    let code = verdict.code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
    format!("{}{code}", verdict.outcome)
}

pub fn json<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
