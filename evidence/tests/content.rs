//! What events say: each type, honest, lying and damaged.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::log::{Measured, crypto_agile};
use halfkey_evidence::digest::Bank;
use halfkey_evidence::eventlog::content::{Claim, Content, GrubText, Information, Separator, Tag};
use halfkey_evidence::eventlog::guid::{GLOBAL_VARIABLE, Guid, IMAGE_SECURITY, SHIM_LOCK};
use halfkey_evidence::eventlog::signatures::Signature;
use halfkey_evidence::eventlog::variable::{Known, Value};
use halfkey_evidence::eventlog::{Event, Standing, kind, quirks, replay};
use halfkey_protocol::tpm::bank::PcrBank;
use proptest::prelude::*;

/// The one event of a log, replayed in SHA-384, which has no special cases.
fn event(pcr: u32, kind: u32, measured: &[u8], data: &[u8]) -> Event<'static> {
    let log = crypto_agile(&[(pcr, kind, measured, data) as Measured<'_>]).leak();
    replay(log, PcrBank::Sha384).unwrap().events()[0]
}

/// An event whose digest is that of its data.
fn honest(kind: u32, data: &[u8]) -> Event<'static> {
    event(7, kind, data, data)
}

/// The same data with the digest of something else: nothing of it may be relied on.
fn require_opaque(kind: u32, data: &[u8]) {
    let event = event(7, kind, b"something else", data);
    assert_eq!((event.content(), event.standing()), (Content::Opaque, Standing::Opaque), "{}", event.what());
    assert_eq!((event.measured_data(), event.claimed_data()), (None, data));
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn variable(vendor: Guid, name: &str, data: &[u8]) -> Vec<u8> {
    let name = utf16(name);
    let lengths = [name.len() as u64 / 2, data.len() as u64].map(u64::to_le_bytes).concat();
    [&vendor.0[..], &lengths, &name, data].concat()
}

const X509: Guid = Guid::new(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
const SHA256: Guid = Guid::new(0xc1c4_1626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328);
const X509_SHA256: Guid = Guid::new(0x3bd2_a492, 0x96c0, 0x4079, 0xb420_fcf9_8ef1_03ed);
const OWNER: Guid = Guid::new(1, 2, 3, 4);

/// `EFI_SIGNATURE_LIST` with entries of one size.
fn signature_list(kind: Guid, entries: &[&[u8]]) -> Vec<u8> {
    let size = entries.first().map_or(16, |entry| entry.len() + 16);
    let sizes = [28 + size * entries.len(), 0, size].map(|size| (size as u32).to_le_bytes()).concat();
    let entries: Vec<u8> = entries.iter().flat_map(|entry| [&OWNER.0, *entry].concat()).collect();
    [&kind.0[..], &sizes, &entries].concat()
}

fn certificate(name: &str) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn variables_are_whole_or_nothing() {
    let read = |data: &[u8]| match honest(kind::EFI_VARIABLE_DRIVER_CONFIG, data).content() {
        Content::Variable(variable) => Some((variable.known(), variable.value())),
        Content::Bytes(bytes) => {
            assert_eq!(bytes, data);
            None
        }
        other => panic!("{other:?}"),
    };
    for (vendor, name, data, known, value) in [
        (GLOBAL_VARIABLE, "SecureBoot", &[1][..], Known::SecureBoot, Value::Flag(true)),
        (GLOBAL_VARIABLE, "SecureBoot", &[0], Known::SecureBoot, Value::Flag(false)),
        // Neither on nor off.
        (GLOBAL_VARIABLE, "SecureBoot", &[2], Known::SecureBoot, Value::Bytes(&[2])),
        (GLOBAL_VARIABLE, "SecureBoot", &[1, 1], Known::SecureBoot, Value::Bytes(&[1, 1])),
        (GLOBAL_VARIABLE, "SecureBoot", &[], Known::SecureBoot, Value::Bytes(&[])),
        (GLOBAL_VARIABLE, "AuditMode", &[1], Known::AuditMode, Value::Flag(true)),
        (GLOBAL_VARIABLE, "BootOrder", &[1, 0, 2, 0], Known::BootOrder, Value::Numbers(&[[1, 0], [2, 0]])),
        (GLOBAL_VARIABLE, "BootOrder", &[1], Known::BootOrder, Value::Bytes(&[1])),
        (GLOBAL_VARIABLE, "Boot00AF", &[], Known::Boot(0xaf), Value::Bytes(&[])),
        (SHIM_LOCK, "SbatLevel", b"sbat,1,2\n", Known::SbatLevel, Value::Text("sbat,1,2\n")),
        (SHIM_LOCK, "MokSBState", &[1], Known::MokSbState, Value::Bytes(&[1])),
        (IMAGE_SECURITY, "db", &[1, 2], Known::Db, Value::Bytes(&[1, 2])),
    ] {
        assert_eq!(read(&variable(vendor, name, data)), Some((known, value)), "{name}");
    }
    // The name counts only with its vendor, and all of it.
    for (vendor, name) in [
        (OWNER, "SecureBoot"),
        (IMAGE_SECURITY, "SecureBoot"),
        (GLOBAL_VARIABLE, "db"),
        (GLOBAL_VARIABLE, "SecureBoot "),
        (GLOBAL_VARIABLE, "secureboot"),
        (GLOBAL_VARIABLE, "Boot00af"),
        (GLOBAL_VARIABLE, "Boot001"),
        (GLOBAL_VARIABLE, "Boot00001"),
    ] {
        assert_eq!(read(&variable(vendor, name, &[1])), Some((Known::Other, Value::Bytes(&[1]))), "{name}");
    }

    let good = variable(GLOBAL_VARIABLE, "SecureBoot", &[1]);
    for cut in 0..good.len() {
        assert_eq!(read(&good[..cut]), None, "cut at {cut}");
    }
    assert_eq!(read(&[&good[..], &[0]].concat()), None, "padded");
    for length in [16, 24] {
        let mut huge = good.clone();
        huge[length..length + 8].fill(0xff);
        assert_eq!(read(&huge), None, "length at {length}");
    }
    require_opaque(kind::EFI_VARIABLE_DRIVER_CONFIG, &good);
    let lie = event(7, kind::EFI_VARIABLE_DRIVER_CONFIG, b"off", &good);
    assert_eq!(lie.what(), "variable SecureBoot: on (claimed: the digest is not that of this data)");
}

#[test]
fn boot_variables_may_be_measured_without_their_name() {
    let value = [&[1, 0, 0, 0, 4, 0][..], &utf16("Linux\0"), &[0x7f, 0xff, 4, 0], b"options"].concat();
    let data = variable(GLOBAL_VARIABLE, "Boot0001", &value);
    for kind in [kind::EFI_VARIABLE_BOOT, kind::EFI_VARIABLE_BOOT2] {
        let Content::Variable(whole) = honest(kind, &data).content() else { panic!("whole") };
        let Value::BootEntry(entry) = whole.value() else { panic!("a boot entry") };
        assert!(entry.description.is("Linux") && entry.path.is_empty());
        assert_eq!((entry.attributes, entry.options, whole.known()), (1, &b"options"[..], Known::Boot(1)));
        require_opaque(kind, &data);
    }
    // Then the name is claimed: content of another kind, that no rule about variables takes.
    let event_of = |kind| event(1, kind, &value, &data).content();
    let Content::VariableValue { claimed, data: measured } = event_of(kind::EFI_VARIABLE_BOOT) else {
        panic!("the value")
    };
    assert_eq!((claimed.known(), measured), (Known::Boot(1), &value[..]));
    for other in [kind::EFI_VARIABLE_BOOT2, kind::EFI_VARIABLE_DRIVER_CONFIG, kind::EFI_VARIABLE_AUTHORITY] {
        assert_eq!(event_of(other), Content::Opaque);
    }
}

#[test]
fn signature_databases_have_entries() {
    let (ca, other) = (certificate("the ca"), certificate("other"));
    let lists = [
        signature_list(X509, &[&ca]),
        signature_list(SHA256, &[&[1; 32], &[2; 32]]),
        signature_list(X509_SHA256, &[&[3; 48]]),
        signature_list(OWNER, &[b"what"]),
        signature_list(X509, &[&other]),
        signature_list(SHA256, &[]).to_vec(),
    ];
    let data = variable(IMAGE_SECURITY, "dbx", &lists[..5].concat());
    let event = honest(kind::EFI_VARIABLE_DRIVER_CONFIG, &data);
    let Content::Variable(dbx) = event.content() else { panic!("a variable") };
    let Value::Signatures(signatures) = dbx.value() else { panic!("signature lists") };
    let entries: Vec<_> = signatures.entries().collect();
    let fingerprints: Vec<_> = entries.iter().map(|entry| entry.signature.fingerprint()).collect();
    let digest = |bytes: &[u8]| Some(Bank::Sha256.digest(bytes));
    let raw = |byte| halfkey_evidence::digest::Digest::from_bytes(&[byte; 32]);
    // The hash of a revoked certificate is not to be taken for that of an image.
    assert_eq!(fingerprints, [digest(&ca), raw(1), raw(2), None, None, digest(&other)]);
    assert!(entries.iter().all(|entry| entry.owner == OWNER));
    let Signature::Certificate(first) = entries[0].signature else { panic!("a certificate") };
    assert_eq!((first.der, first.subject().as_deref()), (&ca[..], Some("the ca")));
    assert!(
        event.what().starts_with("variable dbx: certificate \"the ca\", image hash 0101"),
        "{}",
        event.what()
    );
    assert!(event.what().ends_with(" and 2 more"), "{}", event.what());

    let value = |bytes: &[u8]| {
        let data = variable(IMAGE_SECURITY, "db", bytes);
        match honest(kind::EFI_VARIABLE_DRIVER_CONFIG, &data).content() {
            Content::Variable(variable) => match variable.value() {
                Value::Signatures(lists) => Some(lists.entries().count()),
                _ => None,
            },
            _ => panic!("a variable"),
        }
    };
    assert_eq!((value(&[]), value(&lists[1]), value(&lists[1].repeat(3))), (Some(0), Some(2), Some(6)));
    // Anything that is not an entry hides what it is: then there are no entries at all.
    for cut in 1..lists[1].len() {
        assert_eq!(value(&lists[1][..cut]), None, "cut at {cut}");
        assert_eq!(value(&[&lists[0][..], &lists[1][..cut]].concat()), None, "second cut at {cut}");
    }
    for (what, at, to) in [
        ("list shorter than its head", 16, 27u32),
        ("list longer than what is there", 16, u32::MAX),
        ("header longer than the list", 20, 1000),
        ("header that shifts the entries", 20, 1),
        ("entries of nothing", 24, 0),
        ("entries shorter than their owner", 24, 15),
        ("sha256 of another length", 24, 24),
    ] {
        let mut list = lists[1].clone();
        list[at..at + 4].copy_from_slice(&to.to_le_bytes());
        assert_eq!(value(&list), None, "{what}");
    }
}

#[test]
fn authorities_name_a_signer() {
    let ca = certificate("signer");
    let owned = |signature: &[u8]| [&OWNER.0, signature].concat();
    let signer = |vendor, name, data: &[u8]| {
        let data = variable(vendor, name, data);
        require_opaque(kind::EFI_VARIABLE_AUTHORITY, &data);
        match honest(kind::EFI_VARIABLE_AUTHORITY, &data).content() {
            Content::Authority(authority) => authority.signer.fingerprint(),
            Content::Variable(_) => None,
            other => panic!("{other:?}"),
        }
    };
    let fingerprint = Some(Bank::Sha256.digest(&ca));
    let hash = halfkey_evidence::digest::Digest::from_bytes(&[9; 32]);
    assert_eq!(signer(IMAGE_SECURITY, "db", &owned(&ca)), fingerprint);
    assert_eq!(signer(IMAGE_SECURITY, "db", &owned(&[9; 32])), hash);
    // As shim does it.
    assert_eq!(signer(IMAGE_SECURITY, "vendor_db", &owned(&ca)), fingerprint);
    assert_eq!(signer(SHIM_LOCK, "MokListRT", &owned(&ca)), fingerprint);
    assert_eq!(signer(SHIM_LOCK, "MokList", &[9; 32]), hash);
    assert_eq!(signer(SHIM_LOCK, "Shim", &ca), fingerprint);
    // Not signers.
    for (vendor, name, data) in [
        (SHIM_LOCK, "SbatLevel", owned(&ca)),
        (OWNER, "db", owned(&ca)),
        (IMAGE_SECURITY, "dbx", owned(&ca)),
        (IMAGE_SECURITY, "db", owned(&ca[..ca.len() - 1])),
        (IMAGE_SECURITY, "db", [owned(&ca), vec![0]].concat()),
        (IMAGE_SECURITY, "db", Vec::new()),
    ] {
        assert_eq!(signer(vendor, name, &data), None, "{name}");
    }
    // The same data as configuration is not the word of a signer.
    let db = variable(IMAGE_SECURITY, "db", &owned(&ca));
    assert!(matches!(honest(kind::EFI_VARIABLE_DRIVER_CONFIG, &db).content(), Content::Variable(_)));
    let what = honest(kind::EFI_VARIABLE_AUTHORITY, &db).what();
    assert_eq!(what, "verified by certificate \"signer\" of db");
}

#[test]
fn an_authority_that_shim_logs_with_a_byte_too_many_is_what_was_measured() {
    let ca = certificate("signer");
    let authority = variable(SHIM_LOCK, "Shim", &ca);
    let longer = |measured: &[u8], more: &[u8]| [measured, more].concat();
    let logged =
        |kind, measured: &[u8], more: &[u8]| event(7, kind, measured, &longer(measured, more)).content();
    match logged(kind::EFI_VARIABLE_AUTHORITY, &authority, &[0xa5]) {
        Content::Authority(found) => assert_eq!(found.signer.fingerprint(), Some(Bank::Sha256.digest(&ca))),
        other => panic!("{other:?}"),
    }
    let sbat = variable(SHIM_LOCK, "SbatLevel", b"sbat,1,2\n");
    assert!(matches!(logged(kind::EFI_VARIABLE_AUTHORITY, &sbat, &[0]), Content::Variable(_)));
    // The signer is that of the measured bytes, whatever the log counts to it.
    let other = event(7, kind::EFI_VARIABLE_AUTHORITY, &longer(&authority, &[1]), &longer(&authority, &[2]));
    assert_eq!(other.content(), Content::Opaque);
    // Neither more bytes, nor less of the variable, nor another type of event.
    for (kind, measured, more) in [
        (kind::EFI_VARIABLE_AUTHORITY, &authority[..], &[0, 0][..]),
        (kind::EFI_VARIABLE_AUTHORITY, &authority[..authority.len() - 1], &authority[authority.len() - 1..]),
        (kind::EFI_VARIABLE_DRIVER_CONFIG, &authority, &[0]),
        (kind::EFI_VARIABLE_AUTHORITY, &[], &[0]),
    ] {
        assert_eq!(logged(kind, measured, more), Content::Opaque);
    }
}

/// `UEFI_IMAGE_LOAD_EVENT`
fn image(path: &[u8]) -> Vec<u8> {
    let numbers = [0x1000, 0x2000, 0, path.len() as u64].map(u64::to_le_bytes).concat();
    [&numbers, path].concat()
}

fn node(kind: u8, subkind: u8, data: &[u8]) -> Vec<u8> {
    [&[kind, subkind][..], &(data.len() as u16 + 4).to_le_bytes(), data].concat()
}

const APPLICATION: u32 = kind::EFI_BOOT_SERVICES_APPLICATION;

#[test]
fn images_are_opaque_and_say_where_they_are_from() {
    let file = |name: &str| node(4, 4, &utf16(name));
    let hard_drive = node(
        4,
        1,
        &[&[1, 0, 0, 0][..], &[0, 8, 0, 0, 0, 0, 0, 0], &[0, 16, 0, 0, 0, 0, 0, 0], &OWNER.0, &[2, 2]]
            .concat(),
    );
    let end = node(0x7f, 0xff, &[]);
    let path = [
        node(2, 1, &[0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0]),
        node(1, 1, &[2, 1]),
        hard_drive,
        file("\\EFI\\Linux\\linux.efi\0"),
        end,
    ]
    .concat();
    let data = image(&path);
    // Even if the digest were that of the data: the type says that it is the image's.
    let event = honest(APPLICATION, &data);
    assert_eq!((event.content(), event.standing()), (Content::Opaque, Standing::Opaque));
    assert_eq!(event.what(), r"boot application \EFI\Linux\linux.efi");
    let Claim::Image(claimed) = event.claimed_content() else { panic!("an image") };
    assert_eq!((claimed.base, claimed.length), (0x1000, 0x2000));
    let text = r"PciRoot(0x0)/Pci(0x1,0x2)/HD(1,GPT,00000001-0002-0003-0000-000000000004,0x800,0x1000)/\EFI\Linux\linux.efi";
    assert_eq!(claimed.path.to_string(), text);

    let what = |path: &[u8]| honest(APPLICATION, &image(path)).what();
    assert_eq!(what(&[]), "boot application from memory, 8192 bytes");
    assert_eq!(what(&[file("\\EFI\0"), file("a.efi\0")].concat()), r"boot application \EFI\a.efi");
    assert_eq!(what(&file("\n\u{202e}")), r"boot application \n\u{202e}");
    let payload = Guid::new(0x55c5_d1f8, 0x04cd, 0x46b5, 0x8a20_e56c_bb30_52d0);
    assert_eq!(
        what(&node(4, 3, &payload.0)),
        "boot application inside the unified image (payload of systemd's stub)"
    );
    for (path, text) in [
        (
            node(1, 3, &[&[0xb, 0, 0, 0][..], &[1; 8], &[2; 8]].concat()),
            "MemoryMapped(0xb,0x101010101010101,0x202020202020202)",
        ),
        (node(4, 6, &OWNER.0), "FvFile(00000001-0002-0003-0000-000000000004)"),
        (node(4, 7, &OWNER.0), "Fv(00000001-0002-0003-0000-000000000004)"),
        (node(3, 11, &[&[1, 2, 3, 4, 5, 6][..], &[0; 26], &[1]].concat()), "MAC(010203040506,0x1)"),
        (node(3, 12, &[0, 0, 0, 0, 192, 0, 2, 1]), "IPv4(192.0.2.1)"),
        (node(3, 13, &[[0; 16], [0; 16]].concat()), "IPv6(::)"),
        (node(3, 18, &[1, 0, 0xff, 0xff, 0, 0]), "Sata(0x1,0xffff,0x0)"),
        (node(3, 23, &[1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]), "NVMe(0x1,0102030405060708)"),
        (node(3, 24, b"http://x/\n"), "Uri(http://x/\\n)"),
        // Unknown, and too short for what it says it is.
        (node(9, 9, &[0xab]), "Path(9,9,ab)"),
        (node(1, 1, &[1]), "Path(1,1,01)"),
        (node(1, 1, &[]), "Path(1,1)"),
    ] {
        assert_eq!(what(&path), format!("boot application {text}"));
    }
    // A node of no length, or one that is cut, ends the path.
    assert_eq!(what(&[node(1, 1, &[2, 1]), vec![1, 1, 0, 0]].concat()), "boot application Pci(0x1,0x2)");
    assert_eq!(what(&[node(1, 1, &[2, 1]), vec![1, 1, 9, 0]].concat()), "boot application Pci(0x1,0x2)");
    for cut in 0..32 {
        assert!(matches!(honest(APPLICATION, &data[..cut]).claimed_content(), Claim::Bytes(_)));
    }
    let kinds = [kind::EFI_BOOT_SERVICES_DRIVER, kind::EFI_RUNTIME_SERVICES_DRIVER];
    let names = kinds.map(|kind| honest(kind, &image(&node(1, 1, &[2, 1]))).what());
    assert_eq!(names, ["boot driver Pci(0x1,0x2)", "runtime driver Pci(0x1,0x2)"]);
}

#[test]
fn texts_of_grub_are_measured_without_what_they_are_called() {
    let event = |data: &[u8], measured: &[u8]| event(8, kind::IPL, measured, data);
    let text = &b"/vmlinuz root=/dev/vda quiet"[..];
    for (prefix, claimed) in [
        (&b"grub_cmd: "[..], GrubText::Command),
        (b"kernel_cmdline: ", GrubText::KernelCommandLine),
        (b"module_cmdline: ", GrubText::ModuleCommandLine),
    ] {
        let data = [prefix, text, &[0]].concat();
        assert_eq!(event(&data, text).content(), Content::Grub { claimed, text });
        assert_eq!(event(&data, b"other").content(), Content::Opaque);
        // All of it was measured: then it is not GRUB's way, and not a command line.
        assert_eq!(event(&data, &data).content(), Content::Bytes(&data));
        let lie = event(&data, b"other");
        assert!(matches!(lie.claimed_content(), Claim::Content(Content::Grub { .. })));
        assert!(lie.what().ends_with("(claimed: the digest is not that of this data)"));
    }
    // GRUB 2.02 of Red Hat measures the NUL, too.
    for (prefix, claimed) in
        [(&b"grub_cmd "[..], GrubText::Command), (b"grub_kernel_cmdline ", GrubText::KernelCommandLine)]
    {
        let with_nul = [text, &[0]].concat();
        let data = [prefix, &with_nul].concat();
        for measured in [text, &with_nul] {
            assert_eq!(event(&data, measured).content(), Content::Grub { claimed, text });
        }
        assert!(!matches!(event(&data, &data).content(), Content::Grub { .. }));
        assert_eq!(event(&data, b"other").content(), Content::Opaque);
    }
    assert_eq!(event(b"grub_cmd: insmod gzio\0", b"insmod gzio\0").content(), Content::Opaque);
    let file = event(b"(hd0,gpt2)/vmlinuz\0", b"the kernel");
    assert_eq!((file.content(), file.what().as_str()), (Content::Opaque, "(hd0,gpt2)/vmlinuz"));
    assert_eq!(file.claimed_content(), Claim::Name(b"(hd0,gpt2)/vmlinuz"));
    assert_eq!(event(b"MokList\0", b"keys").claimed_content(), Claim::Name(b"MokList"));
}

#[test]
fn sections_and_command_lines_of_systemd() {
    let name = utf16(".cmdline\0");
    let section = event(11, kind::IPL, b".cmdline\0", &name);
    let Content::SectionName(read) = section.content() else { panic!("{:?}", section.content()) };
    assert!(read.is(".cmdline"));
    let content = event(11, kind::IPL, b"root=/dev/vda", &name);
    assert_eq!((content.content(), content.what().as_str()), (Content::Opaque, "section .cmdline"));
    let Claim::Section(claimed) = content.claimed_content() else { panic!("a section") };
    assert!(claimed.is(".cmdline"));
    // Another name than the one that is logged.
    assert_eq!(event(11, kind::IPL, b".linux\0", &name).content(), Content::Opaque);
    assert_eq!(event(11, kind::IPL, b".cmdline", &name).content(), Content::Opaque);

    let line = utf16("root=/dev/vda quiet ä\0");
    let measured = event(12, kind::IPL, &line, &line);
    let Content::Text(text) = measured.content() else { panic!("{:?}", measured.content()) };
    assert_eq!((text.to_string().as_str(), text.bytes()), ("root=/dev/vda quiet ä", &line[..]));
    assert_eq!(measured.what(), "text root=/dev/vda quiet ä");
    require_opaque(kind::IPL, &line);
    // A NUL in the middle would hide the rest from whoever reads up to it.
    let hidden = utf16("quiet\0init=/bin/sh\0");
    assert_eq!(event(12, kind::IPL, &hidden, &hidden).content(), Content::Bytes(&hidden));
}

#[test]
fn tags_of_the_kernel_name_what_they_measure() {
    let tagged =
        |id: u32, text: &[u8]| [&id.to_le_bytes(), &(text.len() as u32).to_le_bytes(), text].concat();
    let options = tagged(Tag::LOAD_OPTIONS, b"LOADED_IMAGE::LoadOptions\0");
    let event_of = |data: &[u8]| event(9, kind::EVENT_TAG, b"measured", data);
    assert_eq!(event_of(&options).what(), "command line of the kernel's efi stub");
    let initrd = tagged(Tag::INITRD, b"Linux initrd\0");
    let event = event_of(&initrd);
    assert_eq!(
        (event.content(), event.what().as_str()),
        (Content::Opaque, "initrd of the kernel's efi stub")
    );
    assert_eq!(event.claimed_content(), Claim::Tag(Tag { id: Tag::INITRD, data: b"Linux initrd\0" }));
    assert!(event.is_digest_of(b"measured") && !event.is_digest_of(b"other"));
    let mut short = initrd.clone();
    short[4] = 200;
    assert!(!matches!(event_of(&short).claimed_content(), Claim::Tag(_)));
}

#[test]
fn firmware_says_what_it_is() {
    let zeros = honest(kind::SEPARATOR, &[0; 4]);
    assert_eq!((zeros.content(), zeros.what().as_str()), (Content::Separator(Separator::Ready), "separator"));
    assert_eq!(honest(kind::SEPARATOR, &[0xff; 4]).content(), Content::Separator(Separator::Ready));
    assert_eq!(honest(kind::SEPARATOR, b"rogue").content(), Content::Bytes(b"rogue"));
    let failed = event(0, kind::SEPARATOR, &1u32.to_le_bytes(), b"why");
    assert_eq!(failed.content(), Content::Separator(Separator::Error));

    let action = b"Calling EFI Application from Boot Option";
    for kind in [kind::ACTION, kind::EFI_ACTION] {
        assert_eq!(
            honest(kind, action).content(),
            Content::Action("Calling EFI Application from Boot Option")
        );
        require_opaque(kind, action);
    }
    assert_eq!(honest(kind::EFI_ACTION, &[0xff]).content(), Content::Bytes(&[0xff]));

    let version = |data: &[u8]| honest(kind::S_CRTM_VERSION, data).what();
    assert_eq!(version(&utf16("1.02\0")), "firmware version 1.02");
    assert_eq!(version(b"1.02"), "firmware version 1.02");
    assert_eq!(version(&OWNER.0), "firmware version 00000001-0002-0003-0000-000000000004");
    require_opaque(kind::S_CRTM_VERSION, b"1.02");

    let blob = [0x1000u64, 0x200].map(u64::to_le_bytes).concat();
    assert_eq!(honest(kind::EFI_PLATFORM_FIRMWARE_BLOB, &blob).standing(), Standing::Opaque);
    assert_eq!(honest(kind::EFI_PLATFORM_FIRMWARE_BLOB, &blob).what(), "firmware blob at 0x1000, 512 bytes");
    let blob2 = [&b"\x05Fv(1)"[..], &blob].concat();
    assert_eq!(
        honest(kind::EFI_PLATFORM_FIRMWARE_BLOB2, &blob2).what(),
        "firmware blob at 0x1000, 512 bytes, Fv(1)"
    );
    let tables = [&1u64.to_le_bytes()[..], &OWNER.0, &[0; 8]].concat();
    assert_eq!(honest(kind::EFI_HANDOFF_TABLES, &tables).what(), "1 handoff tables");
    let tables2 = [&b"\x07SMBIOS\0"[..], &tables].concat();
    assert_eq!(honest(kind::EFI_HANDOFF_TABLES2, &tables2).what(), "1 handoff tables, SMBIOS");

    // Types without a form: the digest is that of the data, or the data is a name.
    for kind in
        [kind::PLATFORM_CONFIG_FLAGS, kind::CPU_MICROCODE, kind::POST_CODE, kind::COMPACT_HASH, 0x1234]
    {
        assert_eq!(honest(kind, b"a=0").content(), Content::Bytes(b"a=0"));
        require_opaque(kind, b"a=0");
        assert_eq!(event(1, kind, b"other", b"ACPI DATA").what(), "ACPI DATA");
    }
    assert_eq!(kind::name(0x1234), None);
    assert_eq!(kind::name(kind::IPL), Some("EV_IPL"));
}

#[test]
fn partition_tables_have_partitions() {
    let mut header = [0; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[56..72].copy_from_slice(&OWNER.0);
    header[84..88].copy_from_slice(&128u32.to_le_bytes());
    let mut entry = [&X509.0[..], &SHA256.0, &[1, 0, 0, 0, 0, 0, 0, 0], &[9, 0, 0, 0, 0, 0, 0, 0]].concat();
    entry.resize(128, 0);
    let table = [&header[..], &2u64.to_le_bytes(), &entry, &entry].concat();
    let event = honest(kind::EFI_GPT_EVENT, &table);
    let Content::PartitionTable(read) = event.content() else { panic!("{:?}", event.content()) };
    let partitions: Vec<_> = read.partitions().map(|p| (p.kind, p.id, p.first, p.last)).collect();
    assert_eq!((read.disk, partitions), (OWNER, vec![(X509, SHA256, 1, 9); 2]));
    assert_eq!(event.what(), "partition table of disk 00000001-0002-0003-0000-000000000004, 2 partitions");
    require_opaque(kind::EFI_GPT_EVENT, &table);
    for cut in 0..table.len() {
        assert!(matches!(honest(kind::EFI_GPT_EVENT, &table[..cut]).content(), Content::Bytes(_)), "{cut}");
    }
    for (at, bytes) in [(84, vec![0; 4]), (92, vec![0xff; 8]), (0, vec![0])] {
        let mut bad = table.clone();
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        assert!(matches!(honest(kind::EFI_GPT_EVENT, &bad).content(), Content::Bytes(_)), "at {at}");
    }
}

#[test]
fn information_proves_nothing() {
    let data = b"StartupLocality\0\x03";
    let locality = event(0, kind::NO_ACTION, data, data);
    assert_eq!((locality.standing(), locality.content()), (Standing::Informational, Content::Opaque));
    assert_eq!((locality.measured_data(), locality.digest.len()), (None, 0));
    assert_eq!(locality.claimed_content(), Claim::Information(Information::StartupLocality(3)));
    let other = event(0, kind::NO_ACTION, b"", b"SP800-155 Event\0data");
    let Claim::Information(Information::Other { signature, data }) = other.claimed_content() else {
        panic!("information")
    };
    assert_eq!((signature, data), (&b"SP800-155 Event"[..], &b"data"[..]));
    assert_eq!(event(0, kind::NO_ACTION, b"", b"no").claimed_content(), Claim::Bytes(b"no"));
}

/// A log that replays, because its digests are genuine, but calls each event something else.
#[test]
fn a_type_that_lies_makes_nothing_verified_that_was_not_measured() {
    let secure_boot = variable(GLOBAL_VARIABLE, "SecureBoot", &[1]);
    let digests_of =
        [&b"a rogue kernel"[..], &variable(GLOBAL_VARIABLE, "SecureBoot", &[0]), b"", &[1, 0, 0, 0]];
    let kinds = (0..0x14).chain(0x8000_0000..0x8000_0011).chain(0x8000_00e0..0x8000_00e5);
    for kind in kinds.filter(|kind| !matches!(*kind, kind::NO_ACTION | kind::SEPARATOR)) {
        for measured in digests_of {
            for data in [&secure_boot[..], b"grub_cmd: true\0", b"Calling EFI Application from Boot Option"] {
                let event = event(7, kind, measured, data);
                assert_eq!(event.standing(), Standing::Opaque, "{kind:#x}: {}", event.what());
            }
        }
    }
}

#[test]
fn quirks_say_why() {
    for quirk in quirks::QUIRKS {
        assert!(!quirk.name.is_empty() && quirk.reason.len() > 40 && !quirk.source.is_empty());
    }
    let mut names: Vec<_> = quirks::QUIRKS.iter().map(|quirk| quirk.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), quirks::QUIRKS.len());
}

fn kinds() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..0x14, 0x8000_0000u32..0x8000_0011, 0x8000_00e0u32..0x8000_00e5, any::<u32>()]
        .prop_filter("what is called a separator must be one", |kind| *kind != kind::SEPARATOR)
}

proptest! {
    /// Whatever the data: no panic, one line, and verified only if something of the data was measured.
    #[test]
    fn any_data_is_described(
        kind in kinds(),
        head in prop_oneof![
            Just(Vec::new()),
            Just(variable(IMAGE_SECURITY, "db", &signature_list(SHA256, &[&[1; 32]]))),
            Just(image(&node(4, 4, &utf16("x")))),
            Just(b"kernel_cmdline: ".to_vec()),
        ],
        change in any::<proptest::sample::Index>(),
        to: u8,
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        honest_digest: bool,
    ) {
        let mut data = [head, tail].concat();
        if !data.is_empty() {
            let at = change.index(data.len());
            data[at] = to;
        }
        let event = event(5, kind, if honest_digest { &data } else { b"something else than the data" }, &data);
        let what = event.what();
        prop_assert!(what.len() < 400 && !what.contains(char::is_control), "{}", what);
        prop_assert_eq!(event.standing() == Standing::Verified, event.content() != Content::Opaque);
        if !honest_digest {
            prop_assert_ne!(event.standing(), Standing::Verified);
        }
        let _ = event.claimed_content();
    }
}
