//! What a server shows of policies is not believed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::server::{Answer, Request, Server, json, problem};
use common::{Workstation, golden};
use halfkey::home::key::TenantKey;
use halfkey_protocol::document::{Deployment, Kind, Place, Scope, next, proof_of};
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::policies::*;
use halfkey_protocol::wire::{Document, SignedDocument};
use halfkey_protocol::{Bytes, NodeId};
use halfkey_testkit::pki::Pki;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

const POLICY: &str = r#"format = 1
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

const KERNEL: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// What the server holds for group:web, and how it answers to an apply.
#[derive(Default)]
struct Held {
    policy: Option<SignedDocument>,
    refuse: bool,
    /// It shows this instead of what it was given.
    swap: Option<SignedDocument>,
    /// Everything that it took.
    sequence: Vec<SignedDocument>,
    /// What others hand in first: the next of these scopes, before each document of this workstation. With none it is that document itself,
    /// whose answer gets lost.
    rivals: Vec<Option<&'static str>>,
    /// What it shows as the sequence from the next document on, which it refuses.
    fork: Option<Vec<SignedDocument>>,
    /// Another deployment than before.
    deployment: Option<Deployment>,
    /// By path: what it answers to other questions.
    others: HashMap<String, serde_json::Value>,
}

struct Setup {
    server: Server,
    workstation: Workstation,
    held: Arc<Mutex<Held>>,
}

impl Setup {
    fn new() -> Self {
        let pki = Pki::new();
        let held = Arc::new(Mutex::new(Held::default()));
        let shared = held.clone();
        let server = Server::start(&pki, move |request| answer(request, &mut shared.lock().unwrap()));
        let workstation = Workstation::logged_in(&pki.bundle(&[server.url()]));
        Self { server, workstation, held }
    }

    fn key(&self) -> TenantKey {
        TenantKey::from_pem(&std::fs::read(self.workstation.home().join("tenant.key")).unwrap()).unwrap()
    }

