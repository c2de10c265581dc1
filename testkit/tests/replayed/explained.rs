//! `halfkey policy explain`, `learn` and `test` of boots of each kind: what they say is what the verifier does.

use halfkey_testkit::hex;
use halfkey_testkit::replay::{self, Machine, ReplayedBoot, kind};

/// Learned into a file, tried on what is stored, applied; then both a boot that is allowed and one that is not are explained.
#[track_caller]
fn is_explained(boot: &ReplayedBoot, flags: &[&str]) {
    let mut machine = Machine::enrolled();
    let id = machine.id.clone();
    let agent = machine.waits(boot);
    let file = machine.lab.folder.join("learned.toml");
    let file = file.to_str().unwrap();
    let (code, said) = machine.policy(&[&["learn", &id, "-o", file], flags].concat());
    assert_eq!(code, 0, "{said}");
    let (code, said) = machine.policy(&["test", file, "--against", &id]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = machine.policy(&["apply", file, "--node", &id, "--yes"]);
    assert_eq!(code, 0, "{said}");
    let unlocked = replay::Unlocked::from(agent.wait_with_output().unwrap());
    assert_eq!(unlocked.code, 0, "{}", unlocked.said);

    let (code, said) = machine.policy(&["explain", &id]);
    assert_eq!(code, 0, "{said}");
    machine.denied(&boot.clone().with_other_image(), "policy_mismatch", &["pcr 4", "33333333"]);
    let (code, said) = machine.policy(&["explain", &id]);
    let line = said.lines().find(|line| line.contains("sha256:33333333"));
    assert!(code == 1 && line.is_some_and(|line| line.ends_with("NO RULE")), "{said}");
    // The boot before it is explained as it was.
    let evidence = machine.lab.tenant.evidence(&id).unwrap().evidence;
    let released = evidence.iter().find(|one| one.outcome == "released").unwrap().id.to_string();
    let (code, said) = machine.policy(&["explain", &id, "--boot", &released]);
    assert!(code == 0 && !said.contains("NO RULE"), "{said}");
    // A policy that allows that image instead would deny what the machine boots.
    let image = boot.measured.iter().rfind(|record| record.kind == kind::APPLICATION).unwrap();
    let strict = std::fs::read_to_string(file).unwrap().replace(&hex(&image.digest), &"33".repeat(32));
    let file = machine.lab.folder.join("strict.toml");
    std::fs::write(&file, strict).unwrap();
    let (code, said) = machine.policy(&["test", file.to_str().unwrap(), "--against", &id]);
    assert!(code == 1 && said.contains("1 of 1 boots would be denied"), "{said}");
}

#[test]
fn a_uki() {
    is_explained(&replay::uki(), &[]);
}

#[test]
fn a_uki_with_keys_of_ones_own() {
    is_explained(&replay::uki_with_own_keys(), &[]);
}

#[test]
fn an_entry_of_systemd_boot() {
    is_explained(&replay::entry(), &["--kernel-measures-initrd"]);
}

#[test]
fn a_kernel_that_firmware_starts() {
    is_explained(&replay::kernel(), &["--kernel-measures-initrd"]);
}

#[test]
fn shim_and_grub() {
    is_explained(&replay::shim_and_grub(), &[]);
}

#[test]
fn grub() {
    is_explained(&replay::grub(), &[]);
}
