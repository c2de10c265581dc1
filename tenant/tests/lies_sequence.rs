//! What a server shows of the sequence, and of nodes, is not believed: it only grows, and what was seen stays.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::lying::*;
use halfkey::home::key::TenantKey;
use halfkey_protocol::NodeId;
use halfkey_protocol::document::{Deployment, Kind, Place, Scope, next, proof_of};
use halfkey_protocol::wire::operator::*;
use halfkey_protocol::wire::{Document, SignedDocument};
use std::os::unix::fs::PermissionsExt as _;

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