    fn file(&self, text: &str) -> String {
        let path = self.workstation.path("web.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn show(&self, policy: Option<SignedDocument>) {
        self.held.lock().unwrap().policy = policy;
    }

    /// Adds a boot to the policy that the server shows.
    fn add(&self) -> (i32, String) {
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

    fn posts(&self) -> Vec<Document> {
        let seen = self.server.seen.lock().unwrap();
        let posts = seen.iter().filter(|request| request.method == "POST");
        let signed = posts.map(|request| serde_json::from_slice::<SignedDocument>(&request.body).unwrap());
        signed.map(|signed| serde_json::from_slice(&signed.document).unwrap()).collect()
    }

    fn versions(&self) -> Vec<u64> {
        self.posts().iter().map(|document| document.number).collect()
    }

    /// Puts documents in place of those that the server took.
    fn rewrite(&self, sequence: &[SignedDocument]) {
        self.held.lock().unwrap().sequence = sequence.to_vec();
    }
}

const HERE: Deployment = Deployment([5; 16]);

/// What somebody else with this key may have signed: after `head`.
fn after(head: &Place, scope: &str) -> Document {
    let scope = Scope::parse(scope).unwrap();
    let kind = if matches!(scope, Scope::Additions(_)) { Kind::Additions } else { Kind::Policy };
    next(kind, &scope, HERE, head, 1, POLICY.into())
}

fn document(scope: &str, number: u64) -> Document {
    after(&Place { number: number - 1, sha256: [0; 32] }, scope)
}

fn place(signed: &SignedDocument) -> Place {
    let number = serde_json::from_slice::<Document>(&signed.document).unwrap().number;
    Place { number, sha256: sha256_of(signed) }
}

fn sha256_of(signed: &SignedDocument) -> [u8; 32] {
    let keys: Vec<[u8; 32]> = signed.signatures.iter().map(|by| by.key.array().unwrap()).collect();
    halfkey_protocol::document::sha256(&signed.document, &keys)
}

fn record(signed: &SignedDocument) -> PolicyRecord {
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

fn answer(request: &Request, held: &mut Held) -> Answer {
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

#[test]
fn only_what_this_workstation_signed_is_extended() {
    let setup = Setup::new();
    let (mine, other) = (setup.key(), TenantKey::generate().unwrap());
    let mut altered = mine.sign(&document("group:web", 1));
    altered.document.0[60] ^= 1;
    let mut said = String::new();
    for (what, policy) in [
        ("another key", other.sign(&document("group:web", 1))),
        ("altered", altered),
        ("for another scope", mine.sign(&document("group:db", 1))),
        ("another format", mine.sign(&Document { format: 2, ..document("group:web", 1) })),
    ] {
        setup.show(Some(policy));
        let (code, stderr) = setup.add();
        let stderr = stderr.replace(&mine.fingerprint(), "MINE").replace(&other.fingerprint(), "OTHER");
        said.push_str(&format!("# {what}: exit {code}\n{stderr}\n"));
        let ran = setup.workstation.run(&["policy", "diff", "group:web", "group:web"]);
        assert_eq!(ran.code, 6, "{ran:?}");
        // Looking is allowed, and says what it is worth.
        let ran = setup.workstation.run(&["policy", "show", "group:web"]);
        assert!(ran.code == 6 && ran.stderr.contains("NOT TRUSTED"), "{ran:?}");
    }
    golden::check("lies.txt", &said);
    assert!(setup.posts().is_empty(), "nothing was signed");
    let first = mine.sign(&document("group:web", 1));
    setup.rewrite(std::slice::from_ref(&first));
    setup.show(Some(first));
    let ran =
        setup.workstation.run(&["policy", "predict", "--uki", KERNEL, "--add", "--group", "web", "--yes"]);
    assert!(
        ran.code == 2 && ran.stderr.contains("--secure-boot on or off"),
        "no machine, so no guess: {ran:?}"
    );
    assert_eq!(setup.add(), (0, String::new()));
    assert_eq!(setup.versions(), [2]);
    assert!(setup.posts()[0].body.starts_with(POLICY.trim_end()), "its comments and its order are kept");
}

#[test]
fn an_older_version_is_noticed() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
    setup.workstation.ok(&apply);
    let first = setup.held.lock().unwrap().policy.clone();
    setup.workstation.ok(&apply);
    let second = setup.held.lock().unwrap().policy.clone();
    assert_eq!(setup.versions(), [1, 2]);

    for older in [first.clone(), None] {
        setup.show(older);
        let (code, said) = setup.add();
        assert!(code == 6 && said.contains("expected version 2 of group:web"), "{said}");
    }
    // Nor is it shown or compared as if it were the newest. By its number it may be looked at.
    setup.show(first.clone());
    for command in [&["policy", "show", "group:web"][..], &["policy", "diff", "group:web", &file]] {
        let ran = setup.workstation.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("expected version 2 of group:web"), "{ran:?}");
        assert!(!ran.stderr.contains("signed by this workstation"), "{ran:?}");
    }
    let ran = setup.workstation.ok(&["policy", "show", "group:web", "--version", "1"]);
    assert!(ran.stderr.contains("signed by this workstation"), "{ran:?}");
    setup.workstation.ok(&["policy", "diff", "group:web@1", &file]);
    // Another one than that, and none.
    setup.show(second.clone());
    for command in
        [&["policy", "show", "group:web", "--version", "1"][..], &["policy", "diff", "group:web@1", &file]]
    {
        let ran = setup.workstation.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("version 2 in place of version 1"), "{ran:?}");
    }
    setup.show(None);
    for command in [&["policy", "show", "group:web"][..], &["policy", "diff", "group:web", &file]] {
        let ran = setup.workstation.run(command);
        assert!(ran.code == 6 && ran.stderr.contains("expected version 2 of group:web"), "{ran:?}");
    }
    // The same version again with another text, by another workstation with the same key.
    let twin = Document { created: 5, ..after(&place(first.as_ref().unwrap()), "group:web") };
    setup.show(Some(setup.key().sign(&twin)));
    let (code, said) = setup.add();
    assert!(code == 6 && said.contains("another version 2 of group:web"), "{said}");
    assert_eq!(setup.versions().len(), 2, "nothing more was signed");

    // A whole document is the remedy; what was found is said.
    setup.show(first);
    let ran = setup.workstation.ok(&apply);
    assert!(ran.stderr.contains("warning: expected version 2"), "{ran:?}");
    assert_eq!(setup.versions(), [1, 2, 3]);

    // Another one came first: nothing is lost by trying again.
    setup.held.lock().unwrap().refuse = true;
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 1 && ran.stderr.contains("sequence"), "{ran:?}");
    setup.held.lock().unwrap().refuse = false;
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2, 3, 4, 4]);

    setup.held.lock().unwrap().swap = second;
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 6 && ran.stderr.contains("shows another one"), "{ran:?}");
    // Of all this nothing is lost when the file is damaged.
    std::fs::write(setup.workstation.home().join("documents.json"), "{").unwrap();
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 1 && ran.stderr.contains("documents.json is damaged"), "{ran:?}");
}

