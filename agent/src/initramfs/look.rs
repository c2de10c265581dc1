//! What is in an image, as dracut's lsinitrd lists it, and what is missing there.

use super::alone::Root;
use super::{run, tool};
use crate::bounded;
use crate::enroll::running::Warning;
use crate::error::{Error, Kind, Result};
use crate::tpm::machine;
use halfkey_measure::{pe, stub};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Units of any image, each with the drop-in that fences its shell or looks at the root. Those that only some versions have are
/// looked for where the image has the unit.
const FENCED: &[&str] = &["emergency.service", "rescue.service", "initrd-switch-root.service"];
const FENCED_IF_THERE: &[&str] =
    &["dracut-emergency.service", "debug-shell.service", "systemd-cryptsetup@.service"];
/// What a unified kernel image may be large.
const MAX_IMAGE: usize = 512 << 20;
/// For one look: an image is unpacked in seconds.
const LONGEST: Duration = Duration::from_secs(5 * 60);
const UNITS: &str = "lib/systemd/system/";

/// One thing that is wrong with an image.
pub type Finding = Warning;

/// What [`look`] saw; the JSON of `status --image --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, miniserde::Serialize)]
pub struct Image {
    /// The file.
    pub image: String,
    /// The boot would ask for a passphrase, or stop.
    pub missing: Vec<Finding>,
    /// What may be on purpose.
    pub warnings: Vec<Finding>,
}

/// What this machine needs a driver for, by the names of modules; what is built into the kernel has none.
#[derive(Clone, Debug, Default)]
pub struct Drivers {
    /// The TPM's, and those of the bus that it is on.
    pub tpm: Vec<String>,
    /// Those of the interface with the default route.
    pub network: Vec<String>,
}

impl Drivers {
    /// Those of the machine that this runs on.
    pub fn here() -> Self {
        let sys = Path::new("/sys");
        let interface = crate::enroll::address::default_interface();
        let mut tpm = Vec::new();
        for chip in machine::chips(sys) {
            tpm.extend(drivers_on_the_way(sys, &chip.join("device")));
        }
        Self {
            tpm,
            network: interface
                .map(|name| drivers_on_the_way(sys, &sys.join("class/net").join(name).join("device")))
                .unwrap_or_default(),
        }
    }
}

/// The modules that drive a device and what it is connected to.
fn drivers_on_the_way(sys: &Path, device: &Path) -> Vec<String> {
    let Ok(device) = device.canonicalize() else { return Vec::new() };
    let module = |device: &Path| {
        let module = device.join("driver/module").canonicalize().ok()?;
        // One that is built in can have a folder there as well, for its parameters.
        let loaded = module.join("initstate").exists();
        loaded.then(|| module.file_name().map(|name| name.to_string_lossy().into_owned()))?
    };
    device.ancestors().take_while(|at| at.starts_with(sys) && *at != sys).filter_map(module).collect()
}

/// Looks into an image.
///
/// # Errors
/// When lsinitrd is not here or can't read it: [`Kind::System`].
pub fn look(file: &Path, drivers: &Drivers, root: &Root) -> Result<Image> {
    let listing = lsinitrd(file, None)?;
    let files = files(&String::from_utf8_lossy(&listing));
    if files.is_empty() {
        return Err(Error::system(
            file.display(),
            "expected an initramfs, found nothing that lsinitrd could list",
        )
        .hint("lsinitrd needs what unpacks that image, as zstd or xz"));
    }
    let mut image = Image { image: file.display().to_string(), ..Image::default() };
    image.missing = missing(&files, drivers, root);
    if files.contains("bin/halfkey-agent") {
        image.warnings.extend(other_agent(file));
    }
    Ok(image)
}

