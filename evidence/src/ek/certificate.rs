//! Reading an EK certificate: whose key it is for.

use crate::Rejection;
use crate::public::{EkKey, EkPublic, uncompressed};
use crate::rejection::refuse;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, Oid,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What people call a certificate.
pub(crate) struct Names {
    /// Distinguished name of the issuer.
    pub(crate) issuer: String,
}

/// The certificate's names, for messages.
pub(crate) fn names(der: &[u8]) -> Result<Names, Rejection> {
    let issuer = crate::quote::clip(&parse(der)?.issuer().to_string());
    Ok(Names { issuer })
}

/// The certificate is for this EK: otherwise anybody's genuine certificate would do.
///
/// # Errors
/// `EkCertificateMalformed`, `EkCertificateMismatch`.
pub fn require_key(der: &[u8], ek: &EkPublic) -> Result<(), Rejection> {
    let certificate = parse(der)?;
    let key = certificate.public_key();
    let algorithm = &key.algorithm;
    let curve = || algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let kind_matches = match ek.key() {
        EkKey::Rsa2048(_) => is_rsa(&algorithm.algorithm),
        EkKey::EccP256(..) => is_ec(&algorithm.algorithm) && curve() == Some(OID_EC_P256),
        EkKey::EccP384(..) => is_ec(&algorithm.algorithm) && curve() == Some(OID_NIST_EC_P384),
    };
    let expected = match ek.key() {
        EkKey::Rsa2048(modulus) => rsa_public_key(modulus),
        EkKey::EccP256(x, y) => uncompressed(x, y),
        EkKey::EccP384(x, y) => uncompressed(x, y),
    };
    if kind_matches && key.subject_public_key.unused_bits == 0 && key.subject_public_key.data == expected {
        return Ok(());
    }
    refuse!(
        EkCertificateMismatch,
        "expected a certificate for this {} ek, found one for another key",
        ek.kind()
    )
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Rejection> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => refuse!(
            EkCertificateMalformed,
            "expected the end of the certificate, found {} more bytes",
            rest.len()
        ),
        Err(_) => {
            refuse!(EkCertificateMalformed, "expected a der certificate, found bytes that do not parse")
        }
    }
}

fn is_rsa(oid: &Oid<'_>) -> bool {
    // rsaEncryption; id-RSAES-OAEP (RFC 4055, section 4) from vendors that name the padding.
    *oid == OID_PKCS1_RSAENCRYPTION || oid.as_bytes() == b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07"
}

fn is_ec(oid: &Oid<'_>) -> bool {
    // id-ecPublicKey, or id-ecDH (RFC 5480, section 2.1.2): an EK does nothing else.
    *oid == OID_KEY_TYPE_EC_PUBLIC_KEY || oid.as_bytes() == [0x2b, 0x81, 0x04, 0x01, 0x0c]
}

/// `RSAPublicKey` in DER (RFC 8017, appendix A.1.1) with exponent 65537. There is only
/// one, so comparing bytes compares keys.
fn rsa_public_key(modulus: &[u8; 256]) -> Vec<u8> {
    let head = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
    let exponent = [0x02, 0x03, 0x01, 0x00, 0x01];
    [&head[..], modulus, &exponent].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused(mut bytes: Vec<u8>, sequence: bool) {
            if sequence && bytes.len() > 2 {
                bytes[0] = 0x30;
                bytes[1] = (bytes.len() - 2).min(127) as u8;
            }
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