#[test]
fn a_policy_that_is_kept_back_is_missed() {
    const ID: &str = "0693542a-1082-8a03-94a9-3b7dd6971fe8";
    let setup = Setup::new();
    let sign = |scope: &str, version: u64, withdrawn: bool| {
        let mut document = document(scope, version);
        if withdrawn {
            (document.kind, document.body) = ("withdrawal".into(), String::new());
        }
        let signed = setup.key().sign(&document);
        let mut record = record(&signed);
        record.summary.scope = scope.into();
        record
    };
    let (own, additions) = (format!("node:{ID}"), format!("additions:{ID}"));
    let node = serde_json::json!({
        "id": ID, "label": "web1", "state": "enrolled", "pending": false, "last_seen": null,
        "last_outcome": null, "last_code": null
    });
    let tell = |path: String, what: serde_json::Value| {
        setup.held.lock().unwrap().others.insert(path, what);
    };
    let governed_by = |policy: Option<&PolicyRecord>, additions: Option<&PolicyRecord>| {
        let group = Some("web".to_owned());
        let member = Scope::parse(&format!("membership:{ID}")).unwrap();
        let membership = next(Kind::Membership, &member, HERE, &Place::default(), 1, "web".into());
        let membership = Some(setup.key().sign(&membership));
        let whole = NodePolicy {
            group,
            membership,
            policy: policy.cloned(),
            additions: additions.cloned(),
            trusted: vec![],
        };
        tell(format!("nodes/{ID}/policy"), serde_json::to_value(whole).unwrap());
    };
    let governed = |policy: &PolicyRecord| governed_by(Some(policy), None);
    let holds = |record: &PolicyRecord| {
        tell(format!("policies/{}", record.summary.scope), serde_json::to_value(record).unwrap());
    };
    tell("nodes".to_owned(), serde_json::json!({ "nodes": [node] }));
    holds(&sign(&additions, 1, false));
    holds(&sign("group:web", 1, false));
    let says = |what: &str| {
        let ran = setup.workstation.run(&["policy", "withdraw", ID, "--additions", "--yes"]);
        assert!(ran.code != 0 && ran.stderr.contains(what), "{what}: {ran:?}");
        ran.code
    };

    // The group's: a policy of the node's own, signed in its place, would outrank it for good.
    governed_by(None, Some(&sign(&additions, 1, false)));
    assert_eq!(
        says("version 1 of group:web, and says that the node, which is in that group, has no policy"),
        6
    );

    // The group's in place of the node's own, or without what it may boot besides.
    governed(&sign("group:web", 1, false));
    holds(&sign(&own, 1, false));
    assert_eq!(
        says("version 1 of node:0693542a-1082-8a03-94a9-3b7dd6971fe8, and says that it does not govern"),
        6
    );
    holds(&sign(&own, 2, true));
    assert_eq!(
        says("version 1 of additions:0693542a-1082-8a03-94a9-3b7dd6971fe8, and says that it does not"),
        6
    );
    // One that was withdrawn.
    governed(&sign(&own, 2, true));
    assert_eq!(says("version 2 governs the node, which was withdrawn"), 6);
    // An older one of the group than this workstation has signed.
    setup.held.lock().unwrap().others.remove("policies/group:web");
    let file = setup.file(POLICY);
    setup.workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    setup.workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    governed(&sign("group:web", 1, false));
    assert_eq!(says("expected version 2 of group:web"), 6);
    assert_eq!(setup.versions(), [1, 2], "nothing else was signed");
}

