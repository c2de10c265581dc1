//! Boots of another initramfs, or of none, that tell the story of the approved one: what ran extends what is missing, and writes
//! the log.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::{Appraised as _, Record, boot, log_of};
use common::pins::*;
use halfkey_evidence::eventlog::{kind, replay};
use halfkey_evidence::policy::{Assured, Finding, evaluate, learn, learn_boot};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::recorded::UNMEASURED_INITRD;

#[test]
fn an_entry_is_learned_only_if_its_kernel_measures_every_initrd() {
    let boot = boot("systemd-boot-type1");
    let found = learn(&boot.log(), &boot.claims(), Assured::default(), "learned", &[]).unwrap_err();
    let text = found.iter().map(ToString::to_string).collect::<String>();
    assert!(text.contains("expected kernel_measures_initrd = true, a uki, or the events of grub"), "{text}");
    // Nor can it be written by hand.
    let text = boot.learned();
    let assured = text.lines().find(|line| line.starts_with("kernel_measures_initrd = true")).unwrap();
    refused(&text.replace(assured, ""), "expected kernel_measures_initrd = true");
    refused(
        &text.replace(assured, "kernel_measures_initrd = false"),
        "expected kernel_measures_initrd = true",
    );
    // What was said of a kernel once holds for its other command lines.
    let policy = policy(&text);
    let more = learn_boot(&policy, &boot.log(), &boot.claims(), Assured::default(), "more");
    assert!(more.unwrap().contains("kernel_measures_initrd = true"));
}

/// An entry whose `initrd` line is gone, and whose `options` begin with `initrd=\evil.img` or name the overwritten file: a kernel that
/// measures only what came by LoadFile2 measures neither, and evil's /init extends the digest of the good one. With a kernel that measures
/// every initrd there is no such log: evil's digest is in it.
#[test]
fn an_initrd_that_the_line_names_is_one_that_the_kernel_measures() {
    let boot = boot("systemd-boot-type1");
    let policy = policy(&boot.learned());
    let line = boot.line().split_once(' ').unwrap().1;
    let evil = format!("initrd=\\evil.img {line}");
    let mut records = with_line(boot, &evil);
    let good = records.iter().find(|record| is_tag(record, INITRD)).unwrap().clone();
    let at = records.iter().position(|record| is_tag(record, INITRD)).unwrap();
    records.insert(at, Record { digest: vec![0xee; 32], ..good });
    denied(&findings(&policy, &records, &evil), "expected no such event, found sha256:eeee");
    // Anywhere but at the front, where loaders write it, it is none of a loader's.
    for line in [
        format!("{line} initrd=\\evil.img"),
        format!("{line} foo=\"initrd=/evil.img\""),
        format!("{line} xinitrd=/a"),
    ] {
        denied(&findings(&policy, &with_line(boot, &line), &line), "expected no initrd=");
    }
    // What stands at the front is any file's name, but not one in which the stub finds another kind of file.
    let line = format!("initrd=\\good.imgdtb=\\evil.dtb {line}");
    denied(&findings(&policy, &with_line(boot, &line), &line), "the kernel would load that device tree");
}

/// What the attack looked like on Linux 6.1.0-56 of Debian 12, recorded when it still got the key: the entry's `options` began with
/// `initrd=\linux\evil.img`, and a generator in evil.img extended PCR 9 with the digest of the approved initrd and put an event for it
/// behind the log. Of evil.img there is no trace but its name.
#[test]
fn a_kernel_that_does_not_measure_what_it_loads_can_not_be_told_from_one_that_does() {
    let (log, claims) = (UNMEASURED_INITRD.log(), UNMEASURED_INITRD.claims());
    let initrds =
        log.events().iter().filter(|event| event.pcr == 9 && event.claimed_data().starts_with(&INITRD));
    assert_eq!(initrds.count(), 1, "the one that evil.img has added");
    let found = learn(&log, &claims, Assured::default(), "learned", &[]).unwrap_err();
    denied(&found, "kernel_measures_initrd = true");
    // To say so of this kernel is to believe whoever writes the entry.
    let falsely = Assured { kernel_measures_initrd: true, ..Assured::default() };
    let believed = learn(&log, &claims, falsely, "learned", &[]).unwrap();
    assert_eq!(evaluate(&policy(&believed), &log, &claims).findings, []);
}

