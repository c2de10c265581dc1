//! `halfkey-agent propose` as a process: a real TPM, a real volume with a token, a real UKI, and a server that checks what
//! it is sent.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

mod common;
#[path = "common/proposing.rs"]
mod proposing;
#[path = "common/server.rs"]
mod server;
#[path = "common/volume.rs"]
mod volume;

use common::swtpm::Swtpm;
use halfkey_agent::fence;
use halfkey_measure::pe::Image;
use halfkey_protocol::Bytes;
use halfkey_protocol::keys::label;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::pki::Pki;
use halfkey_testkit::port::HeldPort;
use halfkey_testkit::uki::STUB;
use proposing::{Ended, Machine, Verifier, accepted, agent, refused};
use serde_json::{Value, json};
use server::{Answer, TestServer, ok};
use std::path::Path;
use volume::Volume;

#[test]
fn the_uki_of_a_kernel_is_measured_quoted_and_accepted() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let ended = machine.propose(&["--kernel-version", "6.1.0-56"]);
    assert_eq!(ended.out, "6.1.0-56 accepted (proposal 7): boot \"6.1.0-56\" by its hash\n", "{}", ended.err);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    let (proposal, _) = verifier.checked(&machine);
    let encoded = |digest: Vec<u8>| json!(Bytes(digest).encode());
    // In the enrolled bank, whatever bank is quoted.
    let sha384 = |bytes: &[u8]| encoded(Hash::Sha384.digest(&[bytes]));
    let image = |path: &Path| {
        let file = std::fs::read(path).unwrap();
        encoded(Image::parse(&file).unwrap().authenticode(Hash::Sha384))
    };
    assert_eq!((&proposal["name"], &proposal["bank"]), (&json!("6.1.0-56"), &json!("sha384")));
    assert_eq!(proposal["command_line"], "root=/dev/x quiet");
    assert_eq!(proposal["initrd"], sha384(b"an initramfs"));
    assert_eq!(proposal["images"][0]["authenticode"], image(&machine.uki()));
    assert_eq!(proposal["images"][1]["authenticode"], image(Path::new(STUB)));
    let sections: Vec<_> =
        proposal["sections"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(sections[..4], [".linux", ".osrel", ".cmdline", ".initrd"]);
    assert_eq!(proposal["sections"][2]["digest"], sha384(b"root=/dev/x quiet\n"));
}

#[test]
fn a_kernel_with_its_initrds_and_its_command_line() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let (osrel, initrd) = (machine.esp.path().join("osrel"), machine.esp.path().join("initrd"));
    let initrds = ["--initrd", osrel.to_str().unwrap(), "--initrd", initrd.to_str().unwrap()];
    let mut args = vec!["--kernel", STUB, "--cmdline", "root=/dev/y", "--json", "--name", "mine"];
    args.extend(initrds);
    let ended = machine.propose(&args);
    let (proposal, _) = verifier.checked(&machine);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, &report["proposal"]), (0, &proposal));
    assert_eq!(
        (&report["answer"]["proposal_id"], &report["server"]),
        (&json!(7), &json!(verifier.server.url()))
    );
    let digest = Hash::Sha384.digest(&[b"ID=halfkey-test\nan initramfs"]);
    assert_eq!(proposal["initrd"], Bytes(digest).encode());
    assert_eq!((&proposal["name"], &proposal["command_line"]), (&json!("mine"), &json!("root=/dev/y")));
    assert_eq!((&proposal["sections"], &proposal["images"][0]["role"]), (&json!([]), &json!("kernel")));
}

