//! Strict unmarshalling: what is parsed is all of the input, and the only way to write it.

use tpm2_protocol::{TpmError, TpmMarshal, TpmUnmarshal, TpmWriter};

/// No structure that a TPM returns and Halfkey takes is larger (TPM2B limits
/// included), so nobody makes us look at more.
const MAX_STRUCTURE: usize = 2048;

/// Unmarshals all of `bytes` as one `T`.
///
/// The value is marshalled again and compared: names and signatures are over
/// bytes, so two spellings of one value must never both be accepted.
pub(crate) fn exact<T: TpmUnmarshal + TpmMarshal>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() > MAX_STRUCTURE {
        return Err(format!("expected at most {MAX_STRUCTURE} bytes, found {}", bytes.len()));
    }
    let (value, rest) = T::unmarshal(bytes).map_err(|error| describe(&error))?;
    if !rest.is_empty() {
        return Err(format!("expected the end of the structure, found {} more bytes", rest.len()));
    }
    let mut again = [0; MAX_STRUCTURE];
    let mut writer = TpmWriter::new(&mut again);
    value.marshal(&mut writer).map_err(|error| describe(&error))?;
    let length = writer.len();
    if again[..length] != *bytes {
        return Err("expected the canonical form of the structure, found another".to_owned());
    }
    Ok(value)
}

fn describe(error: &TpmError) -> String {
    format!("expected a tpm structure, found bytes that do not parse ({error})")
}

/// `TPM_ALG_ID`, handles and flags by the names of Part 2.
pub(crate) mod id {
    pub(crate) const RSA: u16 = 0x0001;
    pub(crate) const AES: u16 = 0x0006;
    pub(crate) const NULL: u16 = 0x0010;
    pub(crate) const ECC: u16 = 0x0023;
    pub(crate) const CFB: u16 = 0x0043;
    pub(crate) const NIST_P256: u16 = 0x0003;
    pub(crate) const NIST_P384: u16 = 0x0004;
    pub(crate) const RH_OWNER: u32 = 0x4000_0001;
    pub(crate) const RH_ENDORSEMENT: u32 = 0x4000_000b;
}
