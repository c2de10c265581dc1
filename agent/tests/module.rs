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
    for chip in ["sys/class/tpm/tpm0", "sys/class/tpm/tpm1"] {
        create_dir_all(build.path(chip)).unwrap();
    }
    assert_eq!(build.run("", "installkernel").lines().count(), 1, "no TPM here");
    symlink(build.path("sys/devices/pci/spi0/spi0.0"), build.path("sys/class/tpm/tpm1/device")).unwrap();
    let asked = build.run("", "installkernel");
    assert!(asked.starts_with("instmods =drivers/char/tpm "), "{asked}");
    assert!(asked.ends_with("instmods tpm_tis_spi\ninstmods spi_intel_pci\n"), "{asked}");
    // Those of no machine stay out, unless it is this one's.
    let settings = "omit_drivers='^mine$'; instmods() { echo \"${1-} ${omit_drivers-}\"; }";
    let all = "^mine$|^tpm_vtpm_proxy$|^xen_tpmfront$";
    let expected = format!("=drivers/char/tpm {all}\ntpm_tis_spi ^mine$\nspi_intel_pci ^mine$\n");
    assert_eq!(build.run(settings, "installkernel"), expected);
}

/// Modules that sort after this one bring units too: links are there before what they link to.
#[test]
fn the_units_are_linked_whatever_is_in_the_image_yet() {
    let build = Build::new();
    for unit in ["emergency", "rescue", "debug-shell", "breakpoint-pre-mount"] {
        let path = format!("usr/lib/systemd/system/{unit}.service");
        build.put(&path, "");
    }
    for unit in ["systemd-soft-reboot.service", "systemd-storagetm.service"] {
        build.put(&format!("usr/lib/systemd/system/{unit}"), "");
    }
    let installed = build.run("", "install");
    let units = build.path("image/usr/lib/systemd/system");
    for (link, to) in [
        ("sysinit.target.wants/halfkey-unlock.service", "../halfkey-unlock.service"),
        ("sysinit.target.wants/cryptsetup.target", "../cryptsetup.target"),
        ("initrd-root-fs.target.requires/halfkey-gate.service", "../halfkey-gate.service"),
    ] {
        assert_eq!(units.join(link).read_link().unwrap(), Path::new(to));
    }
    for unit in ["emergency", "rescue", "debug-shell", "breakpoint-pre-mount"] {
        let fenced = format!("fence-shell.conf /usr/lib/systemd/system/{unit}.service.d/zz-halfkey.conf");
        assert!(installed.lines().any(|line| line.ends_with(&fenced)), "{unit}: {installed}");
    }
    for unit in ["systemd-cryptsetup@", "initrd-parse-etc", "dracut-pre-pivot", "systemd-repart"] {
        let before = format!("/before.conf /usr/lib/systemd/system/{unit}.service.d/zz-halfkey.conf");
        assert!(installed.lines().any(|line| line.ends_with(&before)), "{unit}: {installed}");
    }
    for masked in [
        "system/systemd-soft-reboot.service",
        "system/systemd-storagetm.service",
        "system-generators/systemd-gpt-auto-generator",
        "system-generators/systemd-imds-generator",
    ] {
        let masked = build.path("image/etc/systemd").join(masked);
        assert_eq!(masked.read_link().unwrap(), Path::new("/dev/null"));
    }
}