#[test]
fn what_waits_and_what_is_refused_has_its_exit_code_and_says_what_follows() {
    let waits = json!({"outcome": "waiting", "code": "proposal_waits", "message": "no rule accepts it", "proposal_id": 9,
        "hint": "halfkey proposal accept 9"});
    let verifier = Verifier::answering(&[waits, refused("proposal_unattested")]);
    let machine = verifier.machine();
    let ended = machine.propose(&["--uki", machine.uki().to_str().unwrap()]);
    let line = "tok-6.1.0-56.efi waits for an operator (proposal 9): no rule accepts it [proposal_waits]\n";
    assert_eq!((ended.code, ended.out.as_str()), (7, line));
    assert!(
        ended.err.contains("hint: halfkey proposal accept 9\n")
            && ended.err.contains("asks for the passphrase")
    );
    let ended = machine.propose(&["--kernel-version", "6.1.0-56"]);
    assert_eq!((ended.code, ended.out.as_str()), (6, "6.1.0-56 refused: no [proposal_unattested]\n"));
    assert!(ended.err.contains("hint: reboot\n"), "{}", ended.err);
    // A server that knows nothing of proposals, or of this node.
    let problem = json!({"code": "revoked", "message": "the node is revoked"});
    let verifier = Verifier::answering(&[problem]);
    let ended = verifier.machine().propose(&["--kernel-version", "6.1.0-56"]);
    assert_eq!((ended.code, ended.out.as_str()), (6, ""));
    assert!(ended.err.contains("revoked"), "{}", ended.err);
}

#[test]
fn the_quote_shows_the_fence_as_it_is() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let sha256 = |data: &[&[u8]]| Hash::Sha256.digest(data);
    let (r, mut value) = ([7; 32], vec![0; 32]);
    for (step, data) in [(0, &r[..]), (1, label::FENCE_PASSPHRASE)] {
        let mut tpm = machine.swtpm.open();
        if step == 0 {
            let window = fence::window(&mut tpm).unwrap();
            fence::extend_open(&mut tpm, window, data)
        } else {
            fence::extend(&mut tpm, data)
        }
        .unwrap();
        drop(tpm);
        value = sha256(&[&value, &sha256(&[data])]);
        assert_eq!(machine.propose(&["--kernel-version", "6.1.0-56"]).code, 0);
        assert_eq!(verifier.checked(&machine).1, value);
    }
}

#[test]
fn a_fresh_quote_is_sent_where_it_can_help_and_not_for_ever() {
    let verifier = Verifier::answering(&[refused("stale"), refused("nonce_expired"), accepted()]);
    let machine = verifier.machine();
    assert_eq!(machine.propose(&["--kernel-version", "6.1.0-56"]).code, 0);
    assert_eq!(verifier.proposed.lock().unwrap().len(), 3);
    let stubborn = Verifier::answering(&[refused("stale")]);
    assert_eq!(stubborn.machine().propose(&["--kernel-version", "6.1.0-56"]).code, 6);
    assert_eq!(stubborn.proposed.lock().unwrap().len(), 6);
}

