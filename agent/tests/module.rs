//! The dracut module: what its functions say when an image is made, by themselves and without dracut.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What dracut gives to a module, as far as these functions need it: what they call is printed.
const DRACUT: &str = r#"
    dwarn() { echo "$*"; }
    derror() { echo "$*"; }
    inst() { echo "$*"; }
    for it in inst_simple inst_multiple inst_hook instmods; do
        eval "$it() { echo $it \"\$*\"; }"
    done
    require_binaries() { true; }
    find_binary() { echo "/usr/bin/$1"; }
    dracut_module_included() { [[ " ${mods_to_load-} " == *" $1 "* ]]; }
    module_check() { [[ " ${installable-} " == *" $1 "* ]] && return 255; return 1; }
    systemdutildir=/usr/lib/systemd systemdsystemunitdir=/usr/lib/systemd/system systemdnetwork=/usr/lib/systemd/network
    dracutbasedir=$tree/usr/lib/dracut dracutsysrootdir=$tree initdir=$tree/image moddir=${module%/*}
"#;

/// A host and an image.
struct Build(tempfile::TempDir);

impl Build {
    fn new() -> Self {
        let build = Self(tempfile::tempdir().unwrap());
        create_dir_all(build.path("image")).unwrap();
        build
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, text).unwrap();
    }

    /// What the module prints for this line of shell, after these settings.
    fn run(&self, settings: &str, line: &str) -> String {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dracut-module/55halfkey/module-setup.sh");
        let script = format!("set -eu; {DRACUT}\n. \"$module\"; {settings}\n{line}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).env("module", module).env("tree", self.0.path());
        let ran = bash.output().unwrap();
        assert!(ran.status.success() && ran.stderr.is_empty(), "{settings} {line}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }
}

/// What the module warns of in an image with systemd-repart and these definitions.
fn warnings(definitions: &[(&str, &str)], repart: bool) -> String {
    let build = Build::new();
    if repart {
        build.put("image/usr/lib/systemd/system/systemd-repart.service", "");
    }
    definitions.iter().for_each(|(path, text)| build.put(&format!("image/{path}"), text));
    build.run("", "warn_of_repart")
}

#[test]
fn a_root_that_repart_can_make_is_warned_of() {
    const ROOT: &str = "[Partition]\nType=root\nFormat=ext4\n";
    for (path, text) in [
        ("usr/lib/repart.d/50-root.conf", ROOT),
        ("usr/local/lib/repart.d/50-root.conf", ROOT),
        ("etc/repart.d/50-root.conf", "[Partition]\n Type = root-x86-64 \n"),
        ("etc/repart.d/60-usr.conf", "[Partition]\nType=usr-arm64-verity\n"),
    ] {
        let said = warnings(&[("etc/repart.d/10-esp.conf", "[Partition]\nType=esp\n"), (path, text)], true);
        assert!(said.contains(&format!("/{path} is for a root")) && said.contains("hint: "), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert_eq!(warnings(&[(path, text)], false), "", "nobody reads it");
    }
    for other in ["Type=swap", "#Type=root", "Type=home", "Label=root"] {
        let text = format!("[Partition]\n{other}\n");
        assert_eq!(warnings(&[("etc/repart.d/50-x.conf", &text)], true), "", "{other}");
    }
    assert_eq!(warnings(&[], true), "");
}

/// dracut-ng 112 fails when a module that was asked for declines in check().
#[test]
fn the_image_for_a_crashed_kernel_stays_without_it() {
    const ALL: &str = "check && said=0 || said=$?; depends; installkernel; install; echo check: $said; find \"$initdir\" -mindepth 1";
    for settings in [
        "dracutmodules=all add_dracutmodules=' halfkey  kdumpbase '",
        "dracutmodules=kdumpbase add_dracutmodules='halfkey dash'",
        "force_add_dracutmodules=' kdump '",
        "outfile=/var/lib/kdump/initrd.img-6.12.0",
    ] {
        assert_eq!(Build::new().run(settings, ALL), "check: 255\n", "{settings}");
    }
    for settings in ["add_dracutmodules=' halfkey earlykdump '", "outfile=/boot/initrd.img-6.12.0"] {
        assert!(Build::new().run(settings, "depends").contains("crypt"), "{settings}");
    }
}

/// 103 puts it at 90, 106 at 01, 110 at 71.
#[test]
fn systemd_cryptsetup_is_asked_for_where_it_is_a_module() {
    let build = Build::new();
    assert!(!build.run("", "depends").contains("systemd-cryptsetup"));
    create_dir_all(build.path("usr/lib/dracut/modules.d/71systemd-cryptsetup")).unwrap();
    assert!(build.run("", "depends").lines().any(|line| line == "systemd-cryptsetup"));
}

/// A TPM on SPI is found only with the controller's driver.
#[test]
fn drivers_of_the_tpm_and_of_its_bus_go_in() {
    let build = Build::new();
    for (device, driver) in [
        ("devices/pci/spi0/spi0.0", "tpm_tis_spi"),
        ("devices/pci", "spi_intel_pci"),
        ("devices/pci/spi0", ""),
    ] {
        let device = build.path("sys").join(device);
        create_dir_all(&device).unwrap();
        if !driver.is_empty() {
            let module = build.path("sys/module").join(driver);
            create_dir_all(&module).unwrap();
            create_dir_all(build.path("sys/drivers").join(driver)).unwrap();
            symlink(&module, build.path("sys/drivers").join(driver).join("module")).unwrap();
            symlink(build.path("sys/drivers").join(driver), device.join("driver")).unwrap();
        }
    }
    create_dir_all(build.path("sys/class/tpm/tpm0")).unwrap();
    assert_eq!(build.run("", "installkernel").lines().count(), 1, "no TPM here");
    symlink(build.path("sys/devices/pci/spi0/spi0.0"), build.path("sys/class/tpm/tpm0/device")).unwrap();
    let asked = build.run("", "installkernel");
    assert!(asked.starts_with("instmods =drivers/char/tpm "), "{asked}");
    assert!(asked.ends_with("instmods tpm_tis_spi\ninstmods spi_intel_pci\n"), "{asked}");
}

/// Modules that sort after this one bring units too: links are there before what they link to.
#[test]
fn the_units_are_linked_whatever_is_in_the_image_yet() {
    let build = Build::new();
    for unit in ["emergency", "rescue", "debug-shell", "breakpoint-pre-mount"] {
        let path = format!("usr/lib/systemd/system/{unit}.service");
        build.put(&path, "[Service]\nExecStart=-/usr/lib/systemd/systemd-sulogin-shell x\n");
    }
    build.put("usr/lib/systemd/system/debug-shell.service", "[Service]\nExecStart=/bin/bash\n");
    for unit in ["systemd-soft-reboot.service", "systemd-storagetm.service"] {
        build.put(&format!("usr/lib/systemd/system/{unit}"), "");
    }
    build.run("", "install > /dev/null");
    let units = build.path("image/usr/lib/systemd/system");
    for (link, to) in [
        ("sysinit.target.wants/halfkey-unlock.service", "../halfkey-unlock.service"),
        ("sysinit.target.wants/cryptsetup.target", "../cryptsetup.target"),
        ("initrd-root-fs.target.requires/halfkey-gate.service", "../halfkey-gate.service"),
    ] {
        assert_eq!(units.join(link).read_link().unwrap(), Path::new(to));
    }
    for unit in ["emergency", "rescue", "debug-shell", "breakpoint-pre-mount"] {
        let path = units.join(format!("{unit}.service.d/zz-halfkey.conf"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            text.contains("ExecStart=\nExecStart=-/usr/bin/halfkey-agent fence --exec /"),
            "{unit}: {text}"
        );
        assert_eq!(text.contains("--exec /bin/sh\n"), unit == "debug-shell", "no bash yet: {text}");
    }
    for unit in ["systemd-soft-reboot.service", "systemd-storagetm.service"] {
        let masked = build.path("image/etc/systemd/system").join(unit);
        assert_eq!(masked.read_link().unwrap(), Path::new("/dev/null"));
    }
}