/// One network is enough: the one that the image has anyway, else the one that dracut would take here.
#[test]
fn the_network_is_the_one_that_the_image_would_have() {
    let build = Build::new();
    let of = |settings: &str| build.run(settings, "network_module");
    const BOTH: &str = "installable=' systemd-networkd network-manager '";
    assert_eq!(of(BOTH), "systemd-networkd\n", "no generator of NetworkManager is here");
    assert_eq!(of(""), "systemd-networkd\n", "neither: dracut names what it misses");
    let generator = build.path("usr/libexec/nm-initrd-generator");
    build.put("usr/libexec/nm-initrd-generator", "");
    std::fs::set_permissions(generator, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (settings, expected) in [
        ("", "network-manager"),
        ("omit_dracutmodules=' network-manager '", "systemd-networkd"),
        ("mods_to_load=' systemd-networkd '", "systemd-networkd"),
        ("mods_to_load=' network-manager network '", "network-manager"),
        ("add_dracutmodules=' halfkey systemd-networkd '", "systemd-networkd"),
        ("installable=' systemd-networkd '", "systemd-networkd"),
    ] {
        assert_eq!(of(&format!("{BOTH}; {settings}")), format!("{expected}\n"), "{settings}");
    }
    let all = build.run(BOTH, "depends");
    assert!(all.ends_with("\nnetwork-manager\n"), "{all}");
}

#[test]
fn each_network_gets_its_own_files() {
    let build = Build::new();
    for unit in ["emergency", "rescue"] {
        build.put(&format!("usr/lib/systemd/system/{unit}.service"), "[Service]\nExecStart=-/bin/sh\n");
    }
    for (module, networkd, manager) in [("systemd-networkd", 1, 0), ("network-manager", 0, 1)] {
        let installed = build.run(&format!("mods_to_load=' {module} '"), "install");
        let count = |name: &str| installed.lines().filter(|line| line.contains(name)).count();
        assert_eq!(count("zz-halfkey.network"), networkd, "{installed}");
        assert_eq!(count("halfkey-network.sh /usr/lib/halfkey/network.sh"), manager, "{installed}");
        assert_eq!(count("halfkey-network.service"), manager, "{installed}");
        for unit in [
            "nm-initrd",
            "nm-wait-online-initrd",
            "NetworkManager-initrd",
            "NetworkManager-wait-online-initrd",
        ] {
            assert_eq!(count(&format!("/{unit}.service.d/zz-halfkey.conf")), manager, "{installed}");
        }
    }
}

/// The module's script for NetworkManager, in an image that has the programs it calls.
struct Network(Build);

impl Network {
    fn new() -> Self {
        let build = Build::new();
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../dracut-module/55halfkey/halfkey-network.sh");
        let root = build.path("").display().to_string();
        let mut script = std::fs::read_to_string(path).unwrap();
        for folder in ["/usr/lib", "/run/", "/sys/"] {
            script = script.replace(folder, &format!("{}{folder}", root.trim_end_matches('/')));
        }
        build.put("network.sh", &script);
        build.put("hooks/initqueue/settled/99-nm-run.sh", "");
        build.put("hooks/initqueue/settled/01-halfkey-wait.sh", "");
        Self(build)
    }

    /// What the programs that it calls were told.
    fn run(&self, word: &str, service_result: &str) -> String {
        let root = self.0.path("");
        let programs = r#"getcmdline() { cat etc/cmdline.d/*.conf; printf ' %s' 'quiet  ip=[a]*'; }; ip() { echo ip "$@"; }"#;
        let script =
            format!("{programs}; hookdir={0}/hooks; cd {0}; set -- {word}; . ./network.sh", root.display());
        let ran = Command::new("sh")
            .args(["-euc", &script])
            .env("SERVICE_RESULT", service_result)
            .output()
            .unwrap();
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }
}

#[test]
fn networkmanager_is_told_that_the_agent_needs_it() {
    let network = Network::new();
    network.0.put("usr/libexec/nm-initrd-generator", "");
    network.0.put("usr/lib/nm-initrd-generator", "#!/bin/sh\nshift\nfor word; do echo \"<$word>\"; done\n");
    let generator = network.0.path("usr/lib/nm-initrd-generator");
    std::fs::set_permissions(generator, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    network.0.put("etc/cmdline.d/20-owner.conf", "vlan=vlan2:eth0");
    network.0.put("ip=a", "a file that a pattern finds");
    assert_eq!(network.run("up", ""), "<vlan=vlan2:eth0>\n<quiet>\n<ip=[a]*>\n<rd.neednet=1>\n");
    for there in ["initrd/neednet", "initrd/halfkey", "conf.d/zz-halfkey.conf"] {
        assert!(network.0.path("run/NetworkManager").join(there).exists(), "{there}");
    }
    assert!(!network.0.path("hooks/initqueue/settled/99-nm-run.sh").exists());
    assert!(network.0.path("hooks/initqueue/settled/01-halfkey-wait.sh").exists());
}

#[test]
fn the_running_system_finds_the_interfaces_as_they_were() {
    let network = Network::new();
    // eth2 had an address before NetworkManager came.
    for (name, index, connection, owned) in [
        ("lo", 1, "L", false),
        ("eth0", 2, "E", false),
        ("eth1", 3, "", false),
        ("eth2", 4, "F", false),
        ("bond0", 5, "B", true),
    ] {
        network.0.put(&format!("sys/class/net/{name}/ifindex"), &format!("{index}\n"));
        let uuid =
            if connection.is_empty() { String::new() } else { format!("connection-uuid={connection}\n") };
        let state = format!("[device]\nmanaged=true\n{uuid}nm-owned={owned}\n");
        network.0.put(&format!("run/NetworkManager/devices/{index}"), &state);
        let found = if matches!(connection, "L" | "F") { "[.nmmeta]\nnm-generated=true\n" } else { "" };
        let profile = format!("[connection]\nuuid={connection}\n{found}");
        network.0.put(&format!("run/NetworkManager/system-connections/{name}.nmconnection"), &profile);
    }
    assert_eq!(network.run("down", "success"), "", "somebody else needs the network");
    network.0.put("run/NetworkManager/initrd/halfkey", "");
    assert_eq!(network.run("down", "exit-code"), "", "it is started again");
    let all = "ip link delete dev bond0\nip address flush dev eth0\nip link set dev eth0 down\n";
    assert_eq!(network.run("down", "success"), all);
    assert!(!network.0.path("run/NetworkManager").exists());
}

/// What the initqueue's loop counts after each of these seconds of uptime, with the agent's control group there or not.
fn rounds(command_line: &str, running: bool, uptimes: &[&str]) -> Vec<String> {
    let build = Build::new();
    build.put("cgroup/other", "");
    if running {
        build.put("cgroup/system.slice/halfkey-unlock.service/cgroup.procs", "");
    }
    let wait = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dracut-module/55halfkey/halfkey-wait.sh");
    let wait = std::fs::read_to_string(wait).unwrap();
    build.put(
        "wait.sh",
        &wait.replace("/sys/fs/cgroup", "$tree/cgroup").replace("/proc/uptime", "$tree/uptime"),
    );
    let mut script = "set -e; getarg() { echo \"$timeout\"; }\n".to_owned();
    for uptime in uptimes {
        script +=
            &format!("echo {uptime} 99 > $tree/uptime; main_loop=7; . $tree/wait.sh || :; echo $main_loop\n");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("tree", build.0.path()).env("timeout", command_line);
    let ran = shell.output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_initqueue_waits_for_the_agent_and_not_for_ever() {
    assert_eq!(rounds("", true, &["5.10", "304.90", "305.00", "900"]), ["0", "0", "7", "7"]);
    // rd.halfkey.timeout=600
    for said in ["600", "600s", "0600"] {
        assert_eq!(rounds(said, true, &["5.10", "844.99", "845"]), ["0", "0", "7"], "{said}");
    }
    for odd in ["600x", "-1", "99999999999999999999"] {
        assert_eq!(rounds(odd, true, &["5", "304", "305"]), ["0", "0", "7"], "{odd}");
    }
    assert_eq!(rounds("", false, &["5"]), ["7"]);
}
