//! systemd's log of its own measurements (/run/log/systemd/tpm2-measure.log): JSON texts, each
//! with a record separator before it (RFC 7464). Only what `status` needs: digests for PCR 15.

use halfkey_protocol::kdf::Hash;

#[derive(miniserde::Deserialize)]
struct Record {
    pcr: Option<u64>,
    digests: Option<Vec<Digest>>,
}

#[derive(miniserde::Deserialize)]
struct Digest {
    #[serde(rename = "hashAlg")]
    hash_alg: String,
    digest: String,
}

/// The digests that systemd extended into `pcr` of this bank, in order. Records that can't be read are skipped.
pub fn digests(log: &[u8], pcr: u8, bank: Hash) -> Vec<Vec<u8>> {
    log.split(|byte| *byte == 0x1e)
        .filter_map(|record| miniserde::json::from_str::<Record>(std::str::from_utf8(record).ok()?).ok())
        .filter(|record| record.pcr == Some(pcr.into()))
        .filter_map(|record| {
            let digests = record.digests?;
            let own = digests.iter().find(|digest| digest.hash_alg == bank.name())?;
            hex(&own.digest, bank.digest_len())
        })
        .take(64)
        .collect()
}

fn hex(text: &str, bytes: usize) -> Option<Vec<u8>> {
    if text.len() != 2 * bytes || !text.is_ascii() {
        return None;
    }
    (0..bytes).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_records_of_one_pcr_in_order() {
        let digest = |c: char, bytes: usize| c.to_string().repeat(2 * bytes);
        let record = |pcr, c| {
            format!(
                "\u{1e}{{\"pcr\":{pcr},\"digests\":[{{\"hashAlg\":\"sha1\",\"digest\":\"00\"}},{{\"hashAlg\":\"sha256\",\"digest\":\"{}\"}},{{\"hashAlg\":\"sha384\",\"digest\":\"{}\"}}],\"content_type\":\"systemd\"}}\n",
                digest(c, 32),
                digest(c, 48)
            )
        };
        let log = [record(11, 'a'), record(15, 'b'), "\u{1e}damaged".into(), record(15, 'c')].concat();
        assert_eq!(digests(log.as_bytes(), 15, Hash::Sha256), [vec![0xbb; 32], vec![0xcc; 32]]);
        assert_eq!(digests(log.as_bytes(), 15, Hash::Sha384), [vec![0xbb; 48], vec![0xcc; 48]]);
    }

    proptest! {
        #[test]
        fn any_log_is_read(log in proptest::collection::vec(any::<u8>(), 0..300)) {
            digests(&log, 15, Hash::Sha384);
        }
    }
}
