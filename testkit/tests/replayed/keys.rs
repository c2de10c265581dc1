//! Firmware's vendor, or fwupd, adds a certificate to db or KEK.

use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::hex;
use halfkey_testkit::replay::{self, Machine, ReplayedBoot};
use halfkey_testkit::secure_boot::{self, certificate, certificate_list, update, verified_by};

const NAME: &str = "Example UEFI CA 2023";

/// `halfkey approve` with these flags does not let the boot be learned, and says this.
#[track_caller]
fn is_not_learned(machine: &mut Machine, boot: &ReplayedBoot, flags: &[&str], why: &str) {
    machine.denied(boot, "policy_mismatch", &[]);
    let (code, said) = machine.approve(flags);
    assert!(code == 1 && said.contains(why), "{said}");
}

/// It was denied, and is learned; these words are shown before it is signed.
#[track_caller]
fn is_learned(machine: &Machine, flags: &[&str], shown: &str) {
    let (code, said) = machine.approve(flags);
    assert!(code == 0 && said.contains(shown), "{said}");
}

#[test]
fn a_certificate_that_db_gains_is_learned_and_one_of_kek_predicted() {
    let boot = replay::uki_with_own_keys();
    let mut machine = Machine::that_learned(&boot, &[]);
    let new = certificate(NAME);
    let (lists, is) = (certificate_list(new.der()), hex(&Hash::Sha256.digest(&[new.der()])));
    let grown = boot.clone().with_keys("db", &lists);
    machine.denied(&grown, "policy_mismatch", &["pcr 7", "secure_boot.db", NAME, &is]);
    is_learned(&machine, &["--learn"], &is);
    machine.unlocks(&grown);
    machine.unlocks(&boot);
    // The platform key says who may change all of them.
    let taken = grown.clone().changed(|measured| secure_boot::change(measured, "PK", |value| *value = lists));
    is_not_learned(&mut machine, &taken, &["--learn"], "whoever has the platform key decides");

    let kek = certificate("Example KEK CA 2023");
    let lists = certificate_list(kek.der());
    let grown = grown.with_keys("KEK", &lists);
    machine.denied(&grown, "policy_mismatch", &["secure_boot.kek", "Example KEK CA 2023"]);
    let file = machine.lab.folder.join("KEKUpdate.bin");
    std::fs::write(&file, update(&lists)).unwrap();
    let id = machine.id.clone();
    let predict = ["predict", "--kek", file.to_str().unwrap(), "--node", &id, "--add", "--yes"];
    let (code, said) = machine.policy(&predict);
    assert!(code == 0 && said.contains("Example KEK CA 2023"), "{said}");
    machine.unlocks(&grown);
}

#[test]
fn what_a_new_certificate_has_verified_is_for_one_member() {
    let boot = replay::uki_with_own_keys();
    let mut machine = Machine::that_learned(&boot, &[]);
    let id = machine.id.clone();
    let file = machine.lab.folder.join("web.toml");
    let (code, said) = machine.policy(&["learn", &id, "-o", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let run = |machine: &Machine, args: &[&str]| {
        let (code, said) = machine.lab.tenant.try_run(args).unwrap();
        assert_eq!(code, 0, "{args:?}: {said}");
    };
    run(&machine, &["policy", "apply", file.to_str().unwrap(), "--group", "web", "--yes"]);
    run(&machine, &["group", "set", &id, "--group", "web"]);
    run(&machine, &["policy", "withdraw", &id, "--yes"]);
    machine.unlocks(&boot);

    let new = certificate(NAME);
    let verified = boot.clone().with_keys("db", &certificate_list(new.der())).changed(|measured| {
        let last = measured.iter().rposition(|record| record.pcr == 7).unwrap();
        measured.insert(last + 1, verified_by(new.der()));
    });
    let why = "it could verify something in any boot of every member";
    is_not_learned(&mut machine, &verified, &["--learn", "--for-group"], why);
    is_learned(&machine, &["--learn"], "warning: authorities: whatever its owner has signed may run");
    machine.unlocks(&verified);
    run(&machine, &["policy", "withdraw", &id, "--additions", "--yes"]);
    machine.denied(&verified, "policy_mismatch", &["secure_boot.db", NAME]);

    // For the group it is said by the operator, not by a boot.
    let file = machine.lab.folder.join("ca.der");
    std::fs::write(&file, new.der()).unwrap();
    let file = file.to_str().unwrap();
    run(&machine, &["policy", "predict", "--db", file, "--authority", "--group", "web", "--add", "--yes"]);
    machine.unlocks(&verified);
    machine.unlocks(&boot);
}
