//! Event logs: parsing, replay, and comparison with quotes of a real TPM.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::log::{crypto_agile, event, head, sha1};
use common::{Exchange, Swtpm, hex};
use halfkey_evidence::Rejection;
use halfkey_evidence::eventlog::{
    Format, MAX_EVENTS, MAX_FILE, ProvenLog, Standing, kind, parse, replay, replay_all,
};
use halfkey_evidence::public::AkPublic;
use halfkey_evidence::quote::{self, VerifiedQuote};
use halfkey_protocol::Reason;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use proptest::prelude::*;

const EV_IPL: u32 = 0xd;
const EV_BOOT_APPLICATION: u32 = 0x8000_0003;

/// A boot: something in PCR 0, 4, 7, 9 and 11, and separators in 0 to 7.
fn boot() -> Vec<common::log::Measured<'static>> {
    let mut events: Vec<common::log::Measured<'static>> = vec![
        (0, kind::NO_ACTION, b"", b"StartupLocality\0\x00"),
        (0, 8, b"version", b"version"),
        (7, 0x8000_0001, b"SecureBoot", b"SecureBoot"),
    ];
    events.extend((0..8).map(|pcr| (pcr, kind::SEPARATOR, &[0; 4][..], &[0; 4][..])));
    events.extend([
        (4, EV_BOOT_APPLICATION, &b"kernel"[..], &b"\\EFI\\kernel"[..]),
        (9, 6, b"initrd", b"initrd"),
        (11, EV_IPL, b".linux", b".linux\0"),
        (11, EV_IPL, b"the linux section", b".linux\0"),
    ]);
    events
}

#[test]
fn logs_explain_quotes_of_a_tpm() {
    let tpm = Swtpm::start();
    tpm.make_keys();
    let ak = AkPublic::parse(&tpm.public("ak.ctx")).unwrap();
    let exchange = Exchange::new();
    let quoted = |bank| quote::verify(&exchange.context(&ak, bank), &tpm.evidence(&exchange, bank)).unwrap();
    let quote = || quoted(PcrBank::Sha256);
    let explain = |log: &[u8], systemd: Option<&[u8]>| summary(log, systemd, &quote());
    for (pcr, kind, measured, _) in boot() {
        if kind != kind::NO_ACTION {
            tpm.measure(pcr as u8, measured);
        }
    }
    let log = crypto_agile(&boot());

    for bank in PcrBank::ALL {
        let explained = replay(&log, bank).unwrap().explain(&quoted(bank), None).unwrap();
        let of_pcr = |pcr| explained.coverage().iter().find(|c| c.pcr == pcr).unwrap();
        assert_eq!((of_pcr(4).firmware, of_pcr(11).firmware, of_pcr(8).firmware), (2, 2, 0));
        assert_eq!(explained.log().events().len(), boot().len());
    }
    // A log of one bank is not about another.
    let other = replay(&log, PcrBank::Sha384).unwrap().explain(&quoted(PcrBank::Sha256), None);
    assert_eq!(other.unwrap_err().reason, Reason::LogReplay);

    // Without any one of its events the log names the PCR that it no longer explains.
    for left_out in 1..boot().len() {
        let mut events = boot();
        let (pcr, ..) = events.remove(left_out);
        let rejection = explain(&crypto_agile(&events), None).unwrap_err();
        assert_eq!(rejection.reason, Reason::LogReplay);
        assert!(rejection.detail.contains(&format!("pcr {pcr},")), "{rejection}");
    }
    for added in [0, 5, 8, 14] {
        let mut events = boot();
        events.push((added, EV_IPL, b"more", b"more"));
        assert_eq!(explain(&crypto_agile(&events), None).unwrap_err().reason, Reason::LogReplay);
    }
    // Each event twice, or two that follow each other in a PCR the wrong way round.
    for at in 1..boot().len() {
        let mut events = boot();
        events.insert(at, events[at]);
        assert_eq!(
            explain(&crypto_agile(&events), None).unwrap_err().reason,
            Reason::LogReplay,
            "{at} twice"
        );
        let mut events = boot();
        let next = (at + 1..events.len()).find(|next| events[*next].0 == events[at].0);
        if let Some(next) = next {
            events.swap(at, next);
            let rejection = explain(&crypto_agile(&events), None).unwrap_err();
            assert_eq!(rejection.reason, Reason::LogReplay, "{at} and {next} swapped");
        }
    }
    let mut relabelled = boot();
    relabelled.iter_mut().filter(|event| event.0 == 9).for_each(|event| event.0 = 8);
    assert_eq!(explain(&crypto_agile(&relabelled), None).unwrap_err().reason, Reason::LogReplay);
    let mut locality = boot();
    locality[0].3 = b"StartupLocality\0\x03";
    assert_eq!(explain(&crypto_agile(&locality), None).unwrap_err().reason, Reason::LogReplay);

    phases_and_systemd_log(&tpm, &log, &quote);
}

