//! What a tenant signs, without the operator's command: documents for a server's sequence.
//!
//! The tests of a crate make credentials and carry messages, each with what it has for that.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use halfkey_protocol::document::{Deployment, Kind, Place, Scope, next, sha256, signed_bytes};
use halfkey_protocol::keys::half;
use halfkey_protocol::wire::operator::ServerInfo;
use halfkey_protocol::wire::{
    Credential, Document, DocumentSignature, Enrollment, SignedDocument, credential_digest,
};
use halfkey_protocol::{Bytes, Key, NodeId};

/// Where a server's sequence ends.
#[derive(Clone, Copy)]
pub struct Line {
    /// Whose sequence it is.
    pub deployment: Deployment,
    /// Its newest document.
    pub head: Place,
}

impl Line {
    /// As a server says it.
    pub fn of(info: &ServerInfo) -> Self {
        let head = Place { number: info.head.number, sha256: info.head.sha256.array().unwrap() };
        Self { deployment: Deployment::parse(&info.deployment).unwrap(), head }
    }

    /// The same after a document that was signed with this key.
    #[must_use]
    pub fn after(&self, signed: &SignedDocument, key: &Ed25519KeyPair) -> Self {
        let key = key.public_key().as_ref().try_into().expect("a key of 32 bytes");
        let head = Place { number: self.head.number + 1, sha256: sha256(&signed.document, &[key]) };
        Self { head, ..*self }
    }

    /// The document that enrolls a node.
    pub fn enrolls(&self, node: NodeId, enrollment: &Enrollment) -> Document {
        let body = serde_json::to_string(enrollment).expect("an enrollment as JSON");
        Document { created: 0, ..self.next(Kind::Enrollment, &Scope::Enrollment(node).to_string(), &body) }
    }

    /// The next document, made long ago.
    pub fn next(&self, kind: Kind, scope: &str, body: &str) -> Document {
        let place =
            next(kind, &Scope::Node(NodeId([0; 16])), self.deployment, &self.head, 1, body.to_owned());
        Document { scope: scope.to_owned(), ..place }
    }
}

/// Signs anything with any key.
pub fn sign(key: &Ed25519KeyPair, document: &Document) -> SignedDocument {
    let document = serde_json::to_vec(document).unwrap();
    let signature = key.sign(&signed_bytes(&document)).as_ref().into();
    let signature = DocumentSignature { key: key.public_key().as_ref().into(), signature };
    SignedDocument { document: document.into(), signatures: vec![signature] }
}

/// What a tenant makes for a node that it has checked.
pub struct NewEnrollment<'a> {
    /// By what it is told apart from others of the node.
    pub id: &'a str,
    /// What the node wants to see in it.
    pub challenge: &'a Bytes,
    /// Names of EK, AK and SRK.
    pub names: [&'a [u8]; 3],
    /// U for the EK.
    pub c_u: &'a Credential,
    /// V for the SRK.
    pub c_v: &'a Credential,
    /// What the halves make.
    pub key: &'a Key,
}

impl NewEnrollment<'_> {
    /// What is signed, at this server.
    pub fn document(&self, info: &ServerInfo) -> Enrollment {
        let [ek_name, ak_name, srk_name] = self.names.map(Bytes::from);
        Enrollment {
            enrollment_id: self.id.to_owned(),
            challenge: self.challenge.clone(),
            ek_name,
            ak_name,
            srk_name,
            c_u_sha256: credential_digest(self.c_u).into(),
            c_v_sha256: credential_digest(self.c_v).into(),
            release_public: info.release_public.clone(),
            bank: "sha256".into(),
            proof_sha256: half::proof_digest(&self.key.proof()).into(),
            ca: info.ca.clone(),
            servers: info.servers.clone(),
            label: "web1".into(),
        }
    }
}
