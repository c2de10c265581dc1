//! `halfkey policy explain`, `learn` and `test` of boots of each kind: what they say is what the verifier does.

use halfkey_testkit::replay::{self, Machine, ReplayedBoot};

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
    let other = boot.clone().with_other_image();
    let named = ["33333333", "pcr 4"];
    machine.denied(&other, "policy_mismatch", &named);
    let (code, said) = machine.policy(&["explain", &id]);
    println!("{said}");
    assert!(code == 1 && said.contains("33333333"), "{said}");
    let (code, said) = machine.policy(&["test", file, "--against", &id]);
    println!("{said}");
    assert!(code == 1 && said.contains("would be denied"), "{said}");
    // The boot before it is explained as it was.
    let evidence = machine.lab.tenant.evidence(&id).unwrap().evidence;
    let released = evidence.iter().find(|one| one.outcome == "released").unwrap().id.to_string();
    let (code, said) = machine.policy(&["explain", &id, "--boot", &released]);
    assert_eq!(code, 0, "{said}");
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
fn shim_and_grub() {
    is_explained(&replay::shim_and_grub(), &[]);
}

#[test]
fn grub() {
    is_explained(&replay::grub(), &[]);
}
