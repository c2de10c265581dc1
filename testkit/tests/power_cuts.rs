//! Enrolling and enrolling again, ended at each step: the machine boots as before or asks for the old passphrase, and the next
//! run finishes the work.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use halfkey_protocol::wire::operator::NodeState;
use halfkey_testkit::local_lab::{LocalLab, text};
use halfkey_testkit::programs::Programs;
use halfkey_testkit::tenant::Tenant;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

const VOLUMES: &[&str] = &["root", "data"];
const CRYPTSETUP: &str = "/usr/sbin/cryptsetup";

/// Stands before cryptsetup in the machine's mount namespace. Counts what writes, and at one step ends the agent, as a power cut
/// would, or fails, or lets something else happen.
const WRAPPER: &str = r#"#!/bin/sh
cd FOLDER
case "$1" in
token | luksAddKey | luksKillSlot) ;;
*) exec ./cryptsetup.real "$@" ;;
esac
step=$(($(cat steps) + 1))
echo $step >steps
cut=$(cat cut)
if [ "$cut" = "$step before" ]; then
    kill -9 $PPID
    exit 1
elif [ "$cut" = "$step fail" ]; then
    echo "no space left on device" >&2
    exit 1
fi
./cryptsetup.real "$@"
code=$?
[ "$cut" = "$step after" ] && kill -9 $PPID
[ "$cut" = "$step then" ] && sh ./then >then.log 2>&1
exit $code
"#;

struct Machine {
    lab: LocalLab,
    id: String,
    _folder: tempfile::TempDir,
}

/// How a run of `enroll` ended.
#[derive(Debug, PartialEq)]
enum End {
    Done,
    Cut,
    Failed(String),
}

impl Machine {
    /// Registered, with two volumes.
    fn new() -> Self {
        let programs = Programs::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lab = LocalLab::new(programs, folder.path()).unwrap();
        lab.volume("data").unwrap();
        fs::copy(CRYPTSETUP, folder.path().join("cryptsetup.real")).unwrap();
        let wrapper = folder.path().join("cryptsetup");
        fs::write(&wrapper, WRAPPER.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("steps"), "0").unwrap();
        fs::write(folder.path().join("cut"), "").unwrap();
        lab.interpose(Path::new(CRYPTSETUP), &wrapper).unwrap();
        let (mut child, id) = lab.register(VOLUMES).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        lab.flush_tpm().unwrap();
        Self { lab, id, _folder: folder }
    }

    /// The same, enrolled, and its image approved.
    fn in_use() -> Self {
        let mut machine = Self::new();
        machine.lab.tenant_enroll(&machine.id).unwrap();
        assert_eq!(machine.enroll(""), End::Done);
        machine.lab.power_on("a").unwrap();
        let child = machine.lab.unlock_that_waits(&machine.id, VOLUMES).unwrap();
        machine.lab.tenant.run(&["approve", &machine.id, "--yes", "--learn"]).unwrap();
        succeeded(&child.wait_with_output().unwrap());
        machine
    }

    /// From the machine to the workstation; what was left half done keeps its challenge.
    fn tenant_enrolls_again(&self) {
        self.lab.register_anew(&self.id, VOLUMES).unwrap();
        self.lab.tenant_enroll(&self.id).unwrap();
    }

    /// `halfkey-agent enroll`, with what happens at which step.
    fn enroll(&self, cut: &str) -> End {
        fs::write(self.lab.folder.join("steps"), "0").unwrap();
        fs::write(self.lab.folder.join("cut"), cut).unwrap();
        let output = self.lab.agent_enroll(VOLUMES).unwrap().output().unwrap();
        fs::write(self.lab.folder.join("cut"), "").unwrap();
        match (output.status.signal(), output.status.success()) {
            (Some(9), _) => End::Cut,
            (None, true) => End::Done,
            _ => End::Failed(text(&output)),
        }
    }

    /// Off and on again; what `unlock` makes of it.
    fn boot(&mut self) -> Output {
        self.lab.power_on("a").unwrap();
        // swtpm gives three tries, and each power cut after the EK was used is one. Real TPMs give 32.
        let mut clear = Command::new("tpm2_dictionarylockout");
        succeeded(&clear.arg("--clear-lockout").env("TPM2TOOLS_TCTI", self.lab.tpm.tcti()).output().unwrap());
        self.lab.unlock_now(VOLUMES).unwrap()
    }

