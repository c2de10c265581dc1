//! Proposals: any bytes are refused, or a proposal that a policy can be asked about; what is made of it is a rule.
#![no_main]
use halfkey_evidence::policy::{Assured, Cover, Policy, boot_of, boot_toml, check_proposal, covers};
use std::sync::OnceLock;

const DOCUMENT: &str = include_str!("../corpus/policy/policy.toml");

fn known() -> &'static Policy {
    static KNOWN: OnceLock<Policy> = OnceLock::new();
    KNOWN.get_or_init(|| Policy::parse(DOCUMENT).expect("a good policy"))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(proposal) = check_proposal(bytes) else { return };
    let policy = known();
    let covered = covers(policy, &proposal);
    if let Cover::No(findings) = &covered {
        assert!(!findings.is_empty());
    }
    for base in [None, Some("6.1.0-55"), Some("none such")] {
        let Ok(mut boot) = boot_of(&proposal, policy, base, Assured::default()) else { continue };
        boot.name = "fuzz".to_owned();
        let text = format!("{DOCUMENT}\n{}", boot_toml(&boot));
        let extended = Policy::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        assert_eq!(extended.boots().last(), Some(&boot));
        assert!(!matches!(covers(&extended, &proposal), Cover::No(_)));
    }
});
