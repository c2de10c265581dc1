//! GUIDs as UEFI writes them: three little-endian integers, then eight bytes.

use std::fmt;

/// A GUID, in the byte order of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From its text's five groups; the last two as one number.
    pub const fn new(first: u32, second: u16, third: u16, last: u64) -> Self {
        let (a, b, c, d) =
            (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes(), last.to_be_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }
}

/// `8be4df61-93ca-11d2-aa0d-00e098032b8c`
impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = self.0;
        let a = u32::from_le_bytes([a0, a1, a2, a3]);
        let (b, c) = (u16::from_le_bytes([b0, b1]), u16::from_le_bytes([c0, c1]));
        let last = u64::from_be_bytes(rest);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", last >> 48, last & 0xffff_ffff_ffff)
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Variables of the UEFI specification: `EFI_GLOBAL_VARIABLE`.
pub const GLOBAL_VARIABLE: Guid = Guid::new(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
/// db, dbx, dbt, dbr: `EFI_IMAGE_SECURITY_DATABASE_GUID`.
pub const IMAGE_SECURITY: Guid = Guid::new(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
/// Variables of shim: `SHIM_LOCK_GUID`.
pub const SHIM_LOCK: Guid = Guid::new(0x605d_ab50, 0xe046, 0x4300, 0xabb6_3dd8_10dd_8b23);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_the_specification() {
        assert_eq!(GLOBAL_VARIABLE.to_string(), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(GLOBAL_VARIABLE.0[..4], [0x61, 0xdf, 0xe4, 0x8b]);
        assert_eq!(SHIM_LOCK.to_string(), "605dab50-e046-4300-abb6-3dd810dd8b23");
    }
}
