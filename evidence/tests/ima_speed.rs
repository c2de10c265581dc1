//! How long IMA lists take. Not run with the others: `cargo test --release -p halfkey-evidence --test ima_speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use halfkey_evidence::ima::{
    Advance, Budget, DigestList, Increment, ListAppraisal, NamedList, QuotedPcr, Rules, State, advance,
    appraise,
};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::hex;
use halfkey_testkit::ima::{ImaList, Kernel, sha256};
use std::sync::Arc;

const LISTED: usize = 200_000;
const ENTRIES: usize = 100_000;

fn path(number: usize) -> String {
    format!("/usr/lib/x86_64-linux-gnu/package-{}/libfile-{number}.so.1", number % 3000)
}

fn digest(number: usize) -> Vec<u8> {
    sha256(&number.to_le_bytes())
}

fn follow<'a>(state: &State, list: &'a ImaList, first: usize) -> Advance<'a> {
    let increment = Increment { first: first as u64, bytes: list.from(first), complete: true };
    advance(state, &increment, &QuotedPcr::assumed(PcrBank::Sha256, list.value()).unwrap()).unwrap()
}

/// Nanoseconds that this thread was on a processor: what else the machine does counts for nothing.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// The least of several, in microseconds of processor time, each over so many runs.
fn best<T>(times: usize, runs: usize, mut work: impl FnMut() -> T) -> f64 {
    (0..times)
        .map(|_| {
            let start = cpu();
            (0..runs).for_each(|_| {
                std::hint::black_box(work());
            });
            (cpu() - start) as f64 / 1e3 / runs as f64
        })
        .fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "prints figures and takes a minute without --release"]
fn a_hundred_thousand_entries() {
    let lines: String =
        (0..LISTED).map(|number| format!("sha256:{} {}\n", hex(&digest(number)), path(number))).collect();
    let start = cpu();
    let list = Arc::new(DigestList::parse(lines.as_bytes()).unwrap());
    println!(
        "ima_list_build_ms {:.0} ({LISTED} lines, {} MB of text)",
        (cpu() - start) as f64 / 1e6,
        lines.len() >> 20
    );
    println!("ima_list_memory_mb {:.1}", list.memory() as f64 / 1e6);
    let rules = Rules { lists: vec![NamedList { name: "debian".to_owned(), list }], ..Rules::default() };

    let mut written = ImaList::new(PcrBank::Sha256, Kernel::OwnHash);
    let signature = [&[3, 2, 4, 1, 2, 3, 4, 1, 0][..], &[0x5a; 256]].concat();
    // Far apart in the list of digests, as real ones are.
    (0..ENTRIES).for_each(|number| {
        let number = number * 7919 % LISTED;
        written.signed(&path(number), &digest(number), &signature);
    });
    println!("ima_list_mb {:.1}", written.bytes.len() as f64 / 1e6);
    let new = State::new(PcrBank::Sha256);
    let all = || appraise(&rules, &[], &follow(&new, &written, 0), &mut Budget::default());
    let ListAppraisal { listed, refused, .. } = all();
    assert_eq!((listed, refused), (ENTRIES as u64, 0));
    let replay = best(4, 4, || follow(&new, &written, 0).state());
    println!(
        "ima_100k_ms {:.1} (of it {:.1} to follow the list to the pcr)",
        best(4, 4, all) / 1e3,
        replay / 1e3
    );

    for before in [100, ENTRIES - 10] {
        let mut part = ImaList::new(PcrBank::Sha256, Kernel::OwnHash);
        (0..before + 10).for_each(|number| {
            let number = number * 7919 % LISTED;
            part.signed(&path(number), &digest(number), &signature);
        });
        let quoted = QuotedPcr::assumed(PcrBank::Sha256, &part.values[before]).unwrap();
        let known = advance(&new, &Increment { first: 0, bytes: &part.bytes, complete: true }, &quoted)
            .unwrap()
            .state();
        let incremental = best(4, 20_000, || {
            appraise(&rules, &[], &follow(&known, &part, before), &mut Budget::default()).listed
        });
        println!("ima_incremental_us {incremental:.2} (10 new entries after {before})");
    }
}