#[test]
fn initrd_is_in_no_other_line() {
    let boot = boot("uki-no-secure-boot");
    let text = boot.learned();
    refused(&text.replace("\"root=", "\"initrd=\\\\evil.img root="), "expected no initrd=");
    let tokens = with_tokens(
        &text,
        "[\"root=UUID=*\", \"rd.luks.name=*\", \"rw\", \"console=ttyS0\", \"loglevel=4\", \"systemd.show_status=yes\", \"rd.shell=0\", \"rd.emergency=poweroff\"]",
        "[\"systemd.import_credentials=no\", \"efi=noruntime\"]",
    );
    let policy = policy(&tokens);
    let of_section = |line: &str| {
        let mut records = with_line(boot, line);
        let at = records.iter().position(|record| record.pcr == 4 && record.data.len() < 100).unwrap();
        records.insert(at, Record::of(12, kind::IPL, &utf16(&format!("{line}\0"))));
        findings(&policy, &records, line)
    };
    assert_eq!(of_section(boot.line()), []);
    for front in ["initrd=\\evil.img ", "BOOT_IMAGE=initrd=/evil.img "] {
        denied(&of_section(&format!("{front}{}", boot.line())), "expected no initrd=");
    }
    // The kernel's stub finds it inside of a word that a wildcard stands for.
    denied(&of_section(&boot.line().replace(ROOT, "root=UUID=0b5finitrd=/evil.img")), "expected no initrd=");
    refused(&tokens.replace("\"rw\"", "\"initrd=*\""), "expected no initrd=");
}

#[test]
fn wildcards_stand_behind_one_parameter() {
    let text = boot("uki-no-secure-boot").learned();
    let required = "[\"systemd.import_credentials=no\", \"efi=noruntime\"]";
    for wide in ["*", "foo*", "r*", "systemd.*", "=*"] {
        refused(
            &with_tokens(&text, &format!("[\"{wide}\"]"), required),
            "only behind the = of one parameter",
        );
        let more = format!("[\"{wide}\", \"systemd.import_credentials=no\", \"efi=noruntime\"]");
        refused(&with_tokens(&text, "[]", &more), "only behind the = of one parameter");
    }
    policy(&with_tokens(&text, "[\"root=UUID=*\", \"a.b=c*\"]", required));
}

/// No initrd, and a root file system that the kernel mounts itself: what is on it extends what is missing.
#[test]
fn a_root_that_the_kernel_can_mount_needs_a_uki() {
    let boot = boot("systemd-boot-type1");
    let text = boot.learned();
    let tokens = with_tokens(
        &text,
        "[\"root=*\", \"rd.luks.name=*\", \"rw\", \"console=ttyS0\", \"loglevel=4\", \"systemd.show_status=yes\", \"rd.shell=0\", \"rd.emergency=poweroff\"]",
        "[\"systemd.import_credentials=no\", \"efi=noruntime\"]",
    );
    for root in [
        "root=PARTUUID=1",
        "root=/dev/vda2",
        "root=PARTLABEL=x",
        "root=8:1",
        "root=/dev/nfs",
        "root=\\\"PARTUUID=1\\\"",
        "root=",
        "root=UUID=",
    ] {
        refused(&text.replace(ROOT, root), "the kernel itself could mount this one");
        let line = boot.line().replace(ROOT, &root.replace('\\', ""));
        denied(
            &findings(&policy(&tokens), &with_line(boot, &line), &line),
            "the kernel itself could mount this one",
        );
    }
    for root in ["root=LABEL=x", "root=/dev/mapper/root", ""] {
        policy(&text.replace(ROOT, root));
    }
    // A UKI has an initramfs of its own.
    policy(&common::boots::boot("uki-no-secure-boot").learned().replace(ROOT, "root=PARTUUID=1"));
}

#[test]
fn the_initrd_is_what_the_firmwares_log_says() {
    let boot = boot("uki-no-secure-boot");
    let policy = policy(&boot.learned());
    let records = boot.records();
    assert_eq!(judge(&policy, &records, None, boot.line()), []);
    let mut without = records.clone();
    let at = without.iter().position(|record| is_tag(record, INITRD)).unwrap();
    let good = without.remove(at);
    let by_systemd = systemd(9, &hex(&good.digest), "initrd");
    denied(&judge(&policy, &without, Some(&by_systemd), boot.line()), "initrd: expected sha256:");
    // Nor once more, nor as another kind of event.
    let mut twice = records.clone();
    twice.push(good.clone());
    denied(&findings(&policy, &twice, boot.line()), "no such event");
    without.push(Record { kind: kind::IPL, ..good });
    denied(&findings(&policy, &without, boot.line()), "initrd: expected sha256:");
}