impl Image {
    /// Its lines, for people.
    pub fn lines(&self) -> Vec<String> {
        let missing = |found: &Finding| [format!("missing: {}", found.what), format!("hint: {}", found.hint)];
        let mut out: Vec<String> = self.missing.iter().flat_map(missing).collect();
        out.extend(self.warnings.iter().flat_map(Finding::lines));
        if self.missing.is_empty() {
            out.push("it has all that it takes to unlock itself".into());
        }
        out
    }

    /// Nothing, if the machine can unlock itself with this image.
    ///
    /// # Errors
    /// With all that is missing: [`Kind::System`].
    pub fn complete(&self) -> Result<()> {
        let Some(first) = self.missing.first() else { return Ok(()) };
        let all: Vec<_> = self.missing.iter().map(|found| found.what.as_str()).collect();
        Err(Error::new(Kind::System, format!("{}: {}", self.image, all.join("; "))).hint(first.hint.clone()))
    }
}

/// Paths in a listing, without `usr/`: where that is one with the root, and where not.
fn files(listing: &str) -> BTreeSet<String> {
    let path = |line: &str| {
        let mode = line.split_ascii_whitespace().next()?;
        let is_entry = mode.len() == 10 && mode.starts_with(['-', 'd', 'l', 'c', 'b', 'p', 's']);
        let path = line.split(" -> ").next()?.split_ascii_whitespace().next_back()?;
        is_entry.then(|| path.strip_prefix("usr/").unwrap_or(path).to_owned())
    };
    listing.lines().filter_map(path).collect()
}

fn missing(files: &BTreeSet<String>, drivers: &Drivers, root: &Root) -> Vec<Finding> {
    let has = |path: &str| files.contains(path);
    let any = |paths: &[&str]| paths.iter().any(|path| has(path));
    if !has("bin/halfkey-agent") {
        return vec![Finding {
            what: "the image has no halfkey-agent".into(),
            hint: "the module must be in /usr/lib/dracut/modules.d, and add_dracutmodules+=\" halfkey \" in a file of /etc/dracut.conf.d; dracut --force says what it misses".into(),
        }];
    }
    let mut parts: Vec<String> = Vec::new();
    let mut need = |there: bool, what: &str| {
        if !there {
            parts.push(what.to_owned());
        }
    };
    let unit = |name: &str| has(&format!("{UNITS}{name}"));
    // systemctl links units there; PID 1 takes both.
    let linked = |name: &str| unit(name) || has(&format!("etc/systemd/system/{name}"));
    need(
        unit("halfkey-unlock.service") && linked("sysinit.target.wants/halfkey-unlock.service"),
        "the unit that unlocks",
    );
    need(
        unit("halfkey-gate.service") && linked("initrd-root-fs.target.requires/halfkey-gate.service"),
        "the root gate",
    );
    let breakpoints = files
        .iter()
        .filter_map(|path| path.strip_prefix(UNITS))
        .filter(|name| name.starts_with("breakpoint-") && name.ends_with(".service") && !name.contains('/'));
    let optional = FENCED_IF_THERE.iter().copied().chain(breakpoints).filter(|name| unit(name));
    for name in FENCED.iter().copied().chain(optional) {
        need(unit(&format!("{name}.d/zz-halfkey.conf")), &format!("the drop-in for {name}"));
    }
    need(any(&["sbin/cryptsetup", "bin/cryptsetup"]), "cryptsetup");
    need(any(&["lib/systemd/systemd-cryptsetup", "bin/systemd-cryptsetup"]), "systemd-cryptsetup");
    let networkd = has("lib/systemd/systemd-networkd");
    let manager = any(&["sbin/NetworkManager", "bin/NetworkManager"])
        && any(&["libexec/nm-initrd-generator", "lib/nm-initrd-generator"]);
    if manager && !networkd {
        need(
            unit("halfkey-network.service") && has("lib/halfkey/network.sh"),
            "the unit that has NetworkManager started",
        );
    }
    let mut findings = Vec::new();
    if !parts.is_empty() {
        findings.push(Finding {
            what: format!("the image has not all of the module: {}", parts.join(", ")),
            hint: "install agent and dracut module of one version, then dracut --force".into(),
        });
    }
    if !networkd && !manager {
        findings.push(Finding {
            what: "the image has neither NetworkManager nor systemd-networkd for the agent".into(),
            hint: format!("{}, then dracut --force", super::NETWORK_PACKAGES),
        });
    }
    let is_there = |module: &String| {
        let name = |path: &str| Some(path.rsplit_once('/')?.1.split_once(".ko")?.0.replace('-', "_"));
        files.iter().any(|path| name(path).is_some_and(|name| name == module.replace('-', "_")))
    };
    for (modules, whose) in [(&drivers.tpm, "TPM"), (&drivers.network, "network interface")] {
        let lacking: Vec<_> = modules.iter().filter(|module| !is_there(module)).map(String::as_str).collect();
        if !lacking.is_empty() {
            let names = lacking.join(" ");
            findings.push(Finding {
                what: format!("the image has no driver for the {whose} of this machine: {names}"),
                hint: format!(
                    "add_drivers+=\" {names} \" in a file of /etc/dracut.conf.d, then dracut --force"
                ),
            });
        }
    }
    findings.extend(root.missing(files));
    findings
}

