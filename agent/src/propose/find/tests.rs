//! Boot files as distributions lay them out.

use super::super::file::tests::image;
use super::*;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::prelude::*;
use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;

mod planted;

const MACHINE: &str = "0123456789abcdef0123456789abcdef";
const GRUB: &str = "BOOT_IMAGE=/boot/vmlinuz-6.1.0-55 root=/dev/x ro quiet";
const SYSTEMD_BOOT: &str = "initrd=\\tok\\6.1.0-55\\initrd.img root=/dev/x quiet";

struct Machine {
    folder: tempfile::TempDir,
    system: System,
}

impl Machine {
    fn new(command_line: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let system = System {
            root: folder.path().into(),
            boot_root: None,
            command_line: command_line.into(),
            release: "6.1.0-55".into(),
            came: None,
        };
        Self { folder, system }
    }

    fn with(self, path: &str, content: &str) -> Self {
        self.with_bytes(path, content.as_bytes())
    }

    fn with_bytes(self, path: &str, content: &[u8]) -> Self {
        let path = self.path(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, content).unwrap();
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// By its path from the place that it is found in.
    fn file(&self, path: &str) -> BootFile {
        let (place, path) = path.split_once('/').unwrap();
        BootFile::beneath(&self.path(place), path)
    }

    fn find(&self, version: &str) -> Result<Source> {
        self.system.find(version, &Written::default())
    }

    fn kernel(&self, kernel: &str, initrds: &[&str], command_line: &str) -> Source {
        Source::Kernel {
            kernel: self.file(kernel),
            initrds: initrds.iter().map(|path| self.file(path)).collect(),
            command_line: Some(command_line.into()),
        }
    }
}

#[test]
fn a_uki_by_its_name() {
    let machine = Machine::new("")
        .with(&format!("efi/EFI/Linux/{MACHINE}-6.1.0-56.efi"), "")
        .with("efi/EFI/Linux/tok-6.1.0-55+3.efi", "")
        .with(&format!("efi/EFI/Linux/linux-6.1.0-54-{MACHINE}-abc.EFI"), "")
        .with("efi/EFI/Linux/tok-16.1.0-53.efi", "")
        .with("efi/EFI/Linux/tok-6.1.0-56.efi.extra.d/x.cred", "");
    let found = |version: &str| match machine.find(version) {
        Ok(Source::Uki(file)) => file.path().file_name().unwrap().to_str().unwrap().to_owned(),
        other => format!("{other:?}"),
    };
    assert_eq!(found("6.1.0-56"), format!("{MACHINE}-6.1.0-56.efi"));
    assert_eq!(found("6.1.0-55"), "tok-6.1.0-55+3.efi");
    assert_eq!(found("6.1.0-54"), format!("linux-6.1.0-54-{MACHINE}-abc.EFI"));
    // Neither a part of a version nor the end of another one.
    for version in ["6.1.0", "6.1.0-53", "1.0-56"] {
        let error = machine.find(version).unwrap_err();
        assert!(error.message.starts_with(&format!("no kernel {version} is in ")), "{error}");
        assert!(error.hint.unwrap().contains("--uki"));
    }
}

#[test]
fn a_kernel_by_what_is_in_it_where_no_name_says() {
    let uki = |release: &str| image(&[(".linux", &[7; 0x3000]), (".uname", release.as_bytes())], None);
    let text = "6.12.3-arch1-1 (linux@archlinux) #1 SMP PREEMPT_DYNAMIC";
    let machine = Machine::new("")
        .with_bytes("efi/EFI/Linux/arch-linux.efi", &uki("6.12.1-arch1-1"))
        .with_bytes("efi/EFI/Linux/os_5@6.12.2.efi", &uki("6.12.2\n"))
        .with("efi/EFI/Linux/none.efi", "MZ")
        .with_bytes("boot/vmlinuz-linux", &image(&[], Some(text)))
        .with("boot/initramfs-linux.img", "")
        .with(
            "boot/loader/entries/arch.conf",
            "linux /vmlinuz-linux\ninitrd /initramfs-linux.img\noptions quiet\n",
        )
        .with_bytes("boot/images/os.efi", &uki("6.12.4"))
        .with("boot/loader/entries/os.conf", "uki /images/os.efi\n")
        .with("boot/loader/entries/other.conf", "version 5\nlinux /vmlinuz-linux\n");
    for (version, name) in [
        ("6.12.1-arch1-1", "efi/EFI/Linux/arch-linux.efi"),
        ("6.12.2", "efi/EFI/Linux/os_5@6.12.2.efi"),
        ("6.12.4", "boot/images/os.efi"),
    ] {
        assert_eq!(machine.find(version).unwrap(), Source::Uki(machine.file(name)));
    }
    let expected = machine.kernel(
        "boot/vmlinuz-linux",
        &["boot/initramfs-linux.img"],
        "initrd=\\initramfs-linux.img quiet",
    );
    assert_eq!(machine.find("6.12.3-arch1-1").unwrap(), expected);
    for version in ["6.12", "6.12.3", "arch1-1"] {
        assert!(machine.find(version).is_err(), "{version}");
    }
}

#[test]
fn an_entry_of_type_1_with_what_systemd_boot_adds() {
    let entry = "# made by kernel-install\ntitle Debian\nversion  6.1.0-56\noptions root=/dev/x\tquiet\nlinux /tok/6.1.0-56/linux\ninitrd /tok/6.1.0-56/ucode\ninitrd /tok/6.1.0-56/initrd.img\noptions   systemd.import_credentials=no\n";
    let machine = Machine::new(SYSTEMD_BOOT)
        .with("boot/tok/6.1.0-56/linux", "")
        .with("boot/tok/6.1.0-56/ucode", "")
        .with("boot/tok/6.1.0-56/initrd.img", "")
        .with("boot/loader/entries/tok-6.1.0-56.conf", entry);
    let expected = machine.kernel(
        "boot/tok/6.1.0-56/linux",
        &["boot/tok/6.1.0-56/ucode", "boot/tok/6.1.0-56/initrd.img"],
        "initrd=\\tok\\6.1.0-56\\ucode initrd=\\tok\\6.1.0-56\\initrd.img root=/dev/x\tquiet systemd.import_credentials=no",
    );
    assert_eq!(machine.find("6.1.0-56").unwrap(), expected);
    // As Fedora and Red Hat have it for GRUB, and without a version of its own.
    let grub = Machine::new(GRUB)
        .with("boot/vmlinuz-6.1.0-56", "")
        .with("boot/initramfs-6.1.0-56.img", "")
        .with("boot/grub2/grubenv", "# GRUB Environment Block\nkernelopts=root=/dev/x ro \n####\n")
        .with(
            "boot/loader/entries/0123-6.1.0-56.conf",
            "linux /vmlinuz-6.1.0-56\ninitrd /initramfs-6.1.0-56.img $tuned_initrd\noptions $kernelopts $tuned_params quiet\n",
        );
    assert_eq!(
        grub.find("6.1.0-56").unwrap(),
        grub.kernel(
            "boot/vmlinuz-6.1.0-56",
            &["boot/initramfs-6.1.0-56.img"],
            "BOOT_IMAGE=/boot/vmlinuz-6.1.0-56 root=/dev/x ro quiet"
        )
    );
    assert!(grub.find("0-56").is_err() && grub.find("1.0-56").is_err());
    // /boot is no file system of its own: paths start at /.
    let machine = machine.with(
        "boot/loader/entries/tok-6.1.0-56.conf",
        "version 6.1.0-56\nlinux /boot/tok/6.1.0-56/linux\noptions quiet\n",
    );
    assert_eq!(machine.find("6.1.0-56").unwrap(), machine.kernel("boot/tok/6.1.0-56/linux", &[], "quiet"));
    // What an entry names must be there.
    std::fs::remove_file(machine.path("boot/tok/6.1.0-56/linux")).unwrap();
    let error = machine.find("6.1.0-56").unwrap_err();
    assert!(error.message.contains("tok-6.1.0-56.conf names /boot/tok/6.1.0-56/linux"), "{error}");
}

#[test]
fn an_entry_that_grub_reads_has_the_name_of_its_kernel_in_front() {
    let machine = Machine::new("BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.1.0-55 root=/dev/x")
        .with("boot/vmlinuz-6.1.0-56", "")
        .with("boot/initramfs-6.1.0-56.img", "")
        .with(
            "boot/loader/entries/tok.conf",
            "version 6.1.0-56\nlinux /vmlinuz-6.1.0-56\ninitrd /initramfs-6.1.0-56.img\noptions root=/dev/y\n",
        );
    let expected = machine.kernel(
        "boot/vmlinuz-6.1.0-56",
        &["boot/initramfs-6.1.0-56.img"],
        "BOOT_IMAGE=(hd0,gpt2)/vmlinuz-6.1.0-56 root=/dev/y",
    );
    assert_eq!(machine.find("6.1.0-56").unwrap(), expected);
}

#[test]
fn the_line_of_the_next_boot() {
    let lines = |machine: &Machine| {
        let name = |next: NextLine| {
            (next.file.file_name().unwrap().to_string_lossy().into_owned(), next.line, next.built)
        };
        machine.system.next_lines().into_iter().map(name).collect::<Vec<_>>()
    };
    let said = |file: &str, line: &str, built| (file.to_owned(), line.to_owned(), built);
    let machine = Machine::new(SYSTEMD_BOOT);
    assert_eq!(lines(&machine), []);
    let machine = machine.with("etc/kernel/cmdline", "root=/dev/x\nconfigured\n");
    assert_eq!(lines(&machine), [said("cmdline", "root=/dev/x\nconfigured", false)]);
    let uki = image(&[(".cmdline", b"built\n\0"), (".uname", b"6.1.0-55")], None);
    let machine = machine
        .with("boot/linux", "")
        .with("boot/loader/entries/tok-6.1.0-55.conf", "linux /linux\noptions entry\n");
    assert_eq!(lines(&machine)[0], said("tok-6.1.0-55.conf", "entry", true));
    let machine = machine.with_bytes("efi/EFI/Linux/os.efi", &uki);
    assert_eq!(
        lines(&machine),
        [
            said("os.efi", "built", true),
            said("tok-6.1.0-55.conf", "entry", true),
            said("cmdline", "root=/dev/x\nconfigured", false)
        ]
    );
    let config = "\tlinux /boot/vmlinuz-6.1.0-55 root=/dev/x grub\n";
    let machine = Machine::new(GRUB).with("boot/grub/grub.cfg", config).with("etc/kernel/cmdline", "no");
    assert_eq!(lines(&machine), [said("grub.cfg", "root=/dev/x grub", true)]);
}

#[test]
fn an_image_is_started_with_the_line_of_the_next_boot() {
    let lines = |machine: &Machine| machine.system.lines_of_an_image();
    // No file says what the next boot has.
    let machine = Machine::new("root=/dev/x typed").with("etc/kernel/cmdline", "configured\n");
    assert_eq!(lines(&machine), ["configured", "root=/dev/x typed"]);
    // What was typed at the boot loader is for one boot; entries of other kernels, and later ones of GRUB's, do not boot.
    let machine = machine
        .with("boot/linux", "")
        .with("boot/loader/entries/other.conf", "version 5\nlinux /linux\noptions other\n")
        .with("boot/loader/entries/tok-6.1.0-55.conf", "linux /linux\noptions entry\n");
    assert_eq!(lines(&machine), ["entry", "configured"]);
    let config =
        "linux /vmlinuz-6.1.0-54 other\nlinux /vmlinuz-6.1.0-55 first\nlinux /vmlinuz-6.1.0-55 later\n";
    let machine = Machine::new(GRUB).with("boot/grub/grub.cfg", config).with("etc/kernel/cmdline", "no");
    assert_eq!(lines(&machine), ["first"]);
    assert_eq!(lines(&Machine::new(GRUB)), [GRUB]);
}

#[test]
fn what_debian_puts_into_boot() {
    let files = |command_line| {
        Machine::new(command_line)
            .with("boot/vmlinuz-6.1.0-56", "")
            .with("boot/initrd.img-6.1.0-56", "")
            .with("etc/kernel/cmdline", "root=/dev/z\n")
    };
    let machine = files(GRUB);
    let kernel = |machine: &Machine, command_line| {
        machine.kernel("boot/vmlinuz-6.1.0-56", &["boot/initrd.img-6.1.0-56"], command_line)
    };
    let expected = kernel(&machine, "BOOT_IMAGE=/boot/vmlinuz-6.1.0-56 root=/dev/x ro quiet");
    assert_eq!(machine.find("6.1.0-56").unwrap(), expected);
    let mut unknown = files(GRUB);
    unknown.system.release.clear();
    let expected = kernel(&unknown, "BOOT_IMAGE=/boot/vmlinuz-6.1.0-55 root=/dev/x ro quiet");
    assert_eq!(unknown.find("6.1.0-56").unwrap(), expected);
    // /etc/kernel/cmdline is kernel-install's, not GRUB's.
    let machine = files(SYSTEMD_BOOT);
    assert_eq!(machine.find("6.1.0-56").unwrap(), kernel(&machine, "root=/dev/z"));
    std::fs::remove_file(machine.path("etc/kernel/cmdline")).unwrap();
    assert_eq!(machine.find("6.1.0-56").unwrap(), kernel(&machine, "root=/dev/x quiet"));
    std::fs::remove_file(machine.path("boot/initrd.img-6.1.0-56")).unwrap();
    assert!(machine.find("6.1.0-56").unwrap_err().message.contains("no initrd.img-6.1.0-56 beside it"));
}

#[test]
fn a_named_place_only() {
    let mut machine = Machine::new("")
        .with("boot/tok/linux", "")
        .with("boot/loader/entries/tok.conf", "version 6.1\nlinux /tok/linux\n")
        .with("efi/EFI/Linux/tok-6.1.efi", "");
    assert!(machine.find("6.1").unwrap_err().message.contains("several that differ"));
    machine.system.boot_root = Some(machine.path("efi"));
    assert_eq!(machine.find("6.1").unwrap(), Source::Uki(machine.file("efi/EFI/Linux/tok-6.1.efi")));
    machine.system.boot_root = Some(machine.path("boot"));
    assert_eq!(machine.find("6.1").unwrap(), machine.kernel("boot/tok/linux", &[], ""));
    for version in ["", "../6.1", "6.1/../..", "6 1", &"6".repeat(129)] {
        assert_eq!(machine.find(version).unwrap_err().kind, Kind::Usage);
    }
}

#[test]
fn what_others_can_write_leads_nowhere_else_and_is_not_waited_for() {
    let machine = Machine::new("")
        .with("secret", "root's")
        .with("boot/vmlinuz-6.1.0-55", "MZ")
        .with("boot/initrd.img-6.1.0-55", "")
        .with("boot/tok/linux", "MZ")
        .with("boot/loader/entries/out.conf", "version 6.1.0-57\nlinux /../secret\n")
        .with("boot/loader/entries/whole.conf", "version 6.1.0-58\nlinux /secret\n")
        .with("boot/EFI/Linux/other.efi", "");
    let fifo = |path| mkfifo(&machine.path(path), Mode::S_IRWXU).unwrap();
    let link = |to: &str, path| symlink(to, machine.path(path)).unwrap();
    // Entries that never end, or are of somewhere else.
    fifo("boot/loader/entries/fifo.conf");
    link("../../../secret", "boot/loader/entries/link.conf");
    assert!(matches!(machine.find("6.1.0-55").unwrap(), Source::Kernel { .. }));
    let read = |version| match machine.find(version)? {
        Source::Uki(file) => file.whole(),
        Source::Kernel { kernel, initrds, .. } => Ok([&kernel]
            .into_iter()
            .chain(&initrds)
            .map(BootFile::whole)
            .collect::<Result<Vec<_>>>()?
            .concat()),
    };
    let says = |version, why: &str| {
        let error = read(version).unwrap_err();
        assert!(error.message.contains(why), "{version}: {error}");
    };
    assert_eq!(read("6.1.0-55").unwrap(), b"MZ");
    says("6.1.0-57", "out of it");
    says("6.1.0-58", "no such file is in");
    // Files that a place names by their names.
    std::fs::remove_file(machine.path("boot/initrd.img-6.1.0-55")).unwrap();
    link("../secret", "boot/initrd.img-6.1.0-55");
    says("6.1.0-55", "out of it");
    std::fs::remove_file(machine.path("boot/initrd.img-6.1.0-55")).unwrap();
    fifo("boot/initrd.img-6.1.0-55");
    says("6.1.0-55", "has no initrd.img");
    fifo("boot/EFI/Linux/tok-6.1.0-56.efi");
    says("6.1.0-56", "expected a regular file");
    link("tok/linux", "boot/vmlinuz-6.1.0-59");
    link("vmlinuz-6.1.0-55", "boot/initrd.img-6.1.0-59");
    assert_eq!(read("6.1.0-59").unwrap(), b"MZMZ");
}

#[test]
fn what_a_link_on_boot_leads_away_to_counts_for_nothing() {
    let machine = Machine::new("")
        .with("boot/EFI/Linux/other.efi", "")
        .with("boot/tok/linux", "MZ")
        .with("boot/loader/entries/tok.conf", "version 6.1\nlinux /tok/linux\n")
        .with("secret", "newer");
    // It can't be started, so it is none.
    symlink("../../../secret", machine.path("boot/EFI/Linux/tok-6.1.efi")).unwrap();
    assert_eq!(machine.find("6.1").unwrap(), machine.kernel("boot/tok/linux", &[], ""));
    // Where nothing else is, what is wrong with it is told.
    for (version, to) in [("6.2", "../secret"), ("6.3", "../none")] {
        symlink(to, machine.path(&format!("boot/vmlinuz-{version}"))).unwrap();
        symlink("tok/linux", machine.path(&format!("boot/initrd.img-{version}"))).unwrap();
        let error = machine.find(version).unwrap_err();
        assert!(error.message.contains("out of it"), "{version}: {error}");
    }
}

proptest! {
    #[test]
    fn any_name_has_a_version_or_not(name in "[a-z0-9+.é-]{0,40}", version in "[0-9.-]{1,8}") {
        let machine = Machine::new("").with(&format!("efi/EFI/Linux/{name}.efi"), "");
        let _ = machine.find(&version);
    }
}
