//! IMA lists: reading them, and following them to a PCR.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Exchange, Swtpm};
use halfkey_evidence::digest::Bank;
use halfkey_evidence::ima::{
    Advance, Ahead, DigestKind, Entry, Extension, Field, Increment, Outcome, QuotedPcr, Reader, State,
    Unverifiable, advance,
};
use halfkey_evidence::public::AkPublic;
use halfkey_evidence::quote;
use halfkey_protocol::Reason;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::hex;
use halfkey_testkit::ima::{ImaList, Kernel, d_ng, field, n_ng, sha1, sha256};
use proptest::prelude::*;
use std::ops::Range;

const SHA256: PcrBank = PcrBank::Sha256;

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

fn entries(list: &[u8]) -> Vec<Entry<'_>> {
    let mut reader = Reader::new(list);
    let entries = reader.by_ref().map(|entry| entry.unwrap()).collect();
    assert!(reader.rest().is_empty());
    entries
}

/// Boot and some files.
fn list(bank: PcrBank, kernel: Kernel, files: usize) -> ImaList {
    let mut list = ImaList::new(bank, kernel);
    list.file("boot_aggregate", &[7; 32]);
    for number in 0..files {
        list.file(&format!("/usr/bin/{number}"), &sha256(&number.to_le_bytes()));
    }
    list
}

/// What the whole list comes to, with the PCR after `covered` entries.
fn follow<'a>(state: &State, list: &'a ImaList, first: usize, covered: usize) -> Advance<'a> {
    let increment = Increment { first: first as u64, bytes: list.from(first), complete: true };
    let quoted = QuotedPcr::assumed(state.bank(), &list.values[covered]).unwrap();
    advance(state, &increment, &quoted).unwrap()
}

/// Lines of `ascii_runtime_measurements` of real machines, as they were published: the template hash is the kernel's own.
#[test]
fn template_hashes_are_those_of_real_machines() {
    let aggregate = "e4cb9f5709c88376b5fc3743cd88e76b9aae8f3d992d845678de5215edb31216";
    let signature = "030202531f402500483046022100bff9c02dc7b270c83cc94bfec10eecd42831de2cdcb04f024369a14623bc3a91022100cc4d015ae932fb98d6846645ed7d1bb1afd4621ec9089bc087126f191886dd31";
    let table = "6e616d653d544553543b757569643d43525950542d5645524954592d39656633326535623635623034343234613561386562343436636630653731332d544553543b63617061636974793d303b6d616a6f723d3235333b6d696e6f723d303b6d696e6f725f636f756e743d313b6e756d5f746172676574733d313b6163746976655f7461626c655f686173683d346565383065333365353635643336333430356634303238393436653837623365396563306335383661666639656630656436663561653762656237326431333b";
    let ng = |algorithm, digest| d_ng(algorithm, &unhex(digest));
    let mut list = Vec::new();
    let mut add = |hash: &str, template: &str, data: Vec<u8>| {
        list.extend(10u32.to_le_bytes());
        list.extend(unhex(hash));
        list.extend(field(template.as_bytes()));
        list.extend(data);
    };
    let fields = |fields: &[&[u8]]| field(&fields.iter().flat_map(|bytes| field(bytes)).collect::<Vec<_>>());
    let name = n_ng("boot_aggregate");
    add(
        "0c8a706a75a5689c1e168f0a573a3cbec33061b5",
        "ima-sig",
        fields(&[&ng("sha256", aggregate), &name, b""]),
    );
    add(
        "06e804489a77ddab51b9ef27e17053c0e5d503bd",
        "ima-sig",
        fields(&[
            &ng("sha1", "1cb84b12db45d7da8de58ba6744187db84082f0e"),
            &n_ng("/usr/bin/zmore"),
            &unhex(signature),
        ]),
    );
    add(
        "b7862dbbf1383ac6c7cca7f02d981a081aacb1f1",
        "ima-buf",
        fields(&[
            &ng("sha1", "6e0e6fc8a188ef4f059638949adca4d221946906"),
            &n_ng("device_resume"),
            &unhex(table),
        ]),
    );
    let digest = "b5a166c10d153b7cc3e5b4f1eab1f71672b7c524";
    let fixed = [unhex(digest), field(b"boot_aggregate")].concat();
    add("7971593a7ad22a7cce5b234e4bc5d71b04696af4", "ima", fixed);
    add(
        "0adefe762c149c7cec19da62f0da1297fcfbffff",
        "ima-ng",
        fields(&[&ng("sha256", &"0".repeat(64)), &name]),
    );

    let entries = entries(&list);
    for entry in &entries {
        assert_eq!(*entry.template_digest(Bank::Sha1), *entry.template_hash, "{}", entry.template);
        assert!(!entry.is_violation());
    }
    let [first, zmore, buffer, fixed, zero] = entries.try_into().unwrap();
    assert_eq!(first.name(), Some(&b"boot_aggregate"[..]));
    assert_eq!(
        (hex(first.digest().unwrap().bytes).as_str(), first.field(Field::Sig)),
        (aggregate, Some(&b""[..]))
    );
    assert_eq!(zmore.field(Field::Sig).map(hex).as_deref(), Some(signature));
    assert_eq!(zmore.digest().unwrap().hash(), Some(Bank::Sha1));
    assert_eq!(*buffer.digest().unwrap().bytes, *Bank::Sha1.digest(buffer.field(Field::Buf).unwrap()));
    assert_eq!((fixed.name(), fixed.digest().unwrap().algorithm), (Some(&b"boot_aggregate"[..]), "sha1"));
    assert!(zero.digest().unwrap().is_zero());
}

