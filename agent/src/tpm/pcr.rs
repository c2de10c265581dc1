//! PCRs, the fence, quotes (TPM 2.0 Part 3, sections 18.4 and 22).

use super::codec::{Reader, Writer};
use super::session::Auth;
use super::{Error, Object, Tpm, codes};
use halfkey_protocol::keys::half::equal;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::seal_policy::pcr_selection;
use halfkey_protocol::{FENCE_PCR, QUOTED_PCRS};

/// How often PCRs may move between reading and quoting before somebody is to blame.
const QUOTE_TRIES: usize = 8;

/// A quote and the PCR values that it covers.
pub struct Quote {
    /// `TPMS_ATTEST`, as signed.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// PCR 0 to 15, in order.
    pub pcrs: Vec<Vec<u8>>,
}

/// PCR 15 in every active bank.
pub struct FenceState {
    /// Algorithm of the bank (`TPM_ALG_ID`) and value; never empty.
    pub values: Vec<(u16, Vec<u8>)>,
}

impl FenceState {
    /// Whether the boot window is open: zero in every bank.
    pub fn is_open(&self) -> bool {
        self.values.iter().all(|(_, value)| value.iter().all(|byte| *byte == 0))
    }

    /// Whether it is closed: extended in every bank. Neither open nor closed
    /// means that somebody extended single banks: extend again.
    pub fn is_closed(&self) -> bool {
        self.values.iter().all(|(_, value)| value.iter().any(|byte| *byte != 0))
    }

    /// Of the banks whose hash the agent has.
    pub fn known(&self) -> impl Iterator<Item = (PcrBank, &[u8])> {
        self.values.iter().filter_map(|(alg, value)| Some((PcrBank::from_alg(*alg)?, value.as_slice())))
    }
}

impl Tpm {
    /// The values of the PCRs in this mask (bit 0 = PCR 0; 0 to 23), ascending.
    ///
    /// # Errors
    /// [`Error::BankInactive`] if the bank lacks one of them; else [`Error`] from the TPM.
    pub fn pcr_read(&mut self, bank: u16, pcrs: u32) -> Result<Vec<Vec<u8>>, Error> {
        let mut left = pcrs & 0x00ff_ffff;
        let mut values = Vec::new();
        // A TPM gives at most eight values at once, and says which.
        while left != 0 {
            let answer = self.plain(codes::PCR_READ, &[], Writer::default().bytes(&selection(bank, left)))?;
            let mut reader = answer.reader();
            reader.u32()?; // update counter
            let given = selected(&mut reader, bank)?;
            let count = reader.u32()?;
            // No matter what was asked for: one value for each bit, and bits that we asked for.
            if given & !left != 0 || count != given.count_ones() || count > 8 {
                return Err(Error::Malformed("PCR_Read"));
            }
            if given == 0 {
                return Err(Error::BankInactive(bank));
            }
            for _ in 0..count {
                values.push(reader.sized()?.to_vec());
            }
            reader.end()?;
            // The lowest ones come first, so order needs no sorting; refuse a TPM that thinks otherwise.
            left &= !given;
            if left != 0 && given.ilog2() > left.trailing_zeros() {
                return Err(Error::Malformed("PCR_Read"));
            }
        }
        Ok(values)
    }

    /// Extends a PCR in all active banks with the digests of `data` (at most 1024 bytes). In clear: whatever encrypts the command, the
    /// answer has those digests, and a list can't be encrypted (TPM 2.0 Part 1, section 21).
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn pcr_event(&mut self, pcr: u8, data: &[u8]) -> Result<(), Error> {
        let handle = u32::from(pcr);
        let parameters = Writer::default().sized(data);
        self.run(codes::PCR_EVENT, &[handle.into()], parameters, &mut [Auth::Password]).map(drop)
    }