    fn opens_by_passphrase(&self) {
        for name in VOLUMES {
            let mut test = Command::new("cryptsetup");
            test.args(["open", "--test-passphrase", "--key-file"]).arg(self.lab.folder.join("passphrase"));
            succeeded(&test.arg(self.lab.device(name)).output().unwrap());
        }
    }

    /// Numbers of tokens and keyslots of a volume.
    fn left(&self, name: &str) -> (usize, usize) {
        let mut dump = Command::new("cryptsetup");
        let output =
            dump.args(["luksDump", "--dump-json-metadata"]).arg(self.lab.device(name)).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |field: &str| json[field].as_object().unwrap().len();
        (count("tokens"), count("keyslots"))
    }

    /// Nothing but the one enrollment and the passphrase.
    fn is_clean(&self) {
        for name in VOLUMES {
            assert_eq!(self.left(name), (1, 2), "{name}");
        }
        self.opens_by_passphrase();
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[test]
fn a_first_enrollment_can_end_at_any_step() {
    let mut machine = Machine::new();
    let mut step = 1;
    loop {
        machine.lab.tenant_enroll(&machine.id).unwrap();
        match machine.enroll(&format!("{step} after")) {
            End::Cut => {}
            End::Done => break,
            End::Failed(why) => panic!("step {step}: {why}"),
        }
        // In the same boot nothing but the passphrase; and after a reboot as well.
        machine.opens_by_passphrase();
        let output = machine.boot();
        assert!(!output.status.success(), "step {step}: {}", text(&output));
        machine.opens_by_passphrase();
        step += 1;
    }
    assert!(step > 6, "only {step} steps");
    machine.is_clean();
    assert_eq!(machine.lab.tenant.node(&machine.id).unwrap().summary.state, NodeState::Enrolled);
}

#[test]
fn enrolling_again_can_end_at_any_step_and_the_machine_still_unlocks() {
    let mut machine = Machine::in_use();
    let mut step = 1;
    loop {
        machine.tenant_enrolls_again();
        let end = machine.enroll(&format!("{step} after"));
        let output = machine.boot();
        assert!(output.status.success(), "step {step}, {end:?}: {}", text(&output));
        match end {
            End::Cut => step += 1,
            End::Done => break,
            End::Failed(why) => panic!("step {step}: {why}"),
        }
    }
    assert!(step > 10, "only {step} steps");
    machine.is_clean();
}

#[test]
fn one_volume_bound_and_the_other_not_leaves_the_old_enrollment_in_use() {
    let mut machine = Machine::in_use();
    machine.tenant_enrolls_again();
    // Token, keyslot and token of the first; then the keyslot of the second.
    let End::Failed(why) = machine.enroll("5 fail") else { panic!("it did not fail") };
    assert!(why.contains("no space left on device"), "{why}");
    assert_eq!(machine.left("root"), (2, 3), "the first has both");
    succeeded(&machine.boot());
    // The tenant enrolls once more, and it is finished.
    machine.tenant_enrolls_again();
    assert_eq!(machine.enroll(""), End::Done);
    machine.is_clean();
    succeeded(&machine.boot());
}

#[test]
fn the_same_run_again_in_the_same_boot_takes_up_what_was_left() {
    let mut machine = Machine::in_use();
    machine.tenant_enrolls_again();
    let End::Failed(_) = machine.enroll("5 fail") else { panic!("it did not fail") };
    assert_eq!(machine.enroll(""), End::Done);
    machine.is_clean();
    succeeded(&machine.boot());
}

/// Whoever renews K because somebody had root must not read that it is done when it is not.
#[test]
fn a_renewal_that_was_cut_short_is_not_said_to_be_done() {
    let mut machine = Machine::in_use();
    machine.tenant_enrolls_again();
    assert_eq!(machine.enroll("1 after"), End::Cut);
    succeeded(&machine.boot());
    // C_U was given out in the boot before, and is not again.
    let End::Failed(why) = machine.enroll("") else { panic!("enrolled without a proof") };
    assert!(why.contains("enrollment_used"), "{why}");
    // The tenant comes once more, and not twice.
    machine.lab.tenant_enroll(&machine.id).unwrap();
    assert_eq!(machine.enroll(""), End::Done);
    machine.is_clean();
    succeeded(&machine.boot());
}

#[test]
fn a_proof_that_is_refused_is_made_by_the_next_run() {
    let machine = Machine::new();
    machine.lab.tenant_enroll(&machine.id).unwrap();
    let (folder, tenant) = (&machine.lab.folder, Programs::find().unwrap().tenant);
    let revoke = format!(
        "'{}' --home '{}/workstation' revoke {} --because x",
        tenant.display(),
        folder.display(),
        machine.id
    );
    fs::write(folder.join("then"), revoke).unwrap();
    // Six writes bind both volumes; the proof comes after them.
    let End::Failed(why) = machine.enroll("6 then") else { panic!("it did not fail") };
    assert!(why.contains("revoked"), "{why}{}", fs::read_to_string(folder.join("then.log")).unwrap());
    machine.opens_by_passphrase();
    machine.lab.tenant.run(&["restore", &machine.id, "--because", "x"]).unwrap();
    // What it had made for this enrollment it still has: the tenant need not come again.
    assert_eq!(machine.enroll(""), End::Done);
    machine.is_clean();
    assert_eq!(machine.lab.tenant.node(&machine.id).unwrap().summary.state, NodeState::Enrolled);
}

#[test]
fn a_keyslot_that_does_not_open_is_not_sealed() {
    let machine = Machine::new();
    machine.lab.tenant_enroll(&machine.id).unwrap();
    let device = machine.lab.device("root");
    let device = device.display();
    let other = format!(
        "./cryptsetup.real luksKillSlot --batch-mode --key-file passphrase {device} 1 && echo other | \
         ./cryptsetup.real luksAddKey --batch-mode --key-file passphrase --key-slot 1 --pbkdf pbkdf2 \
         --pbkdf-force-iterations 1000 {device} -"
    );
    fs::write(machine.lab.folder.join("then"), other).unwrap();
    // Token, then the keyslot: it holds another key than the one that was written.
    let End::Failed(why) = machine.enroll("2 then") else { panic!("it did not fail") };
    let log = fs::read_to_string(machine.lab.folder.join("then.log")).unwrap();
    assert!(why.contains("does not open with its key"), "{why}{log}");
    assert_eq!(machine.enroll(""), End::Done);
    machine.is_clean();
}

#[test]
fn what_was_to_be_removed_after_the_proof_is_removed_by_the_next_run() {
    let mut machine = Machine::in_use();
    machine.tenant_enrolls_again();
    // Six writes bind both volumes; the seventh would be the first removal.
    assert_eq!(machine.enroll("7 before"), End::Cut);
    for name in VOLUMES {
        assert_eq!(machine.left(name), (2, 3), "{name}");
    }
    succeeded(&machine.boot());
    // Without the tenant: there is nothing to enroll any more.
    assert_eq!(machine.enroll(""), End::Done);
    machine.is_clean();
    succeeded(&machine.boot());
    // And once more there is nothing to do, which is said.
    let End::Failed(why) = machine.enroll("") else { panic!("enrolled twice") };
    assert!(why.contains("enrollment_used") || why.contains("already used"), "{why}");
}

/// What another operator left open meanwhile can't be finished by this machine, and keeps it from nothing.
#[test]
fn what_was_to_be_removed_is_removed_beside_another_operators_enrollment() {
    let mut machine = Machine::in_use();
    machine.tenant_enrolls_again();
    assert_eq!(machine.enroll("7 before"), End::Cut);
    let lab = &machine.lab;
    let bob = Tenant::login(&Programs::find().unwrap(), &lab.verifier, &lab.folder.join("bob")).unwrap();
    let roots = lab.tpm.ca();
    bob.run(&["enroll", &machine.id, "--yes", "--ek-roots", roots.to_str().unwrap()]).unwrap();
    succeeded(&machine.boot());
    assert_eq!(machine.enroll(""), End::Done);
    machine.is_clean();
    let End::Failed(why) = machine.enroll("") else { panic!("enrolled by another tenant") };
    assert!(why.contains("another tenant key"), "{why}");
    succeeded(&machine.boot());
}
