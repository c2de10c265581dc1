//! What somebody has put on an ESP or an unencrypted /boot while the machine was off.

use super::*;
use std::time::Duration;

/// On FAT a time is what the disk says.
const IN_2107: u64 = 4_323_456_000;

impl Machine {
    fn came(mut self, came: Came) -> Self {
        self.system.came = Some(came);
        self
    }

    fn planted(self, path: &str, content: &str) -> Self {
        let planted = self.with(path, content);
        let file = std::fs::File::options().write(true).open(planted.path(path)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(IN_2107)).unwrap();
        planted
    }

    /// Nothing is chosen, and all that fit are named.
    fn is_undecided(&self, version: &str, named: &[&str]) {
        let error = self.find(version).unwrap_err();
        let message = &error.message;
        assert!(message.contains("found several that differ: "), "{error}");
        assert!(named.iter().all(|name| message.contains(name)), "{error}");
        assert!(error.hint.unwrap().contains("--entry FILE"));
    }
}

#[test]
fn a_file_that_somebody_added_is_not_chosen_for_its_name_or_time() {
    let uki = Machine::new("").came(Came::Uki).with("efi/EFI/Linux/tok-6.1.0-56.efi", "genuine");
    let genuine = uki.file("efi/EFI/Linux/tok-6.1.0-56.efi");
    assert_eq!(uki.find("6.1.0-56").unwrap(), Source::Uki(genuine));
    let evil = uki.planted("efi/EFI/Linux/x-6.1.0-56.efi", "evil");
    evil.is_undecided("6.1.0-56", &["tok-6.1.0-56.efi", "x-6.1.0-56.efi"]);

    let entry = Machine::new(SYSTEMD_BOOT)
        .came(Came::Kernel)
        .with("boot/tok/linux", "kernel")
        .with("boot/tok/initrd", "genuine")
        .with(
            "boot/loader/entries/tok-6.1.0-56+3.conf",
            "version 6.1.0-56\nlinux /tok/linux\ninitrd /tok/initrd\n",
        );
    assert!(entry.find("6.1.0-56").is_ok());
    let evil = entry
        .planted("boot/evil", "evil")
        .planted("boot/loader/entries/z.conf", "version 6.1.0-56\nlinux /tok/linux\ninitrd /evil\n");
    evil.is_undecided("6.1.0-56", &["tok-6.1.0-56+3.conf", "z.conf"]);
    // One more of a kernel that only its name names.
    std::fs::remove_file(evil.path("boot/loader/entries/tok-6.1.0-56+3.conf")).unwrap();
    let evil = evil.with("boot/vmlinuz-6.1.0-56", "kernel").with("boot/initrd.img-6.1.0-56", "genuine");
    evil.is_undecided("6.1.0-56", &["vmlinuz-6.1.0-56", "z.conf"]);
    // That which was meant is named.
    let named = evil.system.of_entry(&evil.path("boot/loader/entries/z.conf"), "");
    let Source::Kernel { initrds, .. } = named.unwrap() else { panic!() };
    assert_eq!(initrds, [evil.file("boot/evil")]);
    for path in ["boot/evil", "boot/loader/entries/none.conf"] {
        assert!(evil.system.of_entry(&evil.path(path), "").is_err(), "{path}");
    }
}

/// On an ESP that is looked at before /boot.
#[test]
fn a_kernel_by_its_name_is_not_chosen_for_the_place_that_it_is_in() {
    let machine = Machine::new(GRUB)
        .came(Came::Grub { entries: false })
        .with("boot/vmlinuz-6.1.0-56", "kernel")
        .with("boot/initrd.img-6.1.0-56", "genuine");
    let genuine = machine.find("6.1.0-56").unwrap();
    let evil = machine.planted("efi/vmlinuz-6.1.0-56", "kernel").planted("efi/initrd.img-6.1.0-56", "evil");
    evil.is_undecided("6.1.0-56", &["efi/vmlinuz-6.1.0-56", "boot/vmlinuz-6.1.0-56"]);
    // Without an initrd it is no boot, and the same once more is the same boot.
    std::fs::remove_file(evil.path("efi/initrd.img-6.1.0-56")).unwrap();
    assert_eq!(evil.find("6.1.0-56").unwrap(), genuine);
    let copy = evil.with("efi/initrd.img-6.1.0-56", "genuine");
    let Source::Kernel { initrds, .. } = copy.find("6.1.0-56").unwrap() else { panic!() };
    assert_eq!(initrds, [copy.file("efi/initrd.img-6.1.0-56")]);
}

