//! A verifier, an operator's workstation and a machine.

use super::Workstation;
use super::node::{Node, software};
use super::verifier::Verifier;
use halfkey_protocol::wire::policies::PolicyList;
use halfkey_testkit::node::SimulatedNode;
use halfkey_testkit::software::Software;
use halfkey_testkit::tpm::{RSA_2048, Tpm};

pub const CMDLINE: &str = "root=/dev/mapper/root quiet efi=noruntime systemd.import_credentials=no";

/// Any PE image will do as a kernel.
pub const KERNEL: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// A verifier, a workstation and a machine that is enrolled.
pub struct Setup {
    pub verifier: Verifier,
    pub workstation: Workstation,
    pub machine: SimulatedNode,
    pub id: String,
}

/// A machine, enrolled.
pub fn enrolled(verifier: &Verifier, workstation: &Workstation, label: &str) -> SimulatedNode {
    let machine = SimulatedNode::booted(Tpm::new(RSA_2048), &software("6.0", CMDLINE));
    verifier.register(&machine);
    let (id, fingerprint) = (machine.id.to_string(), machine.tpm.fingerprint());
    workstation.ok(&["enroll", &id, "--trust-ek", &fingerprint, "--yes", "--label", label]);
    Node { machine: &machine, verifier }.finish_enrollment(workstation);
    machine
}

impl Setup {
    pub fn new() -> Self {
        let verifier = Verifier::start();
        let workstation = Workstation::logged_in(&verifier.file("operator-alice.bundle"));
        let machine = enrolled(&verifier, &workstation, "web1");
        let id = machine.id.to_string();
        Self { verifier, workstation, machine, id }
    }

    pub fn node(&self) -> Node<'_> {
        Node { machine: &self.machine, verifier: &self.verifier }
    }

    /// Boots, and says `outcome code`.
    pub fn boot(&self, software: &Software) -> String {
        said(&self.node().boot(software))
    }

    pub fn policies(&self) -> Vec<(String, u64)> {
        let list: PolicyList = json(&self.workstation.ok(&["policy", "list", "--json"]).stdout);
        list.policies.into_iter().map(|policy| (policy.scope, policy.version)).collect()
    }

    pub fn path(&self, name: &str) -> String {
        self.workstation.path(name).to_str().unwrap().to_owned()
    }

    /// Learns a policy for web servers from web1's last boot; gives the file.
    pub fn learns_web(&self) -> String {
        let file = self.path("web.toml");
        let learn = ["policy", "learn", "web1", "--kernel-measures-initrd", "--name", "web servers", "-o"];
        self.workstation.ok(&[&learn[..], &[&file]].concat());
        file
    }
}

/// A machine in group web, with a policy that allows its boot; and one, in a file, that does not.
pub fn grouped() -> (Setup, Software, String) {
    let setup = Setup::new();
    let usual = software("6.1", CMDLINE);
    assert_eq!(setup.boot(&usual), "pending no_policy");
    let file = setup.learns_web();
    setup.workstation.ok(&["group", "set", "web1", "--group", "web"]);
    setup.workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    assert_eq!(said(&setup.node().ask_again()), "released");
    let strict = std::fs::read_to_string(&file).unwrap();
    let strict = strict.replace(&halfkey::render::text::hex(&usual.kernel), &"ab".repeat(32));
    let file = setup.path("strict.toml");
    std::fs::write(&file, strict).unwrap();
    (setup, usual, file)
}

pub fn said(verdict: &halfkey_protocol::wire::Verdict) -> String {
    let code = verdict.code.as_deref().map(|code| format!(" {code}")).unwrap_or_default();
    format!("{}{code}", verdict.outcome)
}

pub fn json<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