/// Whether the agent in the image is another than this one.
fn other_agent(file: &Path) -> Option<Finding> {
    let there = lsinitrd(file, Some("usr/bin/halfkey-agent")).ok()?;
    let here = bounded::read("/proc/self/exe", 64 << 20).ok()?;
    (!there.is_empty() && there != here).then(|| Finding {
        what: "the image has another version of halfkey-agent than this one".into(),
        hint: "dracut --force; then halfkey-agent propose, for what boots is another one".into(),
    })
}

/// The listing of an image, or one of its files.
fn lsinitrd(file: &Path, inside: Option<&str>) -> Result<Vec<u8>> {
    let mut command = tool("lsinitrd");
    if let Some(inside) = inside {
        command.args(["-f", inside]);
    }
    let file: PathBuf = file.canonicalize().map_err(|e| Error::system(file.display(), e))?;
    // lsinitrd itself takes objcopy for that, which few servers have.
    let unpacked = Unpacked::of(&file)?;
    command.arg(unpacked.as_ref().map_or(file.as_path(), |unpacked| &unpacked.0));
    let ran = run::run(command, LONGEST, super::FROM)?;
    if !ran.status.success() {
        let said = [ran.stderr, ran.stdout].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        let why = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no word of why");
        return Err(Error::system(
            format_args!("lsinitrd {}", file.display()),
            why.replace(char::is_control, " "),
        ));
    }
    Ok(ran.stdout)
}

/// The initramfs of a unified kernel image in a file of its own, which goes with this value.
struct Unpacked(PathBuf);

