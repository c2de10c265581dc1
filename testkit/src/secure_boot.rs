//! Keys of Secure Boot: certificates, the files that bring them, and the variables that firmware measures.

use crate::log::{Record, kind};
use rcgen::{CertificateParams, DnType, KeyPair};

const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
const SHA256: [u8; 16] =
    [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28];
const PKCS7: [u8; 16] =
    [0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
/// PK, KEK, SecureBoot: `EFI_GLOBAL_VARIABLE`.
pub const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// db, dbx: `EFI_IMAGE_SECURITY_DATABASE_GUID`.
pub const SECURITY: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// Who put an entry there.
const OWNER: [u8; 16] = *b"halfkey's tests.";

/// A certificate of this subject, with a key of its own.
pub fn certificate(name: &str) -> rcgen::Certificate {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap()
}

/// `EFI_SIGNATURE_LIST` with a certificate.
pub fn certificate_list(der: &[u8]) -> Vec<u8> {
    list(X509, der)
}

/// `EFI_SIGNATURE_LIST` with the hash of an image.
pub fn image_list(sha256: &[u8; 32]) -> Vec<u8> {
    list(SHA256, sha256)
}

/// `EFI_SIGNATURE_LIST` with one entry.
pub fn list(kind: [u8; 16], entry: &[u8]) -> Vec<u8> {
    let size = entry.len() as u32 + 16;
    let mut list = kind.to_vec();
    [size + 28, 0, size].iter().for_each(|number| list.extend(number.to_le_bytes()));
    [&list[..], &OWNER, entry].concat()
}

/// `EFI_VARIABLE_AUTHENTICATION_2` and what it brings; nobody has signed it.
pub fn update(lists: &[u8]) -> Vec<u8> {
    let signature = b"PKCS #7";
    let mut update = vec![0xe7, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    update.extend((24 + signature.len() as u32).to_le_bytes());
    update.extend([0x00, 0x02, 0xf1, 0x0e]);
    [&update[..], &PKCS7, signature, lists].concat()
}

/// `UEFI_VARIABLE_DATA`
pub fn variable(vendor: [u8; 16], name: &str, value: &[u8]) -> Vec<u8> {
    let mut data = vendor.to_vec();
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((value.len() as u64).to_le_bytes());
    data.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    data.extend(value);
    data
}

/// The event by which firmware says that this certificate of db has verified an image.
pub fn verified_by(der: &[u8]) -> Record {
    Record::of(7, kind::AUTHORITY, &variable(SECURITY, "db", &[&OWNER, der].concat()))
}

/// Changes the value of a variable that firmware has measured.
///
/// # Panics
/// If it has not.
pub fn change(measured: &mut [Record], name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    const NAME: usize = 32;
    let text: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let is_it = |record: &&mut Record| {
        record.kind == kind::VARIABLE
            && record.data[16..24] == (name.len() as u64).to_le_bytes()
            && record.data[NAME..].starts_with(&text)
    };
    let record = measured.iter_mut().find(is_it).expect("a variable that is measured");
    let mut value = record.data[NAME + text.len()..].to_vec();
    change(&mut value);
    let vendor = record.data[..16].try_into().unwrap();
    *record = Record::of(record.pcr, record.kind, &variable(vendor, name, &value));
}
