//! Which TPMs this machine has: by the kernel, and by what firmware shows.

use super::Location;
use crate::bounded;
use std::io;
use std::path::{Path, PathBuf};

/// What drivers of Linux match in a device tree (drivers/char/tpm, `of_device_id` and the names for I2C and SPI), without the vendor.
/// Chips of version 1.2 alone are left out. The name of a node says nothing: NXP's timer and PWM module is a `tpm@` as well.
const COMPATIBLE: &[&str] = &[
    "tpm-tis-mmio",
    "synquacer-tpm-mmio",
    "tpm_tis-spi",
    "tpm_tis_spi",
    "tpm-tis-i2c",
    "tpm_tis_i2c",
    "slb9670",
    "slb9673",
    "st33htpm-spi",
    "st33zp24-spi",
    "st33zp24-i2c",
    "st33ktpm2xi2c",
    "st33tphf2ei2c",
    "npct601",
    "npct75x",
    "tpm2_i2c_nuvoton",
    "attpm20p",
    "cr50",
    "cr50_i2c",
    "ftpm",
    "vtpm20",
];
/// Trees of real machines have less than ten levels,
const DEPTH: usize = 32;
/// and some ten thousand entries: properties and nodes.
const MAX_ENTRIES: usize = 200_000;
/// Names of one chip, in bytes.
const MAX_PROPERTY: usize = 4096;

/// Where the TPMs are that the kernel knows, with its resource manager, in the order of their numbers. One whose driver has not made its device
/// yet is among them. Never empty: where the kernel knows none, where the first would be, if need be beside programs that pose as one.
/// The folders are /sys and /dev but for tests.
pub fn devices(sys: &Path, dev: &Path) -> Vec<Location> {
    let device = |number| Location::Device(dev.join(format!("tpmrm{number}")));
    let (mut all, mut first) = (Vec::new(), None);
    for number in NUMBERS {
        let (chip, device) = (chip(sys, number), device(number));
        if is_program(&chip) {
            continue;
        }
        // Where sysfs can't be seen, devices are all that there is.
        if chip.exists() && !is_version_1(&chip) || !chip.exists() && !device.is_absent() {
            all.push(device);
        }
        first.get_or_insert(number);
    }
    if all.is_empty() {
        all.push(device(first.unwrap_or(0)));
    }
    all
}

/// Folders of the chips in sysfs, in the order of their numbers; no program that poses as one is among them.
pub fn chips(sys: &Path) -> impl Iterator<Item = PathBuf> {
    NUMBERS.map(move |number| chip(sys, number)).filter(|chip| chip.join("device").exists())
}

/// The kernel gives the lowest number that is free, and no machine has so many.
const NUMBERS: std::ops::Range<u32> = 0..64;

fn chip(sys: &Path, number: u32) -> PathBuf {
    sys.join(format!("class/tpm/tpm{number}"))
}

/// Whether a program of this machine stands behind a chip: the kernel gives that one no parent device. What sysfs does not know is none.
pub fn is_program(chip: &Path) -> bool {
    chip.exists() && !chip.join("device").exists()
}

fn is_version_1(chip: &Path) -> bool {
    bounded::read_text(chip.join("tpm_version_major"), 16).is_ok_and(|version| version == "1")
}

/// The firmware's event log. UEFI has one, which the kernel shows beside each TPM; a device tree has one of one TPM.
pub fn event_log() -> PathBuf {
    event_log_below(Path::new("/sys"))
}

fn event_log_below(sys: &Path) -> PathBuf {
    let log = |number| sys.join(format!("kernel/security/tpm{number}/binary_bios_measurements"));
    NUMBERS.map(log).find(|log| log.exists()).unwrap_or_else(|| log(0))
}

/// Whether the firmware left traces of a TPM: then a TPM that can't be reached is no reason to go on.
/// A TPM 1.2 seals nothing of ours and has no fence: it counts as none.
pub fn firmware_shows_tpm() -> bool {
    may_show_tpm(Path::new("/sys"))
}

/// Where sysfs is not mounted nothing can be seen, which is no reason to assume that there is no TPM.
fn may_show_tpm(sys: &Path) -> bool {
    !is_sysfs(sys) || shows_tpm(sys)
}

/// Whether sysfs is mounted there.
pub fn is_sysfs(path: &Path) -> bool {
    use nix::sys::statfs::{SYSFS_MAGIC, statfs};
    statfs(path).is_ok_and(|found| found.filesystem_type() == SYSFS_MAGIC)
}

fn shows_tpm(sys: &Path) -> bool {
    // Where there are several the kernel numbers them, this one too.
    if ["TPM2", "TPM21"].iter().any(|name| sys.join("firmware/acpi/tables").join(name).exists()) {
        return true;
    }
    let mut is_of_version_1 = false;
    for chip in chips(sys) {
        if !is_version_1(&chip) {
            return true;
        }
        is_of_version_1 = true;
    }
    // One of version 1.2 has an event log too, and a node like that of its successor.
    !is_of_version_1
        && (event_log_below(sys).exists() || device_tree_shows_tpm(&sys.join("firmware/devicetree/base")))
}

