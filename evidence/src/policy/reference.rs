//! Reference values: gone as soon as the verifier has no more use for them.
use crate::quote::VerifiedQuote;
use halfkey_protocol::Bytes;
use halfkey_protocol::wire::operator::{PcrDifference, Reference};

/// Which PCRs are compared: 0 to 14 without 10 (IMA), which grows with every file that is run.
pub const COMPARED: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];

/// PCRs that are not as approved; empty if the boot is what was approved.
/// Against a reference of another bank, or one that lacks values, they all differ.
pub fn compare(quote: &VerifiedQuote, reference: &Reference) -> Vec<PcrDifference> {
    let same_bank = reference.bank == quote.bank().name();
    COMPARED
        .into_iter()
        .filter_map(|pcr| {
            let expected = reference.pcrs.get(usize::from(pcr)).cloned();
            let found = quote.pcr(pcr);
            let same = same_bank && expected.as_deref() == Some(found);
            (!same).then(|| PcrDifference { pcr, expected, found: Bytes::from(found) })
        })
        .collect()
}

/// All compared PCRs as differences: for a node that has no reference yet.
pub fn all_new(quote: &VerifiedQuote) -> Vec<PcrDifference> {
    let found = |pcr| PcrDifference { pcr, expected: None, found: Bytes::from(quote.pcr(pcr)) };
    COMPARED.into_iter().map(found).collect()
}

/// Reference values from a boot that an operator approved: PCR 0 to 14.
/// `evidence_id` is the record that it was quoted in, `learned_at` in seconds since 1970.
pub fn learn(quote: &VerifiedQuote, evidence_id: u64, learned_at: u64, learned_by: &str) -> Reference {
    Reference {
        bank: quote.bank().name().to_owned(),
        pcrs: (0..15).map(|pcr| Bytes::from(quote.pcr(pcr))).collect(),
        evidence_id,
        learned_at,
        learned_by: learned_by.to_owned(),
    }
}
