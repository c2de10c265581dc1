//! What systemd measures in the initramfs before the agent runs: a boot of Debian testing, systemd 262.

use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::replay::{self, Machine, ReplayedBoot};

/// Systemd measures this as well, and its log has it with this text.
fn with(pcr: u8, measured: &str, text: &str) -> ReplayedBoot {
    let event = (pcr, Hash::Sha256.digest(&[measured.as_bytes()]), text.to_owned());
    replay::uki_with_systemd_262().with_systemd(|events| events.push(event))
}

/// Its stub adds a secret of the machine to the initrd, and that is the same in each boot.
#[test]
fn one_approval_is_for_all_boots_that_follow() {
    let boot = replay::uki_with_systemd_262();
    assert!(boot.systemd.iter().any(|(pcr, _, text)| (*pcr, &text[..]) == (9, "nvpcr-separator")));
    let mut machine = Machine::that_learned(&boot, &[]);
    for _ in 0..2 {
        machine.unlocks(&boot);
    }
    // NvPCRs that it has made in that boot; of 259 to 261, and of 262.
    for text in ["nvpcr-init:hardware:0x1d10200:sha256:de38", "nvpcr-init:cryptsetup:0x1d10201:000b57f6"] {
        machine.unlocks(&with(9, text, text));
    }
    // An initramfs without libtss2 measures nothing.
    machine.unlocks(&boot.clone().with_systemd(Vec::clear));
    machine.denied(&boot.with_other_image(), "policy_mismatch", &["pcr 4", &"33".repeat(32)]);
}

/// An initramfs that is another one can extend what it likes, and write the log.
#[test]
fn what_only_looks_like_a_boundary_is_denied() {
    let boot = replay::uki_with_systemd_262();
    let mut machine = Machine::that_learned(&boot, &[]);
    for (pcr, measured, text) in [
        // In another PCR than systemd measures it into.
        (8, "os-separator", "os-separator"),
        (11, "os-separator", "os-separator"),
        (12, "nvpcr-separator", "nvpcr-separator"),
        // By another name; or the name is right, and something else was measured.
        (12, "a command line", "a command line"),
        (12, "a command line", "os-separator"),
        (9, "an initrd", "nvpcr-init:hardware:0x1d10200:aa"),
        (9, "nvpcr-init:hardware:0x1d10200:", "nvpcr-init:hardware:0x1d10200:"),
        // Once more, or too early.
        (11, "enter-initrd", "enter-initrd"),
        (11, "leave-initrd", "leave-initrd"),
    ] {
        let place = format!("pcr {pcr}");
        machine.denied(&with(pcr, measured, text), "policy_mismatch", &[&place, "expected no such event"]);
    }
    // The initrd of the kernel in systemd's log, where its own measurement was of another one.
    let is_initrd = |record: &&mut halfkey_testkit::log::Record| {
        record.pcr == 9 && record.data.starts_with(&halfkey_testkit::log::tag::INITRD.to_le_bytes())
    };
    let mut good = Vec::new();
    let other = boot.clone().changed(|measured| {
        let record = measured.iter_mut().find(is_initrd).unwrap();
        good = std::mem::replace(&mut record.digest, vec![0x33; 32]);
    });
    let other = other.with_systemd(|events| events.insert(0, (9, good, "initrd".into())));
    machine.denied(&other, "policy_mismatch", &["initrd: expected sha256:"]);
    // What its log leaves out, or has besides.
    let separator = Hash::Sha256.digest(&[b"os-separator"]);
    machine.denied(&boot.clone().then(12, b"more"), "log_replay", &[]);
    machine.denied(
        &boot
            .with_systemd(|events| events.retain(|(_, digest, _)| *digest != separator))
            .then(9, b"os-separator"),
        "log_replay",
        &[],
    );
}
