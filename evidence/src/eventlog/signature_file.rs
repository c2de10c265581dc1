//! Files that bring entries of PK, KEK, db and dbx: what firmware's setup takes, what vendors publish, what Linux shows.

use super::cursor::Cursor;
use super::guid::Guid;
use super::signatures::{Certificate, Signature, SignatureLists};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureFile<'a> {
    form: Form,
    content: Content<'a>,
}

/// In which form it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// X.509 certificates in PEM, one at least.
    Pem,
    /// One X.509 certificate in DER.
    Der,
    /// Signature lists (`.esl`).
    Lists,
    /// Signature lists behind `EFI_VARIABLE_AUTHENTICATION_2` (`.auth`). The signature is for firmware, and not looked at.
    Update,
    /// A variable as efivarfs shows it: its attributes, then signature lists.
    Variable,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem => "certificates in PEM",
            Self::Der => "a certificate in DER",
            Self::Lists => "signature lists",
            Self::Update => "a signed update",
            Self::Variable => "a variable of efivarfs",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content<'a> {
    Certificates(Vec<CertificateDer<'a>>),
    Lists(SignatureLists<'a>),
}

/// What such a file has to be.
pub const EXPECTED: &str =
    "an X.509 certificate (DER or PEM), EFI signature lists (.esl) or a signed update of them (.auth)";

/// `EFI_CERT_TYPE_PKCS7_GUID` (UEFI 2.10, section 8.2.2)
const PKCS7: Guid = Guid::new(0x4aaf_d29d, 0x68df, 0x49ee, 0x8aa9_347d_3756_65a7);
/// `WIN_CERT_TYPE_EFI_GUID`
const BY_GUID: u16 = 0x0ef1;
/// `EFI_TIME`
const TIME: usize = 16;
/// `WIN_CERTIFICATE_UEFI_GUID` up to its data.
const WIN_CERTIFICATE: usize = 24;
/// What an attribute word of efivarfs may have: non-volatile, in boot services, at runtime, authenticated by time. `APPEND_WRITE` is of
/// updates.
const ATTRIBUTES: u32 = 0x67;

impl<'a> SignatureFile<'a> {
    /// Reads all of a file. `None` if it is nothing of that, has another certificate than one of X.509, or no entry at all.
    pub fn parse(file: &'a [u8]) -> Option<Self> {
        // Lists are well formed to the last byte. Anything may be in them, certificates too that are no entry.
        let (form, content) = Self::of_lists(file).or_else(|| Self::of_certificates(file))?;
        let found = Self { form, content };
        let readable = |signature| match signature {
            Signature::Certificate(certificate) => is_x509(certificate.der),
            _ => true,
        };
        (found.signatures().next().is_some() && found.signatures().all(readable)).then_some(found)
    }

    fn of_certificates(file: &'a [u8]) -> Option<(Form, Content<'a>)> {
        if is_x509(file) {
            return Some((Form::Der, Content::Certificates(vec![CertificateDer::from(file)])));
        }
        const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
        // openssl writes lines of text before it. Damaged lists are none: the size of a header, for one, has zeros.
        let is_text = file.iter().all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace());
        if !is_text || !file.split(|byte| *byte == b'\n').any(|line| line.starts_with(BEGIN)) {
            return None;
        }
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file).collect();
        Some((Form::Pem, Content::Certificates(read.ok()?)))
    }

    fn of_lists(file: &'a [u8]) -> Option<(Form, Content<'a>)> {
        let lists = |bytes| SignatureLists::parse(bytes).map(Content::Lists);
        if let Some(content) = lists(file) {
            return Some((Form::Lists, content));
        }
        if let Some(content) = signed(file) {
            return Some((Form::Update, lists(content)?));
        }
        let mut cursor = Cursor(file);
        let attributes = cursor.u32()?;
        (attributes != 0 && attributes & !ATTRIBUTES == 0).then_some((Form::Variable, lists(cursor.0)?))
    }

    /// In which form it is.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Its entries.
    pub fn signatures(&self) -> impl Iterator<Item = Signature<'_>> {
        let (certificates, lists) = match &self.content {
            Content::Certificates(list) => (list.as_slice(), None),
            Content::Lists(lists) => (&[][..], Some(lists.entries())),
        };
        let certificates = certificates.iter().map(|der| Signature::Certificate(Certificate { der }));
        certificates.chain(lists.into_iter().flatten().map(|entry| entry.signature))
    }
}

