//! The hooks of kernel-install and of Debian's kernel packages, run as these run them: with the agent that they call.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

mod common;
#[path = "common/proposing.rs"]
mod proposing;
#[path = "common/server.rs"]
mod server;
#[path = "common/volume.rs"]
mod volume;

use halfkey_testkit::uki::STUB;
use proposing::{Machine, Verifier, accepted, refused};
use serde_json::json;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

const VERSION: &str = "6.1.0-57";
const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";

fn hook(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dracut-module/hooks").join(name)
}

/// A folder for PATH whose `halfkey-agent` is the agent, with the volume that it would find on a real machine.
fn programs(machine: &Machine) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (agent, volume) = (env!("CARGO_BIN_EXE_halfkey-agent"), machine.volume.path().display());
    let text = format!("#!/bin/sh\ncommand=$1\nshift\nexec {agent} \"$command\" --device {volume} \"$@\"\n");
    let path = folder.path().join("halfkey-agent");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// Runs a hook, or what runs hooks, on this machine; with its agent or without one.
fn run(
    machine: &Machine,
    agent: bool,
    program: impl AsRef<Path>,
    args: &[&str],
    more: &[(&str, &str)],
) -> Output {
    let programs = programs(machine);
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.path().display());
    let mut command = Command::new(program.as_ref());
    command.args(args).env_clear().envs(more.iter().copied());
    command.env("PATH", if agent { &path } else { "/usr/sbin:/usr/bin:/sbin:/bin" });
    command.env("HALFKEY_TPM", machine.swtpm.location().to_string());
    command.output().unwrap()
}

/// A folder that is not on the file system of boot files, where that is one in memory.
fn on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn kernel_install_proposes_what_it_just_put_in_place() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let (boot, conf) = (machine.esp.path(), tempfile::tempdir().unwrap());
    std::fs::create_dir(boot.join(MACHINE_ID)).unwrap();
    std::fs::write(conf.path().join("cmdline"), "root=/dev/x quiet\n").unwrap();
    let plugins =
        format!("/usr/lib/kernel/install.d/90-loaderentry.install {}", hook("95-halfkey.install").display());
    let made = on_disk();
    let initrd = made.path().join("initrd");
    std::fs::copy(boot.join("initrd"), &initrd).unwrap();
    let initrd = initrd.display().to_string();
    let install = || {
        run(
            &machine,
            true,
            "kernel-install",
            &["add", VERSION, STUB, &initrd],
            &[
                ("KERNEL_INSTALL_CONF_ROOT", conf.path().to_str().unwrap()),
                ("KERNEL_INSTALL_PLUGINS", &plugins),
                ("BOOT_ROOT", boot.to_str().unwrap()),
                ("MACHINE_ID", MACHINE_ID),
            ],
        )
    };
    let output = install();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("6.1.0-57 accepted (proposal 7)"), "{}", said(&output));
    let (proposal, _) = verifier.checked(&machine);
    assert_eq!(proposal["name"], VERSION);
    let kernel = boot.join(MACHINE_ID).join(VERSION).join("linux");
    assert_eq!(proposal["images"][0]["path"], json!(kernel));
    // As systemd-boot passes it: the entry names paths on its partition, which the test's folder is a part of.
    let command_line = proposal["command_line"].as_str().unwrap();
    let end = format!("\\{MACHINE_ID}\\{VERSION}\\initrd root=/dev/x quiet systemd.machine_id={MACHINE_ID}");
    assert!(command_line.starts_with("initrd=\\") && command_line.ends_with(&end), "{command_line}");
    assert_eq!(proposal["written_by_update"], true);
    // Somebody has added an image and an entry of that version while the machine was off, newer than all.
    let planted = |path: &str, content: &[u8]| {
        let path = boot.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(4_323_456_000)).unwrap();
    };
    let entry = format!("version {VERSION}\nlinux /{MACHINE_ID}/{VERSION}/linux\ninitrd /evil\n");
    planted("evil", b"evil");
    planted("loader/entries/z.conf", entry.as_bytes());
    planted(&format!("EFI/Linux/x-{VERSION}.efi"), &std::fs::read(machine.uki()).unwrap());
    assert!(install().status.success());
    assert_eq!(verifier.checked(&machine).0, proposal);
    // With the same files, and other words: nothing is proposed.
    let entry = entry.replace("/evil", &format!("/{MACHINE_ID}/{VERSION}/initrd\noptions init=/bin/sh"));
    planted("loader/entries/z.conf", entry.as_bytes());
    let output = install();
    assert!(output.status.success() && said(&output).contains("several that differ"), "{}", said(&output));
    assert!(said(&output).contains("halfkey: warning: kernel 6.1.0-57 is installed, and not accepted"));
    assert_eq!(verifier.proposed.lock().unwrap().len(), 2);
}

