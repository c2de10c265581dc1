//! IMA lists: read, followed to a PCR, and held against rules; and lists of digests.
//!
//! The input is a list. Its heads are repaired, so that mutations of the data reach what comes behind the replay.
#![no_main]
use halfkey_evidence::digest::{Bank, Digest};
use halfkey_evidence::ima::{
    BootPcrs, Budget, BufferContent, BufferRule, DigestList, ImaSignature, Increment, NamedList, Outcome,
    PathPattern, QuotedPcr, Reader, Rules, State, Verdict, Violations, advance, appraise, assume, describe,
    judge,
};
use halfkey_protocol::tpm::bank::PcrBank;
use std::sync::{Arc, OnceLock};

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| {
        let list = DigestList::parse(include_bytes!("../corpus/ima/digests")).expect("a list of digests");
        Rules {
            lists: vec![NamedList { name: "seed".to_owned(), list: Arc::new(list) }],
            signers: Default::default(),
            not_judged: vec![PathPattern::parse("/var/*/log/").expect("a pattern")],
            buffers: vec![BufferRule::new("kexec-*", BufferContent::Any).expect("a rule")],
            violations: Violations::NotJudgedOnly,
            kexec: false,
        }
    })
}

/// The whole entries with the SHA-1 that each should have, and what the PCR becomes by those of PCR 10; where each ends.
fn repaired(list: &[u8]) -> (Vec<u8>, Vec<Digest>) {
    let (mut out, mut values) = (Vec::new(), vec![Digest::filled(Bank::Sha256, 0)]);
    let mut reader = Reader::new(list);
    loop {
        let before = reader.consumed();
        let Some(Ok(entry)) = reader.next() else { return (out, values) };
        let start = out.len();
        out.extend(&list[before..reader.consumed()]);
        let value = values[values.len() - 1];
        if entry.is_violation() {
            values.push(Bank::Sha256.extend(&value, &[0xff; 32]));
        } else {
            out[start + 4..start + 24].copy_from_slice(&entry.template_digest(Bank::Sha1));
            values.push(Bank::Sha256.extend(&value, &entry.template_digest(Bank::Sha256)));
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let new = State::new(PcrBank::Sha256);
    let quoted = |value: &[u8]| QuotedPcr::assumed(PcrBank::Sha256, value).expect("32 bytes");
    for complete in [false, true] {
        let _ = advance(&new, &Increment { first: 0, bytes, complete }, &quoted(&[1; 32]));
    }
    let (list, values) = repaired(bytes);
    let whole = Increment { first: 0, bytes: &list, complete: true };
    let last = values[values.len() - 1];
    if let Ok(all) = advance(&new, &whole, &quoted(&last))
        && *all.outcome() == Outcome::Proven
    {
        assert_eq!(all.entries().count() + 1, values.len());
        assert_eq!(State::from_bytes(&all.state().to_bytes()), Some(all.state()));
        let boot = [BootPcrs { bank: Bank::Sha256, values: &[0; 320] }];
        let result = appraise(rules(), &boot, &all, &mut Budget::default());
        assert_eq!(result.accepted(), result.findings.is_empty());
        for (number, entry) in all.entries() {
            if let Verdict::Refused(refusal) = judge(rules(), &boot, number, &entry, &mut Budget::default()) {
                let finding = describe(rules(), number, &entry, &refusal);
                for said in [&finding.what, &finding.rule, &finding.expected, &finding.found] {
                    assert!(!said.contains(char::is_control), "{said:?}");
                }
            }
        }
        // In two steps it is the same.
        let half = quoted(&values[values.len() / 2]);
        if let Ok(first) = advance(&new, &whole, &half)
            && first.state().extension().is_some()
        {
            let second = advance(&first.state(), &whole, &quoted(&last)).expect("it was followed before");
            assert_eq!(second.state(), all.state());
        }
        // And in two messages, whatever the first of them ends with.
        let part = Increment { first: 0, bytes: &list[..list.len() / 2], complete: false };
        if let Ok(first) = advance(&new, &part, &quoted(&last))
            && let Outcome::Waiting { ahead } = *first.outcome()
        {
            let mut reader = Reader::new(&list);
            let before = reader.by_ref().take(ahead.count() as usize).count();
            let rest = Increment { first: ahead.count(), bytes: reader.rest(), complete: true };
            let second = ahead.follow(&rest, &quoted(&last)).expect("it was followed before");
            assert_eq!(second.state(), all.state());
            assert_eq!((before, first.state()), (first.entries().count(), new));
            assert_eq!(before + second.entries().count(), all.entries().count());
        }
        let assumed = assume(&list, PcrBank::Sha256).expect("it was followed before");
        assert_eq!(assumed.state(), all.state());
    }
    let _ = State::from_bytes(bytes);
    let _ = ImaSignature::parse(bytes);
    if let Ok(list) = DigestList::parse(bytes) {
        let again = DigestList::parse(&list.to_text()).expect("what is written is read");
        assert_eq!((again.id(), again.len()), (list.id(), list.len()));
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(pattern) = PathPattern::parse(text)
    {
        let _ = pattern.matches(text.as_bytes());
    }
});