#[test]
fn a_sequence_that_goes_back_or_forks_is_noticed() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
    (0..3).for_each(|_| drop(setup.workstation.ok(&apply)));
    let honest = setup.held.lock().unwrap().sequence.clone();
    let key = setup.key();
    // The policy that it shows is the newest: it is the sequence that lies.
    let says = |sequence: &[SignedDocument], what: &str| {
        setup.rewrite(sequence);
        let (code, said) = setup.add();
        assert!(code == 6 && said.contains(what), "{what}: {said}");
        said
    };
    let said = says(
        &honest[..1],
        "the server has gone back: its newest document is number 1, and it once had number 3",
    );
    assert!(said.contains("missing  document 3 of this workstation's key, for group:web"), "{said}");
    let twin = key.sign(&Document { created: 5, ..after(&place(&honest[1]), "group:web") });
    let (before, now) =
        (halfkey::render::text::hex(&sha256_of(&honest[2])), halfkey::render::text::hex(&sha256_of(&twin)));
    let forked = [honest[0].clone(), honest[1].clone(), twin];
    let said = says(&forked, "document 3 is another one than before");
    assert!(said.contains(&before) && said.contains(&now), "{said}");
    // It stays, whatever the server shows next, until the owner has looked.
    let said = says(&honest, "document 3 is another one than before");
    assert!(said.contains(&before) && said.contains(&now), "{said}");
    assert_eq!(setup.workstation.run(&["accept-rollback"]).code, 2);
    says(&honest, "document 3 is another one than before");
    let ran = setup.workstation.ok(&["accept-rollback", "--yes"]);
    assert!(ran.stderr.contains(&before) && !ran.stderr.contains("missing"), "{ran:?}");
    let end = place(&honest[2]);
    let mut forged = key.sign(&after(&end, "group:db"));
    forged.signatures[0].signature.0[1] ^= 1;
    says(&[honest.clone(), vec![forged]].concat(), "not one sequence");
    let elsewhere = Document { deployment: Deployment([6; 16]).to_string(), ..after(&end, "group:db") };
    says(&[honest.clone(), vec![key.sign(&elsewhere)]].concat(), "another deployment");
    let loose = key.sign(&Document { previous: [9; 32].into(), ..after(&end, "group:db") });
    says(&[honest.clone(), vec![loose]].concat(), "not one sequence");
    assert_eq!(setup.versions(), [1, 2, 3], "nothing was signed");
    setup.held.lock().unwrap().deployment = Some(Deployment([6; 16]));
    says(&honest, "the server is another deployment than before");
    setup.held.lock().unwrap().deployment = None;
    // What another workstation signed in the meantime is no lie.
    let other = TenantKey::generate().unwrap().sign(&after(&end, "group:db"));
    setup.rewrite(&[honest, vec![other]].concat());
    assert_eq!(setup.add(), (0, String::new()));
    assert_eq!(setup.versions(), [1, 2, 3, 5]);
}

/// A name that the server made up is part of what the parser says.
#[test]
fn an_error_says_nothing_to_the_terminal() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let mut evil = serde_json::to_value(document("group:db", 1)).unwrap();
    evil["\u{1b}[2J\u{9b}31mx\u{202e}\nhint: all is well"] = 1.into();
    let evil = serde_json::to_vec(&evil).unwrap().into();
    setup.rewrite(&[setup.key().sign(&document("group:db", 1))]);
    let documents = vec![SignedDocument { document: evil, signatures: vec![] }];
    let part = serde_json::to_value(SequencePart { documents }).unwrap();
    setup.held.lock().unwrap().others.insert("sequence?after=0".to_owned(), part);
    let ran = setup.workstation.run(&["policy", "apply", &file, "--group", "web", "--yes"]);
    assert!(ran.code == 6 && ran.stderr.contains("not one sequence"), "{ran:?}");
    let raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!ran.stderr.contains(raw) && !ran.stderr.contains("\nhint: all"), "{ran:?}");

    // As JSON it is the same text.
    let label = "web\u{9b}2J\u{202e}\u{7f}\u{e0041}1";
    let list = NodeList { nodes: vec![common::record::node("3f2a0000", label).summary], next: None };
    setup.held.lock().unwrap().others.insert("nodes".to_owned(), serde_json::to_value(&list).unwrap());
    let ran = setup.workstation.ok(&["nodes", "--json"]);
    assert!(!ran.stdout.contains(|c| raw(c) || c == '\u{e0041}'), "{ran:?}");
    assert_eq!(serde_json::from_str::<NodeList>(&ran.stdout).unwrap(), list);
}

