//! The fence on a real TPM (swtpm).

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

mod common;

use common::interposer::{CC_PCR_EVENT, CC_PCR_READ, Interposer, code};
use common::swtpm::Swtpm;
use halfkey_agent::boot::state::State;
use halfkey_agent::error::{Error, Kind, Result};
use halfkey_agent::fence::{self, Ensured, Meaning};
use halfkey_agent::tpm::{Location, Tpm, choice};
use halfkey_protocol::keys::label;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::hex;

#[test]
fn r_goes_into_an_open_fence_only() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    fence::close(&mut tpm).unwrap();
    let closed = tpm.fence_state().unwrap().values;
    let refused = fence::window(&mut tpm).err().unwrap();
    assert_eq!(refused.kind, Kind::Fence);
    assert_eq!(tpm.fence_state().unwrap().values, closed);
}

#[test]
fn an_open_fence_takes_r_and_then_a_passphrase() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let window = fence::window(&mut tpm).unwrap();
    let opened = fence::extend_open(&mut tpm, window, &[7; 32]).unwrap();
    assert!(opened.is_closed());
    assert!(fence::window(&mut tpm).is_err());
    assert!(fence::extend(&mut tpm, label::FENCE_PASSPHRASE).unwrap().values != opened.values);
}

/// What the agent left of a boot that this r opened, or would have.
fn state(r: &[u8]) -> State {
    State {
        version: 1,
        node: "80808080-8080-8080-8080-808080808080".into(),
        tpm: None,
        evidence_id: None,
        fence: fence::opened_with(r),
        server: "https://10.0.2.2:8443".into(),
        opening: true,
        volumes: Vec::new(),
    }
}

/// The TPM answers PCR_Event with the digests that it extended, a list, which no session encrypts. So an encrypted event would be heard all
/// the same. Nor is it of use in the boot in which it was heard: by then PCR 15 is no longer zero.
#[test]
fn what_opens_the_fence_is_heard_and_opens_no_other_one_of_this_boot() {
    let swtpm = Swtpm::start();
    let event = [0xa5; 32];
    let bus = Interposer::new(&swtpm.location(), |bus, command| {
        let answer = bus.ask(command);
        if code(command) == CC_PCR_EVENT {
            let heard = |digest: &[u8]| answer.windows(digest.len()).any(|part| part == digest);
            assert!(PcrBank::ALL.into_iter().all(|bank| heard(&bank.digest(&[&[0xa5; 32]]))));
        }
        Some(answer)
    });
    let mut tpm = bus.open();
    let window = fence::window(&mut tpm).unwrap();
    let opened = fence::extend_open(&mut tpm, window, &event).unwrap().values;
    drop(tpm);
    assert!(!bus.traffic().is_empty());

    let digests = PcrBank::ALL.map(|bank| format!("{}={}", bank.name(), hex(&bank.digest(&[&event]))));
    let extend = |swtpm: &Swtpm| swtpm.told(&format!("tpm2_pcrextend 15:{}", digests.join(",")));
    let meaning =
        |swtpm: &Swtpm| fence::meaning(&swtpm.open().fence_state().unwrap(), Some(&state(&event)), b"");
    let zero = Swtpm::start();
    extend(&zero);
    let known = |values: &[(u16, Vec<u8>)]| values[1..].to_vec();
    assert_eq!(known(&zero.open().fence_state().unwrap().values), known(&opened));
    assert_eq!(meaning(&swtpm), Meaning::Opened);
    extend(&swtpm);
    assert_eq!(meaning(&swtpm), Meaning::Unknown);
}

