//! Each kind of machine: its first boot waits and is learned, the next is unlocked with nobody there, another image is denied by
//! name.

use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::replay::{self, Machine, ReplayedBoot};

/// Learned with these flags of `halfkey approve`; the denial of another image says this.
#[track_caller]
fn is_learned(boot: &ReplayedBoot, flags: &[&str], named: &[&str]) -> Machine {
    let mut machine = Machine::that_learned(boot, flags);
    machine.denied(&boot.clone().with_other_image(), "policy_mismatch", named);
    machine.unlocks(boot);
    machine
}

/// The digest that [`ReplayedBoot::with_other_image`] puts in.
fn other() -> String {
    "33".repeat(32)
}

#[test]
fn a_uki_that_firmware_starts() {
    is_learned(&replay::uki(), &[], &["pcr 4", &other()]);
}

#[test]
fn a_uki_that_systemd_boot_starts() {
    let machine = is_learned(&replay::uki_by_systemd_boot(), &[], &["pcr 4", &other()]);
    // Without systemd-boot before it, it is another boot.
    let mut machine = machine;
    machine.denied(&replay::uki(), "policy_mismatch", &[]);
}

#[test]
fn an_entry_of_systemd_boot_with_a_kernel_that_measures_its_initrd() {
    is_learned(&replay::entry(), &["--kernel-measures-initrd"], &["pcr 4", &other()]);
}

#[test]
fn a_kernel_that_firmware_starts() {
    is_learned(&replay::kernel(), &["--kernel-measures-initrd"], &["pcr 4", &other()]);
}

#[test]
fn shim_and_grub_with_secure_boot() {
    is_learned(&replay::shim_and_grub(), &[], &["pcr 4", &other()]);
}

#[test]
fn grub_without_secure_boot() {
    is_learned(&replay::grub(), &[], &["pcr 4", &other()]);
}

#[test]
fn a_uki_with_secure_boot_and_keys_of_ones_own() {
    let boot = replay::uki_with_own_keys();
    let mut machine = is_learned(&boot, &[], &["pcr 4", &other()]);
    // Secure Boot was switched off: the same image, other variables.
    let off = replay::uki();
    let variable = |record: &&halfkey_testkit::log::Record| record.kind == replay::kind::VARIABLE;
    let off = off.measured.iter().find(variable).unwrap().clone();
    let unsigned = boot.changed(|measured| {
        *measured.iter_mut().find(|record| record.kind == replay::kind::VARIABLE).unwrap() = off;
    });
    machine.denied(&unsigned, "policy_mismatch", &["pcr 7"]);
}

#[test]
fn an_option_rom_without_secure_boot() {
    let boot = replay::uki_behind_option_rom(b"a network card");
    let mut machine = Machine::that_learned(&boot, &[]);
    let digest = halfkey_testkit::hex(&Hash::Sha256.digest(&[b"another card"]));
    machine.denied(&replay::uki_behind_option_rom(b"another card"), "policy_mismatch", &["pcr 2", &digest]);
    // The card was taken out: what it measured is missing, which opens nothing for anybody.
    machine.boots(&replay::uki());
    machine.unlocks(&boot);
}

/// Enrolled for that bank, quoted and replayed in it. The recorded logs do not have the SHA-384 digest of the command line, so
/// nothing is learned from this.
#[test]
fn a_tpm_with_sha_384_only() {
    let boot = replay::uki().in_banks(&[PcrBank::Sha384]);
    let mut machine = Machine::with_bank(PcrBank::Sha384);
    let agent = machine.waits(&boot);
    assert_eq!(machine.reason().as_deref(), Some("no_policy"));
    let (code, said) = machine.approve(&["--once"]);
    assert_eq!(code, 0, "{said}");
    let unlocked = replay::Unlocked::from(agent.wait_with_output().unwrap());
    assert_eq!(unlocked.code, 0, "{}", unlocked.said);
    // What is measured besides is not in the log.
    machine.denied(&boot.then(9, b"an initrd"), "log_replay", &[]);
}

/// A firmware update, or its setup, took the bank away that the machine was enrolled for.
#[test]
fn a_bank_that_was_switched_off_is_named() {
    let mut machine = Machine::that_learned(&replay::uki(), &[]);
    machine.lab.tpm.allocate_banks("sha1:none+sha256:none+sha384:all");
    let unlocked = machine.boots(&replay::uki().in_banks(&[PcrBank::Sha384]));
    assert_eq!(unlocked.code, 4, "{}", unlocked.said);
    assert!(unlocked.said.contains("the TPM's PCR bank sha256 is not active"), "{}", unlocked.said);
}

#[test]
fn two_volumes_are_opened_by_one_release() {
    let boot = replay::uki();
    let mut machine = Machine::with_volumes(&["root", "data"]);
    machine.learns(&boot, &[]);
    let unlocked = machine.boots(&boot);
    assert_eq!(unlocked.code, 0, "{}", unlocked.said);
    let report = unlocked.said;
    for volume in ["root", "data"] {
        assert!(report.contains(&format!("{volume}.luks")), "{volume}: {report}");
    }
}