/// One command of a workstation has seen a document, and another one that began before is shown another document in its place.
#[test]
fn what_one_command_has_seen_is_not_replaced_by_what_another_is_shown() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web"];
    let yes = [&apply[..], &["--yes"]].concat();
    setup.workstation.ok(&yes);
    let first = setup.held.lock().unwrap().sequence[0].clone();
    let mut seen = None;
    let ran = setup.workstation.answered_after(&apply, || {
        setup.workstation.ok(&yes);
        let mut held = setup.held.lock().unwrap();
        seen = held.sequence.last().cloned();
        let stranger = TenantKey::generate().unwrap();
        let other = stranger.sign(&after(&place(&first), "group:db"));
        let more = stranger.sign(&after(&place(&other), "group:mail"));
        held.fork = Some(vec![first.clone(), other, more]);
    });
    let hash = |signed: &SignedDocument| halfkey::render::text::hex(&sha256_of(signed));
    let (before, now) = (hash(&seen.unwrap()), hash(&setup.held.lock().unwrap().sequence[1]));
    assert_eq!(ran.code, 6, "{ran:?}");
    let stays = || {
        let ran = setup.workstation.run(&yes);
        assert!(ran.code == 6 && ran.stderr.contains("document 2 is another one than before"), "{ran:?}");
        assert!(ran.stderr.contains(&before) && ran.stderr.contains(&now), "{ran:?}");
    };
    stays();
    stays();
    assert_eq!(setup.versions(), [1, 2, 2], "nothing more was signed");
    let ran = setup.workstation.ok(&["accept-rollback", "--yes"]);
    assert!(ran.stderr.contains("missing  document 2 of this workstation's key, for group:web"), "{ran:?}");
    setup.show(None);
    setup.workstation.ok(&yes);
    assert_eq!(setup.versions(), [1, 2, 2, 4]);
}

/// The other workstation may be the verifier itself: it writes an entry when a node proves its enrollment.
#[test]
fn what_others_hand_in_first_is_followed_and_the_document_signed_again() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
    let rivals = |rivals: &[Option<&'static str>]| setup.held.lock().unwrap().rivals = rivals.to_vec();
    rivals(&[Some("group:db"), Some("group:mail")]);
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2, 3]);
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2, 3, 4]);

    // What was written without knowing of this one is not submitted over it.
    rivals(&[Some("group:db"), Some("group:web")]);
    let ran = setup.workstation.run(&apply);
    assert!(
        ran.code == 1 && ran.stderr.contains("another document for group:web came first: number 6"),
        "{ran:?}"
    );
    assert_eq!(setup.versions(), [1, 2, 3, 4, 5, 6]);
    // Its own, of which it did not hear.
    rivals(&[None]);
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 1 && ran.stderr.contains("has taken document 7 for group:web before"), "{ran:?}");
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2, 3, 4, 5, 6, 7, 8]);

    // It does not go on for ever, and not where nothing came first.
    rivals(&[Some("group:db"); 100]);
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 1 && ran.stderr.contains("10 times"), "{ran:?}");
    assert_eq!(setup.versions()[8..], [9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
    rivals(&[]);
    setup.held.lock().unwrap().refuse = true;
    assert!(setup.workstation.run(&apply).stderr.contains("another came first"));
    assert_eq!(setup.versions()[18..], [19]);
    // Nor along another sequence.
    setup.held.lock().unwrap().refuse = false;
    let whole = setup.held.lock().unwrap().sequence.clone();
    let end = place(&whole[17]);
    let loose = Document { previous: [9; 32].into(), ..after(&end, "group:mail") };
    let lie = [whole, vec![setup.key().sign(&loose)]].concat();
    setup.held.lock().unwrap().fork = Some(lie);
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 6 && ran.stderr.contains("not one sequence"), "{ran:?}");
    assert_eq!(setup.versions()[19..], [19]);
}

