//! Stateless nonces: any replica that holds the cluster key can check what
//! another one handed out.
//!
//! 56 bytes: random (16), seconds since 1970 (8, big-endian), HMAC-SHA256 (32)
//! over label, version, random, time, node id, purpose and PCR selection.

use crate::Failure;
use crate::keys::{ClusterKey, fill_random};
use halfkey_protocol::keys::label;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::seal_policy;
use halfkey_protocol::wire::Purpose;
use halfkey_protocol::{NodeId, Reason};

/// Length in bytes.
pub const LEN: usize = 56;

/// How far the clocks of replicas may be apart, in seconds.
const SKEW: u64 = 30;

/// What a nonce is good for.
#[derive(Clone, Copy)]
pub struct Scope {
    /// Protocol version of the exchange.
    pub version: u32,
    /// Which node asked.
    pub node: NodeId,
    /// What for.
    pub purpose: Purpose,
    /// The bank it was told to quote.
    pub bank: PcrBank,
}

/// A nonce for this scope; `now` in seconds since 1970.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn issue(key: &ClusterKey, scope: &Scope, now: u64) -> Result<[u8; LEN], Failure> {
    let mut nonce = [0; LEN];
    fill_random(&mut nonce[..16])?;
    nonce[16..24].copy_from_slice(&now.to_be_bytes());
    let tag = scope.with_fields(&nonce[..24], |fields| key.tag(fields));
    nonce[24..].copy_from_slice(&tag);
    Ok(nonce)
}

/// Checks a nonce that came back.
///
/// # Errors
/// `NonceForeign` if no replica made it, or for another scope; `NonceExpired`
/// after `lifetime` seconds.
pub fn check(key: &ClusterKey, scope: &Scope, nonce: &[u8], now: u64, lifetime: u64) -> Result<(), Reason> {
    let nonce: &[u8; LEN] = nonce.try_into().map_err(|_| Reason::NonceForeign)?;
    let (stamp, tag) = nonce.split_at(24);
    if !scope.with_fields(stamp, |fields| key.is_tag(fields, tag)) {
        return Err(Reason::NonceForeign);
    }
    let made = made(stamp).expect("24 - 16 bytes");
    if made > now.saturating_add(SKEW) {
        return Err(Reason::NonceForeign);
    }
    if now.saturating_sub(made) > lifetime {
        return Err(Reason::NonceExpired);
    }
    Ok(())
}

/// When a nonce that was checked was made, in seconds since 1970.
pub fn made(nonce: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*nonce.get(16..)?.first_chunk()?))
}

impl Scope {
    fn with_fields<T>(&self, stamp: &[u8], tell: impl FnOnce(&[&[u8]]) -> T) -> T {
        let selection = seal_policy::pcr_selection(self.bank, 0xffff);
        tell(&[
            label::NONCE.as_bytes(),
            &self.version.to_be_bytes(),
            stamp,
            &self.node.0,
            self.purpose.as_str().as_bytes(),
            &selection,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope() -> Scope {
        Scope { version: 1, node: NodeId([7; 16]), purpose: Purpose::Boot, bank: PcrBank::Sha256 }
    }

    #[test]
    fn a_nonce_serves_its_scope_and_its_lifetime() {
        let key = ClusterKey::from_bytes(&[1; 32]);
        let nonce = issue(&key, &scope(), 1000).unwrap();
        let check = |key: &ClusterKey, scope: &Scope, now| check(key, scope, &nonce, now, 120);
        assert_eq!(check(&key, &scope(), 1000), Ok(()));
        assert_eq!(check(&key, &scope(), 1120), Ok(()));
        assert_eq!(check(&key, &scope(), 980), Ok(()), "a replica whose clock is behind");
        assert_eq!(check(&key, &scope(), 1121), Err(Reason::NonceExpired));
        assert_eq!(check(&key, &scope(), 900), Err(Reason::NonceForeign));
        for other in [
            Scope { version: 2, ..scope() },
            Scope { node: NodeId([8; 16]), ..scope() },
            Scope { purpose: Purpose::Enroll, ..scope() },
            Scope { bank: PcrBank::Sha384, ..scope() },
        ] {
            assert_eq!(check(&key, &other, 1000), Err(Reason::NonceForeign));
        }
        let other = ClusterKey::from_bytes(&[2; 32]);
        assert_eq!(check(&other, &scope(), 1000), Err(Reason::NonceForeign));
    }

    proptest! {
        #[test]
        fn no_other_bytes_are_a_nonce(bytes in proptest::collection::vec(any::<u8>(), 0..80), flip in 0usize..LEN * 8) {
            let key = ClusterKey::from_bytes(&[1; 32]);
            prop_assert_eq!(check(&key, &scope(), &bytes, 1000, 120), Err(Reason::NonceForeign));
            let mut nonce = issue(&key, &scope(), 1000).unwrap();
            nonce[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(check(&key, &scope(), &nonce, 1000, 120), Err(Reason::NonceForeign));
        }
    }
}
