//! Register, enroll, unlock: the real programs against swtpm, LUKS2 and TLS, without a virtual machine.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use halfkey_protocol::wire::operator::NodeState;
use halfkey_testkit::local_lab::{LocalLab, text};
use halfkey_testkit::programs::Programs;
use halfkey_testkit::swtpm::Swtpm;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Node {
    inner: LocalLab,
    _folder: tempfile::TempDir,
}

impl Deref for Node {
    type Target = LocalLab;
    fn deref(&self) -> &LocalLab {
        &self.inner
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut LocalLab {
        &mut self.inner
    }
}

impl Node {
    /// Never registered.
    fn new() -> Self {
        let programs = Programs::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { inner: LocalLab::new(programs, folder.path()).unwrap(), _folder: folder }
    }

    /// Booted once with image `a`, and approved.
    fn approved(volumes: &[&str]) -> (Self, String) {
        let mut node = Self::new();
        for volume in volumes.iter().filter(|name| **name != "root") {
            node.volume(volume).unwrap();
        }
        let id = node.enroll(volumes).unwrap();
        node.power_on("a").unwrap();
        let child = node.unlock_that_waits(&id, volumes).unwrap();
        node.approve(&id, "--learn");
        succeeded(&child.wait_with_output().unwrap());
        (node, id)
    }

    fn approve(&self, id: &str, how: &str) {
        self.tenant.run(&["approve", id, "--yes", how]).unwrap();
    }

    /// `unlock` fails, and the verifier's record says why.
    fn refused(&self, id: &str, code: &str) {
        let output = self.unlock_now(&["root"]).unwrap();
        assert!(!output.status.success(), "{}", text(&output));
        let list = self.tenant.evidence(id).unwrap();
        assert_eq!(list.evidence[0].code.as_deref(), Some(code), "{}", text(&output));
    }

    fn unlocks(&self) {
        succeeded(&self.unlock_now(&["root"]).unwrap());
    }