/// Whether a device tree is there and has a TPM, or can't be seen whole.
fn device_tree_shows_tpm(root: &Path) -> bool {
    root.exists() && has_tpm(root, DEPTH, &mut { MAX_ENTRIES }).unwrap_or(true)
}

/// Looks at this node and all below it. A node that is switched off gets no driver, and nothing below it does.
fn has_tpm(node: &Path, depth: usize, left: &mut usize) -> io::Result<bool> {
    let property = |name| match bounded::read(node.join(name), MAX_PROPERTY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    };
    if !matches!(&*property("status")?, b"" | b"ok\0" | b"okay\0") {
        return Ok(false);
    }
    let names = property("compatible")?;
    // The kernel finds drivers of I2C and SPI by what is behind the vendor, too.
    let mut names =
        names.split(|byte| *byte == 0).filter_map(|name| name.rsplit(|byte| *byte == b',').next());
    if names.any(|name| COMPATIBLE.iter().any(|known| known.as_bytes() == name)) {
        return Ok(true);
    }
    for entry in std::fs::read_dir(node)? {
        let entry = entry?;
        *left = left.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
        if entry.file_type()?.is_dir() {
            let depth = depth.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
            if has_tpm(&entry.path(), depth, left)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder that stands in for /sys.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &[u8]) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// A node of the device tree, with one of its properties.
        fn node(&self, path: &str, property: &str, value: &[u8]) {
            self.write(&format!("firmware/devicetree/base/{path}/{property}"), value);
        }

        /// Gives the chip of this number a parent, which a program has not.
        fn chip(&self, number: u32, version: &[u8]) {
            self.write(&format!("class/tpm/tpm{number}/tpm_version_major"), version);
            self.write(&format!("class/tpm/tpm{number}/device/vendor"), b"");
        }

        fn devices(&self) -> Vec<String> {
            let dev = self.0.path().join("dev");
            let devices = devices(self.0.path(), &dev).into_iter();
            let below = format!("{}/", dev.display());
            devices.map(|device| device.to_string().strip_prefix(&below).unwrap().to_owned()).collect()
        }

        fn shows(&self) -> bool {
            shows_tpm(self.0.path())
        }
    }

    #[test]
    fn a_tpm_of_version_1_is_none() {
        let sys = Sys::new();
        assert!(!sys.shows());
        sys.write("kernel/security/tpm0/binary_bios_measurements", b"");
        assert!(sys.shows());
        sys.chip(0, b"1\n");
        assert!(!sys.shows());
        sys.chip(0, b"2\n");
        assert!(sys.shows());
        sys.chip(0, b"1\n");
        sys.chip(1, b"2\n");
        assert!(sys.shows());
        sys.chip(1, b"1\n");
        assert!(!sys.shows());
        sys.write("firmware/acpi/tables/TPM2", b"");
        assert!(sys.shows());
    }

    #[test]
    fn two_tables_of_acpi_are_shown() {
        let sys = Sys::new();
        sys.write("firmware/acpi/tables/TCPA", b"");
        assert!(!sys.shows());
        for table in ["TPM21", "TPM22"] {
            sys.write(&format!("firmware/acpi/tables/{table}"), b"");
            assert!(sys.shows());
        }
    }

    #[test]
    fn every_tpm_of_the_machine_is_found() {
        let sys = Sys::new();
        assert_eq!(sys.devices(), ["tpmrm0"], "where the first would be");
        sys.write("dev/tpmrm1", b"");
        assert_eq!(sys.devices(), ["tpmrm1"], "without sysfs");
        for number in [10, 2, 0, 1] {
            sys.chip(number, b"2\n");
        }
        let all = ["tpmrm0", "tpmrm1", "tpmrm2", "tpmrm10"];
        assert_eq!(sys.devices(), all, "whose devices are not there yet, too");
        // Of version 1.2; programs.
        sys.chip(3, b"1\n");
        sys.write("class/tpm/tpm4/tpm_version_major", b"2\n");
        sys.write("dev/tpmrm4", b"");
        for other in ["class/tpm/tpm", "class/tpm/tpmx", "class/tpm/x0", "dev/tpm0", "dev/tpmrm-1"] {
            sys.write(other, b"");
        }
        assert_eq!(sys.devices(), all);
        assert!(sys.shows());
        assert_eq!(chips(sys.0.path()).count(), 5);
    }

    /// Its PCRs are in a file: the driver of the machine's own TPM is waited for.
    #[test]
    fn a_program_does_not_stand_in_for_the_tpm() {
        let sys = Sys::new();
        sys.write("class/tpm/tpm0/tpm_version_major", b"2\n");
        sys.write("dev/tpmrm0", b"");
        sys.write("firmware/acpi/tables/TPM2", b"");
        assert_eq!(sys.devices(), ["tpmrm1"]);
        assert!(sys.shows());
        sys.chip(1, b"2\n");
        assert_eq!(sys.devices(), ["tpmrm1"]);
    }

    #[test]
    fn the_event_log_is_beside_any_of_them() {
        let sys = Sys::new();
        let log = |number| sys.0.path().join(format!("kernel/security/tpm{number}/binary_bios_measurements"));
        assert_eq!(event_log_below(sys.0.path()), log(0));
        sys.write("kernel/security/tpm0/other", b"");
        sys.write("kernel/security/tpm11/binary_bios_measurements", b"");
        assert_eq!(event_log_below(sys.0.path()), log(11));
        assert!(sys.shows());
        sys.write("kernel/security/tpm2/binary_bios_measurements", b"");
        assert_eq!(event_log_below(sys.0.path()), log(2));
    }

    #[test]
    fn a_tpm_of_the_device_tree_is_shown_before_its_driver_is_there() {
        for compatible in [
            &b"tcg,tpm-tis-mmio\0"[..],
            b"infineon,slb9670\0tcg,tpm_tis-spi\0",
            b"vendor,of-tomorrow\0tcg,tpm-tis-i2c\0",
            b"nuvoton,npct650\0nuvoton,npct601\0",
            b"google,cr50\0",
            b"microsoft,ftpm\0",
            b"IBM,vtpm20\0",
            // Without the end that it must have.
            b"st,st33htpm-spi",
        ] {
            let sys = Sys::new();
            sys.node("soc/spi@7e204000/tpm@1", "compatible", compatible);
            assert!(sys.shows(), "{compatible:?}");
            sys.node("soc/spi@7e204000/tpm@1", "status", b"okay\0");
            assert!(sys.shows(), "{compatible:?}");
            sys.node("soc/spi@7e204000/tpm@1", "status", b"disabled\0");
            assert!(!sys.shows(), "{compatible:?}");
            sys.node("soc/spi@7e204000/tpm@1", "status", b"ok\0");
            sys.node("soc/spi@7e204000", "status", b"disabled\0");
            assert!(!sys.shows(), "no driver gets there: {compatible:?}");
        }
    }

    #[test]
    fn what_is_no_tpm_of_version_2_in_the_device_tree_is_none() {
        let sys = Sys::new();
        sys.node("", "compatible", b"raspberrypi,4-model-b\0brcm,bcm2711\0");
        // A timer; TPMs 1.2; what can't be matched by any driver.
        for (name, compatible) in [
            ("tpm@40260000", &b"fsl,imx7ulp-tpm\0"[..]),
            ("tpm@20", b"infineon,slb9645tt\0"),
            ("vdevice/vtpm@30000003", b"IBM,vtpm\0"),
            ("ftpm", b""),
            ("tpm@0", b"\0\xff,,\0,\0"),
        ] {
            sys.node(name, "compatible", compatible);
        }
        assert!(!sys.shows());
        sys.node("tpm@2e", "compatible", b"tcg,tpm-tis-mmio\0");
        assert!(sys.shows());
        // Its driver says that it is of version 1.2.
        sys.chip(0, b"1\n");
        assert!(!sys.shows());
    }

    #[test]
    fn a_device_tree_that_can_not_be_seen_whole_may_have_a_tpm() {
        let sys = Sys::new();
        let deep = |levels: usize| vec!["a"; levels].join("/");
        sys.node(&deep(DEPTH), "name", b"a\0");
        assert!(!sys.shows());
        sys.node(&deep(DEPTH + 1), "name", b"a\0");
        assert!(sys.shows());
        for property in ["compatible", "status"] {
            let sys = Sys::new();
            sys.node("large", property, &vec![b'a'; MAX_PROPERTY + 1]);
            assert!(sys.shows(), "{property}");
        }
        let sys = Sys::new();
        sys.node("a", "name", b"a\0");
        std::os::unix::fs::symlink("..", sys.0.path().join("firmware/devicetree/base/a/back")).unwrap();
        assert!(!sys.shows(), "no link is followed");
        let base = sys.0.path().join("firmware/devicetree/base");
        let look = |mut left| has_tpm(&base, DEPTH, &mut left);
        // a, its name, the link
        assert!(look(2).is_err());
        assert!(!look(3).unwrap());
    }

    #[test]
    fn without_sysfs_there_may_be_a_tpm() {
        let empty = tempfile::tempdir().unwrap();
        assert!(!shows_tpm(empty.path()));
        assert!(may_show_tpm(empty.path()));
        assert!(may_show_tpm(Path::new("/nowhere")));
        assert!(is_sysfs(Path::new("/sys")));
        assert!(!is_sysfs(Path::new("/proc")));
    }
}