/// By its number: it may be older than what this workstation looks at.
#[test]
fn whose_enrollment_was_proved_is_followed_back() {
    const ID: &str = "0693542a-1082-8a03-94a9-3b7dd6971fe8";
    let id = NodeId::parse(ID).unwrap();
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
    let enrolled = |key: &TenantKey| {
        key.sign(&next(Kind::Enrollment, &Scope::Enrollment(id), HERE, &Place::default(), 1, "{}".into()))
    };
    let enrollment = enrolled(&TenantKey::generate().unwrap());
    setup.rewrite(std::slice::from_ref(&enrollment));
    setup.workstation.ok(&apply);
    // It signed for the node as well.
    let path = setup.workstation.home().join("documents.json");
    let json = std::fs::read_to_string(&path).unwrap();
    let own = format!("\"held\": {{\"node:{ID}\": {{\"version\": 1, \"sha256\": \"{}\"}},", "a".repeat(64));
    std::fs::write(&path, json.replacen("\"held\": {", &own, 1)).unwrap();
    let signed = setup.held.lock().unwrap().sequence[1].clone();
    let proof = |of: Place| {
        let proof = next(Kind::Proof, &Scope::Proof(id), HERE, &place(&signed), 1, proof_of(&of));
        SignedDocument { document: serde_json::to_vec(&proof).unwrap().into(), signatures: vec![] }
    };
    let shows = |first: Option<SignedDocument>, of: Place| {
        let mut held = setup.held.lock().unwrap();
        held.others.clear();
        held.sequence = vec![enrollment.clone(), signed.clone(), proof(of)];
        if let Some(first) = first {
            let documents = vec![first, signed.clone(), proof(of)];
            let part = serde_json::to_value(SequencePart { documents }).unwrap();
            held.others.insert("sequence?after=0".to_owned(), part);
        }
    };
    let first = place(&enrollment);
    let other = Place { sha256: [9; 32], ..first };
    for (shown, of, what) in [
        (Some(enrolled(&setup.key())), first, "number 2 is not after the document 1"),
        (Some(enrolled(&TenantKey::generate().unwrap())), first, "number 2 is not after the document 1"),
        (Some(signed.clone()), first, "expected document 1, found 2"),
        (None, place(&signed), "document 2 is proved, and is no enrollment"),
        (None, other, "document 3 proves another enrollment 1 than there is"),
    ] {
        shows(shown, of);
        let ran = setup.workstation.run(&apply);
        assert!(ran.code == 6 && ran.stderr.contains(what), "{what}: {ran:?}");
        assert_eq!(setup.versions(), [2], "nothing was signed");
    }
    shows(None, first);
    let note = format!("what was signed here for it alone counts no more (node:{ID})");
    assert!(setup.workstation.ok(&apply).stderr.contains(&note));
    assert!(!setup.workstation.ok(&apply).stderr.contains(&note), "once");
    assert_eq!(setup.versions(), [2, 4, 5]);
}

#[test]
fn a_restored_server_is_accepted_by_its_own_command() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
    (0..3).for_each(|_| drop(setup.workstation.ok(&apply)));
    let honest = setup.held.lock().unwrap().sequence.clone();
    let accept = |args: &[&str]| setup.workstation.run(&[&["accept-rollback"], args].concat());
    let ran = accept(&["--yes"]);
    assert!(ran.code == 0 && ran.stderr.contains("nothing to accept"), "{ran:?}");

    // Restored: everything that signs is refused until that was said.
    setup.rewrite(&honest[..1]);
    setup.show(Some(honest[0].clone()));
    let refused = || {
        let ran = setup.workstation.run(&apply);
        assert!(ran.code == 6 && ran.stderr.contains("halfkey accept-rollback"), "{ran:?}");
        let (code, said) = setup.add();
        assert_eq!(code, 6, "{said}");
        assert_eq!(setup.versions(), [1, 2, 3], "nothing was signed");
    };
    refused();
    let ran = accept(&[]);
    assert!(
        ran.code == 2 && ran.stderr.contains("missing  document 3 of this workstation's key, for group:web"),
        "{ran:?}"
    );
    refused();
    // What is no sequence is not accepted.
    let loose =
        setup.key().sign(&Document { previous: [9; 32].into(), ..after(&place(&honest[0]), "group:db") });
    setup.rewrite(&[honest[0].clone(), loose]);
    let ran = accept(&["--yes"]);
    assert!(ran.code == 6 && ran.stderr.contains("not one sequence"), "{ran:?}");
    setup.rewrite(&honest[..1]);
    let ran = accept(&["--yes"]);
    assert!(ran.code == 0 && ran.stderr.contains("accepted"), "{ran:?}");
    assert!(accept(&["--yes"]).stderr.contains("nothing to accept"));
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2, 3, 2]);

    // Restored, and others have gone on since: as long as before, and another one.
    let fork = TenantKey::generate().unwrap().sign(&after(&place(&honest[0]), "group:db"));
    setup.rewrite(&[honest[0].clone(), fork.clone()]);
    setup.show(None);
    let ran = setup.workstation.run(&apply);
    assert!(ran.code == 6 && ran.stderr.contains("document 2 is another one than before"), "{ran:?}");
    let ran = accept(&["--yes"]);
    assert!(ran.stderr.contains("missing  document 2 of this workstation's key, for group:web"), "{ran:?}");
    setup.workstation.ok(&apply);
    // To nothing at all.
    setup.rewrite(&[]);
    setup.show(None);
    let ran = accept(&["--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2, 3, 2, 3, 1]);
    // Another deployment is not an older one.
    setup.held.lock().unwrap().deployment = Some(Deployment([6; 16]));
    assert_eq!(accept(&["--yes"]).code, 6);
}

#[test]
fn what_can_not_be_remembered_is_not_signed() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let apply = ["policy", "apply", &file, "--group", "web", "--yes"];
    setup.workstation.ok(&["policy", "apply", &file, "--group", "web", "--yes"]);
    let path = setup.workstation.home().join("documents.json");
    let json = std::fs::read_to_string(&path).unwrap();
    let with = |entries: &str| {
        let grown = json.replacen("\"held\": {", &format!("\"held\": {{{entries}"), 1);
        assert_ne!(grown, json);
        std::fs::write(&path, grown).unwrap();
    };
    let entry =
        |scope: String| format!("\"{scope}\": {{\"version\": 1, \"sha256\": \"{}\"}},", "a".repeat(64));
    // As many nodes as filled 4 MiB three times over.
    with(&(0..100_000).map(|index| entry(format!("enrollment:{index:036}"))).collect::<String>());
    setup.workstation.ok(&apply);
    assert_eq!(setup.versions(), [1, 2]);
    // Full, for a scope that is not in it yet: of what is signed now, or of what the sequence has.
    let json = json.replace("group:web", "group:db");
    let mail = ["policy", "apply", &file, "--group", "mail", "--yes"];
    for (left, command) in [(900, &mail), (200, &apply)] {
        let filler = entry("x".repeat((64 << 20) - left - json.len()));
        std::fs::write(&path, json.replacen("\"held\": {", &format!("\"held\": {{{filler}"), 1)).unwrap();
        let ran = setup.workstation.run(command);
        assert!(ran.code == 1 && ran.stderr.contains("nothing was signed"), "{:.1000}", ran.stderr);
    }
    assert_eq!(setup.versions(), [1, 2]);
}