#[test]
fn each_template_is_read() {
    let digest = sha256(b"content");
    let (ng, name) = (d_ng("sha256", &digest), n_ng("/usr/bin/with blank"));
    let verity = d_ng("verity:sha256", &digest);
    let mut list = ImaList::new(SHA256, Kernel::OwnHash);
    list.fixed("/init", &[5; 20]);
    list.entry("ima-ng", &[&ng, &name]);
    list.entry("ima-sig", &[&ng, &name, b"\x03\x02"]);
    list.entry("ima-ngv2", &[&d_ng("ima:sha256", &digest), &name]);
    list.entry("ima-sigv2", &[&verity, &name, b"\x06\x03"]);
    list.entry("ima-buf", &[&ng, &n_ng("kexec-cmdline"), b"content"]);
    list.entry("ima-modsig", &[&ng, &name, b"", &d_ng("sha512", &[1; 64]), b"PKCS #7"]);
    list.entry(
        "evm-sig",
        &[&ng, &name, b"\x05", b"security.selinux", &[4, 0, 0, 0], b"abcd", &[0; 4], &[0; 4], &[0; 2]],
    );
    list.entry("d|n", &[&[5; 20], b"/init\0"]);
    list.entry("d-ng|n-ng|iuid", &[&ng, &name, &[0; 4]]);
    list.entry("from-the-future", &[b"?"]);
    let entries = entries(&list.bytes);
    let count: Vec<_> = entries.iter().map(|entry| entry.fields().count()).collect();
    assert_eq!(count, [2, 2, 3, 2, 3, 3, 5, 9, 2, 3, 0]);
    let names: Vec<_> = entries.iter().map(|entry| entry.name().map(String::from_utf8_lossy)).collect();
    assert_eq!(names[0].as_deref(), Some("/init"));
    assert_eq!(names[1].as_deref(), Some("/usr/bin/with_blank"));
    assert_eq!((names[5].as_deref(), names[10].as_deref()), (Some("kexec-cmdline"), None));
    let kinds: Vec<_> = entries.iter().map(|entry| entry.digest().map(|digest| digest.kind)).collect();
    assert_eq!((kinds[3], kinds[4], kinds[10]), (Some(DigestKind::File), Some(DigestKind::Verity), None));
    assert_eq!(entries[6].field(Field::Modsig), Some(&b"PKCS #7"[..]));
    assert_eq!(entries[7].field(Field::XattrValues), Some(&b"abcd"[..]));
    for (at, entry) in entries.iter().enumerate() {
        assert_eq!(*entry.template_digest(Bank::Sha1), *entry.template_hash, "{at}");
    }
    assert_eq!(*follow(&State::new(SHA256), &list, 0, list.len()).outcome(), Outcome::Proven);
}

