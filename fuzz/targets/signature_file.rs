//! Files that bring entries of Secure Boot's variables; and policies that are to list them.
#![no_main]
use halfkey_evidence::eventlog::signature_file::SignatureFile;
use halfkey_evidence::policy::{KeyList, KeyUpdate, Policy};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A file, and what a policy has of one already.
    let (policy, file) = match bytes.iter().position(|byte| *byte == 0xff) {
        Some(at) => (str::from_utf8(&bytes[..at]).ok(), &bytes[at + 1..]),
        None => (None, bytes),
    };
    let Some(file) = SignatureFile::parse(file) else { return };
    assert!(file.signatures().next().is_some());
    let policy = policy.and_then(|text| Some((text, Policy::parse(text).ok()?)));
    let known = policy.as_ref().map(|(_, policy)| policy);
    let mut update = KeyUpdate::default();
    for signature in file.signatures() {
        for list in [KeyList::Kek, KeyList::Db, KeyList::Authorities] {
            let _ = update.add(known, list, &signature);
        }
    }
    assert!(!update.to_string().contains(|char: char| char.is_control() && char != '\n'));
    let _ = update.warnings(known);
    // What is written lists them, and nothing else changes.
    if let Some((text, _)) = policy
        && let Some(text) = update.policy(text)
    {
        assert!(Policy::parse(&text).is_ok());
    }
});