impl Unpacked {
    /// Nothing, if the file is no PE image: then it is an initramfs.
    fn of(file: &Path) -> Result<Option<Self>> {
        let wrong = |what: &dyn std::fmt::Display| Error::system(file.display(), what);
        let mut magic = [0; 2];
        let mut opened = File::open(file).map_err(|e| wrong(&e))?;
        if opened.read_exact(&mut magic).is_err() || magic != *b"MZ" {
            return Ok(None);
        }
        let bytes = bounded::read(file, MAX_IMAGE).map_err(|e| wrong(&e))?;
        let image = pe::Image::parse(&bytes).map_err(|e| wrong(&e))?;
        let initrd = image.section(stub::INITRD).map_err(|e| wrong(&e))?;
        let initrd =
            initrd.ok_or_else(|| wrong(&"expected a unified kernel image, found no initramfs in it"))?;
        // Where dracut itself works. Nobody else's file is written to: there must be none of that name.
        let to = Path::new("/var/tmp").join(format!("halfkey-look-{}", std::process::id()));
        let failed = |e: io::Error| Error::system(to.display(), e);
        let mut out = File::options().write(true).create_new(true).mode(0o600).open(&to).map_err(failed)?;
        let unpacked = Self(to.clone());
        out.write_all(initrd.data).map_err(failed)?;
        Ok(Some(unpacked))
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enroll::prompts::Mapping;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    const LISTING: &str = "Image: /boot/initrd.img: 17M\n\
        dracut modules:\nhalfkey\n========\n\
        crw-r--r--   1 root     root       5,   1 Apr 11  2025 dev/console\n\
        lrwxrwxrwx   1 root     root            7 Apr 11  2025 bin -> usr/bin\n\
        -rwxr-xr-x   1 root     root      2692400 Apr 11  2025 usr/bin/halfkey-agent\n\
        -rwxr-xr-x   1 root     root       243488 Apr 11  2025 usr/sbin/cryptsetup\n\
        lrwxrwxrwx   1 root     root           28 Apr 11  2025 usr/lib/systemd/systemd-cryptsetup -> ../../bin/systemd-cryptsetup\n\
        -rwxr-xr-x   1 root     root      1862304 Apr 11  2025 usr/lib/systemd/systemd-networkd\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/halfkey-unlock.service\n\
        lrwxrwxrwx   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/sysinit.target.wants/halfkey-unlock.service -> ../halfkey-unlock.service\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/halfkey-gate.service\n\
        lrwxrwxrwx   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/initrd-root-fs.target.requires/halfkey-gate.service -> ../halfkey-gate.service\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/emergency.service.d/zz-halfkey.conf\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/rescue.service.d/zz-halfkey.conf\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/initrd-switch-root.service.d/zz-halfkey.conf\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/debug-shell.service\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/debug-shell.service.d/zz-halfkey.conf\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/breakpoint-pre-mount.service\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/systemd/system/breakpoint-pre-mount.service.d/zz-halfkey.conf\n\
        -rw-r--r--   1 root     root            1 Apr 11  2025 usr/lib/modules/6.12/kernel/drivers/char/tpm/tpm-tis-spi.ko.xz\n";

    fn found(listing: &str, drivers: &Drivers) -> Vec<String> {
        missing(&files(listing), drivers, &Root::default()).into_iter().map(|found| found.what).collect()
    }

    #[test]
    fn the_initramfs_of_a_uki_is_read_without_objcopy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("linux.efi");
        halfkey_testkit::uki::make(&file, "quiet", b"the initramfs");
        let unpacked = Unpacked::of(&file).unwrap().unwrap();
        let at = unpacked.0.clone();
        assert_eq!(std::fs::read(&at).unwrap(), b"the initramfs");
        drop(unpacked);
        assert!(!at.exists());
        write(&file, "070701 an initramfs").unwrap();
        assert!(Unpacked::of(&file).unwrap().is_none());
        write(&file, "MZ, and nothing more").unwrap();
        assert!(Unpacked::of(&file).is_err());
    }

    #[test]
    fn each_missing_piece_is_named() {
        let none = Drivers::default();
        assert_eq!(found(LISTING, &none), [""; 0]);
        for (piece, expected) in [
            ("usr/bin/halfkey-agent", "no halfkey-agent"),
            ("system/halfkey-unlock.service", "the unit that unlocks"),
            ("sysinit.target.wants/halfkey-unlock.service", "the unit that unlocks"),
            ("initrd-root-fs.target.requires/halfkey-gate.service", "the root gate"),
            ("rescue.service.d/", "the drop-in for rescue.service"),
            ("initrd-switch-root.service.d/", "the drop-in for initrd-switch-root.service"),
            ("debug-shell.service.d/", "the drop-in for debug-shell.service"),
            ("breakpoint-pre-mount.service.d/", "the drop-in for breakpoint-pre-mount.service"),
            ("usr/sbin/cryptsetup", "cryptsetup"),
            ("systemd/systemd-cryptsetup", "systemd-cryptsetup"),
            ("systemd-networkd", "neither NetworkManager nor systemd-networkd"),
        ] {
            let without: String = LISTING
                .lines()
                .filter(|line| !line.contains(piece))
                .map(|line| format!("{line}\n"))
                .collect();
            let found = found(&without, &none);
            assert!(found.len() == 1 && found[0].contains(expected), "{piece}: {found:?}");
        }
        let without = LISTING.replace("usr/", "");
        assert_eq!(found(&without, &none), [""; 0], "/usr is not one with the root");
    }

