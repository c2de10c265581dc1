//! Registrations of a real TPM, and the same with one thing wrong.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{AK_ALG, AK_ATTRIBUTES, P384_EK, RSA_EK, SRK_ALG, SRK_ATTRIBUTES, Swtpm};
use halfkey_evidence::ek::{self, Roots, Trust};
use halfkey_evidence::public::{EkKey, EkPublic};
use halfkey_evidence::registration::check;
use halfkey_protocol::tpm::name;
use halfkey_protocol::wire::Register;
use halfkey_protocol::{NodeId, Reason};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};

/// 2030: swtpm's certificates are from now until the end of time.
const NOW: u64 = 1_893_456_000;

#[test]
fn registrations_of_a_tpm_are_accepted_and_tampered_ones_refused() {
    let tpm = Swtpm::start();
    tpm.make_keys();
    let rsa = tpm.register(RSA_EK.0, Some(RSA_EK.1));
    let p384 = tpm.register(P384_EK.0, Some(P384_EK.1));
    tpm.tool("tpm2_createek", &["-G", "ecc", "-c", "ek256.ctx"]);
    let p256 = tpm.register("ek256.ctx", None);

    accepted(&rsa, "RSA-2048");
    accepted(&p384, "ECC P-384");
    accepted(&p256, "ECC P-256");
    chains(&tpm, &rsa, &p384, &p256);
    certificates(&p256);
    weak(&rsa);
    tampered(&rsa, &p384);
    wrong_keys(&tpm, &rsa);
}

fn accepted(register: &Register, kind: &str) {
    let checked = check(register).unwrap();
    assert_eq!(checked.ek().kind(), kind);
    assert_eq!(checked.node_id(), NodeId::from_ek_name(checked.ek_name()));
    assert_eq!(Some(checked.ek_name()), name::object_name(&register.ek_public).as_deref());
    assert_eq!(Some(checked.ak_name()), name::object_name(&register.ak_public).as_deref());
    assert_eq!(Some(checked.srk_name()), name::object_name(&register.srk_public).as_deref());
}

fn chains(tpm: &Swtpm, rsa: &Register, p384: &Register, p256: &Register) {
    let roots = tpm.roots();
    assert_eq!(roots.len(), 2);
    for register in [rsa, p384] {
        let checked = check(register).unwrap();
        let trusted = roots.verify(&checked, register, NOW).unwrap();
        assert_eq!(trusted.node_id(), checked.node_id());
        assert!(matches!(trusted.trust(), Trust::Chain { issuer } if issuer.contains("swtpm-localca")));

        // The root alone, and the intermediate from the TPM.
        let (root, _) = Roots::from_pem_or_der(&tpm.read("ca/swtpm-localca-rootca-cert.pem"));
        assert_eq!(root.verify(&checked, register, NOW).unwrap_err().reason, Reason::EkUntrusted);
        let mut with_chain = register.clone();
        with_chain.ek_chain.push(pem_to_der(&tpm.read("ca/issuercert.pem")).into());
        root.verify(&checked, &with_chain, NOW).unwrap();

        for (roots, time) in [(&Roots::default(), NOW), (&roots, 0), (&roots, 1_000_000_000)] {
            let rejection = roots.verify(&checked, register, time).unwrap_err();
            assert_eq!(rejection.reason, Reason::EkUntrusted, "{rejection}");
        }
    }

    // Any bit of the certificate: it does not parse, is for another key, or is not signed.
    let certificate = rsa.ek_certificate.clone().unwrap();
    for at in 0..certificate.len() {
        let mut register = rsa.clone();
        let mut changed = certificate.clone();
        changed.0[at] ^= 1 << (at % 8);
        register.ek_certificate = Some(changed);
        let verdict = check(&register).and_then(|checked| roots.verify(&checked, &register, NOW));
        assert!(verdict.is_err(), "byte {at} of the certificate");
    }

    // Another machine's proof beside this machine's message.
    let rejection = roots.verify(&check(p384).unwrap(), rsa, NOW).unwrap_err();
    assert_eq!(rejection.reason, Reason::EkCertificateMismatch);

    // A genuine CA of another manufacturer with the same name.
    let foreign = Swtpm::start().roots();
    let rejection = foreign.verify(&check(rsa).unwrap(), rsa, NOW).unwrap_err();
    assert_eq!(rejection.reason, Reason::EkUntrusted);
    assert!(rejection.advice().unwrap().contains("--trust-ek"), "{rejection}");

    let checked = check(p256).unwrap();
    assert_eq!(roots.verify(&checked, p256, NOW).unwrap_err().reason, Reason::EkCertificateMissing);
    let trusted = ek::pin(&checked, &checked.ek_fingerprint().to_uppercase()).unwrap();
    assert_eq!((trusted.node_id(), trusted.trust()), (checked.node_id(), &Trust::Pinned));
    for wrong in ["", "sha256:", &check(rsa).unwrap().ek_fingerprint()] {
        assert_eq!(ek::pin(&checked, wrong).unwrap_err().reason, Reason::EkUntrusted);
    }
}