    /// PCR 15 in every active bank.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn fence_state(&mut self) -> Result<FenceState, Error> {
        let banks = self.active_banks()?;
        if let Some(state) = self.fence_at_once(&banks)? {
            return Ok(state);
        }
        let mut values = Vec::new();
        for bank in banks {
            let value = self.pcr_read(bank, 1 << FENCE_PCR)?.pop().ok_or(Error::Malformed("PCR_Read"))?;
            values.push((bank, value));
        }
        Ok(FenceState { values })
    }

    /// The fence of all banks by one command; `None` if the TPM refuses that, or gives others than those that it was asked for.
    fn fence_at_once(&mut self, banks: &[u16]) -> Result<Option<FenceState>, Error> {
        let mut asked = Writer::default().u32(banks.len() as u32);
        for bank in banks {
            asked = asked.u16(*bank).bytes(&[3]).bytes(&(1u32 << FENCE_PCR).to_le_bytes()[..3]);
        }
        let answer = match self.plain(codes::PCR_READ, &[], Writer::default().bytes(&asked.0)) {
            Err(Error::Refused(..)) => return Ok(None),
            answer => answer?,
        };
        let mut reader = answer.reader();
        reader.u32()?; // update counter
        if reader.take(asked.0.len()).ok() != Some(&asked.0) || reader.u32()? != banks.len() as u32 {
            return Ok(None);
        }
        let mut values = Vec::new();
        for bank in banks {
            let value = reader.sized()?;
            // Values in another order than their banks are those of none.
            if value.is_empty()
                || PcrBank::from_alg(*bank).is_some_and(|bank| bank.digest_len() != value.len())
            {
                return Err(Error::Malformed("PCR_Read"));
            }
            values.push((*bank, value.to_vec()));
        }
        reader.end()?;
        Ok(Some(FenceState { values }))
    }

    /// Reads the PCRs that a quote will be about, so that it needs to be nothing but a quote.
    ///
    /// # Errors
    /// As [`Tpm::pcr_read`].
    pub fn read_ahead(&mut self, bank: PcrBank) -> Result<(), Error> {
        self.pcrs = Some((bank, self.pcr_read(bank.alg(), QUOTED)?));
        Ok(())
    }

    /// Quotes PCR 0 to 15 of one bank, and reads them until they fit the quote.
    ///
    /// # Errors
    /// [`Error::PcrChanged`] if they never do; else [`Error`] from the TPM.
    pub fn quote(&mut self, ak: &Object, qualifying: &[u8; 32], bank: PcrBank) -> Result<Quote, Error> {
        for _ in 0..QUOTE_TRIES {
            let parameters = Writer::default()
                .sized(qualifying)
                .u16(0x0010) // the key's own scheme
                .bytes(&pcr_selection(bank, QUOTED));
            let answer = self.run(codes::QUOTE, &[ak.into()], parameters, &mut [Auth::Password])?;
            let mut reader = answer.reader();
            let attest = reader.sized()?.to_vec();
            let signature = reader.rest().to_vec();
            let digest = quoted_digest(&attest)?;
            // If what was read before is not what was quoted, it may be what is there now.
            for read_before in [true, false] {
                if !read_before || self.pcrs.as_ref().is_none_or(|(of, _)| *of != bank) {
                    self.read_ahead(bank)?;
                }
                if let Some((_, pcrs)) = &self.pcrs
                    && fits(pcrs, digest)
                {
                    return Ok(Quote { pcrs: pcrs.clone(), signature, attest: attest.clone() });
                }
            }
        }
        Err(Error::PcrChanged)
    }
}

/// The PCRs of a quote.
const QUOTED: u32 = (1 << QUOTED_PCRS) - 1;

/// Whether a quote is over these values. The AK signs with SHA-256, so that is the hash of the PCR digest too.
fn fits(pcrs: &[Vec<u8>], digest: &[u8]) -> bool {
    let values: Vec<&[u8]> = pcrs.iter().map(Vec::as_slice).collect();
    equal(&Hash::Sha256.digest(&values), digest)
}

/// `TPML_PCR_SELECTION` of one bank; any bank, also those that Halfkey never quotes.
fn selection(bank: u16, pcrs: u32) -> Vec<u8> {
    let writer = Writer::default().u32(1).u16(bank).bytes(&[3]);
    writer.bytes(&pcrs.to_le_bytes()[..3]).0
}

/// The mask in a `TPML_PCR_SELECTION` that should be about one bank.
fn selected(reader: &mut Reader, bank: u16) -> Result<u32, Error> {
    let mut mask = 0;
    for _ in 0..reader.u32()?.min(16) {
        let alg = reader.u16()?;
        let size = reader.u8()?;
        let bits = reader.take(size.into())?;
        if alg == bank {
            let mut bytes = [0; 4];
            let size = bits.len().min(3);
            bytes[..size].copy_from_slice(&bits[..size]);
            mask |= u32::from_le_bytes(bytes);
        }
    }
    Ok(mask)
}

/// pcrDigest of a `TPMS_ATTEST` that is a quote (TPM 2.0 Part 2, section 10.12.12).
///
/// # Errors
/// [`Error::Malformed`]
pub fn quoted_digest(attest: &[u8]) -> Result<&[u8], Error> {
    let mut reader = Reader::new("Quote", attest);
    // TPM_GENERATED_VALUE, TPM_ST_ATTEST_QUOTE
    if reader.u32()? != 0xff54_4347 || reader.u16()? != 0x8018 {
        return Err(Error::Malformed("Quote"));
    }
    reader.sized()?; // qualified signer
    reader.sized()?; // extra data
    reader.take(17 + 8)?; // clock info, firmware version
    for _ in 0..reader.u32()?.min(16) {
        reader.u16()?;
        let size = reader.u8()?;
        reader.take(size.into())?;
    }
    let digest = reader.sized()?;
    reader.end()?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_attestation_has_a_digest_or_not(tail: Vec<u8>) {
            let bytes = [&[0xff, 0x54, 0x43, 0x47, 0x80, 0x18][..], &tail].concat();
            let _ = quoted_digest(&bytes);
            let _ = selected(&mut Reader::new("", &tail), 11);
        }
    }

    #[test]
    fn single_banks_neither_open_nor_close_the_fence() {
        let half = FenceState { values: vec![(4, vec![0; 20]), (11, vec![1; 32])] };
        assert!(!half.is_open() && !half.is_closed());
        assert_eq!(half.known().collect::<Vec<_>>(), [(PcrBank::Sha256, &[1; 32][..])]);
    }
}
