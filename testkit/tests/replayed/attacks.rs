//! What an attacker makes of a boot, and where no virtual machine of the lab comes to such a boot, or not in a minute.

use halfkey_evidence::eventlog::replay as replay_log;
use halfkey_evidence::policy::{Assured, Claims, learn};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::log::{Record, log_of};
use halfkey_testkit::replay::{self, Machine, kind};

/// Secure Boot is off, so firmware starts the option ROM of any card that somebody plugs in: before everything else.
#[test]
fn an_option_rom_that_no_rule_explains_is_denied() {
    let mut machine = Machine::that_learned(&replay::uki(), &[]);
    let (measured, line) = (log_of(&replay::uki().measured), replay::uki().command_line);
    let log = replay_log(&measured, PcrBank::Sha256).unwrap().assume().unwrap();
    let claims = Claims { command_line: Some(line.as_bytes()) };
    let policy = learn(&log, &claims, Assured::default(), "learned", &[]).unwrap();
    let start = policy.find("pcr2 = [").unwrap();
    let end = start + policy[start..].find("]\n").unwrap() + 2;
    let ignored =
        format!("{}{}", &policy[..start], &policy[end..]).replace("ignore = [1,", "ignore = [1, 2,");
    let (code, said) = machine.apply(&ignored);

    let digest = halfkey_testkit::hex(&Hash::Sha256.digest(&[b"a rom"]));
    machine.denied(&replay::uki_behind_option_rom(b"a rom"), "policy_mismatch", &["pcr 2", &digest]);
    assert!(code != 0 && said.contains("pcr 2 can be ignored only with secure_boot.required"), "{said}");
}

/// `exit` at the prompt of GRUB, and the firmware goes on to a boot entry that starts the kernel.
#[test]
fn grub_that_was_left_is_no_part_of_the_path() {
    let mut machine = Machine::that_learned(&replay::shim_and_grub(), &[]);
    let left = replay::shim_and_grub().changed(|measured| {
        let kernel = measured.iter().rposition(|record| record.kind == kind::APPLICATION).unwrap();
        let returning = b"Returning from EFI Application from Boot Option";
        measured.insert(kernel, Record::of(4, kind::ACTION, returning));
    });
    machine.denied(&left, "policy_mismatch", &["came back to the firmware"]);
}

/// The kernel of Debian 12 does not measure an initrd that its command line names: whoever knows that says nothing, and no
/// policy comes of such a boot.
#[test]
fn an_entry_is_not_learned_without_the_operators_word() {
    let mut machine = Machine::enrolled();
    for _ in 0..2 {
        let agent = machine.waits(&replay::entry());
        let (code, said) = machine.approve(&["--learn"]);
        assert!(
            code != 0 && said.contains("kernel_measures_initrd = true, a uki, or the events of grub"),
            "{said}"
        );
        assert!(said.contains("hint: boot a uki"), "{said}");
        // Approved for once it is unlocked; the next boot waits again.
        let (code, said) = machine.approve(&["--once"]);
        assert_eq!(code, 0, "{said}");
        let said = replay::Unlocked::from(agent.wait_with_output().unwrap());
        assert_eq!(said.code, 0, "{}", said.said);
    }
    let scope = format!("node:{}", machine.id);
    let (code, said) = machine.lab.tenant.try_run(&["policy", "show", &scope]).unwrap();
    assert!(code != 0, "a policy that nobody could have made:\n{said}");
}