/// Certificates that a manufacturer might issue, for the EK without one.
fn certificates(register: &Register) {
    let verify = |root: &Ca, roots: &Roots, change: &dyn Fn(&mut CertificateParams)| {
        let mut register = register.clone();
        register.ek_certificate = Some(root.issue(&register, change).into());
        let checked = check(&register).unwrap();
        roots.verify(&checked, &register, NOW).map(drop).map_err(|rejection| rejection.reason)
    };
    // Critical certificatePolicies: no library takes that CA as an intermediate.
    let strange = Ca::new(&|params| {
        let policies = b"\x30\x08\x30\x06\x06\x04\x55\x1d\x20\x00".to_vec();
        let mut policies = CustomExtension::from_oid_content(&[2, 5, 29, 32], policies);
        policies.set_criticality(true);
        params.custom_extensions.push(policies);
    });
    let (roots, skipped) = Roots::from_der([strange.der.clone(), b"not a certificate".to_vec()]);
    assert_eq!((roots.len(), skipped), (1, 1));

    let eku = |oid: &'static [u64]| {
        move |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(oid.to_vec())];
        }
    };
    assert_eq!(verify(&strange, &roots, &|_| ()), Ok(()), "no eku");
    assert_eq!(verify(&strange, &roots, &eku(&[2, 23, 133, 8, 1])), Ok(()), "ek certificate");
    assert_eq!(
        verify(&strange, &roots, &eku(&[2, 23, 133, 8, 3])),
        Err(Reason::EkUntrusted),
        "ak certificate"
    );
    assert_eq!(
        verify(&strange, &roots, &|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        Err(Reason::EkUntrusted),
        "a ca as ek certificate"
    );
    assert_eq!(
        verify(&strange, &roots, &|params| params.not_after = date_time_ymd(2020, 1, 1)),
        Err(Reason::EkUntrusted),
        "expired"
    );
    // Same name, another key.
    let impostor = Ca::new(&|_| ());
    assert_eq!(verify(&impostor, &roots, &|_| ()), Err(Reason::EkUntrusted), "another ca");
}

struct Ca {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(change: &dyn Fn(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "manufacturer");
        change(&mut params);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, register: &Register, change: &dyn Fn(&mut CertificateParams)) -> Vec<u8> {
        let EkKey::EccP256(x, y) = EkPublic::parse(&register.ek_public).unwrap().key().clone() else {
            panic!("a p-256 ek");
        };
        let key = Point([&[4], &x[..], &y].concat());
        let mut params = CertificateParams::default();
        change(&mut params);
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }
}

/// The key of an EK that nobody here has the private part of.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// With another modulus, whatever made it.
fn with_modulus(register: &Register, modulus: &[u8]) -> Register {
    let mut other = register.clone();
    let from = other.ek_public.len() - modulus.len();
    other.ek_public.0[from..].copy_from_slice(modulus);
    other
}

/// The template is as it should be, and the certificate would be genuine.
fn weak(rsa: &Register) {
    let digits: String = include_str!("fixtures/roca.hex").split_whitespace().collect();
    let mut modulus: Vec<u8> =
        (0..512).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    let rejection = check(&with_modulus(rsa, &modulus)).unwrap_err();
    assert_eq!(rejection.reason, Reason::EkWeak);
    assert!(rejection.to_string().contains("CVE-2017-15361"), "{rejection}");
    assert!(rejection.advice().unwrap().starts_with("update the firmware of the TPM"), "{rejection}");
    modulus[9] ^= 1;
    let rejection = check(&with_modulus(rsa, &modulus)).unwrap_err();
    assert_eq!(
        rejection.reason,
        Reason::EkCertificateMismatch,
        "any other modulus is only not the certificate's"
    );
}

