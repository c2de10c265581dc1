//! What IMA lists cost: to follow one to the quoted PCR and to hold each entry against a list of digests, in process.

use crate::run::Result;
use halfkey_bench::cpu;
use halfkey_evidence::ima::{
    Advance, Budget, DigestList, Increment, ListAppraisal, NamedList, QuotedPcr, Rules, Signer, Signers,
    State, advance, appraise,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::hex;
use halfkey_testkit::ima::{FileKey, ImaList, Kernel, sha256};
use std::hint::black_box;
use std::sync::Arc;

const BANK: PcrBank = PcrBank::Sha256;
/// Lines of the list of digests.
const LISTED: usize = 200_000;
/// Entries of the machine's list.
pub const ENTRIES: usize = 100_000;
/// What is new at a time.
const NEW: usize = 10;
/// The middle one of so many measurements is taken.
const ROUNDS: usize = 9;

/// What was measured, of CPU time of one core.
pub struct Figures {
    /// Memory of the list of digests, in megabytes.
    list_mb: f64,
    /// All entries of a list, in milliseconds.
    all_ms: f64,
    /// Of it what it takes to follow the list to the PCR.
    follow_ms: f64,
    /// New entries after a hundred, in microseconds.
    first_us: f64,
    /// The same number after all others.
    last_us: f64,
    /// As many entries, each with a signature that is wrong, in milliseconds.
    hostile_ms: f64,
}

/// Writes lists as a kernel does, and judges them.
pub fn measure() -> Result<Figures> {
    let (lines, whole) = example();
    let list = Arc::new(DigestList::parse(lines.as_bytes())?);
    let list_mb = list.memory() as f64 / 1e6;
    let rules = Rules { lists: vec![NamedList { name: "debian".to_owned(), list }], ..Rules::default() };
    let new = State::new(BANK);
    let signature = signature();
    let judged = appraised(&rules, &follow(&new, &whole, 0)?);
    if judged.listed != ENTRIES as u64 || !judged.findings.is_empty() {
        return Err(format!("expected {ENTRIES} entries that are listed, found {judged:.200?}").into());
    }
    let all_ms = median_us(1, || Ok(appraised(&rules, &follow(&new, &whole, 0)?)))? / 1e3;
    let follow_ms = median_us(1, || follow(&new, &whole, 0))? / 1e3;
    let [first_us, last_us] = [100, ENTRIES - NEW].map(|before| incremental(&rules, before, &signature));

    let key = FileKey::ecdsa();
    let signers = Arc::new(Signers::new(vec![Signer::from_pem_or_der("ours", &key.public_key())?]));
    let (rules, hostile) =
        (Rules { signers, ..Rules::default() }, written(ENTRIES, &key.sign(b"another file")));
    let hostile_ms = median_us(1, || Ok(appraised(&rules, &follow(&new, &hostile, 0)?)))? / 1e3;
    Ok(Figures { list_mb, all_ms, follow_ms, first_us: first_us?, last_us: last_us?, hostile_ms })
}

/// The list of digests, and the machine's list.
pub fn example() -> (String, ImaList) {
    let line = |number| format!("sha256:{} {}\n", hex(&digest(number)), path(number));
    ((0..LISTED).map(line).collect(), written(ENTRIES, &signature()))
}

/// By a key that is on no keyring, as with a distribution's signatures where the policy goes by digests.
fn signature() -> Vec<u8> {
    [&[3, 2, 4, 1, 2, 3, 4, 1, 0][..], &[0x5a; 256]].concat()
}

/// New entries behind so many that are known.
fn incremental(rules: &Rules, before: usize, signature: &[u8]) -> Result<f64> {
    let list = written(before + NEW, signature);
    let quoted = quoted(&list.values[before])?;
    let known =
        advance(&State::new(BANK), &Increment { first: 0, bytes: &list.bytes, complete: true }, &quoted)?;
    let state = known.state();
    median_us(20_000, || Ok(appraised(rules, &follow(&state, &list, before)?)))
}

fn appraised(rules: &Rules, advance: &Advance<'_>) -> ListAppraisal {
    appraise(rules, &[], advance, &mut Budget::default())
}

fn follow<'a>(state: &State, list: &'a ImaList, first: usize) -> Result<Advance<'a>> {
    let increment = Increment { first: first as u64, bytes: list.from(first), complete: true };
    Ok(advance(state, &increment, &quoted(list.value())?)?)
}

fn quoted(value: &[u8]) -> Result<QuotedPcr> {
    Ok(QuotedPcr::assumed(BANK, value).ok_or("a value of another length")?)
}

/// Entries of `ima-sig`, far apart in the list of digests as real ones are.
fn written(entries: usize, signature: &[u8]) -> ImaList {
    let mut list = ImaList::new(BANK, Kernel::OwnHash);
    for number in 0..entries {
        let number = number * 7919 % LISTED;
        list.signed(&path(number), &digest(number), signature);
    }
    list
}

fn path(number: usize) -> String {
    format!("/usr/lib/x86_64-linux-gnu/package-{}/libfile-{number}.so.1", number % 3000)
}

fn digest(number: usize) -> Vec<u8> {
    sha256(&number.to_le_bytes())
}

/// Microseconds of one run, by several rounds of so many.
fn median_us<T>(runs: u32, mut what: impl FnMut() -> Result<T>) -> Result<f64> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = cpu::of_thread()?;
        for _ in 0..runs {
            black_box(what()?);
        }
        rounds.push((cpu::of_thread()? - start).as_secs_f64() * 1e6 / f64::from(runs));
    }
    Ok(cpu::median(&mut rounds))
}

/// For people.
pub fn print(figures: &Figures) {
    let Figures { list_mb, all_ms, follow_ms, first_us, last_us, hostile_ms } = figures;
    println!("ima lists, one core");
    println!(
        "  {ENTRIES} entries of ima-sig, {LISTED} digests {all_ms:>13.1} ms, {follow_ms:.1} of it to follow the list to the pcr"
    );
    println!("  {NEW} new entries after 100 {first_us:>29.2} us");
    println!("  {NEW} new entries after {} {last_us:>27.2} us", ENTRIES - NEW);
    println!("  {ENTRIES} entries with wrong signatures {hostile_ms:>13.1} ms");
    println!("  memory of the {LISTED} digests {list_mb:>23.1} MB");
}

/// Rows of dist/bench.json.
pub fn json(figures: &Figures) -> serde_json::Map<String, serde_json::Value> {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let Figures { list_mb, all_ms, follow_ms: _, first_us, last_us, hostile_ms } = figures;
    [
        ("ima_100k_ms", all_ms),
        ("ima_incremental_us", last_us),
        ("ima_incremental_first_us", first_us),
        ("ima_hostile_signatures_ms", hostile_ms),
        ("ima_digest_list_mb", list_mb),
    ]
    .map(|(name, value)| (name.to_owned(), rounded(*value).into()))
    .into_iter()
    .collect()
}
