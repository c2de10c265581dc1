//! NV indices: the certificates that the manufacturer left
//! (TPM 2.0 Part 3, section 31; TCG EK Credential Profile, section 2.2).

use super::codec::Writer;
use super::codes;
use super::entity::{Entity, RH_OWNER};
use super::session::Auth;
use super::{Error, Object, Tpm, rc};

/// `TPMA_NV`
const OWNER_READ: u32 = 1 << 17;
const AUTH_READ: u32 = 1 << 18;
const WRITTEN: u32 = 1 << 29;

/// No certificate is longer.
const MAX_DATA: usize = 16 << 10;
/// Intermediate certificates: concatenated, over as many indices as it takes.
const CHAIN: std::ops::Range<u32> = 0x01c0_0100..0x01c0_0200;
const MAX_CHAIN: usize = 64 << 10;
const MAX_CHAIN_CERTIFICATES: usize = 8;

impl Tpm {
    /// The contents of an NV index that is readable without a password. `None`
    /// if there is no such index, or it is not written or not readable.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn nv_read(&mut self, index: u32) -> Result<Option<Vec<u8>>, Error> {
        let answer = match self.plain(codes::NV_READ_PUBLIC, &[index.into()], Writer::default()) {
            Err(error) if error.is(rc::HANDLE) => return Ok(None),
            answer => answer?,
        };
        let mut reader = answer.reader();
        let public = reader.sized()?;
        let name = reader.sized()?;
        reader.end()?;
        let mut fields = super::codec::Reader::new("NV_ReadPublic", public);
        if fields.u32()? != index {
            return Err(Error::Malformed("NV_ReadPublic"));
        }
        fields.u16()?; // nameAlg
        let attributes = fields.u32()?;
        fields.sized()?; // authPolicy
        let size = usize::from(fields.u16()?);
        fields.end()?;
        if attributes & WRITTEN == 0 || attributes & (AUTH_READ | OWNER_READ) == 0 || size > MAX_DATA {
            return Ok(None);
        }
        let area = Object { handle: index, public: public.to_vec(), name: name.to_vec() };
        let reader: Entity = if attributes & AUTH_READ != 0 { (&area).into() } else { RH_OWNER.into() };
        match self.nv_contents(reader, &area, size) {
            // Somebody has put a password on it: as good as not there.
            Err(error)
                if error.is(rc::AUTH_UNAVAILABLE) || error.is(rc::BAD_AUTH) || error.is(rc::AUTH_FAIL) =>
            {
                Ok(None)
            }
            contents => contents.map(Some),
        }
    }

    fn nv_contents(&mut self, reader: Entity, area: &Object, size: usize) -> Result<Vec<u8>, Error> {
        let at_once = usize::from(self.nv_buffer());
        let mut contents = Vec::with_capacity(size);
        while contents.len() < size {
            let want = (size - contents.len()).min(at_once) as u16;
            let parameters = Writer::default().u16(want).u16(contents.len() as u16);
            let answer =
                self.run(codes::NV_READ, &[reader, area.into()], parameters, &mut [Auth::Password])?;
            let mut fields = answer.reader();
            let chunk = fields.sized()?;
            fields.end()?;
            if chunk.len() != usize::from(want) {
                return Err(Error::Malformed("NV_Read"));
            }
            contents.extend_from_slice(chunk);
        }
        Ok(contents)
    }

    /// A certificate, without the padding that some manufacturers leave behind it.
    pub(super) fn nv_certificate(&mut self, index: u32) -> Result<Option<Vec<u8>>, Error> {
        let contents = self.nv_read(index)?;
        Ok(contents.and_then(|contents| split_der(&contents).map(|(first, _)| first.to_vec())))
    }

    /// The manufacturer's intermediate certificates, if the TPM has any.
    pub(super) fn certificate_chain(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let mut all = Vec::new();
        for index in self.handles(CHAIN.start, 32)? {
            if !CHAIN.contains(&index) || all.len() > MAX_CHAIN {
                break;
            }
            all.extend(self.nv_read(index)?.unwrap_or_default());
        }
        Ok(split_certificates(&all))
    }
}

/// The DER certificates that stand one behind the other in `bytes`.
pub fn split_certificates(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut certificates = Vec::new();
    while certificates.len() < MAX_CHAIN_CERTIFICATES
        && let Some((first, tail)) = split_der(rest)
    {
        certificates.push(first.to_vec());
        rest = tail;
    }
    certificates
}

/// The first DER SEQUENCE in `bytes`, and what is behind it.
fn split_der(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // A certificate is longer than 255 and shorter than 65536 bytes: two bytes of length.
    let [0x30, 0x82, high, low, ..] = bytes else { return None };
    bytes.split_at_checked(4 + usize::from(u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_and_neighbours_are_cut_off() {
        let certificate = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
        let two = [&certificate[..], &certificate, &[0xff; 9]].concat();
        assert_eq!(split_certificates(&two), [certificate.clone(), certificate]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_or_not(bytes: Vec<u8>) {
            let total: usize = split_certificates(&bytes).iter().map(Vec::len).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