/// The name of a template is hashed into nothing. So what an attribute has, which root may write, must not be read as a digest.
#[test]
fn another_label_makes_no_digest_of_an_attribute() {
    let (evil, name) = (d_ng("sha256", &sha256(b"evil")), n_ng("/usr/bin/evil"));
    let (good, short) = (d_ng("sha256", &sha256(b"good")), [3; 20]);
    for (label, third) in
        [("xattrvalues|n-ng|d-ng", &good[..]), ("sig|n-ng|d", &short), ("n-ng|n-ng|d-ng", &good)]
    {
        let mut list = ImaList::new(SHA256, Kernel::OwnHash);
        list.entry(label, &[&evil, &name, third]);
        assert_eq!(entries(&list.bytes)[0].digest(), None, "{label}");
    }
    let mut list = ImaList::new(SHA256, Kernel::OwnHash);
    list.entry("d-ng|xattrnames|n-ng", &[&evil, &name, &n_ng("/var/log/x")]);
    assert_eq!(entries(&list.bytes)[0].name(), None);
}

#[test]
fn what_is_no_list_is_refused() {
    let good = list(SHA256, Kernel::OwnHash, 2);
    let error = |bytes: &[u8]| Reader::new(bytes).find_map(Result::err).unwrap();
    let mut big = good.bytes.clone();
    big[..4].copy_from_slice(&10u32.to_be_bytes());
    assert!(error(&big).detail.contains("the list is big-endian"));
    assert!(error(&big).hint.unwrap().contains("ima_canonical_fmt"));
    let with = |template: &str, data: &[u8]| {
        let mut list = ImaList::new(SHA256, Kernel::OwnHash);
        list.write(10, &[1; 20], template, data);
        error(&list.bytes).detail
    };
    assert!(with("", &[]).contains("found 0"));
    assert!(with(&"x".repeat(256), &[]).contains("found 256"));
    assert!(with("ima ng", &[]).contains("printable ascii"));
    assert!(with("ima-ng", &[0xff; 4]).contains("of data, found 4294967295"));
    assert!(with("ima-ng", &field(&field(b"x"))).contains("expected a field n-ng"));
    assert!(
        with("ima-ng", &field(&[field(b"x"), field(b"y"), vec![0]].concat())).contains("found 1 more bytes")
    );
    assert!(with("ima", &[vec![0; 20], vec![0, 1, 0, 0]].concat()).contains("at most 255 bytes, found 256"));
    let mut second = good.bytes.clone();
    second[good.starts[1]] = 24;
    let error = error(&second);
    let place = format!("found 24, in the entry at byte {} of the ima list", good.starts[1]);
    assert!(error.reason == Reason::LogMalformed && error.detail.ends_with(&place), "{error}");
}

#[test]
fn the_prefix_that_was_quoted_is_proven_and_the_rest_is_left() {
    for bank in PcrBank::ALL {
        for (kernel, extension) in [
            (Kernel::OwnHash, Extension::OwnHash),
            (Kernel::PaddedSha1, Extension::PaddedSha1),
            (Kernel::PaddedSha1FullViolation, Extension::PaddedSha1FullViolation),
        ] {
            let mut list = list(bank, kernel, 3);
            list.violation("/var/log/syslog");
            list.file("/usr/bin/last", &[9; 32]);
            for covered in 1..=list.len() {
                let first = follow(&State::new(bank), &list, 0, covered);
                assert_eq!((first.outcome(), first.state().count()), (&Outcome::Proven, covered as u64));
                assert_eq!(
                    (first.entries().count(), first.state().value()),
                    (covered, &list.values[covered][..])
                );
                let extension = if covered < 5 { first.state().extension().unwrap() } else { extension };
                assert_eq!(first.state().extension(), Some(extension));
                assert!(first.is_healthy());
                // All at once, what is new, and something between.
                for from in [0, covered / 2, covered] {
                    let next = follow(&first.state(), &list, from, list.len());
                    if covered < 5 && kernel == Kernel::PaddedSha1FullViolation {
                        continue;
                    }
                    let numbers: Vec<_> = next.entries().map(|(number, _)| number as usize).collect();
                    assert_eq!(numbers, (covered..list.len()).collect::<Vec<_>>());
                    assert_eq!(next.state(), follow(&State::new(bank), &list, 0, list.len()).state());
                }
            }
        }
    }
}

