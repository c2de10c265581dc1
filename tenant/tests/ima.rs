//! `halfkey ima`, and policies with `[ima]`, without a server.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Workstation, golden};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::ima::{ImaList, sha256};
use serde_json::Value;
use std::fs;
use std::process::Command;

fn write(workstation: &Workstation, name: &str, content: &[u8]) -> String {
    let path = workstation.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A root file system with a link, a name that the kernel writes otherwise, and one that no list can have.
fn root(workstation: &Workstation) -> String {
    write(workstation, "root/usr/bin/true", b"true");
    write(workstation, "root/usr/share/with blank", b"blank");
    write(workstation, "root/usr/share/two\nlines", b"lines");
    write(workstation, "root/home/me/notes", b"notes");
    std::os::unix::fs::symlink("usr/bin", workstation.path("root/bin")).unwrap();
    workstation.path("root").to_str().unwrap().to_owned()
}

fn package(workstation: &Workstation) -> String {
    let control =
        b"Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: test\n";
    write(workstation, "tree/DEBIAN/control", control);
    write(workstation, "tree/bin/true", b"true 2");
    write(workstation, "tree/usr/lib/a.so", b"a");
    let path = workstation.path("a.deb");
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).args([&workstation.path("tree"), &path]);
    assert!(build.output().expect("dpkg-deb is installed").status.success());
    path.to_str().unwrap().to_owned()
}

/// The list of a root file system without /home, as a file, and its block.
fn listed(workstation: &Workstation) -> (String, String) {
    let output = workstation.path("debian.list").to_str().unwrap().to_owned();
    let ran = workstation.ok(&["ima", "list", &root(workstation), "--without", "/home/", "-o", &output]);
    assert!(ran.stderr.contains("1 files are not in the list"), "{ran:?}");
    (output, ran.stdout)
}

/// A policy whose one boot has the words.
fn policy(workstation: &Workstation, ima: &str) -> String {
    let initrd = write(workstation, "initrd", b"an initrd");
    let kernel = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    let line = "root=/dev/mapper/a efi=noruntime systemd.import_credentials=no ima_policy=tcb";
    let predict = ["policy", "predict", "--kernel", kernel, "--initrd", &initrd, "--cmdline", line];
    let block = workstation.ok(&[&predict[..], &["--kernel-measures-initrd"]].concat()).stdout;
    let head = "format = 1\nname = \"a\"\nignore = [1, 3, 5, 6]\n[secure_boot]\nrequired = false\n[firmware]\npcr0 = []\npcr2 = []\n";
    write(workstation, "a.toml", format!("{head}{ima}\n{block}").as_bytes())
}

/// What a machine has used.
fn measured() -> ImaList {
    let mut list = ImaList::booted(PcrBank::Sha256, &[6; 320]);
    list.file("/usr/bin/true", &sha256(b"true"));
    list.file("/usr/share/with blank", &sha256(b"blank"));
    list.file("/home/me/notes", &sha256(b"changed"));
    list
}

#[test]
fn a_list_is_made_of_a_root_file_system_and_of_packages() {
    let workstation = Workstation::new();
    let (file, block) = listed(&workstation);
    golden::check("ima-list.txt", &format!("{}\n{block}", fs::read_to_string(&file).unwrap()));

    let both = workstation.path("both.list").to_str().unwrap().to_owned();
    let args = ["ima", "list", &file, &package(&workstation), "--name", "both", "-o", &both, "--json"];
    let made: Value = serde_json::from_str(&workstation.ok(&args).stdout).unwrap();
    assert_eq!((&made["lines"], &made["name"], &made["left_out"]), (&4.into(), &"both".into(), &0.into()));
    // The digest is that of the file.
    let text = fs::read(&both).unwrap();
    assert_eq!(made["digest"], format!("sha256:{}", halfkey::render::text::hex(&sha256(&text))));
    // The same in another order is the same.
    let again = workstation.path("again.list").to_str().unwrap().to_owned();
    workstation.ok(&["ima", "list", &both, &file, "-o", &again]);
    assert_eq!(fs::read(&again).unwrap(), text);
    golden::check("ima-diff.txt", &workstation.ok(&["ima", "diff", &file, &both]).stdout);
    assert_eq!(workstation.ok(&["ima", "diff", &both, &again]).stdout, "both lists say the same\n");

    let anywhere = workstation.path("anywhere.list").to_str().unwrap().to_owned();
    workstation.ok(&[
        "ima",
        "list",
        "--any-path",
        &workstation.path("tree/usr").to_string_lossy(),
        "-o",
        &anywhere,
    ]);
    assert!(fs::read_to_string(&anywhere).unwrap().ends_with(" *\n"));
}