#[test]
fn what_can_not_be_applied_is_said() {
    let setup = Setup::new();
    let file = setup.file(POLICY);
    let damaged = setup.workstation.path("damaged.toml").to_str().unwrap().to_owned();
    std::fs::write(&damaged, POLICY.replace("name = \"web servers\"", "name = \"web servers")).unwrap();
    let unknown = setup.workstation.path("unknown.toml").to_str().unwrap().to_owned();
    std::fs::write(&unknown, POLICY.replace("required = false", "requird = false")).unwrap();
    let binary = setup.workstation.path("binary.toml").to_str().unwrap().to_owned();
    std::fs::write(&binary, b"format = 1\xff").unwrap();
    let large = setup.workstation.path("large.toml").to_str().unwrap().to_owned();
    std::fs::write(&large, "#".repeat(MAX_POLICY + 1)).unwrap();
    let mut said = String::new();
    for args in [
        &["policy", "apply", &damaged, "--group", "web", "--yes"][..],
        &["policy", "apply", &unknown, "--group", "web", "--yes"],
        &["policy", "apply", &binary, "--group", "web", "--yes"],
        &["policy", "apply", &large, "--group", "web", "--yes"],
        &["policy", "apply", "/nonexistent/web.toml", "--group", "web", "--yes"],
        &["policy", "apply", &file, "--group", "Web servers", "--yes"],
        &["policy", "apply", &file, "--node", "nowhere", "--yes"],
        &["policy", "apply", &file, "--group", "web"],
        &["policy", "show", "web"],
        &["policy", "show", "group:web"],
        &["policy", "diff", "group:web", &file],
        &["policy", "diff", "nowhere.toml", &file],
        &["policy", "learn", "nowhere"],
        &["policy", "explain", "nowhere"],
        &["policy", "test", &file, "--against", "nowhere"],
        &["policy", "test", &file, "--against", "/nonexistent/log.bin"],
        &["policy", "predict", "--kernel", KERNEL, "--initrd", "/nonexistent/initrd", "--cmdline", "quiet"],
        &["policy", "predict", "--uki", &file],
        &["policy", "predict", "--package", &file],
        &["proposal", "show", "1"],
        &["proposal", "deny", "1", "--because", "two\nlines"],
    ] {
        let (code, stderr) = setup.workstation.error(args, setup.server.port);
        let args = args
            .join(" ")
            .replace(setup.workstation.dir.path().to_str().unwrap(), "DIR")
            .replace('\n', "\\n");
        said.push_str(&format!("# {args}: exit {code}\n{stderr}\n"));
    }
    golden::check("policy-errors.txt", &said);
    assert!(setup.posts().is_empty());
}