#[test]
fn the_same_increment_twice_adds_nothing_and_a_skipped_one_is_missed() {
    let list = list(SHA256, Kernel::OwnHash, 9);
    let state = follow(&State::new(SHA256), &list, 0, 4).state();
    let next = follow(&state, &list, 4, 7).state();
    let again = follow(&next, &list, 4, 7);
    assert_eq!((again.outcome(), again.state(), again.entries().count()), (&Outcome::Proven, next, 0));
    let missing = Unverifiable::Missing { wanted: 4, found: 7 };
    assert_eq!(*follow(&state, &list, 7, 10).outcome(), Outcome::Unverifiable(missing));
    // A server that was restored from a backup has an older state, and asks for more.
    assert_eq!(follow(&state, &list, 0, 10).entries().count(), 6);
}

#[test]
fn a_list_that_explains_nothing_is_named() {
    let list = list(SHA256, Kernel::OwnHash, 40);
    let new = State::new(SHA256);
    let outcome = |bytes: &[u8], complete| {
        let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
        let advance = advance(&new, &Increment { first: 0, bytes, complete }, &quoted).unwrap();
        assert_eq!((advance.state(), advance.entries().count(), advance.is_healthy()), (new, 0, false));
        advance.outcome().clone()
    };
    let start = |entry: usize| list.starts[entry];
    assert_eq!(outcome(&list.bytes[..start(30)], true), Outcome::Differs { tried: 30 });
    // Taken out, and put in another order.
    let without = [&list.bytes[..start(5)], &list.bytes[start(6)..]].concat();
    assert_eq!(outcome(&without, true), Outcome::Differs { tried: 40 });
    let order = [
        &list.bytes[..start(5)],
        &list.bytes[start(6)..start(7)],
        &list.bytes[start(5)..start(6)],
        &list.bytes[start(7)..],
    ];
    assert_eq!(outcome(&order.concat(), true), Outcome::Differs { tried: 41 });
    assert_eq!(outcome(&list.bytes[start(1)..], true), Outcome::Unverifiable(Unverifiable::Trimmed));
    // A violation that was none, and the other way round.
    let mut zeroed = list.bytes.clone();
    zeroed[start(5) + 4..start(5) + 24].fill(0);
    assert_eq!(outcome(&zeroed, true), Outcome::Differs { tried: 41 });
    // Of a PCR that the quote does not speak for.
    let mut other = list.bytes.clone();
    other[start(5)] = 11;
    assert_eq!(outcome(&other, true), Outcome::Unverifiable(Unverifiable::OtherPcr { entry: 5, pcr: 11 }));

    let quoted = QuotedPcr::assumed(SHA256, &[0; 32]).unwrap();
    for complete in [false, true] {
        let empty = advance(&new, &Increment { first: 0, bytes: &[], complete }, &quoted).unwrap();
        assert_eq!(*empty.outcome(), Outcome::Unverifiable(Unverifiable::NoEntries));
        assert!(!empty.is_healthy());
    }
    let whole = Increment { first: 0, bytes: &list.bytes, complete: true };
    assert_eq!(
        *advance(&new, &whole, &quoted).unwrap().outcome(),
        Outcome::Unverifiable(Unverifiable::NotExtended)
    );
    let state = follow(&new, &list, 0, 20).state();
    let shorter = Increment { bytes: &list.bytes[..start(7)], ..whole };
    let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
    let expected = Unverifiable::Shorter { proven: 20, found: 7 };
    assert_eq!(*advance(&state, &shorter, &quoted).unwrap().outcome(), Outcome::Unverifiable(expected));
    let other = QuotedPcr::assumed(PcrBank::Sha384, &[1; 48]).unwrap();
    assert_eq!(advance(&state, &whole, &other).unwrap_err().reason, Reason::LogReplay);
    assert!(QuotedPcr::assumed(SHA256, &[1; 48]).is_none());
}