#[test]
fn systemds_separators_need_no_rule_and_stand_for_nothing() {
    let boot = boot("uki-no-secure-boot");
    let policy = policy(&boot.learned());
    let digest = |text: &str| hex(&Hash::Sha256.digest(&[text.as_bytes()]));
    let nvpcr = "nvpcr-init:cryptsetup:0x1d10200:aa";
    let mut log = Vec::new();
    for pcr in [0u8, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14] {
        log.extend(systemd(pcr, &digest("os-separator"), "os-separator"));
    }
    log.extend(systemd(9, &digest(nvpcr), nvpcr));
    log.extend(systemd(9, &digest("nvpcr-separator"), "nvpcr-separator"));
    assert!(boot.learned().contains("\"3\" = ["), "the value of a whole PCR is learned as well");
    assert_eq!(judge(&policy, &boot.records(), Some(&log), boot.line()), []);
    // What is learned of a boot that has them is the same.
    let bytes = log_of(&boot.records());
    let with = replay(&bytes, PcrBank::Sha256).unwrap().assume_with(Some(&log)).unwrap();
    assert_eq!(
        learn(&with, &boot.claims(), Assured::default(), "learned", &["from a test"]).unwrap(),
        boot.learned()
    );
    // A value is that before them: something else on top is not the separator, and another value is no other for it.
    let other = [&systemd(3, &digest("os-separator"), "os-separator")[..], &systemd(3, &digest("x"), "x")];
    let pcr_3 = |finding: &Finding| finding.rule == "pcr.3";
    for log in [&other[1].to_vec(), &other.concat()] {
        assert!(judge(&policy, &boot.records(), Some(log), boot.line()).iter().any(pcr_3));
    }
    let mut records = boot.records();
    let at = records.iter().position(|record| record.pcr == 3).unwrap();
    records.insert(at, Record { kind: kind::IPL, digest: vec![0x33; 32], ..records[at].clone() });
    assert!(judge(&policy, &records, Some(other[0]), boot.line()).iter().any(pcr_3));
    for (pcr, text, digest) in [
        (8, "os-separator", digest("os-separator")),
        (9, "nvpcr-init:x", digest("nvpcr-init:y")),
        (9, "nvpcr-init:x", digest("nvpcr-init:x")),
        (9, "nvpcr-init:x:0x1:aa ", digest("nvpcr-init:x:0x1:aa ")),
        (12, "nvpcr-separator", digest("nvpcr-separator")),
        (9, "nvpcr-inits", digest("nvpcr-inits")),
    ] {
        denied(
            &judge(&policy, &boot.records(), Some(&systemd(pcr, &digest, text)), boot.line()),
            "no such event",
        );
    }
}

/// The stub measures an archive of credentials that somebody, or systemd itself, put onto the ESP. Only its digest is proven.
#[test]
fn credentials_of_the_stub_count_by_their_content() {
    const NAMES: [&str; 2] = ["Credentials initrd", "Global credentials initrd"];
    let boot = boot("uki-secure-boot-own-keys");
    let measured = |name: &str, content: &[u8]| {
        let digest = Hash::Sha256.digest(&[content]);
        let of_pcr = Record { pcr: 12, kind: kind::IPL, digest, data: utf16(&format!("{name}\0")) };
        [boot.records(), vec![of_pcr]].concat()
    };
    let without = policy(&boot.learned());
    let line = utf16("rdinit=/bin/sh");
    for name in NAMES {
        // A name is accepted for nothing: the same could be said of a command line, or of a configuration extension.
        for content in [&b"an archive"[..], &line] {
            let found = findings(&without, &measured(name, content), boot.line());
            denied(&found, "no such event");
            assert!(found[0].hint.as_deref().unwrap().contains("nvpcr-anchor"), "{found:?}");
        }
        let bytes = log_of(&measured(name, b"an archive"));
        let log = replay(&bytes, PcrBank::Sha256).unwrap().assume().unwrap();
        denied(
            &learn(&log, &boot.claims(), Assured::default(), "x", &[]).unwrap_err(),
            "whatever it is called",
        );
        let word = Assured { trust_unknown_events: true, ..Assured::default() };
        let text = learn(&log, &boot.claims(), word, "x", &[]).unwrap();
        assert!(text.contains("by its content"), "{text}");
        let with = policy(&text);
        assert_eq!(findings(&with, &measured(name, b"an archive"), boot.line()), []);
        for content in [&b"another archive"[..], &line] {
            denied(&findings(&with, &measured(name, content), boot.line()), "pcr 12");
        }
        let twice =
            [measured(name, b"an archive"), measured(name, b"an archive").split_off(boot.records().len())]
                .concat();
        denied(&findings(&with, &twice, boot.line()), "no such event");
    }
    // Nothing else has the hint.
    let other = findings(&without, &measured("System extension initrd", b"x"), boot.line());
    assert!(other.iter().all(|finding| finding.hint.is_none()), "{other:?}");
}

