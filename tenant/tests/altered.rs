//! A boot that the server altered is neither learned nor approved: what a TPM signed is checked at the workstation.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::shown::{Shown, lying, waiting};
use common::{Ran, flipped};
use halfkey::home::key::TenantKey;
use halfkey_protocol::Bytes;
use halfkey_protocol::wire::Document;
use std::sync::{Arc, Mutex};

/// Exit code, what is said, what the server alters.
type Case<'a> = (i32, &'a str, &'a dyn Fn(&mut Shown));

#[test]
fn only_what_the_tpm_signed_is_learned() {
    let (honest_workstation, mut boots) = waiting(&["6.1"]);
    let original = boots.remove(0);
    let shown = Arc::new(Mutex::new(original.clone()));
    let (server, workstation) = lying(&honest_workstation, &shown);
    let with = |change: &dyn Fn(&mut Shown), args: &[&str]| -> Ran {
        let mut altered = original.clone();
        change(&mut altered);
        *shown.lock().unwrap() = altered;
        workstation.run(args)
    };

    let learn = ["policy", "learn", "web1", "--kernel-measures-initrd"];
    let ran = with(&|_| {}, &learn);
    assert!(ran.code == 0 && ran.stdout.contains("[[boot]]") && ran.stderr.is_empty(), "{ran:?}");

    let log = |shown: &mut Shown| shown.evidence.evidence.event_log.clone().unwrap();
    let cases: [Case<'_>; 10] = [
        (6, "signature", &|s| s.evidence.evidence.quote = flipped(&s.evidence.evidence.quote, 30)),
        (6, "pcr values with digest", &|s| s.evidence.evidence.pcrs[4] = vec![7; 32].into()),
        (6, "qualifying data", &|s| s.evidence.evidence.purpose_data = vec![7; 32].into()),
        (6, "bank", &|s| s.evidence.evidence.bank = "sha384".into()),
        (6, "could not be read", &|s| {
            let whole = log(s);
            s.evidence.evidence.event_log = Some(whole[..whole.len() - 5].into());
        }),
        (6, "replay", &|s| {
            // The digest of the first event: after the Spec ID event, PCR, type, count and algorithm.
            let whole = log(s);
            s.evidence.evidence.event_log = Some(flipped(&whole, 32 + 37 + 14));
        }),
        (3, "no event log", &|s| s.evidence.evidence.event_log = None),
        (6, "shows 999", &|s| s.evidence.summary.id = 999),
        (1, "is of node", &|s| s.evidence.evidence.node_id = "00000000-0000-8000-8000-000000000000".into()),
        (1, "command line", &|s| {
            s.evidence.evidence.command_line = Some(Bytes::from(&b"rdinit=/bin/sh"[..]))
        }),
    ];
    for (code, needle, change) in cases {
        let ran = with(change, &learn);
        assert!(
            ran.code == code && ran.stderr.contains(needle) && ran.stdout.is_empty(),
            "{needle}: {ran:?}"
        );
        let ran = with(change, &["approve", "web1", "--kernel-measures-initrd", "--learn", "--yes"]);
        assert!(ran.code == code && ran.stderr.contains(needle), "{needle}: {ran:?}");
        // What was quoted is what is approved; what no policy judges yet may be missing or untrue.
        if code == 6 || needle == "is of node" {
            let ran = with(change, &["approve", "web1", "--once", "--yes"]);
            assert!(ran.code == code && ran.stderr.contains(needle), "{needle}: {ran:?}");
        }
    }

    // An enrollment by somebody else: a policy by this workstation would not count.
    let other = TenantKey::generate().unwrap();
    let theirs = |s: &mut Shown| {
        let signed = s.record.enrollment.as_ref().unwrap();
        let document: Document = serde_json::from_slice(&signed.document).unwrap();
        s.record.enrollment = Some(other.sign(&document));
    };
    // Named by its id, for the label is theirs.
    let id = original.record.summary.id.clone();
    let by_id = ["policy", "learn", &id, "--kernel-measures-initrd"];
    let ran = with(&theirs, &learn);
    assert!(ran.code == 6 && ran.stderr.contains("name it by its id"), "{ran:?}");
    let ran = with(&theirs, &by_id);
    assert!(
        ran.code == 0 && ran.stderr.contains("warning:") && ran.stderr.contains("another tenant key"),
        "{ran:?}"
    );
    for how in [&["--kernel-measures-initrd", "--learn", "--yes"][..], &["--once", "--yes"]] {
        let ran = with(&theirs, &[&["approve", "web1"], how].concat());
        assert!(ran.code == 6 && ran.stderr.contains("another tenant key"), "{ran:?}");
    }
    // An enrollment of other keys, or none.
    let damaged = |s: &mut Shown| {
        let signed = s.record.enrollment.as_mut().unwrap();
        signed.document = flipped(&signed.document, 40);
    };
    assert_eq!((with(&damaged, &learn).code, with(&damaged, &by_id).code), (6, 6));
    let ran = with(&|s| s.record.enrollment = None, &by_id);
    assert!(ran.code == 1 && ran.stderr.contains("not enrolled"), "{ran:?}");
    // No boot at all.
    let none = |s: &mut Shown| {
        s.record.pending = None;
        s.evidence.summary.purpose = "enroll".into();
    };
    let ran = with(&none, &learn);
    assert!(ran.code == 3 && ran.stderr.contains("no released boot stored"), "{ran:?}");
    let posts = server.asked().iter().filter(|asked| asked.starts_with("POST")).count();
    assert_eq!(posts, 0, "nothing was signed, and nothing approved");
}