#[test]
fn a_list_that_is_too_long_for_a_message_comes_in_parts() {
    let list = list(SHA256, Kernel::OwnHash, 40);
    let before = follow(&State::new(SHA256), &list, 0, 3).state();
    let quoted = QuotedPcr::assumed(SHA256, &list.values[35]).unwrap();
    let part = |range: Range<usize>| {
        let bytes = &list.bytes[list.starts[range.start]..list.starts[range.end] + 5];
        Increment { first: range.start as u64, bytes, complete: false }
    };
    let mut numbers = Vec::new();
    let mut ahead: Option<Ahead> = None;
    for range in [3..12, 12..20, 20..31] {
        let advance = match ahead {
            None => advance(&before, &part(range.clone()), &quoted).unwrap(),
            Some(ahead) => ahead.follow(&part(range.clone()), &quoted).unwrap(),
        };
        let Outcome::Waiting { ahead: next } = *advance.outcome() else { panic!("{:?}", advance.outcome()) };
        // Nothing is proven, so what is kept stays; but each entry comes once to be judged.
        assert_eq!((next.count(), advance.state(), advance.is_healthy()), (range.end as u64, before, false));
        numbers.extend(advance.entries().map(|(number, _)| number));
        ahead = Some(next);
    }
    let ahead = ahead.unwrap();
    let last = Increment { first: 31, bytes: list.from(31), complete: true };
    let proven = ahead.follow(&last, &quoted).unwrap();
    numbers.extend(proven.entries().map(|(number, _)| number));
    assert_eq!((proven.outcome(), numbers), (&Outcome::Proven, (3..35).collect()));
    assert_eq!(proven.state(), follow(&State::new(SHA256), &list, 0, 35).state());

    // A last part that does not lead there leaves what was proven before the first.
    let wrong = ahead.follow(&Increment { bytes: list.from(32), ..last }, &quoted).unwrap();
    assert_eq!((wrong.outcome(), wrong.state()), (&Outcome::Differs { tried: 9 }, before));
    let nothing = ahead.follow(&Increment { bytes: &[], complete: false, ..last }, &quoted).unwrap();
    assert_eq!((nothing.outcome(), nothing.state()), (&Outcome::Waiting { ahead }, before));
}

/// `TPM2_PCR_Event` extends each bank with its own hash of what is measured, as the kernel does.
#[test]
fn a_list_is_followed_to_what_a_tpm_has_quoted() {
    let tpm = Swtpm::start();
    tpm.make_keys();
    tpm.separators();
    let ak = AkPublic::parse(&tpm.public("ak.ctx")).unwrap();
    let exchange = Exchange::new();
    let list = list(SHA256, Kernel::OwnHash, 4);
    let heads = 4 + 20 + 4 + "ima-ng".len() + 4;
    for entry in 0..4 {
        tpm.measure(10, &list.bytes[list.starts[entry] + heads..list.starts[entry + 1]]);
    }
    for bank in PcrBank::ALL {
        let quote = quote::verify(&exchange.context(&ak, bank), &tpm.evidence(&exchange, bank)).unwrap();
        let increment = Increment { first: 0, bytes: &list.bytes, complete: true };
        let advance = advance(&State::new(bank), &increment, &QuotedPcr::of(&quote)).unwrap();
        assert_eq!((advance.outcome(), advance.state().count()), (&Outcome::Proven, 4));
    }
}

