//! Logs that are not what the TPM says, and measurements that no log has.

use halfkey_evidence::ima::IMA_PCR;
use halfkey_testkit::replay::{self, Machine};

fn machine() -> Machine {
    Machine::that_learned(&replay::uki(), &[])
}

#[test]
fn a_log_of_tpm_1_2_explains_nothing() {
    machine().denied(&replay::uki().with_log_of_1_2(), "log_replay", &[]);
}

#[test]
fn a_log_that_is_not_there_explains_nothing() {
    let unlocked = machine().denied(&replay::uki().with_log(|_| None), "policy_mismatch", &[]);
    assert!(unlocked.said.contains("hint:"), "{}", unlocked.said);
}

/// Firmware ends its log where its memory ends; an attacker where it suits.
#[test]
fn a_log_that_was_cut_is_refused() {
    let mut machine = machine();
    for keep in [1, 3] {
        let cut = replay::uki().with_log(|log| Some(log[..log.len() * keep / 4].to_vec()));
        machine.denied(&cut, "log_malformed", &[]);
    }
    // At the end of an event it is well formed, and is not what the TPM says.
    let boot = replay::uki();
    let mut shorter = boot.measured.clone();
    shorter.pop();
    let log = halfkey_testkit::log::write(&shorter, &boot.banks);
    machine.denied(&boot.with_log(|_| Some(log)), "log_replay", &[]);
}

#[test]
fn a_log_that_was_damaged_is_refused() {
    let mut machine = machine();
    let digest = replay::uki().measured.last().unwrap().digest.clone();
    let damaged = replay::uki().with_log(|mut log| {
        let at = log.windows(digest.len()).position(|window| window == digest).unwrap();
        log[at] ^= 1;
        Some(log)
    });
    machine.denied(&damaged, "log_replay", &[]);
}

/// IMA extends PCR 10 with what is executed: never the same twice.
#[test]
fn pcr_10_moves_and_a_boot_is_still_the_same() {
    let ima = |file: &str| replay::uki().then(IMA_PCR, file.as_bytes());
    let mut machine = Machine::enrolled();
    let mut agent = machine.waits(&ima("first"));
    agent.kill().unwrap();
    agent.wait().unwrap();
    machine.lab.flush_tpm().unwrap();
    // IMA goes on while an operator looks at the boot.
    machine.lab.tpm.measure(10, b"a file that was run");
    let (code, said) = machine.approve(&["--once"]);
    assert_eq!(code, 0, "{said}");
    let unlocked = machine.unlock();
    assert_eq!(unlocked.code, 0, "{}", unlocked.said);
    machine.learns(&ima("first"), &[]);
    machine.unlocks(&ima("second"));
    machine.unlocks(&ima("third"));
    // Any other PCR of firmware and loaders does not move without a word in the log.
    machine.denied(&replay::uki().then(9, b"an initrd"), "log_replay", &[]);
}

/// After kexec the log is that of the boot before, and so is what the TPM says; but that boot has closed its fence.
#[test]
fn a_kernel_that_was_started_by_kexec_gets_nothing() {
    let mut machine = machine();
    machine.lab.tpm.measure(15, halfkey_protocol::keys::label::FENCE_CLOSED);
    let unlocked = machine.unlock();
    assert_ne!(unlocked.code, 0, "{}", unlocked.said);
    // The log of the boot before, and the TPM was reset in between.
    let log = replay::uki().log;
    let other = replay::uki().with_other_image().with_log(|_| log);
    machine.denied(&other, "log_replay", &[]);
    machine.unlocks(&replay::uki());
}

#[test]
fn another_command_line_than_was_measured_is_denied() {
    let boot = replay::entry();
    let mut machine = Machine::that_learned(&boot, &["--kernel-measures-initrd"]);
    machine.denied(&boot.with_option("init=/bin/sh"), "policy_mismatch", &["init=/bin/sh"]);
}

/// A copy of an old state of the TPM is put back, as a virtual machine's can be.
#[test]
fn counters_that_go_back_release_nothing() {
    let mut machine = machine();
    let mut old = machine.lab.tpm.copied();
    for _ in 0..3 {
        machine.unlocks(&replay::uki());
    }
    std::mem::swap(&mut machine.lab.tpm, &mut old);
    old.power_off();
    let mut agent = machine.waits(&replay::uki());
    assert_eq!(machine.reason().as_deref(), Some("counter_rollback"));
    // The counters can't be approved; an operator can only take the waiting boot away.
    let (code, said) = machine.approve(&["--once"]);
    assert!(code != 0 && said.contains("approvable no"), "{said}");
    agent.kill().unwrap();
    agent.wait().unwrap();
}