fn tampered(rsa: &Register, p384: &Register) {
    let refused = |what: &str, reason: Reason, change: &dyn Fn(&mut Register)| {
        let mut register = rsa.clone();
        change(&mut register);
        let rejection = check(&register).expect_err(what);
        assert_eq!(rejection.reason, reason, "{what}: {rejection}");
    };

    // Every byte of every signed or hashed structure.
    for at in 0..rsa.certify_info.len() {
        refused("certify_info", Reason::Certification, &|r| r.certify_info.0[at] ^= 1);
    }
    for at in 0..rsa.certify_signature.len() {
        refused("certify_signature", Reason::Certification, &|r| r.certify_signature.0[at] ^= 1);
    }
    for at in 0..rsa.ek_public.len() {
        // From the modulus on it is another key: the certificate is not for it.
        let mut register = rsa.clone();
        register.ek_public.0[at] ^= 1;
        let reason = check(&register).expect_err("ek_public").reason;
        assert!(matches!(reason, Reason::EkTemplate | Reason::EkCertificateMismatch), "byte {at}: {reason}");
        register.ek_certificate = None;
        assert_eq!(check(&register).is_err(), at < 58 || at == rsa.ek_public.len() - 1, "byte {at}");
    }
    for at in 0..rsa.ak_public.len() {
        let mut register = rsa.clone();
        register.ak_public.0[at] ^= 1;
        assert_eq!(check(&register).unwrap_err().reason, Reason::AkTemplate, "byte {at}");
        let mut register = rsa.clone();
        register.srk_public.0[at % rsa.srk_public.len()] ^= 1;
        assert_eq!(check(&register).unwrap_err().reason, Reason::SrkTemplate, "byte {at}");
    }

    refused("trailing ek", Reason::EkTemplate, &|r| r.ek_public.0.push(0));
    refused("trailing ak", Reason::AkTemplate, &|r| r.ak_public.0.push(0));
    refused("trailing srk", Reason::SrkTemplate, &|r| r.srk_public.0.push(0));
    refused("trailing info", Reason::Certification, &|r| r.certify_info.0.push(0));
    refused("trailing signature", Reason::Certification, &|r| r.certify_signature.0.push(0));
    refused("swapped keys", Reason::AkTemplate, &|r| std::mem::swap(&mut r.ak_public, &mut r.srk_public));
    refused("srk as ek", Reason::EkTemplate, &|r| r.ek_public = r.srk_public.clone());

    refused("other certificate", Reason::EkCertificateMismatch, &|r| {
        r.ek_certificate = p384.ek_certificate.clone();
    });
    let certificate = |r: &mut Register, change: &dyn Fn(&mut Vec<u8>)| {
        change(&mut r.ek_certificate.as_mut().expect("swtpm has one").0);
    };
    let malformed = Reason::EkCertificateMalformed;
    refused("trailing certificate", malformed, &|r| certificate(r, &|der| der.push(0)));
    refused("short certificate", malformed, &|r| certificate(r, &|der| der.truncate(der.len() - 1)));
    refused("empty certificate", malformed, &|r| certificate(r, &Vec::clear));

    refused("large certificate", Reason::TooLarge, &|r| certificate(r, &|der| der.resize(20_000, 0)));
    refused("long chain", Reason::TooLarge, &|r| r.ek_chain = vec![vec![0].into(); 9]);
    refused("heavy chain", Reason::TooLarge, &|r| r.ek_chain = vec![vec![0; 10_000].into(); 4]);
    refused("long label", Reason::TooLarge, &|r| r.label = "x".repeat(257));
}

/// Genuine keys and certifications of the TPM, but not the right ones.
fn wrong_keys(tpm: &Swtpm, good: &Register) {
    let refused = |what: &str, reason: Reason, register: &Register| {
        let rejection = check(register).expect_err(what);
        assert_eq!(rejection.reason, reason, "{what}: {rejection}");
    };
    for (what, attributes) in [
        ("unrestricted", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign"),
        ("not noda", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"),
    ] {
        tpm.primary("e", AK_ALG, attributes, "other.ctx");
        refused(
            what,
            Reason::AkTemplate,
            &Register { ak_public: tpm.public("other.ctx").into(), ..good.clone() },
        );
    }
    tpm.primary("o", "ecc256:null:aes256cfb", SRK_ATTRIBUTES, "other.ctx");
    refused(
        "aes-256 srk",
        Reason::SrkTemplate,
        &Register { srk_public: tpm.public("other.ctx").into(), ..good.clone() },
    );

    let certified = |object: &str, by: &str, ak: &str, srk: &str| {
        let (info, signature) = tpm.certify(object, by);
        Register {
            ak_public: tpm.public(ak).into(),
            srk_public: tpm.public(srk).into(),
            certify_info: info.into(),
            certify_signature: signature.into(),
            ..good.clone()
        }
    };
    tpm.primary("o", AK_ALG, AK_ATTRIBUTES, "owner-ak.ctx");
    tpm.primary("e", SRK_ALG, SRK_ATTRIBUTES, "endorsement-srk.ctx");
    let certification = Reason::Certification;
    refused("another ak", certification, &certified("srk.ctx", "owner-ak.ctx", "ak.ctx", "srk.ctx"));
    refused("another object", certification, &certified("ak.ctx", "ak.ctx", "ak.ctx", "srk.ctx"));
    refused(
        "ak in the owner hierarchy",
        certification,
        &certified("srk.ctx", "owner-ak.ctx", "owner-ak.ctx", "srk.ctx"),
    );
    refused(
        "srk in the endorsement hierarchy",
        certification,
        &certified("endorsement-srk.ctx", "ak.ctx", "ak.ctx", "endorsement-srk.ctx"),
    );
    tpm.tool("tpm2_certify", &["-c", "srk.ctx", "-C", "ak.ctx", "-g", "sha256", "-o", "att", "-s", "sig"]);
    refused(
        "qualifying data of tpm2_certify",
        certification,
        &Register {
            certify_info: tpm.read("att").into(),
            certify_signature: tpm.read("sig").into(),
            ..good.clone()
        },
    );
    let (quote, signature) = tpm.quote("sha256:0", b"");
    refused(
        "a quote",
        certification,
        &Register { certify_info: quote.into(), certify_signature: signature.into(), ..good.clone() },
    );
}

fn pem_to_der(pem: &[u8]) -> Vec<u8> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem).expect("one certificate").to_vec()
}