#[test]
fn a_tpm_of_one_bank_tells_what_became_of_its_boot() {
    for (banks, only) in
        [("sha256:none+sha384:all", PcrBank::Sha384), ("sha256:all+sha384:none", PcrBank::Sha256)]
    {
        let mut swtpm = Swtpm::start();
        swtpm.told(&format!("tpm2_pcrallocate sha1:none+{banks}"));
        swtpm.reboot();
        let mut tpm = swtpm.open();
        let means =
            |tpm: &mut Tpm, r: &[u8]| fence::meaning(&tpm.fence_state().unwrap(), Some(&state(r)), b"");
        assert_eq!(means(&mut tpm, &[7; 32]), Meaning::Open);
        let window = fence::window(&mut tpm).unwrap();
        let opened = fence::extend_open(&mut tpm, window, &[7; 32]).unwrap();
        assert_eq!(opened.known().map(|(bank, _)| bank).collect::<Vec<_>>(), [only]);
        assert_eq!(means(&mut tpm, &[7; 32]), Meaning::Opened);
        assert_eq!(means(&mut tpm, &[8; 32]), Meaning::Unknown);
        fence::extend(&mut tpm, label::FENCE_SHELL).unwrap();
        assert_eq!(means(&mut tpm, &[7; 32]), Meaning::Shell);
    }
}

#[test]
fn a_window_that_was_closed_meanwhile_takes_nothing_back() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let window = fence::window(&mut tpm).unwrap();
    fence::close(&mut tpm).unwrap();
    let refused = fence::extend_open(&mut tpm, window, &[7; 32]).err().unwrap();
    assert_eq!(refused.kind, Kind::Fence);
    assert!(fence::window(&mut tpm).is_err());
}

/// A command is not answered; another one is refused for a moment. Neither is a reason to power an honest machine off.
#[test]
fn a_tpm_that_was_busy_is_asked_again() {
    for lost in [CC_PCR_EVENT, CC_PCR_READ] {
        let swtpm = Swtpm::start();
        let mut busy = true;
        let bus = Interposer::opened(2, &swtpm.location(), move |bus, command| {
            // What was sent was done, and nobody knows.
            let answer = bus.ask(command);
            (code(command) != lost || !std::mem::take(&mut busy)).then_some(answer)
        });
        fence::ensure_closed(&bus.location()).unwrap();
        bus.traffic();
        let found = swtpm.open().fence_state().unwrap();
        assert_eq!(fence::meaning(&found, None, b""), Meaning::Closed, "extended once");
    }
}

/// The enrolled TPM is one of them, and it has another number than in the boot before.
#[test]
fn every_tpm_is_closed_before_anybody_gets_a_shell() {
    let (one, other) = (Swtpm::start(), Swtpm::start());
    let each = [one.location(), other.location()];
    let meaning =
        |swtpm: &Swtpm| fence::meaning(&swtpm.open().fence_state().unwrap(), Some(&state(&[7; 32])), b"");
    fence::extend(&mut other.open(), &[7; 32]).unwrap();
    // Nobody may take it for a boot in which nothing was opened.
    assert_eq!(fence::ensure_each_closed(&each).unwrap(), Ensured::Mixed);
    assert_eq!((meaning(&one), meaning(&other)), (Meaning::Closed, Meaning::Opened));
    assert_eq!(fence::ensure_each_closed(&each).unwrap(), Ensured::Already);

    let (mut one, mut other) = (one, other);
    one.reboot();
    other.reboot();
    let gone = Location::Unix("/nowhere/tpm".into());
    // One that can't be had is an error, and keeps no other one open.
    assert!(fence::ensure_each_closed(&[gone, one.location()]).is_err());
    assert_eq!((meaning(&one), meaning(&other)), (Meaning::Closed, Meaning::Open));
    one.reboot();
    let each = [one.location(), other.location()];
    assert_eq!(fence::ensure_each_closed(&each).unwrap(), Ensured::Closed);
    assert_eq!((meaning(&one), meaning(&other)), (Meaning::Closed, Meaning::Closed));
}