/// GRUB reads another file in the place of the initrd. What runs then extends the PCR with the digests that are missing, and says that the
/// file, and these, were systemd's.
#[test]
fn what_grub_read_is_not_systemds() {
    let boot = boot("grub-shim-ms-keys");
    let text = boot.learned();
    let policy = policy(&text);
    let initrd = &text.lines().find_map(|line| line.strip_prefix("initrd = \"sha256:")).unwrap()[..64];
    let digest = |text: &str| hex(&Hash::Sha256.digest(&[text.as_bytes()]));
    let records = boot.records();
    let at = records.iter().position(|record| record.pcr == 9 && hex(&record.digest) == initrd).unwrap();
    let is_later = |(index, record): &(usize, Record)| *index >= at && record.pcr == 9;
    let (later, firmware): (Vec<_>, Vec<_>) = records.into_iter().enumerate().partition(is_later);
    let firmware: Vec<_> = firmware.into_iter().map(|(_, record)| record).collect();
    // The last has the form of a record; the initrd is still none of GRUB's.
    for file in ["nvpcr-init:a file of any content", "nvpcr-init:cryptsetup:0x1d10200:aa"] {
        let mut log = systemd(9, &digest(file), file);
        for (_, record) in &later {
            log.extend(systemd(9, &hex(&record.digest), "later"));
        }
        let found = judge(&policy, &firmware, Some(&log), boot.line());
        let missing = found.iter().any(|finding| finding.expected.contains(initrd));
        assert!(missing, "{file}: {found:?}");
    }
}

#[test]
fn without_secure_boot_firmware_and_drivers_are_explained() {
    let boot = boot("uki-no-secure-boot");
    let text = boot.learned();
    let policy = policy(&text);
    // The option ROM of a card that was put in: it runs before everything.
    let mut records = boot.records();
    let at = records.iter().position(|record| record.pcr == 2).unwrap();
    let image = records.iter().find(|record| record.kind == kind::EFI_BOOT_SERVICES_APPLICATION).unwrap();
    let rom =
        Record { pcr: 2, kind: kind::EFI_BOOT_SERVICES_DRIVER, digest: vec![0x22; 32], ..image.clone() };
    records.insert(at, rom);
    denied(&findings(&policy, &records, boot.line()), "pcr 2");
    for pcr in [0, 2] {
        let start = text.find(&format!("pcr{pcr} = [")).unwrap();
        let end = start + text[start..].find("]\n").unwrap() + 2;
        let ignored = format!("{}{}", &text[..start], &text[end..]);
        let ignored = ignored.replace("ignore = [1,", &format!("ignore = [{pcr}, 1,"));
        refused(&ignored, &format!("pcr {pcr} can be ignored only with secure_boot.required"));
    }
}

#[test]
fn what_grub_reads_is_judged_in_its_order() {
    let boot = boot("grub-shim-ms-keys");
    let text = boot.learned();
    let policy = policy(&text);
    let records = boot.records();
    assert_eq!(findings(&policy, &records, boot.line()), []);
    for pcr in [8, 9] {
        let of: Vec<_> = (0..records.len()).filter(|number| records[*number].pcr == pcr).collect();
        for pair in of.windows(2) {
            let mut swapped = records.clone();
            swapped.swap(pair[0], pair[1]);
            let same = records[pair[0]].digest == records[pair[1]].digest;
            assert!(same || !findings(&policy, &swapped, boot.line()).is_empty(), "{pair:?}");
        }
    }
    let initrd = text.lines().find(|line| line.starts_with("initrd = ")).unwrap();
    let other = format!("initrd = \"sha256:{}\"", "99".repeat(32));
    refused(&text.replace(initrd, &other), "expected a [[boot.event]] of pcr 9 with this digest");
    // Without the command it is a kernel that somebody gives an initrd to.
    refused(
        &text.replace("text = \"grub_cmd: initrd ", "text = \"grub_cmd: echo "),
        "expected kernel_measures_initrd = true",
    );
}