#[test]
fn a_head_that_is_not_of_its_entry_is_refused() {
    let list = list(SHA256, Kernel::OwnHash, 3);
    let mut changed = list.bytes.clone();
    changed[list.starts[2] + 4] ^= 1;
    let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
    let increment = Increment { first: 0, bytes: &changed, complete: true };
    let error = advance(&State::new(SHA256), &increment, &quoted).unwrap_err();
    assert_eq!(error.reason, Reason::LogReplay);
    assert!(error.detail.contains("at the head of the ima entry /usr/bin/1, found"), "{error}");
}

#[test]
fn entries_that_the_kernel_failed_to_extend_are_named_and_stay_remembered() {
    let mut list = list(SHA256, Kernel::OwnHash, 50);
    let state = follow(&State::new(SHA256), &list, 0, 40).state();
    list.lost("/usr/bin/lost", &[1; 32]);
    list.lost("/usr/bin/lost too", &[2; 32]);
    // Not before another entry was extended can it be told from an entry that is about to be.
    assert_eq!(*follow(&state, &list, 40, list.len()).outcome(), Outcome::Proven);
    list.file("/usr/bin/after", &[3; 32]);
    let broken = follow(&state, &list, 40, list.len());
    assert_eq!(*broken.outcome(), Outcome::Broken { lost: 51..53 });
    assert_eq!((broken.state().count(), broken.entries().count()), (54, 14));
    assert!(!broken.is_healthy());
    let state = broken.state();
    list.file("/usr/bin/later", &[4; 32]);
    let later = follow(&state, &list, 54, list.len());
    assert_eq!((later.outcome(), later.entries().count()), (&Outcome::Proven, 1));
    assert!(later.state().is_broken() && !later.is_healthy());
    assert_eq!(State::from_bytes(&later.state().to_bytes()), Some(later.state()));
}

#[test]
fn kexec_carries_the_list_over_or_begins_a_new_one() {
    let mut list = list(SHA256, Kernel::OwnHash, 5);
    let state = follow(&State::new(SHA256), &list, 0, 6).state();
    let before = list.clone();
    list.file("boot_aggregate", &[7; 32]);
    list.file("/init", &[8; 32]);
    assert_eq!(follow(&state, &list, 0, 8).entries().count(), 2);

    let bytes = list.from(6);
    let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
    let restarted = advance(&state, &Increment { first: 0, bytes, complete: true }, &quoted).unwrap();
    assert_eq!((restarted.outcome(), restarted.state().count()), (&Outcome::Restarted, 2));
    assert_eq!(restarted.entries().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1]);
    // An entry that nobody has seen stands between.
    let state = follow(&State::new(SHA256), &before, 0, 5).state();
    let lost = advance(&state, &Increment { first: 0, bytes, complete: true }, &quoted).unwrap();
    assert_eq!(*lost.outcome(), Outcome::Unverifiable(Unverifiable::Shorter { proven: 5, found: 2 }));
}

#[test]
fn a_trimmed_list_is_followed_if_all_that_is_gone_was_proven() {
    let list = list(SHA256, Kernel::OwnHash, 9);
    let state = follow(&State::new(SHA256), &list, 0, 6).state();
    let trimmed = |first: usize| {
        let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
        let increment = Increment { first: 0, bytes: list.from(first), complete: true };
        let advance = advance(&state, &increment, &quoted).unwrap();
        (advance.outcome().clone(), advance.entries().count(), advance.state().count())
    };
    assert_eq!(trimmed(5), (Outcome::Proven, 4, 10));
    assert_eq!(trimmed(2), (Outcome::Proven, 4, 10));
    assert_eq!(trimmed(7), (Outcome::Unverifiable(Unverifiable::Trimmed), 0, 6));
}

#[test]
fn states_are_kept_as_a_few_bytes() {
    for bank in PcrBank::ALL {
        let list = list(bank, Kernel::OwnHash, 3);
        for state in [State::new(bank), follow(&State::new(bank), &list, 0, 2).state()] {
            let bytes = state.to_bytes();
            assert_eq!(bytes.len(), 33 + bank.digest_len());
            assert_eq!(State::from_bytes(&bytes), Some(state));
            for cut in 0..bytes.len() {
                assert_eq!(State::from_bytes(&bytes[..cut]), None);
            }
            assert_eq!(State::from_bytes(&[bytes, vec![0]].concat()), None);
        }
    }
}