/// Of kernel-install: what is staged, and what it was made of.
#[test]
fn what_an_update_has_written_is_proposed_whatever_stands_beside_it() {
    let machine = Machine::new("")
        .came(Came::Uki)
        .with("tmp/uki.efi", "genuine")
        .with("usr/lib/modules/6.1.0-56/vmlinuz", "kernel")
        .with("efi/EFI/Linux/tok-6.1.0-56.efi", "genuine")
        .planted("efi/EFI/Linux/x-6.1.0-56.efi", "evil");
    let written = |machine: &Machine, paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| machine.path(path)).collect();
        Written::of(&paths, &[], &machine.system).unwrap()
    };
    let staged = written(&machine, &["usr/lib/modules/6.1.0-56/vmlinuz", "tmp/uki.efi"]);
    let (genuine, evil) = ["efi/EFI/Linux/tok-6.1.0-56.efi", "efi/EFI/Linux/x-6.1.0-56.efi"]
        .map(|path| machine.file(path))
        .into();
    assert_eq!(machine.system.find("6.1.0-56", &staged).unwrap(), Source::Uki(genuine.clone()));
    assert_eq!(staged.doubt(&Source::Uki(genuine)).unwrap(), "");
    assert!(staged.doubt(&Source::Uki(evil.clone())).unwrap().contains("not what the update has written"));
    assert_eq!(Written::default().doubt(&Source::Uki(evil)), None);
    // Signed where it was copied to, as sbctl does: then there is no telling.
    let machine = machine.with("efi/EFI/Linux/tok-6.1.0-56.efi", "genuine, signed");
    assert!(machine.system.find("6.1.0-56", &staged).unwrap_err().message.contains("several that differ"));
    // The first image of a machine that GRUB starts; what it is made of is GRUB's.
    let machine = Machine::new(GRUB)
        .came(Came::Grub { entries: false })
        .with("boot/vmlinuz-6.1.0-56", "kernel")
        .with("boot/initrd.img-6.1.0-56", "initrd")
        .with("tmp/uki.efi", "genuine")
        .with("efi/EFI/Linux/tok-6.1.0-56.efi", "genuine");
    let found = |paths: &[&str]| machine.system.find("6.1.0-56", &written(&machine, paths)).unwrap();
    assert!(matches!(found(&["tmp/uki.efi"]), Source::Uki(_)));
    assert!(matches!(found(&["boot/vmlinuz-6.1.0-56", "boot/initrd.img-6.1.0-56"]), Source::Kernel { .. }));
    assert!(matches!(found(&[]), Source::Kernel { .. }));
    // Another entry with the same files is another boot; one with another initrd is not the update's.
    let entry = "version 6.1.0-56\nlinux /linux\ninitrd /initrd\n";
    let machine = Machine::new(SYSTEMD_BOOT)
        .came(Came::Kernel)
        .with("tmp/initrd", "initrd")
        .with("usr/lib/modules/6.1.0-56/vmlinuz", "kernel")
        .with("boot/linux", "kernel")
        .with("boot/initrd", "initrd")
        .with("boot/loader/entries/tok-6.1.0-56.conf", entry)
        .planted("boot/evil", "evil")
        .planted("boot/loader/entries/z.conf", "version 6.1.0-56\nlinux /linux\ninitrd /evil\n");
    let staged = written(&machine, &["usr/lib/modules/6.1.0-56/vmlinuz", "tmp/initrd"]);
    let found = machine.system.find("6.1.0-56", &staged).unwrap();
    assert_eq!(found, machine.kernel("boot/linux", &["boot/initrd"], "initrd=\\initrd"));
    assert_eq!(staged.doubt(&found).unwrap(), "");
    let more = format!("{entry}options init=/bin/sh\n");
    let machine = machine.planted("boot/loader/entries/z.conf", &more);
    assert!(machine.system.find("6.1.0-56", &staged).unwrap_err().message.contains("several that differ"));
}

