//! What an attestation can't do without, each part measured alone: a server that did nothing else would answer so many.

use crate::evidence::Rates;
use crate::run::Result;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use halfkey_bench::cpu;
use halfkey_protocol::keys::hpke::{Ephemeral, Released};
use halfkey_protocol::wire::Credential;
use halfkey_testkit::programs::target;
use halfkey_verifier::appraisal::seal;
use rusqlite::Connection;
use std::hint::black_box;
use std::path::Path;

/// Names and seconds of CPU.
pub struct Parts(Vec<(&'static str, f64)>);

impl Parts {
    /// Attestations per second of CPU.
    pub fn per_second(&self) -> f64 {
        1.0 / self.0.iter().map(|(_, seconds)| seconds).sum::<f64>()
    }

    /// One line for each.
    pub fn print(&self) {
        for (name, seconds) in &self.0 {
            println!("  {name:<50} {:>10.1} µs", seconds * 1e6);
        }
    }
}

/// Measures them, beside the check of evidence, which is measured already.
pub fn measure(rates: &Rates) -> Result<Parts> {
    Ok(Parts(vec![
        ("quote, replay of the log, policy", 1.0 / rates.checks),
        ("HPKE to the machine's key", 1.0 / sealing()?),
        ("release signature", 1.0 / signing()?),
        ("TLS records of the evidence", 1.0 / records(rates.sent_bytes)?),
        ("row in a common commit", 1.0 / rows(&target())?),
    ]))
}

fn sealing() -> Result<f64> {
    let machine = Ephemeral::generate();
    let c_v = Credential { id_object: [1; 68].into(), secret: [2; 70].into() };
    let released = Released { opening: None, c_v, c_u: None };
    cpu::rate(|| {
        let sealed = seal(&machine.public, black_box(&released), &[3; 32]).ok_or("no key of X25519")?;
        black_box(sealed);
        Ok(())
    })
}

fn signing() -> Result<f64> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    cpu::rate(|| {
        black_box(key.sign(&SystemRandom::new(), black_box(&[4; 52]))?);
        Ok(())
    })
}

/// So many bytes in records of TLS 1.3, decrypted.
fn records(bytes: usize) -> Result<f64> {
    const RECORD: usize = 16 << 10;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[5; 32])?);
    let nonce = || Nonce::assume_unique_for_key([6; 12]);
    let mut plain = vec![7; RECORD.min(bytes)];
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut plain)?;
    let (sealed, count) = (plain, bytes.div_ceil(RECORD));
    cpu::rate(|| {
        for _ in 0..count {
            let mut record = sealed.clone();
            black_box(key.open_in_place(nonce(), Aad::empty(), &mut record)?);
        }
        Ok(())
    })
}

/// Rows of 3 kB, 32 in a commit that is flushed.
fn rows(folder: &Path) -> Result<f64> {
    const TOGETHER: usize = 32;
    let folder = tempfile::tempdir_in(folder)?;
    let database = Connection::open(folder.path().join("db"))?;
    database.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE evidence (id INTEGER PRIMARY KEY, node TEXT, evidence BLOB);
         CREATE INDEX of_node ON evidence (node, id);",
    )?;
    let (mut insert, mut number) =
        (database.prepare("INSERT INTO evidence (node, evidence) VALUES (?1, ?2)")?, 0);
    database.execute_batch("BEGIN")?;
    cpu::rate(|| {
        number += 1;
        insert.execute((format!("node {}", number % 1000), &[8u8; 3000][..]))?;
        if number % TOGETHER == 0 {
            database.execute_batch("COMMIT; BEGIN")?;
        }
        Ok(())
    })
}
