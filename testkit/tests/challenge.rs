//! The node's challenge: only an enrollment that was signed for this run of `enroll` is taken.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use halfkey_protocol::wire::operator::NodeState;
use halfkey_testkit::local_lab::{LocalLab, text};
use halfkey_testkit::programs::Programs;
use halfkey_testkit::tenant::Tenant;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

struct Machine {
    lab: LocalLab,
    id: String,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// Registered; the agent that waited for the tenant was ended.
    fn registered() -> Self {
        let programs = Programs::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lab = LocalLab::new(programs, folder.path()).unwrap();
        let (mut child, id) = lab.register(&["root"]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        lab.flush_tpm().unwrap();
        Self { lab, id, _folder: folder }
    }

    fn enroll(&self) -> Output {
        self.lab.agent_enroll(&["root"]).unwrap().output().unwrap()
    }

    fn tenant_enrolls(&self) {
        self.lab.tenant_enroll(&self.id).unwrap();
    }

    /// The verifier as it is now, before the proof deletes C_U.
    fn keep(&mut self) {
        self.lab.verifier.stop().unwrap();
        for file in STATE {
            let path = self.lab.verifier.state().join(file);
            fs::copy(&path, path.with_extension("kept")).unwrap();
        }
        self.lab.verifier.start().unwrap();
    }

    fn put_back(&mut self) {
        self.lab.verifier.stop().unwrap();
        for file in STATE {
            let path = self.lab.verifier.state().join(file);
            fs::copy(path.with_extension("kept"), &path).unwrap();
        }
        self.lab.verifier.start().unwrap();
    }

    fn unbind(&self) {
        let mut unbind = self.lab.agent(&["unbind", "--key-file"]);
        unbind.arg(self.lab.folder.join("passphrase")).arg(self.lab.device("root"));
        succeeded(&unbind.output().unwrap());
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

/// What a verifier goes by: whoever owns it whole can put back all of it.
const STATE: [&str; 2] = ["halfkey.db", "sequence.state"];

/// Halves of an enrollment of before may be in other hands by now, and the disk without a token does not remember it.
#[test]
fn an_enrollment_of_before_is_not_taken_when_it_is_served_again() {
    let mut machine = Machine::registered();
    machine.tenant_enrolls();
    machine.keep();
    succeeded(&machine.enroll());
    machine.unbind();
    let before = fs::read(machine.lab.device("root")).unwrap();
    machine.put_back();
    let output = machine.enroll();
    assert!(!output.status.success(), "the old enrollment was taken:\n{}", text(&output));
    let said = text(&output);
    assert!(said.contains("another challenge") && said.contains("halfkey enroll"), "{said}");
    assert!(before == fs::read(machine.lab.device("root")).unwrap(), "the volume was touched");
    // The tenant's new one is.
    machine.tenant_enrolls();
    succeeded(&machine.enroll());
}

#[test]
fn a_run_that_was_ended_goes_on_with_its_challenge_and_the_next_enrollment_has_another() {
    let machine = Machine::registered();
    let file = machine.lab.challenge(&machine.id);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read(&file).unwrap();
    assert_eq!(*machine.lab.tenant.node(&machine.id).unwrap().challenge, first);
    machine.tenant_enrolls();
    succeeded(&machine.enroll());
    assert!(!file.exists(), "it is kept until the enrollment is done");
    // Enrolling again begins at the machine.
    let used = machine.enroll();
    assert!(!used.status.success() && text(&used).contains("halfkey enroll"), "{}", text(&used));
    let second = fs::read(&file).unwrap();
    assert_ne!(first, second);
    assert_eq!(*machine.lab.tenant.node(&machine.id).unwrap().challenge, second);
    machine.tenant_enrolls();
    succeeded(&machine.enroll());
    assert!(!file.exists());
    assert_eq!(machine.lab.tenant.node(&machine.id).unwrap().summary.state, NodeState::Enrolled);
}

/// The tenant enrolled, and the machine registered anew: another run of `enroll`, or its file is lost.
#[test]
fn the_enrollment_of_another_run_is_refused_with_what_to_do() {
    let machine = Machine::registered();
    machine.tenant_enrolls();
    fs::remove_file(machine.lab.challenge(&machine.id)).unwrap();
    let refused = text(&machine.enroll());
    assert!(refused.contains("another challenge"), "{refused}");
    assert!(refused.contains("halfkey enroll"), "{refused}");
    machine.tenant_enrolls();
    succeeded(&machine.enroll());
}

/// Any operator can leave an enrollment with a K of his own. That the machine came across it must not pass for its word.
#[test]
fn another_operators_enrollment_is_refused_and_the_machine_stays_its_tenants() {
    let machine = Machine::registered();
    machine.tenant_enrolls();
    succeeded(&machine.enroll());
    machine.lab.register_anew(&machine.id, &["root"]).unwrap();
    let (programs, roots) = (Programs::find().unwrap(), machine.lab.tpm.ca());
    let bob = Tenant::login(&programs, &machine.lab.verifier, &machine.lab.folder.join("bob")).unwrap();
    bob.run(&["enroll", &machine.id, "--yes", "--ek-roots", roots.to_str().unwrap()]).unwrap();
    let before = fs::read(machine.lab.device("root")).unwrap();
    for _ in 0..2 {
        let output = machine.enroll();
        let said = text(&output);
        assert!(!output.status.success() && said.contains("another tenant key"), "{said}");
        for key in [bob.key().unwrap(), machine.lab.tenant.key().unwrap()] {
            assert!(said.contains(&key), "{said}");
        }
        assert!(before == fs::read(machine.lab.device("root")).unwrap(), "the volume was touched");
    }
    // The verifier gave nothing out.
    let last = machine.lab.tenant.last_evidence(&machine.id).unwrap();
    let record = machine.lab.tenant.record(last).unwrap();
    assert_eq!((record.summary.purpose.as_str(), record.summary.outcome.as_str()), ("enroll", "denied"));
    machine.tenant_enrolls();
    succeeded(&machine.enroll());
}

#[test]
fn unbinding_gives_an_enrollment_up() {
    let machine = Machine::registered();
    machine.tenant_enrolls();
    succeeded(&machine.enroll());
    machine.enroll();
    let file = machine.lab.challenge(&machine.id);
    assert!(file.exists());
    machine.unbind();
    assert!(!file.exists());
}