fn any_list() -> impl Strategy<Value = ImaList> {
    let entry = (0u8..6, "[a-z/ ]{0,40}", proptest::collection::vec(any::<u8>(), 0..80));
    (proptest::collection::vec(entry, 1..20), any::<bool>()).prop_map(|(entries, old)| {
        let mut list = ImaList::new(SHA256, if old { Kernel::PaddedSha1 } else { Kernel::OwnHash });
        list.file("boot_aggregate", &[7; 32]);
        for (kind, name, bytes) in entries {
            match kind {
                0 => list.file(&name, &sha256(&bytes)),
                1 => list.signed(&name, &sha256(&bytes), &bytes),
                2 => list.buffer(&name, &bytes),
                3 => list.violation(&name),
                4 => list.fixed(&name, sha1(&bytes).first_chunk().unwrap()),
                _ => list.entry("unheard-of", &[&bytes]),
            }
        }
        list
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), first in 0u64..3, complete: bool) {
        let mut reader = Reader::new(&bytes);
        for entry in reader.by_ref().flatten() {
            let _ = (entry.name(), entry.digest(), entry.fields().count(), entry.template_digest(Bank::Sha256));
        }
        prop_assert_eq!(reader.consumed() + reader.rest().len(), bytes.len());
        let quoted = QuotedPcr::assumed(SHA256, &[1; 32]).unwrap();
        let _ = advance(&State::new(SHA256), &Increment { first, bytes: &bytes, complete }, &quoted);
        let _ = State::from_bytes(&bytes);
    }

    #[test]
    fn a_list_that_is_cut_anywhere_is_a_beginning(list in any_list(), cut in any::<prop::sample::Index>(), covered in any::<prop::sample::Index>()) {
        let (cut, covered) = (cut.index(list.bytes.len() + 1), 1 + covered.index(list.len()));
        let whole = list.starts.iter().filter(|start| **start <= cut).count() - 1;
        let mut reader = Reader::new(&list.bytes[..cut]);
        prop_assert_eq!(reader.by_ref().filter(Result::is_ok).count(), whole);
        prop_assert_eq!(reader.consumed(), list.starts[whole]);
        let quoted = QuotedPcr::assumed(SHA256, &list.values[covered]).unwrap();
        let part = Increment { first: 0, bytes: &list.bytes[..cut], complete: false };
        let advance = advance(&State::new(SHA256), &part, &quoted).unwrap();
        if covered <= whole {
            prop_assert_eq!((advance.outcome(), advance.state().count()), (&Outcome::Proven, covered as u64));
        } else {
            let Outcome::Waiting { ahead } = *advance.outcome() else {
                return Err(TestCaseError::fail(format!("{:?}", advance.outcome())));
            };
            prop_assert_eq!((ahead.count(), advance.state()), (whole as u64, State::new(SHA256)));
        }
    }

    #[test]
    fn a_list_that_was_changed_anywhere_proves_nothing_else(list in any_list(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut changed = list.bytes.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        let quoted = QuotedPcr::assumed(SHA256, list.value()).unwrap();
        let increment = Increment { first: 0, bytes: &changed, complete: true };
        if let Ok(advance) = advance(&State::new(SHA256), &increment, &quoted)
            && *advance.outcome() == Outcome::Proven
        {
            // Names of templates, and all of a violation, are nobody's proof.
            let said = |bytes| Reader::new(bytes).flatten().map(|entry: Entry<'_>| {
                let (name, digest) = (entry.name().map(<[u8]>::to_vec), entry.digest().map(|digest| digest.bytes.to_vec()));
                (entry.is_violation(), (!entry.is_violation() && digest.is_some()).then_some((name, digest)))
            }).collect::<Vec<_>>();
            for (now, before) in said(&changed).iter().zip(said(&list.bytes)) {
                prop_assert!(now.0 == before.0 && (now.1.is_none() || now.1 == before.1), "{:?} {:?}", now, before);
            }
        }
    }
}