#[test]
fn every_word_of_the_floor_is_refused_on_every_path() {
    let words = [
        "rdinit=/bin/sh",
        "init=/bin/sh",
        "rd.cmdline=ask",
        "systemd.confirm_spawn",
        "rd.break",
        "rd.break=pre-mount",
        "rd.systemd.break=pre-udev",
        "systemd.break",
        "systemd.mount-extra=/dev/vda2:/etc",
        "rd.systemd.mount_extra=x",
        "systemd.swap-extra=/dev/vda3",
        "systemd.run=/bin/sh",
        "systemd.run_success_action=none",
        "systemd.debug_shell",
        "rd.systemd.debug-shell=ttyS0",
        "systemd.set_credential=a:b",
        "systemd.set-credential-binary=a:b",
        "systemd.setenv=A=b",
        "systemd.crash-shell=1",
        "single",
        "s",
        "S",
        "1",
        "emergency",
        "rd.emergency",
        "rescue",
        "rd.rescue",
        "systemd.unit=emergency.target",
        "rd.systemd.unit=rescue.target",
        "systemd.unit=debug-shell.service",
        "rd.systemd.wants=dracut-emergency.service",
        "kgdboc=ttyS0",
        "kgdbwait",
        "kprobe_event=p,crypto_skcipher_setkey,+0(%si):x64",
        "tp_printk",
        "trace_event=kprobes",
        "trace_trigger=kprobes:p.stacktrace",
        "trace_instance=a,kprobes",
        "ftrace_dump_on_oops",
        "live.updates=http://a.example/b.img",
        "cc:",
        "root=UUID=$(id)",
        "resume=`id`",
        "rd.luks.uuid=x;sh</dev/sdb1;",
        "rd.lvm.lv=x&y",
        "sysctl.kernel.modprobe=/boot/efi/x",
        "sysctl/kernel/poweroff_cmd=/x",
        "TOMOYO_loader=/boot/efi/x",
        "TOMOYO_trigger=/sbin/agetty",
        "systemd.wants=storage-target-mode.target",
        "rd.systemd.unit=systemd-storagetm.service",
        "x=cc:y",
        "quietcc:z",
        "ifname=net0:cc:bootcmd:%20a",
        "url=http://a.example/b",
        "cloud-config-url=http://a.example/b",
        "ds=nocloud;s=http://a.example/",
        "ci.ds=nocloud;s=/run/",
        "sysrq_always_enabled",
        "sysrq_always_enabled=1",
        "bootconfig",
        "initrd=/evil.img",
        "bootconfig=1",
        "initrdmem=0x1000,1",
        "dm-mod.create=x",
        "noinitrd",
        "netroot=nbd:10.0.2.2:x",
        "netroot",
        "root=dhcp",
        "root=dhcp6",
        "efivar_ssdt=Ssdt",
        "efivar-ssdt=Ssdt",
        "systemd.pull=tar,sysext,verify=no::https://a.example/b.tar.gz",
        "rd.systemd.pull=raw,machine,verify=no,blockdev:image:https://a.example/b.raw",
        "systemd.pull.success_action=exit",
        "dtb=/evil.dtb",
        // The kernel's stub finds it inside of a word as well.
        "xdtb=/evil.dtb",
        "rdbreak",
        "rdbreak=initqueue",
        "rd.single",
        "-b",
        "SYSTEMD_PROC_CMDLINE=x",
        "SYSTEMD_SULOGIN_FORCE",
        "SYSTEMD_SULOGIN_FORCE=1",
        "SYSTEMD-SULOGIN-FORCE=yes",
        "SYSTEMD_UNIT_PATH=/boot/units",
        "SYSTEMD_GENERATOR_PATH=/boot/generators",
        "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/boot/generators",
        "systemd.condition_first_boot",
        "systemd.condition-first-boot=yes",
        "rd.systemd.condition_first_boot=1",
        "ekgdboc=kbd",
        "systemd.unit=runlevel1.target",
        "rd.systemd.wants=breakpoint-pre-mount.service",
    ];
    for boot in common::boots::BOOTS {
        let text = boot.learned();
        let own = text.lines().find(|line| line.starts_with("command_line = ")).unwrap();
        for word in words {
            let more = own
                .replace("systemd.import_credentials=no", &format!("{word} systemd.import_credentials=no"));
            refused(&text.replace(own, &more), word.split('=').next().unwrap());
        }
    }
    let text = boot("uki-secure-boot-own-keys").learned();
    for word in words {
        refused(
            &with_tokens(&text, &format!("[\"{word}\"]"), "[\"systemd.import_credentials=no\"]"),
            word.split('=').next().unwrap(),
        );
    }
    for fine in [
        "rd.shell=0",
        "rd.emergency=poweroff",
        "systemd.unit=multi-user.target",
        "sysinit",
        "5",
        "initcall_debug",
        "systemd.firstboot=no",
    ] {
        policy(&with_tokens(&text, &format!("[\"{fine}\"]"), "[\"systemd.import_credentials=no\"]"));
    }
}