    #[test]
    fn networkmanager_is_a_network_where_something_has_it_started() {
        let listing = |paths: &[&str]| -> String {
            let others = LISTING.lines().filter(|line| !line.contains("systemd-networkd"));
            let paths = paths.iter().map(|path| format!("-rwxr-xr-x 1 root root 1 Apr 11 2025 {path}"));
            others.map(str::to_owned).chain(paths).map(|line| format!("{line}\n")).collect()
        };
        let all = [
            "usr/sbin/NetworkManager",
            "usr/libexec/nm-initrd-generator",
            "usr/lib/halfkey/network.sh",
            "usr/lib/systemd/system/halfkey-network.service",
        ];
        assert_eq!(found(&listing(&all), &Drivers::default()), [""; 0]);
        for (left_out, expected) in [(0, "neither"), (1, "neither"), (2, "started"), (3, "started")] {
            let paths: Vec<_> = all.iter().filter(|path| **path != all[left_out]).copied().collect();
            let found = found(&listing(&paths), &Drivers::default());
            assert!(found.len() == 1 && found[0].contains(expected), "{}: {found:?}", all[left_out]);
        }
    }

    #[test]
    fn drivers_of_this_machine_are_looked_for() {
        let drivers =
            Drivers { tpm: vec!["tpm_tis_spi".into(), "spi_intel".into()], network: vec!["e1000e".into()] };
        let found = found(LISTING, &drivers);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("for the TPM of this machine: spi_intel"), "{found:?}");
        assert!(found[1].ends_with("for the network interface of this machine: e1000e"), "{found:?}");
    }

    #[test]
    fn an_image_that_needs_halfkey_to_get_to_the_root_is_not_whole() {
        let root = Mapping { uuid: "LVM-abc".into(), name: "vg-root".into(), is_part: false };
        let on_lvm = Root::of(&BTreeSet::from([root]), &[]);
        let found = |listing: &str| missing(&files(listing), &Drivers::default(), &on_lvm);
        assert!(found(LISTING)[0].what.contains("activate the logical volume"));
        let names = "-rw-r--r-- 1 root root 1 Apr 11 2025 etc/cmdline.d/90lvm.conf\n";
        assert!(found(&[LISTING, names].concat()).is_empty());
    }

    #[test]
    fn a_driver_that_is_built_in_is_none() {
        let top = tempfile::tempdir().unwrap();
        let sys = top.path().canonicalize().unwrap();
        let device = sys.join("devices/pci/spi0/spi0.0");
        create_dir_all(&device).unwrap();
        for (at, module, loaded) in
            [(device.clone(), "tpm_tis_spi", true), (sys.join("devices/pci"), "pcieport", false)]
        {
            create_dir_all(sys.join("module").join(module)).unwrap();
            create_dir_all(at.join("driver")).unwrap();
            symlink(sys.join("module").join(module), at.join("driver/module")).unwrap();
            if loaded {
                write(sys.join("module").join(module).join("initstate"), "live\n").unwrap();
            }
        }
        assert_eq!(drivers_on_the_way(&sys, &device), ["tpm_tis_spi"]);
        assert_eq!(drivers_on_the_way(&sys, &sys.join("none")), [""; 0]);
    }

    #[test]
    fn what_is_no_image_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), "hello").unwrap();
        assert!(look(file.path(), &Drivers::default(), &Root::default()).is_err());
        assert!(look(Path::new("/nonexistent"), &Drivers::default(), &Root::default()).is_err());
    }
}