    /// The agent waits for the tenant, then goes away.
    fn registered_and_interrupted(&self) -> String {
        let (mut child, id) = self.register(&["root"]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // /dev/tpmrm0 does this for a process that is gone; a bare swtpm does not.
        self.flush_tpm().unwrap();
        id
    }
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

fn failed(output: &Output, says: &str) {
    assert!(!output.status.success(), "{}", text(output));
    assert!(text(output).contains(says), "{}", text(output));
}

#[test]
fn from_registration_to_unattended_unlocking_and_revocation() {
    let (mut node, id) = Node::approved(&["root"]);
    assert_eq!(node.tenant.node(&id).unwrap().summary.state, NodeState::Enrolled);

    node.power_on("a").unwrap();
    let output = node.unlock_now(&["root"]).unwrap();
    succeeded(&output);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{report}");

    node.tenant.run(&["revoke", &id, "--because", "test"]).unwrap();
    node.refused(&id, "revoked");
    node.tenant.run(&["restore", &id, "--because", "test"]).unwrap();
    node.unlocks();
}

#[test]
fn another_image_is_denied_until_it_is_learned() {
    let (mut node, id) = Node::approved(&["root"]);
    node.power_on("b").unwrap();
    node.refused(&id, "policy_mismatch");
    node.approve(&id, "--learn");
    // The very boot that was approved, the next one of the same image, and one of what was learned first.
    node.unlocks();
    for image in ["b", "a"] {
        node.power_on(image).unwrap();
        node.unlocks();
    }
}

#[test]
fn an_image_can_take_the_place_of_another() {
    let (mut node, id) = Node::approved(&["root"]);
    node.power_on("b").unwrap();
    node.refused(&id, "policy_mismatch");
    node.approve(&id, "--replace");
    node.unlocks();
    node.power_on("a").unwrap();
    node.refused(&id, "policy_mismatch");
}

#[test]
fn an_approval_for_once_is_for_once() {
    let (mut node, id) = Node::approved(&["root"]);
    node.power_on("b").unwrap();
    node.refused(&id, "policy_mismatch");
    node.approve(&id, "--once");
    node.unlocks();
    node.refused(&id, "policy_mismatch");
    node.power_on("a").unwrap();
    node.unlocks();
}

#[test]
fn an_approval_is_for_one_physical_boot() {
    let (mut node, id) = Node::approved(&["root"]);
    node.power_on("b").unwrap();
    node.refused(&id, "policy_mismatch");
    node.approve(&id, "--once");
    node.power_on("b").unwrap();
    node.refused(&id, "policy_mismatch");
}

#[test]
fn a_denied_boot_stays_denied() {
    let (mut node, id) = Node::approved(&["root"]);
    node.power_on("b").unwrap();
    node.refused(&id, "policy_mismatch");
    node.tenant.run(&["deny", &id, "--because", "not ours"]).unwrap();
    node.refused(&id, "operator_denied");
}

#[test]
fn a_closed_fence_gets_nothing() {
    let (node, _) = Node::approved(&["root"]);
    succeeded(&node.agent(&["fence"]).output().unwrap());
    failed(&node.unlock_now(&["root"]).unwrap(), "PCR 15 is not zero");
    // Closing it twice changes nothing.
    succeeded(&node.agent(&["fence"]).output().unwrap());
}

#[test]
fn several_volumes_with_one_attestation() {
    let (node, id) = Node::approved(&["root", "data"]);
    let before = node.tenant.last_evidence(&id).unwrap();
    succeeded(&node.unlock_now(&["root", "data"]).unwrap());
    assert_eq!(node.tenant.last_evidence(&id).unwrap(), before + 1);
}

/// A chip takes a quarter of a second for each key that a boot has to make.
#[test]
fn keys_stay_in_the_tpm_if_there_is_room_for_them() {
    let steps = |node: &Node| {
        let report = node.unlock_now(&["root"]).unwrap();
        assert!(report.status.success(), "{}", text(&report));
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        let steps = report["steps"].as_array().unwrap().clone();
        steps.iter().filter(|step| step["what"] == "CreatePrimary").count()
    };
    let (node, _) = Node::approved(&["root"]);
    assert_eq!(steps(&node), 0);
    let kept = |node: &Node| node.tpm.tool("tpm2_getcap", &["handles-persistent"]).to_lowercase();
    assert!(kept(&node).contains("0x81000001") && kept(&node).contains("0x81018001"), "{}", kept(&node));
    // As docs/operations.md says.
    node.tpm.tool("tpm2_evictcontrol", &["-c", "0x81018001"]);
    assert!(!kept(&node).contains("0x81018001"));
    assert_eq!(steps(&node), 1, "it is made again");

    // Another's key is in the place of the SRK, as Windows and older tools put one there: it stays.
    let mut node = Node::new();
    node.tpm.tool("tpm2_createprimary", &["-Q", "-C", "o", "-G", "ecc384", "-c", "primary.ctx"]);
    node.tpm.tool("tpm2_evictcontrol", &["-Q", "-c", "primary.ctx", "0x81000001"]);
    node.flush_tpm().unwrap();
    let (child, id) = node.register(&["root"]).unwrap();
    node.tenant_enroll(&id).unwrap();
    let said = child.wait_with_output().unwrap();
    succeeded(&said);
    assert!(text(&said).contains("warning: the storage key is not kept in the TPM"), "{}", text(&said));
    node.power_on("a").unwrap();
    let agent = node.unlock_that_waits(&id, &["root"]).unwrap();
    node.tenant.run(&["approve", &id, "--yes"]).unwrap();
    succeeded(&agent.wait_with_output().unwrap());
    assert_eq!(steps(&node), 1);
}

#[test]
fn enrolling_can_be_interrupted_and_repeated() {
    let node = Node::new();
    let id = node.registered_and_interrupted();
    node.tenant_enroll(&id).unwrap();
    // Again, as an operator would: the same command.
    succeeded(&node.agent_enroll(&["root"]).unwrap().output().unwrap());
    assert_eq!(node.tenant.node(&id).unwrap().summary.state, NodeState::Enrolled);
    // The passphrase that was there still opens the volume.
    let mut test = Command::new("cryptsetup");
    test.args(["open", "--test-passphrase", "--key-file"]).arg(node.folder.join("passphrase"));
    succeeded(&test.arg(node.device("root")).output().unwrap());
}

/// Exit code 7 says that somebody has not come, and the last word says who.
#[test]
fn a_tenant_who_does_not_come_in_time_is_named() {
    let node = Node::new();
    let enroll = node.agent_enroll(&["root"]).unwrap();
    let mut short = Command::new(enroll.get_program());
    for arg in enroll.get_args() {
        // In place of its 120 seconds.
        short.arg(if arg == "120" { "3".as_ref() } else { arg });
    }
    let output = short.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(
        text(&output).contains("error: the tenant did not enroll this node in time"),
        "{}",
        text(&output)
    );
    assert!(text(&output).contains("waiting for the tenant, "), "{}", text(&output));
}

#[test]
fn the_wrong_tenant_key_is_refused_before_anything_is_written() {
    let node = Node::new();
    let before = std::fs::read(node.device("root")).unwrap();
    let id = node.registered_and_interrupted();
    node.tenant_enroll(&id).unwrap();
    let enroll = node.agent_enroll(&["root"]).unwrap();
    let mut other = Command::new(enroll.get_program());
    for arg in enroll.get_args() {
        let fingerprint = arg.to_string_lossy().starts_with("sha256:");
        other.arg(if fingerprint { format!("sha256:{}", "ab".repeat(32)).into() } else { arg.to_owned() });
    }
    failed(&other.stdin(Stdio::null()).output().unwrap(), "tenant");
    assert!(before == std::fs::read(node.device("root")).unwrap(), "the volume was touched");
}

#[test]
fn a_new_enrollment_replaces_the_old_one() {
    let (mut node, id) = Node::approved(&["root"]);
    node.register_anew(&id, &["root"]).unwrap();
    node.tenant_enroll(&id).unwrap();
    // Until the node has finished it, it boots as before.
    node.unlocks();
    succeeded(&node.agent_enroll(&["root"]).unwrap().output().unwrap());
    node.power_on("a").unwrap();
    node.unlocks();
}

#[test]
fn a_verifier_that_is_down_costs_no_more_than_the_deadline() {
    let (mut node, _) = Node::approved(&["root"]);
    node.inner.verifier.stop().unwrap();
    failed(&node.unlock(&["root"]).args(["--timeout", "3"]).output().unwrap(), "127.0.0.1");
}

#[test]
fn a_late_verifier_is_waited_for() {
    let (mut node, _) = Node::approved(&["root"]);
    node.inner.verifier.stop().unwrap();
    let child = start(&mut node.unlock(&["root"]));
    node.inner.verifier.start().unwrap();
    succeeded(&child.wait_with_output().unwrap());
}

#[test]
fn another_tpm_opens_nothing_and_the_attempt_is_on_record() {
    let (mut node, id) = Node::approved(&["root"]);
    // The volume moves to a machine with another TPM.
    let _mine = std::mem::replace(&mut node.tpm, Swtpm::start());
    node.power_on("a").unwrap();
    failed(&node.unlock_now(&["root"]).unwrap(), "hint:");
    let newest = &node.tenant.evidence(&id).unwrap().evidence[0];
    assert_eq!((newest.outcome.as_str(), newest.code.as_deref()), ("denied", Some("signature")));
}

/// More than `begin` takes with its handshake, and less than evidence.
const EVIDENCE: usize = 6000;

/// Passes on what is said to `server` and what it answers, but for its answer to the first evidence: that connection ends instead.
fn loses_one_answer(server: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = server.to_owned();
    std::thread::spawn(move || {
        for (number, machine) in listener.incoming().enumerate() {
            let (machine, server) = (machine.unwrap(), TcpStream::connect(&server).unwrap());
            let (from_machine, to_server) = (machine.try_clone().unwrap(), server.try_clone().unwrap());
            let sent = Arc::new(AtomicUsize::new(0));
            let count = sent.clone();
            std::thread::spawn(move || {
                pass(from_machine, to_server, |n| {
                    count.fetch_add(n, Ordering::SeqCst);
                    true
                });
            });
            std::thread::spawn(move || {
                pass(server, machine, |_| number > 0 || sent.load(Ordering::SeqCst) < EVIDENCE);
            });
        }
    });
    port
}

/// Until one side ends, or `go_on` says no to what came.
fn pass(mut from: TcpStream, mut to: TcpStream, go_on: impl Fn(usize) -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(n) = from.read(&mut bytes) {
        if n == 0 || !go_on(n) || to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// The machine asks again, and is released again: it is still one machine.
#[test]
fn an_answer_that_gets_lost_is_not_a_second_machine() {
    let (mut node, id) = Node::approved(&["root"]);
    node.power_on("a").unwrap();
    let server = node.verifier.local_url().replace("https://", "");
    let relay = format!("127.0.0.1:{}", loses_one_answer(&server));
    let through = "set -e
        cryptsetup token export --token-id 0 \"$1\" | sed \"s/$2/$3/\" >\"$1.token\"
        cryptsetup token remove --token-id 0 \"$1\"
        cryptsetup token import --token-id 0 --json-file \"$1.token\" \"$1\"";
    let mut edit = Command::new("sh");
    edit.args(["-c", through, "sh"]).arg(node.device("root")).args([&server, &relay]);
    succeeded(&edit.output().unwrap());

    let before = node.tenant.last_evidence(&id).unwrap();
    node.unlocks();
    let evidence = node.tenant.evidence(&id).unwrap().evidence;
    let released = evidence.iter().filter(|one| one.id > before && one.outcome == "released").count();
    assert_eq!(released, 2, "the answer to the first was lost");
    assert!(!node.tenant.node(&id).unwrap().summary.cloned);
}