#[test]
fn the_tpm_that_attests_is_found_by_its_keys() {
    let (one, other) = (Swtpm::start(), Swtpm::start());
    let srk = |swtpm: &Swtpm| swtpm.open().storage_key(None).unwrap().name.clone();
    let (first, second) = (srk(&one), srk(&other));
    let (one, other) = (one.location(), other.location());
    let open = &mut |tpm: &mut Tpm| {
        let state = tpm.fence_state()?;
        if state.is_open() { Ok(()) } else { Err(Error::new(Kind::Fence, "it is closed")) }
    };
    let found = |each: &[&Location], names: &[&[u8]], look: &mut dyn FnMut(&mut Tpm) -> Result<()>| {
        let each: Vec<_> = each.iter().map(|one| (*one).clone()).collect();
        choice::by_srk(&each, names, look).map(|chosen| (chosen.location.clone(), chosen.index))
    };
    let gone = Location::Unix("/nowhere/tpm".into());
    for each in [[&one, &other], [&other, &one]] {
        assert_eq!(found(&each, &[&first], open).unwrap(), (one.clone(), 0));
        assert_eq!(found(&each, &[b"of before", &second], open).unwrap(), (other.clone(), 1));
        // Enrollments of both: the first TPM, by whichever name it has.
        assert_eq!(&found(&each, &[&first, &second], open).unwrap().0, each[0]);
        let none = found(&each, &[b"of before"], open).unwrap_err();
        assert_eq!(none.kind, Kind::OtherTpm);
        assert!(none.message.starts_with(&format!("tried {}, {}: ", each[0], each[1])), "{none}");
    }
    assert_eq!(found(&[&gone, &other], &[&second], open).unwrap().0, other);
    // That could have been the one.
    assert_eq!(found(&[&gone, &other], &[&first], open).unwrap_err().kind, Kind::Tpm);
    fence::close(&mut Tpm::open(&other).unwrap()).unwrap();
    assert_eq!(found(&[&one, &other], &[&second], open).unwrap_err().kind, Kind::Fence);
    assert_eq!(found(&[&other, &one], &[&first], open).unwrap().0, one);
    assert_eq!(found(&[&one], &[&second], open).unwrap_err().kind, Kind::OtherTpm);
}

/// Its number is that of this boot; where nothing says which, all have to prove it.
#[test]
fn the_tpm_on_record_is_asked() {
    let here = Location::Machine;
    let mut record = state(&[7; 32]);
    assert_eq!(fence::on_record(&here, Some(&record)), here.each());
    record.tpm = Some("/dev/tpmrm1".into());
    let recorded: Location = "/dev/tpmrm1".parse().unwrap();
    assert_eq!(fence::on_record(&here, Some(&record)), [recorded]);
    let named: Location = "/dev/tpmrm2".parse().unwrap();
    assert_eq!(fence::on_record(&named, Some(&record)), [named]);
    assert_eq!(fence::on_record(&here, None), here.each());
}

/// r could not be extended, the fence was closed, and systemd measured a volume that a passphrase opened.
#[test]
fn a_closed_fence_is_closed_whatever_systemd_measured_later() {
    const MEASURED: &[u8] = b"cryptsetup:root:uuid";
    let log = |measured: &[u8]| {
        let digest = |bank: PcrBank| {
            let hex: String = bank.digest(&[measured]).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{\"hashAlg\":\"{}\",\"digest\":\"{hex}\"}}", bank.name())
        };
        let digests = PcrBank::ALL.map(digest).join(",");
        format!("\u{1e}{{\"pcr\":15,\"digests\":[{digests}]}}\n").into_bytes()
    };
    for (first, measured, closed) in [
        (label::FENCE_CLOSED, None, true),
        (label::FENCE_CLOSED, Some(MEASURED), true),
        (label::FENCE_CLOSED, Some(&b"something else"[..]), false),
        (&[7; 32], None, false),
        (&[7; 32], Some(MEASURED), false),
        (&[7; 32], Some(label::FENCE_CLOSED), false),
    ] {
        let swtpm = Swtpm::start();
        let mut tpm = swtpm.open();
        fence::extend(&mut tpm, first).unwrap();
        if let Some(measured) = measured {
            fence::extend(&mut tpm, measured).unwrap();
        }
        drop(tpm);
        // It is written after the TPM was asked the first time, which is not answered.
        let mut busy = true;
        let bus = Interposer::opened(100, &swtpm.location(), move |bus, command| {
            let answer = bus.ask(command);
            (code(command) != CC_PCR_READ || !std::mem::take(&mut busy)).then_some(answer)
        });
        let looked = std::cell::Cell::new(0);
        let written = || {
            looked.set(looked.get() + 1);
            if looked.get() > 1 { log(MEASURED) } else { Vec::new() }
        };
        let says = fence::proves_closed(&bus.location(), &state(&[7; 32]), written).unwrap();
        assert_eq!(says, closed, "{measured:?}");
    }
}
