//! The envelope of what tenants sign, and an enrollment in it, behind a signature that holds: whoever has a tenant key sends it.
#![no_main]
use halfkey_evidence::signed_document::MAX_DOCUMENT;
use halfkey_protocol::document::{self, Backend, Kind, Scope};
use halfkey_protocol::wire::{Document, DocumentSignature, Enrollment, SignedDocument};

/// As servers and workstations read it.
struct Servers;
/// As the agent does.
struct Agent;

impl Backend for Servers {
    fn verify(&self, _: &[u8; 32], _: &[u8], _: &[u8; 64]) -> bool {
        true
    }
    fn read(&self, text: &str) -> Result<Document, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
}

impl Backend for Agent {
    fn verify(&self, _: &[u8; 32], _: &[u8], _: &[u8; 64]) -> bool {
        true
    }
    fn read(&self, text: &str) -> Result<Document, String> {
        miniserde::json::from_str(text).map_err(|e| e.to_string())
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for signers in 0..3u8 {
        let signature =
            |key: u8| DocumentSignature { key: vec![key; 32].into(), signature: vec![0; 64].into() };
        let signatures = (0..signers).map(signature).collect();
        let signed = SignedDocument { document: bytes.into(), signatures };
        let by_agent = document::open(&signed, MAX_DOCUMENT, &Agent);
        let Ok(opened) = document::open(&signed, MAX_DOCUMENT, &Servers) else { continue };
        assert_eq!(by_agent.as_ref(), Ok(&opened), "the agent reads it otherwise");
        assert_eq!(opened.kind.is_signed(), signers > 0);
        assert_eq!(Scope::parse(&opened.scope.to_string()).as_ref(), Some(&opened.scope));
        let named = opened.proves();
        assert_eq!(named.is_some(), opened.kind == Kind::Proof);
        if let Some(named) = named {
            assert!(named.number < opened.place.number && document::proof_of(&named) == opened.body);
        }
        if opened.kind == Kind::Enrollment
            && let Ok(enrollment) = serde_json::from_str::<Enrollment>(&opened.body)
        {
            let by_agent: Enrollment =
                miniserde::json::from_str(&opened.body).expect("the agent reads it, too");
            assert_eq!(by_agent, enrollment);
        }
    }
});