#[test]
fn what_does_not_come_as_this_boot_did_is_not_looked_at() {
    let entry = "version 6.1.0-56\nlinux /evil\ninitrd /evil\n";
    let planted = |machine: Machine| {
        machine
            .planted("boot/efi/EFI/Linux/x-6.1.0-56.efi", "evil")
            .planted("boot/evil", "evil")
            .planted("boot/loader/entries/z.conf", entry)
    };
    let grub = Machine::new(GRUB)
        .came(Came::Grub { entries: false })
        .with("boot/vmlinuz-6.1.0-56", "kernel")
        .with("boot/initrd.img-6.1.0-56", "genuine");
    let expected = grub.find("6.1.0-56").unwrap();
    let grub = planted(grub);
    assert_eq!(grub.find("6.1.0-56").unwrap(), expected);
    let uki = Machine::new("").came(Came::Uki).with("efi/EFI/Linux/tok-6.1.0-56+3-1.efi", "genuine");
    let uki = uki
        .with("boot/vmlinuz-6.1.0-56", "kernel")
        .planted("boot/evil", "")
        .planted("boot/loader/entries/z.conf", entry);
    let genuine = Source::Uki(uki.file("efi/EFI/Linux/tok-6.1.0-56+3-1.efi"));
    assert_eq!(uki.find("6.1.0-56").unwrap(), genuine);
    // GRUB of Fedora reads entries, and no UKI.
    let fedora = Machine::new(GRUB)
        .came(Came::Grub { entries: true })
        .with("boot/vmlinuz-6.1.0-56", "kernel")
        .with("boot/initramfs-6.1.0-56.img", "genuine")
        .with(
            "boot/loader/entries/tok-6.1.0-56.conf",
            "linux /vmlinuz-6.1.0-56\ninitrd /initramfs-6.1.0-56.img\noptions other\n",
        )
        .planted("efi/EFI/Linux/x-6.1.0-56.efi", "evil");
    let Source::Kernel { command_line, .. } = fedora.find("6.1.0-56").unwrap() else { panic!() };
    assert_eq!(command_line.unwrap(), "BOOT_IMAGE=/boot/vmlinuz-6.1.0-56 other");
    planted(fedora).is_undecided("6.1.0-56", &["tok-6.1.0-56.conf", "z.conf"]);
    // Nothing of its kind is there: the others are not taken in its place.
    let none = planted(Machine::new("").came(Came::Uki));
    std::fs::remove_file(none.path("boot/efi/EFI/Linux/x-6.1.0-56.efi")).unwrap();
    let error = none.find("6.1.0-56").unwrap_err();
    assert!(error.message.contains("as this boot came: a unified kernel image"), "{error}");
}

#[test]
fn what_is_there_twice_is_one() {
    let line =
        "version 6.1.0-56\nlinux /tok/linux\ninitrd /tok/ucode\ninitrd /tok/initrd.img\noptions quiet\n";
    // One place by two names, and two EFI system partitions of one content.
    let machine = Machine::new("").came(Came::Uki).with("boot/efi/EFI/Linux/tok-6.1.0-56.efi", "uki");
    symlink("boot/efi", machine.path("efi")).unwrap();
    assert!(machine.find("6.1.0-56").is_ok());
    std::fs::remove_file(machine.path("efi")).unwrap();
    let machine = machine.with("efi/EFI/Linux/tok-6.1.0-56.efi", "uki");
    assert_eq!(
        machine.find("6.1.0-56").unwrap(),
        Source::Uki(machine.file("efi/EFI/Linux/tok-6.1.0-56.efi"))
    );
    // kernel-install copies from what Debian puts into /boot.
    let machine = Machine::new(SYSTEMD_BOOT)
        .came(Came::Kernel)
        .with("boot/vmlinuz-6.1.0-56", "kernel")
        .with("boot/initrd.img-6.1.0-56", "initrd")
        .with("efi/tok/linux", "kernel")
        .with("efi/tok/ucode", "ucode")
        .with("efi/tok/initrd.img", "initrd")
        .with("efi/loader/entries/tok-6.1.0-56.conf", line);
    let Source::Kernel { kernel, initrds, .. } = machine.find("6.1.0-56").unwrap() else { panic!() };
    assert_eq!((kernel, initrds.len()), (machine.file("efi/tok/linux"), 2));
    // It is not what is copied any more.
    let machine = machine.with("boot/initrd.img-6.1.0-56", "rebuilt");
    machine.is_undecided("6.1.0-56", &["tok-6.1.0-56.conf", "vmlinuz-6.1.0-56"]);
}

#[test]
fn among_too_many_files_none_is_chosen() {
    let mut machine = Machine::new("").came(Came::Uki).with("efi/EFI/Linux/tok-6.1.0-56.efi", "genuine");
    for number in 0..MAX_NAMES {
        write(machine.path(&format!("efi/EFI/Linux/{number}")), "").unwrap();
    }
    let error = machine.find("6.1.0-56").unwrap_err();
    assert!(error.message.contains("EFI/Linux: expected at most 4096 files"), "{error}");
    machine.system.boot_root = Some(machine.path("none"));
    assert!(machine.find("6.1.0-56").unwrap_err().message.contains("no kernel"));
}
