//! A server that shows what it was told to show, and a workstation that talks to it.

use super::Workstation;
use super::server::{Answer, Request, Server, json, problem};
use halfkey::home::key::TenantKey;
use halfkey_protocol::Bytes;
use halfkey_protocol::document::{Deployment, Kind, Place, Scope, next};
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::*;
use halfkey_protocol::wire::{Document, SignedDocument};
use halfkey_testkit::pki::Pki;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

pub const POLICY: &str = r#"format = 1
name = "web servers"
ignore = [1, 3, 5, 6]

[secure_boot]
required = false

[firmware]
pcr0 = []
pcr2 = []

[command_line]
allowed = ["root=UUID=*", "quiet"]
required = ["systemd.import_credentials=no", "efi=noruntime"]

[[boot]]
name = "6.1"
kernel_measures_initrd = true
initrd = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
[[boot.image]]
role = "kernel"
authenticode = ["sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]
"#;

pub const KERNEL: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// What the server holds for group:web, and how it answers to an apply.
#[derive(Default)]
pub struct Held {
    pub policy: Option<SignedDocument>,
    pub refuse: bool,
    /// It shows this instead of what it was given.
    pub swap: Option<SignedDocument>,
    /// Everything that it took.
    pub sequence: Vec<SignedDocument>,
    /// What others hand in first: the next of these scopes, before each document of this workstation. With none it is that document itself,
    /// whose answer gets lost.
    pub rivals: Vec<Option<&'static str>>,
    /// What it shows as the sequence from the next document on, which it refuses.
    pub fork: Option<Vec<SignedDocument>>,
    /// Another deployment than before.
    pub deployment: Option<Deployment>,
    /// By path: what it answers to other questions.
    pub others: HashMap<String, serde_json::Value>,
}

pub struct Setup {
    pub server: Server,
    pub workstation: Workstation,
    pub held: Arc<Mutex<Held>>,
}

impl Setup {
    pub fn new() -> Self {
        let pki = Pki::new();
        let held = Arc::new(Mutex::new(Held::default()));
        let shared = held.clone();
        let server = Server::start(&pki, move |request| answer(request, &mut shared.lock().unwrap()));
        let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
        Self { server, workstation, held }
    }

    pub fn key(&self) -> TenantKey {
        TenantKey::from_pem(&std::fs::read(self.workstation.home().join("tenant.key")).unwrap()).unwrap()
    }

    pub fn file(&self, text: &str) -> String {
        let path = self.workstation.path("web.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn show(&self, policy: Option<SignedDocument>) {
        self.held.lock().unwrap().policy = policy;
    }

    /// Adds a boot to the policy that the server shows.
    pub fn add(&self) -> (i32, String) {
        let initrd = self.workstation.path("initrd");
        std::fs::write(&initrd, b"an initrd").unwrap();
        let args = ["policy", "predict", "--kernel", KERNEL, "--initrd", initrd.to_str().unwrap()];
        let more =
            ["--cmdline", "root=UUID=a efi=noruntime systemd.import_credentials=no", "--secure-boot", "off"];
        let add = ["--kernel-measures-initrd", "--add", "--group", "web", "--yes"];
        let (code, stderr) = self.workstation.error(&[&args[..], &more, &add].concat(), self.server.port);
        // What was predicted is another test's.
        let said = stderr.find("error:").map_or(String::new(), |at| stderr[at..].to_owned());
        (code, said)
    }

    pub fn posts(&self) -> Vec<Document> {
        let seen = self.server.seen.lock().unwrap();
        let posts = seen.iter().filter(|request| request.method == "POST");
        let signed = posts.map(|request| serde_json::from_slice::<SignedDocument>(&request.body).unwrap());
        signed.map(|signed| serde_json::from_slice(&signed.document).unwrap()).collect()
    }

    pub fn versions(&self) -> Vec<u64> {
        self.posts().iter().map(|document| document.number).collect()
    }

    /// Puts documents in place of those that the server took.
    pub fn rewrite(&self, sequence: &[SignedDocument]) {
        self.held.lock().unwrap().sequence = sequence.to_vec();
    }
}

pub const HERE: Deployment = Deployment([5; 16]);

/// What somebody else with this key may have signed: after `head`.
pub fn after(head: &Place, scope: &str) -> Document {
    let scope = Scope::parse(scope).unwrap();
    let kind = if matches!(scope, Scope::Additions(_)) { Kind::Additions } else { Kind::Policy };
    next(kind, &scope, HERE, head, 1, POLICY.into())
}

pub fn document(scope: &str, number: u64) -> Document {
    after(&Place { number: number - 1, sha256: [0; 32] }, scope)
}

pub fn place(signed: &SignedDocument) -> Place {
    let number = serde_json::from_slice::<Document>(&signed.document).unwrap().number;
    Place { number, sha256: sha256_of(signed) }
}

pub fn sha256_of(signed: &SignedDocument) -> [u8; 32] {
    let keys: Vec<[u8; 32]> = signed.signatures.iter().map(|by| by.key.array().unwrap()).collect();
    halfkey_protocol::document::sha256(&signed.document, &keys)
}

pub fn record(signed: &SignedDocument) -> PolicyRecord {
    let summary = PolicySummary {
        scope: "group:web".into(),
        version: 1,
        name: "web servers".into(),
        tenant_key: "sha256:whatever".into(),
        sha256: halfkey::render::text::hex(&sha256_of(signed)),
        applied_at: 1,
        applied_by: "alice".into(),
        nodes: 0,
    };
    PolicyRecord { summary, signed: signed.clone() }
}

pub fn answer(request: &Request, held: &mut Held) -> Answer {
    let none = || problem(404, "not_found", "there is no such thing", None);
    match (request.method.as_str(), request.path.trim_start_matches("/v1/operator/")) {
        ("GET", path) if held.others.contains_key(path) => json(&held.others[path]),
        ("POST", "policies/group:web") if held.refuse => problem(409, "sequence", "another came first", None),
        ("POST", "policies/group:web") if held.fork.is_some() => {
            held.sequence = held.fork.take().unwrap();
            problem(409, "sequence", "another came first", None)
        }
        ("POST", "policies/group:web") if !held.rivals.is_empty() => {
            let end = held.sequence.last().map(place).unwrap_or_default();
            held.sequence.push(match held.rivals.remove(0) {
                Some(scope) => TenantKey::generate().unwrap().sign(&after(&end, scope)),
                None => serde_json::from_slice(&request.body).unwrap(),
            });
            problem(409, "sequence", "another came first", None)
        }
        ("POST", "policies/group:web") => {
            held.policy = Some(serde_json::from_slice(&request.body).unwrap());
            held.sequence.extend(held.policy.clone());
            json(&record(held.swap.as_ref().or(held.policy.as_ref()).unwrap()))
        }
        ("GET", path) if path.starts_with("policies/group:web") => {
            held.policy.as_ref().map_or_else(none, |p| json(&record(p)))
        }
        ("GET", "info") => {
            let end = held.sequence.last().map(place).unwrap_or_default();
            json(&ServerInfo {
                version: "0".into(),
                deployment: held.deployment.unwrap_or(HERE).to_string(),
                head: Head { number: end.number, sha256: end.sha256.into() },
                release_public: Bytes::default(),
                ca: String::new(),
                servers: vec![],
            })
        }
        ("GET", path) if path.starts_with("sequence?after=") => {
            let after: u64 = path["sequence?after=".len()..].parse().unwrap();
            let documents = held.sequence.iter().filter(|signed| place(signed).number > after).take(2);
            json(&SequencePart { documents: documents.cloned().collect() })
        }
        ("GET", "groups") => json(&GroupList { groups: vec![] }),
        ("GET", path) if path.starts_with("nodes") => json(&NodeList { nodes: vec![], next: None }),
        _ => none(),
    }
}