#[test]
fn what_is_no_source_is_refused_with_a_word() {
    let workstation = Workstation::new();
    let (file, _) = listed(&workstation);
    let text = write(&workstation, "text", b"sha256:12 /a\n");
    let deb = write(&workstation, "text.deb", &[b'x'; 200]);
    fs::create_dir(workstation.path("empty")).unwrap();
    let empty = workstation.path("empty").to_str().unwrap().to_owned();
    let new = workstation.path("new.list").to_str().unwrap().to_owned();
    let mut said = String::new();
    for args in [
        &[&text, "-o", &new][..],
        &[&deb, "-o", &new],
        &[&empty, "-o", &new],
        &["/nowhere", "-o", &new],
        &[&file, "-o", &file],
        &[&file, "--without", "home", "-o", &new],
    ] {
        let ran = workstation.run(&[&["ima", "list"], args].concat());
        assert_ne!(ran.code, 0, "{args:?}");
        said.push_str(&format!("{}: {}", ran.code, ran.stderr));
    }
    let said = said.replace(workstation.path("").to_str().unwrap(), "DIR/");
    golden::check("ima-errors.txt", &said);
    assert!(!workstation.path("new.list").exists());
}

#[test]
fn a_policy_is_tried_on_what_a_machine_has_used() {
    let workstation = Workstation::new();
    let (digests, block) = listed(&workstation);
    let policy = policy(&workstation, &format!("[ima]\nnot_judged = [\"/home/\"]\n{block}"));
    let checked = workstation.ok(&["policy", "check", &policy]);
    assert!(checked.stdout.contains("a policy, 1 boot, 1 list of digests"), "{checked:?}");
    assert!(
        checked.stderr.contains("warning: [ima]: the verifier asks a boot for the words alone"),
        "{checked:?}"
    );

    let mut list = measured();
    let good = write(&workstation, "good", &list.bytes);
    list.file("/usr/bin/true", &sha256(b"evil"));
    list.file("/tmp/true", &sha256(b"true"));
    list.buffer("kexec-cmdline", b"root=/dev/mapper/root init=/bin/sh");
    list.violation("/usr/bin/true");
    let bad = write(&workstation, "bad", &list.bytes);
    let test =
        |list: &str| workstation.run(&["policy", "test", &policy, "--against", list, "--digests", &digests]);
    let (good, denied) = (test(&good), test(&bad));
    assert_eq!((good.code, denied.code), (0, 1), "{good:?}");
    let said = format!("{}\n{}{}", good.stdout, denied.stdout, denied.stderr);
    golden::check("ima-test.txt", &said.replace(workstation.path("").to_str().unwrap(), "DIR/"));

    let json =
        workstation.run(&["policy", "test", &policy, "--against", &bad, "--digests", &digests, "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["refused"], json["findings"].as_array().unwrap().len()), (&4.into(), 4));
}

#[test]
fn what_a_test_lacks_is_named() {
    let workstation = Workstation::new();
    let (digests, block) = listed(&workstation);
    let policy_file = policy(&workstation, &format!("[ima]\n{block}"));
    let other = write(&workstation, "other.list", b"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709 /empty\n");
    let list = write(&workstation, "list", &measured().bytes);
    let cut = write(&workstation, "cut", &measured().bytes[..measured().bytes.len() - 3]);
    let mut said = String::new();
    let mut run = |args: &[&str]| {
        let ran = workstation.run(&[&["policy", "test", &policy_file, "--against"], args].concat());
        said.push_str(&format!("{}: {}", ran.code, ran.stderr));
    };
    run(&[&list]);
    run(&[&list, "--digests", &other]);
    run(&[&cut, "--digests", &digests]);
    run(&[&other, "--digests", &digests]);
    run(&["all", "--digests", &digests]);
    policy(&workstation, "");
    let ran = workstation.run(&["policy", "test", &policy_file, "--against", &list]);
    said.push_str(&format!("{}: {}", ran.code, ran.stderr));
    golden::check("ima-test-errors.txt", &said.replace(workstation.path("").to_str().unwrap(), "DIR/"));
}