/// Whose a label is: another operator, or who writes the database, could exchange a strict machine's and a lax one's.
#[test]
fn a_label_is_of_the_node_that_was_enrolled_with_it() {
    let setup = Setup::new();
    let id = "3f2a0000-0000-8000-8000-000000000001";
    let scope = Scope::Enrollment(NodeId::parse(id).unwrap());
    let signed = |key: &TenantKey, scope: &Scope, label: &str| {
        let body = serde_json::to_string(&common::record::enrollment(label)).unwrap();
        key.sign(&next(Kind::Enrollment, scope, HERE, &Place::default(), 1, body))
    };
    let (mine, other) = (setup.key(), TenantKey::generate().unwrap());
    let elsewhere = Scope::Enrollment(NodeId::parse("3f2b0000-0000-8000-8000-000000000002").unwrap());
    let show = |enrollment: Option<SignedDocument>| {
        let record = NodeRecord { enrollment, ..common::record::node(id, "test-1") };
        let list = NodeList { nodes: vec![record.summary.clone()], next: None };
        let others = &mut setup.held.lock().unwrap().others;
        for name in ["test-1", "3f2a0000"] {
            others.insert(format!("nodes?name={name}"), serde_json::to_value(&list).unwrap());
        }
        others.insert(format!("nodes/{id}"), serde_json::to_value(record).unwrap());
    };
    for enrollment in [
        None,
        Some(signed(&mine, &scope, "prod-1")),
        Some(signed(&other, &scope, "test-1")),
        Some(signed(&mine, &elsewhere, "test-1")),
    ] {
        show(enrollment);
        for command in [
            &["group", "set", "test-1", "--group", "lax"][..],
            &["policy", "apply", &setup.file(POLICY), "--node", "test-1", "--yes"],
            &["policy", "withdraw", "test-1", "--yes"],
        ] {
            let ran = setup.workstation.run(command);
            assert!(ran.code == 6 && ran.stderr.contains("name it by its id"), "{command:?}: {ran:?}");
        }
    }
    // One of another deployment, and one that this workstation has enrolled anew since: the machine is `prod-1` by now.
    let enrollment = |deployment, head: &Place, label: &str| {
        let body = serde_json::to_string(&common::record::enrollment(label)).unwrap();
        mine.sign(&next(Kind::Enrollment, &scope, deployment, head, 1, body))
    };
    let elsewhere = enrollment(Deployment([9; 16]), &Place::default(), "test-1");
    let before = enrollment(HERE, &Place::default(), "test-1");
    let now = enrollment(HERE, &place(&before), "prod-1");
    let end = place(&now);
    setup.rewrite(&[before.clone(), now]);
    let known =
        serde_json::json!({ "version": end.number, "sha256": halfkey::render::text::hex(&end.sha256) });
    let ledger = serde_json::json!({ HERE.to_string(): {
        "newest": end.number, "sha256": known["sha256"], "held": { scope.to_string(): known }
    } });
    let file = setup.workstation.home().join("documents.json");
    std::fs::write(&file, ledger.to_string()).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (enrollment, why) in
        [(elsewhere, "for another deployment"), (before, "expected version 2 of enrollment:3f2a0000")]
    {
        show(Some(enrollment));
        for command in [
            &["group", "set", "test-1", "--group", "lax"][..],
            &["policy", "apply", &setup.file(POLICY), "--node", "test-1", "--yes"],
        ] {
            let ran = setup.workstation.run(command);
            assert!(ran.code == 6 && ran.stderr.contains("name it by its id"), "{command:?}: {ran:?}");
            assert!(ran.stderr.contains(why), "{command:?}: {ran:?}");
        }
    }
    assert!(setup.posts().is_empty(), "nothing was signed");
    setup.rewrite(&[]);
    std::fs::remove_file(file).unwrap();
    // The server here has no nodes to set: it gets that far.
    show(Some(signed(&mine, &scope, "test-1")));
    for node in ["test-1", id, "3f2a0000"] {
        let ran = setup.workstation.run(&["group", "set", node, "--group", "lax"]);
        assert!(ran.code != 6 && !ran.stderr.contains("name it by its id"), "{ran:?}");
    }
}