/// What stands behind `EFI_VARIABLE_AUTHENTICATION_2` (UEFI 2.10, section 8.2.2).
fn signed(file: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor(file);
    cursor.take(TIME)?;
    let (length, revision, kind, by) = (cursor.u32()?, cursor.u16()?, cursor.u16()?, cursor.guid()?);
    if (revision, kind, by) != (0x0200, BY_GUID, PKCS7) {
        return None;
    }
    cursor.take((length as usize).checked_sub(WIN_CERTIFICATE)?)?;
    Some(cursor.0)
}

fn is_x509(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_testkit::secure_boot::{certificate, certificate_list, image_list, list, update};
    use proptest::prelude::*;

    fn names(file: &[u8]) -> Option<(Form, Vec<String>)> {
        let file = SignatureFile::parse(file)?;
        let name = |signature: Signature<'_>| match signature {
            Signature::Certificate(certificate) => certificate.subject().expect("a subject"),
            other => format!("{other:?}"),
        };
        Some((file.form(), file.signatures().map(name).collect()))
    }

    #[test]
    fn what_people_have_is_read() {
        let [one, two] = ["One", "Two"].map(certificate);
        let lists = [certificate_list(one.der()), certificate_list(two.der())].concat();
        let both = vec!["One".to_owned(), "Two".to_owned()];
        assert_eq!(names(one.der()), Some((Form::Der, vec!["One".into()])));
        let pem = format!("Bag Attributes\n{}\n{}", one.pem(), two.pem());
        assert_eq!(names(pem.as_bytes()), Some((Form::Pem, both.clone())));
        assert_eq!(names(&lists), Some((Form::Lists, both.clone())));
        assert_eq!(names(&update(&lists)), Some((Form::Update, both.clone())));
        assert_eq!(names(&[&[0x27, 0, 0, 0], &lists[..]].concat()), Some((Form::Variable, both)));
        let hash = SignatureFile::parse(&image_list(&[3; 32])).map(|file| {
            file.signatures().map(|signature| signature.fingerprint().is_some()).collect::<Vec<_>>()
        });
        assert_eq!(hash, Some(vec![true]));
    }

    #[test]
    fn a_certificate_that_stands_in_something_else_is_no_entry() {
        let pem = certificate("Not here").pem();
        let [kind, other] = [[7; 16], [8; 16]];
        let lists = [list(kind, pem.as_bytes()), list(other, format!("\n{pem}").as_bytes())].concat();
        let variable = [&[0x27, 0, 0, 0], &lists[..]].concat();
        for (file, form) in
            [(&lists, Form::Lists), (&update(&lists), Form::Update), (&variable, Form::Variable)]
        {
            let (found, names) = names(file).unwrap();
            assert_eq!((found, names.len()), (form, 2));
            assert!(names.iter().all(|name| name.starts_with("Other")), "{names:?}");
        }
        // As an entry it is no certificate that firmware could use, and behind lists, damaged ones too, it is nothing.
        let behind = format!("\n{pem}");
        for file in [
            &certificate_list(pem.as_bytes())[..],
            &[&lists[..], behind.as_bytes()].concat(),
            &[&lists[..lists.len() - 1], behind.as_bytes()].concat(),
            &[&[0], behind.as_bytes()].concat(),
            format!("name: {pem}").as_bytes(),
        ] {
            assert_eq!(names(file), None);
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_not() {
        let one = certificate("One");
        let lists = certificate_list(one.der());
        let signed = update(&lists);
        for file in [&one.der()[..], &lists, &signed] {
            for end in 0..file.len() {
                assert_eq!(names(&file[..end]), None, "{end} of {}", file.len());
            }
            assert_eq!(names(&[file, &[0]].concat()), None);
        }
        // Nothing in it, no certificate in it, another signature's form, attributes that no variable of these has.
        for file in [
            &[][..],
            &update(&[]),
            &certificate_list(b"0\x82\0\0"),
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &[&signed[..20], &[0x00, 0x01], &signed[22..]].concat(),
            &[&[0x80, 0, 0, 0], &lists[..]].concat(),
            b"MSCF\0\0\0\0",
        ] {
            assert_eq!(names(file), None, "{file:?}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_not(file: Vec<u8>, entry: Vec<u8>) {
            let lists = certificate_list(&entry);
            for file in [&file, &lists, &update(&file), &update(&lists), &[&[7, 0, 0, 0], &lists[..]].concat()] {
                if let Some(read) = SignatureFile::parse(file) {
                    prop_assert!(read.signatures().count() > 0);
                }
            }
        }
    }
}