#[test]
fn a_verifier_that_is_down_or_silent_costs_no_more_than_the_deadline() {
    let nobody = HeldPort::new();
    let pki = Pki::new();
    let silent = TestServer::start(&pki, "127.0.0.1", Answer::Silence);
    let foreign = TestServer::start(&pki, "127.0.0.1", ok(r#"{"hello": 1}"#));
    for url in [format!("https://127.0.0.1:{}", nobody.number()), silent.url(), foreign.url()] {
        let machine = Machine::enrolled_at(&url, &pki.ca_pem).with_uki();
        let ended = machine.propose(&["--kernel-version", "6.1.0-56", "--timeout", "2"]);
        assert_eq!((ended.code, ended.out.as_str()), (5, ""), "{url}: {}", ended.err);
        assert!(ended.err.contains("asks for the passphrase"), "{}", ended.err);
    }
}

#[test]
fn files_that_are_not_what_they_must_be_are_named() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let esp = machine.esp.path();
    let garbage = esp.join("osrel");
    let folder = esp.join("EFI");
    let fifo = esp.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (uki, gone) = (path(&machine.uki()), path(&esp.join("gone")));
    for (args, says) in [
        (vec!["--uki", &gone], "gone: No such file"),
        (vec!["--uki", &path(&folder)], "EFI: expected a regular file"),
        // Nobody writes into it: that is not waited for.
        (vec!["--uki", &path(&fifo)], "fifo: expected a regular file"),
        (vec!["--uki", &path(&garbage)], "osrel: the UKI: expected a PE image, found no MZ header"),
        (vec!["--uki", STUB], "expected a unified kernel image, found no section .linux"),
        (vec!["--kernel", &uki], "expected a kernel, found a unified kernel image"),
        (vec!["--kernel", STUB, "--initrd", &gone], "gone: No such file"),
        (vec!["--kernel", &path(&garbage)], "osrel: the kernel: expected a PE image"),
        (vec!["--kernel-version", "6.1.0-57"], "no kernel 6.1.0-57 is in "),
    ] {
        let ended = machine.propose(&args);
        assert_eq!(ended.code, 1, "{args:?}: {}", ended.err);
        assert!(ended.err.contains(says), "{args:?}: {}", ended.err);
    }
    assert_eq!(verifier.server.connections(), 0);
    // The machine has another TPM than the one that was enrolled.
    let other = Machine { swtpm: Swtpm::start(), ..machine };
    let ended = other.propose(&["--kernel-version", "6.1.0-56"]);
    assert_eq!(ended.code, 4, "{}", ended.err);
    assert!(verifier.proposed.lock().unwrap().is_empty());
}

#[test]
fn a_machine_that_is_not_enrolled_can_be_passed_over() {
    let swtpm = Swtpm::start();
    let volume = Volume::new();
    let device = volume.path().to_str().unwrap();
    let ended = agent(&swtpm, &["propose", "--device", device]);
    assert_eq!((ended.code, ended.out.as_str()), (3, ""));
    assert!(ended.err.contains("expected an enrolled volume"), "{}", ended.err);
    let ended = agent(&swtpm, &["propose", "--device", device, "--quiet-if-not-enrolled"]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "", ""));
}

#[test]
fn a_dry_run_asks_nobody() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let dry_run = |more: &[&str]| machine.propose(&[&["--dry-run"], more].concat());
    let report = |ended: &Ended| -> Value { serde_json::from_str(&ended.out).unwrap() };
    let ended = dry_run(&["--kernel-version", "6.1.0-56"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!((&report(&ended)["answer"], &report(&ended)["server"]), (&Value::Null, &Value::Null));
    assert_eq!(report(&ended)["proposal"]["command_line"], "root=/dev/x quiet");
    // It is what would be proposed, as JSON whether that is asked for or not.
    assert_eq!(machine.propose(&["--kernel-version", "6.1.0-56"]).code, 0);
    assert_eq!(report(&ended)["proposal"], verifier.checked(&machine).0);
    assert_eq!(dry_run(&["--kernel-version", "6.1.0-56", "--json"]).out, ended.out);
    // An entry of a boot loader, and one that names what is not there.
    let connections = verifier.server.connections();
    let entries = machine.esp.path().join("loader/entries");
    std::fs::create_dir_all(&entries).unwrap();
    std::fs::copy(STUB, machine.esp.path().join("linux")).unwrap();
    for (version, initrd) in [("6.2", "initrd"), ("6.3", "gone")] {
        let text = format!("version {version}\nlinux /linux\ninitrd /{initrd}\noptions root=/dev/y\n");
        std::fs::write(entries.join(format!("tok-{version}.conf")), text).unwrap();
    }
    let ended = dry_run(&["--kernel-version", "6.2"]);
    let line = report(&ended)["proposal"]["command_line"].as_str().unwrap().to_owned();
    assert!(ended.code == 0 && line.ends_with("root=/dev/y"), "{line}");
    let ended = dry_run(&["--kernel-version", "6.3"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("tok-6.3.conf names /gone, and no such file is in "), "{}", ended.err);
    let ended = dry_run(&["--kernel-version", "6.4"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("hint: name the files"), "{}", ended.err);
    assert_eq!(verifier.server.connections(), connections);
}