/// Records of PCR 11, phases of PCR 11 that no log has, and all that systemd measured.
type Summary = (usize, Vec<&'static str>, Vec<String>);

fn summary(log: &[u8], systemd: Option<&[u8]>, quote: &VerifiedQuote) -> Result<Summary, Rejection> {
    let explained: ProvenLog<'_> = replay(log, PcrBank::Sha256)?.explain(quote, systemd)?;
    let pcr11 = explained.coverage().iter().find(|coverage| coverage.pcr == 11).unwrap();
    // Each record or phase is there to be judged, and together with the firmware's events gives the quoted value.
    let mut value = explained.log().pcr(11).unwrap().to_vec();
    for event in explained.systemd().iter().filter(|event| event.pcr == 11) {
        value = Hash::Sha256.digest(&[&value, &event.digest]);
    }
    assert_eq!((value.as_slice(), explained.bank()), (explained.pcr(11), quote.bank()));
    let words = explained.systemd().iter().map(|event| event.what()).collect();
    Ok((pcr11.systemd, pcr11.phases.to_vec(), words))
}

fn phases_and_systemd_log(tpm: &Swtpm, log: &[u8], quote: &dyn Fn() -> VerifiedQuote) {
    let explain = |systemd: Option<&[u8]>| summary(log, systemd, &quote());
    let phases = |systemd: Option<&[u8]>| explain(systemd).map(|(records, phases, _)| (records, phases));
    let record = |pcr: u32, word: &str| {
        let digest = hex(&Hash::Sha256.digest(&[word.as_bytes()]));
        format!(
            "\x1e{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha256\",\"digest\":\"{digest}\"}}],\"content\":{{\"eventType\":\"phase\",\"string\":\"{word}\"}}}}\n"
        )
    };
    assert_eq!(phases(None).unwrap(), (0, vec![]));
    tpm.measure(11, b"enter-initrd");
    assert_eq!(phases(None).unwrap(), (0, vec!["enter-initrd"]));
    assert_eq!(explain(None).unwrap().2, ["systemd phase enter-initrd"]);
    tpm.measure(11, b"leave-initrd");
    assert_eq!(phases(None).unwrap(), (0, vec!["enter-initrd", "leave-initrd"]));

    let recorded = record(11, "enter-initrd") + &record(11, "leave-initrd");
    assert_eq!(phases(Some(recorded.as_bytes())).unwrap(), (2, vec![]));
    // Read later than the quote: what the quote does not have does not count.
    let ahead = recorded.clone() + &record(11, "sysinit") + &record(15, "machine-id");
    assert_eq!(phases(Some(ahead.as_bytes())).unwrap(), (2, vec![]));
    let reordered = record(11, "leave-initrd") + &record(11, "enter-initrd");
    assert_eq!(phases(Some(reordered.as_bytes())).unwrap_err().reason, Reason::LogReplay);
    assert_eq!(phases(Some(b"{}")).unwrap_err().reason, Reason::LogMalformed);

    // Not a phase: nothing explains it.
    tpm.measure(11, b"rogue");
    assert_eq!(phases(None).unwrap_err().reason, Reason::LogReplay);
    let with_rogue = recorded + &record(11, "rogue");
    assert_eq!(phases(Some(with_rogue.as_bytes())).unwrap(), (3, vec![]));
    // A log that is not a phase's PCR's own has no excuse.
    tpm.measure(12, b"sysinit");
    assert!(explain(Some(with_rogue.as_bytes())).unwrap_err().detail.contains("pcr 12"));
}

#[test]
fn both_formats_are_parsed() {
    let log = crypto_agile(&boot());
    let parsed = parse(&log).unwrap();
    assert_eq!((parsed.format(), parsed.len()), (Format::CryptoAgile, boot().len()));
    assert_eq!(parsed.algorithms(), [(4, 20), (0x0b, 32), (0x0c, 48)]);

    let log = sha1(&[(0, 8, b"version"), (4, 4, &[0; 4])]);
    let parsed = parse(&log).unwrap();
    assert_eq!((parsed.format(), parsed.len()), (Format::Sha1, 2));
    assert_eq!(replay(&log, PcrBank::Sha256).unwrap_err().reason, Reason::LogReplay);
}

#[test]
fn all_banks_of_a_log_are_replayed() {
    let log = crypto_agile(&boot());
    // Its SHA-1 digests are zero, so its separators are none.
    assert_eq!(replay_all(&log).unwrap_err().reason, Reason::LogReplay);

    let log = sha1(&[(0, 8, b"version"), (4, 0xd, b"text")]);
    let all = replay_all(&log).unwrap();
    assert_eq!((all.banks.len(), all.unknown.len(), all.banks[0].bank().name()), (1, 0, "sha1"));
    assert_eq!(all.banks[0].events()[1].standing(), Standing::Opaque);
    // extend(0, aa..aa) by sha1sum
    assert_eq!(hex(all.banks[0].pcr(4).unwrap()), "d6ebc4e04e1612a1ae465c51c090608bc5e6e174");

    // SM3, which nobody here can compute, beside SHA-256; numbers count the Spec ID event.
    let mut mixed = head(&[(0x12, 32), (0x0b, 32)]);
    mixed.extend([0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0x12, 0]);
    mixed.extend([7; 32]);
    mixed.extend([0x0b, 0]);
    mixed.extend(Hash::Sha256.digest(&[b"v"]));
    mixed.extend([1, 0, 0, 0, b'v']);
    let all = replay_all(&mixed).unwrap();
    assert_eq!((all.banks.len(), all.unknown.as_slice()), (1, &[0x12][..]));
    let event = all.banks[0].events()[0];
    assert_eq!((event.number, event.pcr, event.measured_data()), (1, 0, Some(&b"v"[..])));
    assert_eq!(replay_all(&head(&[(0x12, 32)])).unwrap_err().reason, Reason::LogReplay);
}

#[test]
fn pcr_0_starts_with_the_locality() {
    let first = |events: &[common::log::Measured<'_>]| {
        replay(&crypto_agile(events), PcrBank::Sha256).map(|log| log.pcr(0).unwrap().to_vec())
    };
    let mut start = vec![0; 32];
    start[31] = 3;
    let locality = (0, kind::NO_ACTION, &b""[..], &b"StartupLocality\0\x03"[..]);
    assert_eq!(first(&[locality]).unwrap(), start);

    // Measured by hardware before TPM2_Startup: as locality 4, stated or not.
    start[31] = 4;
    let expected = Hash::Sha256.digest(&[&start, &Hash::Sha256.digest(&[b"crtm"])]);
    let hcrtm = (0, kind::EFI_HCRTM_EVENT, &b"crtm"[..], &b"HCRTM"[..]);
    let four = (0, kind::NO_ACTION, &b""[..], &b"StartupLocality\0\x04"[..]);
    assert_eq!(first(&[hcrtm]).unwrap(), expected);
    assert_eq!(first(&[four, hcrtm]).unwrap(), expected);

    for wrong in [
        vec![locality, locality],
        vec![hcrtm, locality],
        vec![(0, kind::NO_ACTION, &b""[..], &b"StartupLocality\0\x05"[..])],
    ] {
        assert_eq!(first(&wrong).unwrap_err().reason, Reason::LogMalformed);
    }
}

#[test]
fn only_measured_data_counts() {
    let log = crypto_agile(&boot());
    let replayed = replay(&log, PcrBank::Sha256).unwrap();
    let find = |kind| replayed.events().iter().find(|event| event.kind == kind).unwrap();
    assert_eq!(find(8).measured_data(), Some(&b"version"[..]));
    assert_eq!(find(EV_BOOT_APPLICATION).measured_data(), None);
    assert_eq!(find(EV_BOOT_APPLICATION).claimed_data(), b"\\EFI\\kernel");
    assert_eq!(find(kind::NO_ACTION).measured_data(), None);

    // Something else under the name of a separator; and firmware's own error value.
    let disguised = crypto_agile(&[(4, kind::SEPARATOR, b"rogue", &[0; 4])]);
    assert_eq!(replay(&disguised, PcrBank::Sha256).unwrap_err().reason, Reason::LogReplay);
    let failed = crypto_agile(&[(4, kind::SEPARATOR, &1u32.to_le_bytes(), b"why")]);
    assert!(replay(&failed, PcrBank::Sha256).is_ok());
}

/// The shortest that there is: 16 bytes.
fn event_without_digest() -> Vec<u8> {
    [0, kind::NO_ACTION, 0, 0].map(u32::to_le_bytes).concat()
}

#[test]
fn damaged_logs_are_refused() {
    let refused = |what: &str, reason: Reason, log: &[u8]| {
        let rejection = replay(log, PcrBank::Sha256).expect_err(what);
        assert_eq!(rejection.reason, reason, "{what}: {rejection}");
    };
    let malformed = Reason::LogMalformed;
    let good = crypto_agile(&boot());
    let boundaries: Vec<usize> = (0..=boot().len()).map(|n| crypto_agile(&boot()[..n]).len()).collect();
    for cut in 0..good.len() {
        assert_eq!(parse(&good[..cut]).is_ok(), boundaries.contains(&cut), "cut at {cut}");
    }
    refused("too large", Reason::TooLarge, &vec![0; MAX_FILE + 1]);
    let many = [head(&[(0x0b, 32)]), event_without_digest().repeat(MAX_EVENTS + 1)].concat();
    refused("too many events", Reason::TooLarge, &many);
    assert!(replay(&many[..many.len() - 16], PcrBank::Sha256).is_ok());
    refused("zeros", malformed, &[0; 31]);
    refused("pcr 24", malformed, &crypto_agile(&[(24, EV_IPL, b"", b"")]));
    assert!(replay(&crypto_agile(&[(u32::MAX, kind::NO_ACTION, b"", b"")]), PcrBank::Sha256).is_ok());

    for padding in 1..80 {
        refused("padded", malformed, &[&good[..], &vec![0; padding]].concat());
    }

    let length_lie = [head(&[(0x0b, 33)]), event(0, 8, b"", b"")].concat();
    refused("sha256 of 33 bytes", malformed, &length_lie);
    refused("no algorithm", malformed, &head(&[]));
    refused("twice the same", malformed, &head(&[(0x0b, 32), (0x0b, 32)]));
    refused("17 algorithms", malformed, &head(&(0..17).map(|alg| (alg + 100, 1)).collect::<Vec<_>>()));
    refused("sha1 only", Reason::LogReplay, &head(&[(4, 20)]));

    // An event that leaves the bank out, or has it twice.
    let mut none = head(&[(4, 20), (0x0b, 32)]);
    none.extend([0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 4, 0]);
    none.extend([0; 24]);
    refused("no digest of the bank", malformed, &none);
    let mut twice = head(&[(4, 20), (0x0b, 32)]);
    twice.extend([0, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0]);
    twice.extend([[0x0b, 0].to_vec(), vec![0; 32]].concat().repeat(2));
    twice.extend([0; 4]);
    refused("two digests of the bank", malformed, &twice);
    let mut many = head(&[(4, 20), (0x0b, 32)]);
    many.extend([0, 0, 0, 0, 8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    refused("four thousand million digests", malformed, &many);
}

proptest! {
    #[test]
    fn any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = replay(&bytes, PcrBank::Sha256);
        let _ = replay(&[head(&[(0x0b, 32)]), bytes].concat(), PcrBank::Sha256);
    }

    #[test]
    fn changed_logs_do_not_panic(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8), cut: usize) {
        let mut log = crypto_agile(&boot());
        for (at, to) in changes {
            let at = at % log.len();
            log[at] = to;
        }
        log.truncate(log.len() - cut % 64);
        let _ = replay(&log, PcrBank::Sha256);
    }

    /// Any log that is written is read back, and replays as the definition says.
    #[test]
    fn logs_survive_and_replay(events in proptest::collection::vec(
        (0u32..24, 5u32..20, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)
    ) {
        let measured: Vec<_> = events.iter().map(|(pcr, kind, data)| (*pcr, *kind, &data[..], &data[..])).collect();
        let log = crypto_agile(&measured);
        let parsed = parse(&log).unwrap();
        prop_assert_eq!(parsed.len(), events.len());
        let replayed = replay(&log, PcrBank::Sha384).unwrap();
        for index in 0..17 {
            let mut value = vec![0; 48];
            for (pcr, _, data) in &events {
                if *pcr == index {
                    value = Hash::Sha384.digest(&[&value, &Hash::Sha384.digest(&[data])]);
                }
            }
            prop_assert_eq!(replayed.pcr(index as u8), Some(&value[..]));
        }
        for (event, (_, _, data)) in replayed.events().iter().zip(&events) {
            prop_assert_eq!(event.measured_data(), Some(&data[..]));
        }
    }
}
