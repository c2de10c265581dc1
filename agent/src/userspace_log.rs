//! systemd's log of its own measurements ([`halfkey_measure::systemd`]). Only what `status` needs: digests for PCR 15.

use halfkey_measure::systemd::{self, Record};
use halfkey_protocol::tpm::bank::PcrBank;

/// The digests that systemd extended into `pcr` of this bank, in order. Records that can't be read are skipped.
pub fn digests(log: &[u8], pcr: u8, bank: PcrBank) -> Vec<Vec<u8>> {
    systemd::records(log)
        .filter_map(|record| miniserde::json::from_str::<Record>(std::str::from_utf8(record).ok()?).ok())
        .filter(|record| record.pcr == Some(pcr.into()))
        .filter_map(|record| record.digest(bank).ok())
        .take(64)
        .collect()
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
        assert_eq!(digests(log.as_bytes(), 15, PcrBank::Sha256), [vec![0xbb; 32], vec![0xcc; 32]]);
        assert_eq!(digests(log.as_bytes(), 15, PcrBank::Sha384), [vec![0xbb; 48], vec![0xcc; 48]]);
    }

    proptest! {
        #[test]
        fn any_log_is_read(log in proptest::collection::vec(any::<u8>(), 0..300)) {
            digests(&log, 15, PcrBank::Sha384);
        }
    }
}
