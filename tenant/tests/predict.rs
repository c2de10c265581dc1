//! `halfkey policy predict` without a server: what is computed from files alone.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::Workstation;
use halfkey_protocol::tpm::kdf::Hash;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// Any PE image will do as a kernel.
const KERNEL: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const CMDLINE: &str = "root=/dev/mapper/a efi=noruntime systemd.import_credentials=no";

fn write(workstation: &Workstation, name: &str, content: &[u8]) -> String {
    let path = workstation.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A package with this content, by Debian's own tool.
fn package(workstation: &Workstation) -> String {
    write(
        workstation,
        "tree/DEBIAN/control",
        b"Package: linux-image-test\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: test\n",
    );
    // Never to be run.
    let script = write(workstation, "tree/DEBIAN/postinst", b"#!/bin/sh\nexit 1\n");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let kernel = fs::read(KERNEL).unwrap();
    write(workstation, "tree/boot/vmlinuz-6.1.0-99-test", &kernel);
    write(workstation, "tree/boot/System.map-6.1.0-99-test", b"ffffffff81000000 T _text\n");
    std::os::unix::fs::symlink("/etc/passwd", workstation.path("tree/boot/vmlinuz-link")).unwrap();
    let path = workstation.path("linux-image-test.deb");
    let built = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .args([&workstation.path("tree"), &path])
        .output()
        .expect("dpkg-deb is installed");
    assert!(built.status.success(), "{built:?}");
    path.to_str().unwrap().to_owned()
}

fn predicted(workstation: &Workstation, args: &[&str]) -> Vec<Value> {
    let ran = workstation.ok(&[&["policy", "predict", "--json"], args].concat());
    serde_json::from_str::<Value>(&ran.stdout).unwrap()["boots"].as_array().unwrap().clone()
}

#[test]
fn a_kernel_with_all_its_parts_gives_a_block_that_a_policy_takes() {
    let workstation = Workstation::new();
    let initrd = [write(&workstation, "one", b"first"), write(&workstation, "two", b"second")];
    let files = ["--kernel", KERNEL, "--initrd", &initrd[0], "--initrd", &initrd[1], "--cmdline", CMDLINE];
    // Nobody knows yet whether what it is given is what it measures.
    let boots = predicted(&workstation, &files);
    assert!(boots[0]["missing"].to_string().contains("--kernel-measures-initrd"), "{boots:?}");
    let args = [&files[..], &["--kernel-measures-initrd"]].concat();
    let boots = predicted(&workstation, &args);
    assert_eq!(boots[0]["missing"], Value::Array(vec![]));
    let digest =
        format!("sha256:{}", halfkey::render::text::hex(&Hash::Sha256.digest(&[b"first", b"second"])));
    let events = boots[0]["events"].as_array().unwrap();
    assert!(
        events.iter().any(|event| event["what"] == "initrd" && event["digest"] == digest.as_str()),
        "{events:?}"
    );
    // As text it is a policy's end: comments and the block.
    let block = workstation.ok(&[&["policy", "predict"][..], &args].concat()).stdout;
    let head = "format = 1\nname = \"a\"\nignore = [1, 3, 5, 6]\n[secure_boot]\nrequired = false\n[firmware]\npcr0 = []\npcr2 = []\n";
    let file = write(&workstation, "a.toml", format!("{head}\n{block}").as_bytes());
    workstation.ok(&["policy", "check", &file]);
    // In the other bank the digests are others.
    let other = predicted(&workstation, &[&args[..], &["--bank", "sha384"]].concat());
    assert!(other[0]["events"][0]["digest"].as_str().unwrap().starts_with("sha384:"));
}

#[test]
fn a_package_says_what_it_lacks() {
    let workstation = Workstation::new();
    let package = package(&workstation);
    let boots = predicted(&workstation, &["--package", &package]);
    assert_eq!(boots.len(), 1, "a link is no image: {boots:?}");
    assert_eq!(
        (&boots[0]["path"], &boots[0]["name"]),
        (&"/boot/vmlinuz-6.1.0-99-test".into(), &"6.1.0-99-test".into())
    );
    assert_eq!(boots[0]["missing"].as_array().unwrap().len(), 3);
    assert_eq!(boots[0]["block"], Value::Null);
    let text = workstation.ok(&["policy", "predict", "--package", &package]).stdout;
    assert!(text.contains("# missing: the initrd") && text.contains("# missing: the command line"), "{text}");

    let initrd = write(&workstation, "initrd", b"an initrd");
    let boots = predicted(
        &workstation,
        &["--package", &package, "--kernel-measures-initrd", "--initrd", &initrd, "--cmdline", CMDLINE],
    );
    let alone = predicted(&workstation, &["--kernel", KERNEL, "--initrd", &initrd, "--cmdline", CMDLINE]);
    assert_eq!(boots[0]["events"][0]["digest"], alone[0]["events"][0]["digest"]);
    assert!(boots[0]["block"].as_str().unwrap().contains("6.1.0-99-test"));

    let temporary = workstation.path("temporary");
    fs::create_dir(&temporary).unwrap();
    let mut command = workstation.command(&["policy", "predict", "--package", &package]);
    assert!(command.env("TMPDIR", &temporary).output().unwrap().status.success());
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "what was unpacked is gone");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let workstation = Workstation::new();
    for args in [
        &["--kernel", KERNEL][..],
        &["--kernel", KERNEL, "--initrd", KERNEL],
        &["--uki", KERNEL, "--initrd", KERNEL],
        &["--uki", KERNEL, "--kernel", KERNEL],
        &["--uki", KERNEL, "--add"],
        &["--uki", KERNEL, "--group", "web"],
        &["--uki", KERNEL, "--add", "--group", "web", "--node", "a"],
        &["--uki", KERNEL, "--yes"],
        &["--uki", KERNEL, "--secure-boot", "maybe"],
        &[],
    ] {
        let ran = workstation.run(&[&["policy", "predict"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
    let ran = workstation.run(&["policy", "predict", "--uki", KERNEL]);
    assert!(ran.code == 2 && ran.stderr.contains("no section .linux"), "{ran:?}");
}
