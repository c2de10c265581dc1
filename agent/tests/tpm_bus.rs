//! What somebody on the TPM's bus sees and can do.

#![allow(clippy::unwrap_used)] // helpers of tests may fail like tests

mod common;

use common::interposer::{
    CC_CREATE_PRIMARY, CC_PCR_READ, CC_QUOTE, CC_START_AUTH_SESSION, CC_UNSEAL, Interposer, code, refusal,
};
use common::release::ReleaseKey;
use common::swtpm::Swtpm;
use halfkey_agent::tpm::{Error, Release, SealedBlob, Tpm, parse_answer, quoted_digest};
use halfkey_protocol::tpm::bank::PcrBank;
use proptest::prelude::*;

const NODE: [u8; 16] = [7; 16];
const SECRET: [u8; 32] = [0xa5; 32];

fn seal(tpm: &mut Tpm, release: &ReleaseKey) -> SealedBlob {
    let srk = tpm.storage_key(None).unwrap();
    let blob = tpm.seal(&srk, &SECRET, &release.policy(PcrBank::Sha256, &NODE)).unwrap();
    tpm.flush(srk).unwrap();
    blob
}

fn unseal(tpm: &mut Tpm, blob: &SealedBlob, release: &ReleaseKey) -> Result<Vec<u8>, Error> {
    let srk = tpm.storage_key(None)?;
    let mut session = tpm.start_unseal(&srk)?;
    let signature = release.sign(&session.nonce_tpm, &NODE);
    let key = release.public();
    let release = Release { bank: PcrBank::Sha256, public: &key, signature: &signature, node: &NODE };
    let secret = tpm.unseal(&mut session, &srk, blob, &release);
    tpm.abandon(session)?;
    secret.map(|secret| secret.to_vec())
}

#[test]
fn a_sniffer_sees_no_secret() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let bus = Interposer::new(&swtpm.location(), |bus, command| Some(bus.ask(command)));
    let mut tpm = bus.open();
    let blob = seal(&mut tpm, &release);
    assert_eq!(unseal(&mut tpm, &blob, &release).unwrap(), SECRET);
    drop(tpm);
    let traffic = bus.traffic();
    assert!(traffic.len() > 1000);
    assert!(!traffic.windows(8).any(|part| part == &SECRET[..8]));
}

#[test]
fn pcrs_that_move_before_unseal_are_tried_again_with_the_same_signature() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let blob = seal(&mut swtpm.open(), &release);
    for (moves, opens) in [(1, true), (3, true), (u32::MAX, false)] {
        let mut left = moves;
        let bus = Interposer::new(&swtpm.location(), move |bus, command| {
            if code(command) == CC_UNSEAL && left > 0 {
                left -= 1;
                bus.move_pcr_11();
            }
            Some(bus.ask(command))
        });
        let mut tpm = bus.open();
        match unseal(&mut tpm, &blob, &release) {
            Ok(secret) => assert!(opens && secret == SECRET),
            Err(error) => assert!(!opens && matches!(error, Error::PcrChanged), "{error}"),
        }
        drop(tpm);
        bus.traffic();
    }
}

#[test]
fn pcrs_that_move_before_a_quote_are_read_again() {
    let swtpm = Swtpm::start();
    for (moves, fits) in [(2, true), (u32::MAX, false)] {
        let mut left = moves;
        let bus = Interposer::new(&swtpm.location(), move |bus, command| {
            if matches!(code(command), CC_QUOTE | CC_PCR_READ) && left > 0 {
                left -= 1;
                bus.move_pcr_11();
            }
            Some(bus.ask(command))
        });
        let mut tpm = bus.open();
        let ak = tpm.attestation_key().unwrap();
        match tpm.quote(&ak, &[3; 32], PcrBank::Sha256) {
            Ok(quote) => assert!(fits && quote.pcrs[11] != [0; 32]),
            Err(error) => assert!(!fits && matches!(error, Error::PcrChanged), "{error}"),
        }
        drop(tpm);
        bus.traffic();
    }
}

#[test]
fn answers_that_somebody_changed_are_noticed() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let blob = seal(&mut swtpm.open(), &release);
    // Every tenth byte behind the header of Unseal's answer: lengths, secret, nonce, HMAC.
    for at in (10..110).step_by(10) {
        let bus = Interposer::new(&swtpm.location(), move |bus, command| {
            let mut answer = bus.ask(command);
            if code(command) == CC_UNSEAL {
                answer[at] ^= 1;
            }
            Some(answer)
        });
        let mut tpm = bus.open();
        let error = unseal(&mut tpm, &blob, &release).unwrap_err();
        assert!(matches!(error, Error::Hmac("Unseal") | Error::Malformed("Unseal")), "byte {at}: {error}");
        drop(tpm);
        bus.traffic();
    }
}