/// As with layout `uki`: what is staged is what counts, if it was made of what is on the root.
#[test]
fn a_staged_image_is_what_an_update_has_written() {
    let waits = json!({"outcome": "waiting", "code": "proposal_waits", "message": "no rule"});
    let verifier = Verifier::answering(&[waits]);
    let machine = verifier.machine();
    let boot = machine.esp.path().to_str().unwrap();
    let (staging, other) = (on_disk(), tempfile::tempdir_in("/dev/shm").unwrap());
    let staged = staging.path().join("uki.efi");
    std::fs::copy(machine.uki(), &staged).unwrap();
    let evil = machine.esp.path().join("EFI/Linux/x-6.1.0-56.efi");
    std::fs::copy(machine.uki(), &evil).unwrap();
    std::fs::File::options().append(true).open(&evil).unwrap().write_all(b"evil").unwrap();
    let plugin = |boot: &str, kernel: &str| {
        let variables = [
            ("KERNEL_INSTALL_BOOT_ROOT", boot),
            ("KERNEL_INSTALL_STAGING_AREA", staging.path().to_str().unwrap()),
        ];
        run(&machine, true, hook("95-halfkey.install"), &["add", "6.1.0-56", "/entry", kernel], &variables)
    };
    let output = plugin(boot, STUB);
    let (proposal, _) = verifier.checked(&machine);
    let path = json!(machine.uki());
    assert_eq!((&proposal["images"][0]["path"], &proposal["written_by_update"]), (&path, &json!(true)));
    assert!(!said(&output).contains("as they are now"), "{}", said(&output));
    // Its kernel is on the file system of the boot files, and that is not the root's: somebody could have changed it there.
    let kernel = other.path().join("vmlinuz");
    std::fs::copy(STUB, &kernel).unwrap();
    let folder = other.path().join("EFI/Linux");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(machine.uki(), folder.join("tok-6.1.0-56.efi")).unwrap();
    let output = plugin(other.path().to_str().unwrap(), kernel.to_str().unwrap());
    assert_eq!(verifier.checked(&machine).0["written_by_update"], false);
    assert!(
        said(&output).contains("vmlinuz, and that is on a file system that others can write"),
        "{}",
        said(&output)
    );
    // What is there is another.
    std::fs::remove_file(&evil).unwrap();
    std::fs::write(&staged, "other").unwrap();
    let output = plugin(boot, STUB);
    assert_eq!(verifier.checked(&machine).0["written_by_update"], false);
    assert!(said(&output).contains("as they are now"), "{}", said(&output));
    assert!(said(&output).contains("it is not what the update has written"), "{}", said(&output));
}

#[test]
fn a_hook_never_fails_and_says_what_it_could_not_do() {
    let verifier = Verifier::answering(&[refused("proposal_unattested")]);
    let machine = verifier.machine();
    let boot = machine.esp.path().to_str().unwrap();
    let plugin = |args: &[&str], agent| {
        run(&machine, agent, hook("95-halfkey.install"), args, &[("KERNEL_INSTALL_BOOT_ROOT", boot)])
    };
    let output = plugin(&["add", "6.1.0-56", "/entry", STUB], true);
    assert!(output.status.success() && output.stdout.is_empty());
    let said_last =
        "halfkey: warning: kernel 6.1.0-56 is installed, and not accepted by the verifier (yet)\n";
    assert!(
        said(&output).starts_with("6.1.0-56 refused") && said(&output).ends_with(said_last),
        "{}",
        said(&output)
    );
    let output = plugin(&["add", "6.1.0-99", "/entry", STUB], true);
    assert!(
        output.status.success() && said(&output).contains("no kernel 6.1.0-99 is in"),
        "{}",
        said(&output)
    );
    // What is not about adding a kernel, and a machine without the agent.
    for (args, agent) in [(&["remove", "6.1.0-56"][..], true), (&[], true), (&["add", "6.1.0-56"], false)] {
        let output = plugin(args, agent);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {}", said(&output));
    }
    assert_eq!(verifier.proposed.lock().unwrap().len(), 1);
}

#[test]
fn debian_runs_the_hook_when_a_kernel_is_configured() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let postinst = |args: &[&str], parameters: &str, agent| {
        run(&machine, agent, hook("zz-halfkey"), args, &[("DEB_MAINT_PARAMS", parameters)])
    };
    // No such kernel is in /boot here: the agent says so, the hook goes on.
    for parameters in ["", "configure 6.1.0", "'configure' '6.1.0'"] {
        let output = postinst(&["6.1.0-no-such", "/boot/vmlinuz-6.1.0-no-such"], parameters, true);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("no kernel 6.1.0-no-such is in "), "{parameters}: {}", said(&output));
        assert!(said(&output).contains("halfkey: warning: kernel 6.1.0-no-such is installed"));
    }
    for (args, parameters, agent) in
        [(&["6.1.0-no-such"][..], "'abort-remove'", true), (&[], "", true), (&["6.1.0-no-such"], "", false)]
    {
        let output = postinst(args, parameters, agent);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {}", said(&output));
    }
}

#[test]
fn debian_proposes_a_new_kernel_once() {
    let verifier = Verifier::answering(&[accepted()]);
    let machine = verifier.machine();
    let etc = tempfile::tempdir().unwrap();
    let [of_kernel, of_initramfs] = ["kernel/postinst.d/zzz-halfkey", "initramfs/post-update.d/zz-halfkey"]
        .map(|path| {
            let path = etc.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::copy(hook("zz-halfkey"), &path).unwrap();
            path
        });
    let proposes = |hook: &Path, parameters: &str| {
        let output = run(&machine, true, hook, &["6.1.0-no-such"], &[("DEB_MAINT_PARAMS", parameters)]);
        said(&output).contains("no kernel 6.1.0-no-such is in ")
    };
    // The kernel's package has the initramfs built first.
    assert!(!proposes(&of_initramfs, "configure 6.1.0"));
    assert!(proposes(&of_kernel, "configure 6.1.0"));
    // An initramfs that is built anew, and a host without the other hook.
    assert!(proposes(&of_initramfs, ""));
    std::fs::remove_file(&of_kernel).unwrap();
    assert!(proposes(&of_initramfs, "configure 6.1.0"));
}
