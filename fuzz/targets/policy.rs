//! Policies: any text is parsed or refused with places in it; what is parsed judges any log, and both judges agree.
//!
//! The input is a document and a log, with a NUL between them.
#![no_main]
use halfkey_evidence::eventlog;
use halfkey_evidence::policy::{Additions, Assured, Claims, Policy, diff, evaluate, explain, learn};
use halfkey_protocol::tpm::bank::PcrBank;
use std::sync::OnceLock;

/// A policy that is always there, so that logs are judged while no document is found that parses.
fn known() -> &'static Policy {
    static KNOWN: OnceLock<Policy> = OnceLock::new();
    KNOWN.get_or_init(|| Policy::parse(include_str!("../corpus/policy/policy.toml")).expect("a good policy"))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (text, log) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let text = String::from_utf8_lossy(text);
    let parsed = Policy::parse(&text);
    if let Err(problems) = &parsed {
        assert!(!problems.is_empty());
        let lines = text.split('\n').count();
        assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line) && problem.column > 0));
    }
    let _ = Additions::parse(&text);
    let policy = parsed.as_ref().unwrap_or_else(|_| known());
    assert!(diff(policy, policy).is_empty());
    let claims = Claims { command_line: Some(text.as_bytes()) };
    for bank in PcrBank::ALL {
        let Ok(replayed) = eventlog::replay(log, bank) else { continue };
        let Ok(explained) = replayed.assume() else { continue };
        let verdict = evaluate(policy, &explained, &claims);
        let explanation = explain(policy, &explained, &claims);
        assert_eq!(verdict.accepted(), explanation.accepted);
        assert_eq!(verdict.accepted(), verdict.boot.is_some());
        // Again, from the memory of the first time.
        assert_eq!(evaluate(policy, &explained, &claims), verdict);
        let assured = Assured {
            kernel_measures_initrd: true,
            trust_returned_images: true,
            trust_unknown_events: true,
            trust_command_line: true,
        };
        if let Ok(learned) = learn(&explained, &claims, assured, "fuzz", &[&text]) {
            let learned = Policy::parse(&learned).expect("what is learned is a policy");
            assert!(evaluate(&learned, &explained, &claims).accepted());
        }
    }
});
