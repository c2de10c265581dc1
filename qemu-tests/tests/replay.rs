//! `halfkey-replay` on boots that were recorded.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::hex;
use halfkey_testkit::programs::tree;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Exit code and all that it said.
fn replay(args: &[&Path]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_halfkey-replay")).args(args).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), said)
}

/// A record of systemd's log.
fn phase(pcr: u8, word: &str) -> String {
    let digest = hex(&Hash::Sha256.digest(&[word.as_bytes()]));
    format!(
        "\x1e{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\
         \"content_type\":\"systemd\",\"content\":{{\"string\":\"{word}\",\"eventType\":\"phase\"}}}}\n"
    )
}

#[test]
fn a_boot_is_learned_and_another_is_held_against_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, boot) in [("web", "uki-no-secure-boot"), ("other", "uki-secure-boot-own-keys")] {
        for ending in ["bin", "cmdline"] {
            let boot = tree().join("testkit/boots").join(boot).with_extension(ending);
            fs::copy(boot, path(name).with_extension(ending)).unwrap();
        }
    }
    // Taken from the running system: what came after the initramfs is not replayed.
    let log = phase(11, "enter-initrd") + &phase(11, "leave-initrd") + &phase(15, "machine-id:x");
    fs::write(path("web.tpm2-measure.log"), log).unwrap();

    let (code, said) = replay(&[&path("web.bin")]);
    assert!(code == 0 && said.ends_with("\nreleased\n"), "{said}");
    assert!(said.contains("enter-initrd") && !said.contains("leave-initrd"), "{said}");
    let policy = said.split("\nthe policy:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let policy: String = policy.lines().map(|line| line[4..].to_owned() + "\n").collect();
    fs::write(path("policy.toml"), policy).unwrap();

    let policy = ["--policy".as_ref(), &*path("policy.toml")];
    let (code, said) = replay(&[&policy[..], &[&path("web.bin")]].concat());
    assert!(code == 0 && said.ends_with("\nreleased\n"), "{said}");
    let (code, said) = replay(&[&policy[..], &[&path("other.bin")]].concat());
    assert!(code == 1 && said.ends_with("\nnot released\n"), "{said}");
    assert!(said.contains("NO RULE") && said.contains("policy_mismatch"), "{said}");
}

#[test]
fn what_is_no_log_is_refused_with_a_hint() {
    let (code, said) = replay(&[&tree().join("README.md")]);
    assert!(code == 2 && said.starts_with("error: ") && said.contains("is no firmware event log"), "{said}");
    assert!(said.contains("\nhint: copy /sys/kernel/security/tpm0/binary_bios_measurements"), "{said}");
    let (code, said) = replay(&[]);
    assert!(code == 2 && said.contains("\nhint: halfkey-replay --help"), "{said}");
}