#[test]
fn a_secret_without_encryption_is_not_accepted() {
    // Somebody who strips the encrypt attribute can't make the HMAC for it.
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let blob = seal(&mut swtpm.open(), &release);
    let bus = Interposer::new(&swtpm.location(), |bus, command| {
        let mut command = command.to_vec();
        if code(&command) == CC_UNSEAL {
            // Header, handle, size of the area, session, nonce: then the attributes.
            let attributes = 10 + 4 + 4 + 4 + 2 + 32;
            // The answer is encrypted, and the session is used again.
            assert_eq!(command[attributes], 0x41);
            command[attributes] = 1;
        }
        Some(bus.ask(&command))
    });
    let mut tpm = bus.open();
    let error = unseal(&mut tpm, &blob, &release).unwrap_err();
    assert!(matches!(error, Error::Refused("Unseal", _)), "{error}");
}

#[test]
fn a_session_without_a_nonce_is_not_accepted() {
    // A release signature over an empty nonce would open U in any session.
    let swtpm = Swtpm::start();
    let bus = Interposer::new(&swtpm.location(), |bus, command| {
        let mut answer = bus.ask(command);
        if code(command) == CC_START_AUTH_SESSION {
            answer.truncate(14);
            answer.extend([0, 0]);
            answer[5] = answer.len() as u8;
        }
        Some(answer)
    });
    let mut tpm = bus.open();
    let srk = tpm.storage_key(None).unwrap();
    let error = tpm.start_unseal(&srk).map(drop).unwrap_err();
    assert!(matches!(error, Error::Malformed("StartAuthSession")), "{error}");
    drop(tpm);
    bus.traffic();
    assert_eq!(swtpm.told("tpm2_getcap handles-loaded-session").trim(), "");
}

#[test]
fn a_busy_tpm_is_asked_again() {
    let swtpm = Swtpm::start();
    let mut busy = vec![0x922, 0x908, 0x90a, 0x920];
    let bus = Interposer::new(&swtpm.location(), move |bus, command| match busy.pop() {
        Some(code) => Some(refusal(code)),
        None => Some(bus.ask(command)),
    });
    let mut tpm = bus.open();
    assert_eq!(tpm.active_banks().unwrap(), [4, 11, 12]);
    assert_eq!(tpm.timings().len(), 1);
}

#[test]
fn a_tpm_that_nobody_started_says_so() {
    let swtpm = Swtpm::not_started();
    let error = swtpm.open().storage_key(None).map(drop).unwrap_err();
    assert!(error.to_string().contains("the TPM has not been started"), "{error}");
    assert!(error.hint().unwrap().contains("firmware"));
}

#[test]
fn no_tpm_says_so() {
    let error = Tpm::open(&"/dev/no-such-tpm".parse().unwrap()).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("can't open the TPM at /dev/no-such-tpm: "), "{error}");
    assert!(error.hint().unwrap().contains("firmware setup"));
}

#[test]
fn garbage_is_an_error_and_the_last_word() {
    let frames: [Vec<u8>; 7] = [
        Vec::new(),
        vec![0x80],
        [&[0x80, 1, 0, 0, 0, 12][..], &[0; 5]].concat(), // one byte too few
        [&[0x80, 1, 0, 0, 0, 9][..], &[0; 4]].concat(),  // shorter than a header
        [&[0x80, 1, 0xff, 0xff, 0xff, 0xff][..], &[0; 4]].concat(),
        [&[0x80, 2, 0, 0, 0, 14][..], &[0; 4], &[0xff; 4]].concat(), // wrong tag
        [&[0x80, 1, 0, 0, 0, 19][..], &[0; 4], &[1, 0, 0, 0, 5], &[0xff; 4]].concat(), // endless list
    ];
    for frame in frames {
        let mut first = Some(frame.clone());
        let bus = Interposer::alone(move |_| first.take());
        let mut tpm = bus.open();
        assert!(tpm.active_banks().is_err(), "{frame:?}");
        assert!(tpm.pcr_read(11, 1).is_err(), "{frame:?}");
    }
}

#[test]
fn an_oversized_blob_costs_only_itself() {
    let swtpm = Swtpm::start();
    let mut tpm = swtpm.open();
    let srk = tpm.storage_key(None).unwrap();
    for length in [4096, 1 << 17] {
        let blob = SealedBlob { public: vec![0; 64], private: vec![0; length] };
        let error = tpm.load(&srk, &blob).map(drop).unwrap_err();
        assert!(matches!(error, Error::TooLarge("Load")), "{error}");
    }
    assert!(tpm.fence_state().unwrap().is_open());
}

