//! What a machine proposes for its next boot waits, is accepted, and is booted with nobody there.

use halfkey_protocol::wire::policies::ProposalRecord;
use halfkey_testkit::hex;
use halfkey_testkit::replay::{self, Machine, ReplayedBoot};
use halfkey_testkit::uki::{self, STUB};

/// Files of the next boot.
struct Next(tempfile::TempDir);

impl Next {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A path in its folder; the file has this content.
    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn uki(&self, command_line: &str, initrd: &[u8]) -> String {
        let path = self.0.path().join("next.efi");
        uki::make(&path, command_line, initrd);
        path.to_str().unwrap().to_owned()
    }
}

/// It learned this boot, and runs.
fn in_use(boot: &ReplayedBoot, flags: &[&str]) -> Machine {
    let machine = Machine::that_learned(boot, flags);
    machine.opens();
    machine
}

/// It is denied until an operator accepts it. Then it is unlocked, and so is what was learned before; another image is not.
#[track_caller]
fn is_accepted(machine: &mut Machine, boot: &ReplayedBoot, proposal: &ProposalRecord, options: &[&str]) {
    let next = boot.clone().proposed(&proposal.proposal);
    let image = hex(&proposal.proposal.images[0].authenticode);
    machine.denied(&next, "policy_mismatch", &["pcr 4", &image]);
    let (code, said) = machine.accept_saying(proposal, options);
    assert_eq!(code, 0, "{said}");
    machine.unlocks(&next);
    machine.denied(&next.clone().with_other_image(), "policy_mismatch", &["pcr 4"]);
    machine.unlocks(boot);
    machine.unlocks(&next);
}

#[test]
fn the_next_uki_is_accepted() {
    for boot in [replay::uki(), replay::uki_by_systemd_boot(), replay::uki_with_own_keys()] {
        let mut machine = in_use(&boot, &[]);
        let files = Next::new();
        let image = files.uki(&boot.command_line, b"the next initramfs");
        let proposal = machine.proposes(&["--uki", &image]);
        is_accepted(&mut machine, &boot, &proposal, &[]);
    }
}

#[test]
fn the_next_kernel_is_accepted() {
    for boot in [replay::entry(), replay::kernel()] {
        let mut machine = in_use(&boot, &["--kernel-measures-initrd"]);
        let files = Next::new();
        let initrd = files.file("initrd", b"the next initramfs");
        let args = ["--kernel", STUB, "--initrd", &initrd, "--cmdline", &boot.command_line];
        let proposal = machine.proposes(&args);
        // The image says no release, so what is said of the kernel that runs does not hold for it.
        let (code, said) = machine.accept(&proposal);
        assert!(code != 0 && said.contains("--kernel-measures-initrd"), "{said}");
        is_accepted(&mut machine, &boot, &proposal, &["--kernel-measures-initrd"]);
        // The kernel and command line that were accepted, with an initrd that was not.
        let other = hex(&[0x44; 32]);
        let mut evil = proposal.proposal;
        evil.initrd = Some(vec![0x44; 32].into());
        machine.denied(&boot.proposed(&evil), "policy_mismatch", &["pcr 9", &other]);
    }
}

/// What it already boots needs nobody.
#[test]
fn what_the_policy_accepts_is_accepted_at_once() {
    let boot = replay::entry();
    let machine = in_use(&boot, &["--kernel-measures-initrd"]);
    let files = Next::new();
    let initrd = files.file("initrd", b"the next initramfs");
    let args = ["--kernel", STUB, "--initrd", &initrd, "--cmdline", &boot.command_line];
    let proposal = machine.proposes(&args);
    let (code, said) = machine.accept_saying(&proposal, &["--kernel-measures-initrd"]);
    assert_eq!(code, 0, "{said}");
    let again = machine.propose(&args);
    assert_eq!(again.code, 0, "{}", again.said);
}

/// A command line that the policy forbids is no better for being proposed.
#[test]
fn a_forbidden_command_line_is_not_accepted() {
    let boot = replay::uki();
    let machine = in_use(&boot, &[]);
    let files = Next::new();
    let image = files.uki(&format!("{} init=/bin/sh", boot.command_line), b"the next initramfs");
    let proposal = machine.proposes(&["--uki", &image]);
    let (code, said) = machine.accept(&proposal);
    assert!(code != 0 && said.contains("init=/bin/sh"), "{said}");
}

/// GRUB measures its own commands in PCR 8: no proposal foretells them. It is booted once, and learned.
#[test]
fn the_next_kernel_of_grub_is_learned() {
    let boot = replay::shim_and_grub();
    let mut machine = in_use(&boot, &[]);
    let files = Next::new();
    let initrd = files.file("initrd", b"the next initramfs");
    let args = ["--kernel", STUB, "--initrd", &initrd, "--cmdline", &boot.command_line];
    let proposal = machine.proposes(&args);
    assert!(proposal.message.starts_with("known once it was booted"), "{}", proposal.message);
    let loader = proposal.proposal.loader.as_ref().unwrap();
    assert_eq!(loader.name, "grub");
    let (code, said) = machine.accept(&proposal);
    assert!(code != 0 && said.contains("grub does") && said.contains("boot it once, and"), "{said}");
    let again = machine.propose(&args);
    for part in ["is announced", "known once it was booted", "GRUB measures each command and file of its own"]
    {
        assert!(again.code == 7 && again.said.contains(part), "{part}: {}", again.said);
    }
    let next = boot.clone().with_other_image();
    machine.denied(&next, "policy_mismatch", &["pcr 4"]);
    // The recorded boot has another kernel than the files that were announced.
    let (code, said) = machine.approve(&["--learn"]);
    assert_eq!(code, 0, "{said}");
    let expected = format!("this boot has not the files of proposal {} (", proposal.id);
    assert!(said.contains(&expected) && said.contains("no event of pcr 9 with it"), "{said}");
    machine.unlocks(&next);
    machine.unlocks(&boot);
}

/// Somebody typed the passphrase, so nobody attested what runs.
#[test]
fn a_boot_that_was_not_attested_proposes_nothing() {
    let boot = replay::uki();
    let mut machine = Machine::that_learned(&boot, &[]);
    let files = Next::new();
    let image = files.uki(&boot.command_line, b"the next initramfs");
    for closed in [false, true] {
        machine.power_on(&boot);
        if closed {
            machine.lab.tpm.measure(15, halfkey_protocol::keys::label::FENCE_CLOSED);
        }
        let ended = machine.propose(&["--uki", &image]);
        assert!(ended.code == 6 && ended.said.contains("proposal_unattested"), "{}", ended.said);
    }
    assert!(machine.lab.tenant.proposals(true).unwrap().is_empty());
}