#[test]
fn an_answer_about_other_pcrs_is_refused() {
    // PCR_Read for 0 and 1, answered with the value of 2.
    let mut answer = vec![0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    answer.extend([0, 0, 0, 1]); // update counter
    answer.extend([0, 0, 0, 1, 0, 11, 3, 4, 0, 0]); // bank SHA-256, PCR 2
    answer.extend([0, 0, 0, 1, 0, 32]);
    answer.extend([9; 32]);
    answer[5] = answer.len() as u8;
    let bus = Interposer::alone(move |_| Some(answer.clone()));
    assert!(matches!(bus.open().pcr_read(11, 3), Err(Error::Malformed("PCR_Read"))));
}

#[test]
fn the_fence_of_all_banks_is_one_answer_or_is_read_bank_by_bank() {
    let swtpm = Swtpm::start();
    swtpm.open().pcr_event(15, b"closed").unwrap();
    let expected = swtpm.open().fence_state().unwrap().values;
    assert_eq!(
        expected.iter().map(|(bank, value)| (*bank, value.len())).collect::<Vec<_>>(),
        [(4, 20), (11, 32), (12, 48)]
    );
    // A TPM that gives one bank at a time says so.
    let several = |command: &[u8]| code(command) == CC_PCR_READ && command[13] > 1;
    let bus = Interposer::new(&swtpm.location(), move |bus, command| {
        let mut command = command.to_vec();
        if several(&command) {
            command.truncate(14 + 6);
            command[13] = 1;
            command[5] = command.len() as u8;
        }
        Some(bus.ask(&command))
    });
    assert_eq!(bus.open().fence_state().unwrap().values, expected);
    bus.traffic();
    // And one that does not know what to make of it says that.
    let bus = Interposer::new(&swtpm.location(), move |bus, command| {
        Some(if several(command) { refusal(0x1d5) } else { bus.ask(command) })
    });
    assert_eq!(bus.open().fence_state().unwrap().values, expected);
    bus.traffic();
    // Values that are not those of their banks are nobody's.
    let bus = Interposer::new(&swtpm.location(), move |bus, command| {
        let mut answer = bus.ask(command);
        if several(command) {
            // Header, counter, selection of three banks, count, SHA-1.
            let (sha256, end) = (10 + 4 + 4 + 3 * 6 + 4 + 2 + 20, answer.len());
            let swapped = [&answer[sha256 + 2 + 32..end], &answer[sha256..sha256 + 2 + 32]].concat();
            answer[sha256..].copy_from_slice(&swapped);
        }
        Some(answer)
    });
    let error = bus.open().fence_state().map(drop).unwrap_err();
    assert!(matches!(error, Error::Malformed("PCR_Read")), "{error}");
}

#[test]
fn objects_of_a_lost_answer_are_flushed() {
    let swtpm = Swtpm::start();
    let bus = Interposer::new(&swtpm.location(), |bus, command| {
        let mut answer = bus.ask(command);
        if code(command) == CC_CREATE_PRIMARY {
            let last = answer.len() - 40;
            answer[last] ^= 1; // the name or what is near it
        }
        Some(answer)
    });
    let mut tpm = bus.open();
    assert!(tpm.attestation_key().is_err());
    drop(tpm);
    bus.traffic();
    assert_eq!(swtpm.told("tpm2_getcap handles-transient").trim(), "");
}

#[test]
fn nothing_is_left_behind() {
    let swtpm = Swtpm::start();
    let release = ReleaseKey::new();
    let mut tpm = swtpm.open();
    let blob = seal(&mut tpm, &release);
    unseal(&mut tpm, &blob, &release).unwrap();
    tpm.attestation_key().unwrap();
    drop(tpm);
    let mut tpm = swtpm.open();
    let srk = tpm.storage_key(None).unwrap();
    tpm.load(&srk, &blob).unwrap();
    let one = tpm.start_unseal(&srk).unwrap();
    tpm.start_unseal(&srk).unwrap();
    tpm.abandon(one).unwrap();
    drop(tpm);
    for kind in ["handles-transient", "handles-loaded-session", "handles-saved-session"] {
        assert_eq!(swtpm.told(&format!("tpm2_getcap {kind}")).trim(), "", "{kind}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_answer_is_taken_apart_or_refused(tail: Vec<u8>, handle: bool, auth: bool) {
        let tag = if auth { 2 } else { 1 };
        let frame = [&[0x80, tag, 0, 0, 0, 0, 0, 0, 0, 0][..], &tail].concat();
        let _ = parse_answer(&frame, handle, auth);
        let _ = parse_answer(&tail, handle, auth);
        let _ = quoted_digest(&tail);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_frame_is_survived(tail in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut frame = vec![0x80, 1, 0, 0, 0, 10 + tail.len() as u8, 0, 0, 0, 0];
        frame.extend(tail);
        let bus = Interposer::alone(move |_| Some(frame.clone()));
        let mut tpm = bus.open();
        let _ = tpm.active_banks();
        let _ = tpm.fence_state();
        let _ = tpm.description();
        let _ = tpm.permanent();
        let _ = tpm.read_clock();
        let _ = tpm.nv_read(0x01c0_0002);
        let _ = tpm.endorsement_key();
        let _ = tpm.attestation_key();
    }
}
