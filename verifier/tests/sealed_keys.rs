//! Keys that the TPM of the server's host seals, or signs with: a disk without that TPM has none of them.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::node::{Node, enrolled, said};
use common::{Server, command, output, post};
use halfkey_protocol::wire::Verdict;
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::swtpm::Swtpm;
use halfkey_verifier::config::StateDir;
use halfkey_verifier::key_files::{self, Content, KeyForm, Kind};
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `seal-keys`; what it says.
fn seal(state: &Path, tpm: &Swtpm, more: &[&str]) -> (bool, String) {
    run(&[&["seal-keys", "--state", text(state), "--tpm", &tpm.tcti()], more].concat())
}

fn sealed(state: &Path, tpm: &Swtpm, more: &[&str]) -> String {
    let (done, said) = seal(state, tpm, more);
    assert!(done, "{said}");
    said
}

fn run(args: &[&str]) -> (bool, String) {
    let done = output(args);
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

/// Why a server does not start.
fn refusal(state: &Path) -> String {
    let (served, said) = run(&["serve", "--listen", "127.0.0.1:0", "--state", text(state)]);
    assert!(!served, "{said}");
    said
}

/// What a thief looks for: each key as it is, and as files have it.
fn traces(state: &Path) -> Vec<Vec<u8>> {
    let mut traces = Vec::new();
    for (name, kind) in [("release.key", Kind::Release), ("cluster.key", Kind::Cluster)] {
        let Content::Plain(key) = Content::read(kind, &state.join(name)).unwrap() else { panic!("{name}") };
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        traces.extend([
            key.to_vec(),
            hex.into_bytes(),
            halfkey_protocol::Bytes(key.to_vec()).encode().into_bytes(),
        ]);
    }
    // The lines of the file of `init`, which has more than the key, and of a copy.
    let pem = fs::read(state.join("release.key")).unwrap();
    let Content::Plain(key) = Content::read(Kind::Release, &state.join("release.key")).unwrap() else {
        panic!()
    };
    for text in [&pem[..], &key_files::plain(Kind::Release, &key)] {
        let lines =
            text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"---"));
        traces.extend(lines.map(<[u8]>::to_vec));
    }
    traces
}

/// Files below a folder that have one of these.
fn files_with(folder: &Path, traces: &[Vec<u8>]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let has = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        traces.iter().any(|trace| bytes.windows(trace.len()).any(|found| found == trace))
    };
    entries.filter(|path| path.is_file()).filter(has).collect()
}

fn form(kind: Kind, path: &Path) -> KeyForm {
    Content::read(kind, path).unwrap().form()
}

async fn boots(node: &Node, server: &Server) {
    node.reboot();
    assert_eq!(said(&node.boot(&server.anybody()).await), "released");
}

async fn enrolled_and_allowed(server: &Server) -> Node {
    let node = enrolled(server).await;
    node.allow(&server.operator()).await;
    node
}

#[tokio::test]
async fn a_server_works_with_keys_that_its_tpm_has_sealed_and_no_other_tpm_opens() {
    let mut tpm = Swtpm::on_port();
    let mut server = Server::start();
    let node = enrolled_and_allowed(&server).await;
    boots(&node, &server).await;
    let (state, recovery) = (server.state().to_owned(), server.dir.path().join("recovery"));
    let traces = traces(&state);
    let mut before: Vec<_> =
        ["release.key", "cluster.key"].iter().map(|name| File::open(state.join(name)).unwrap()).collect();
    assert_eq!(files_with(&state, &traces).len(), 2);

    // A copy or none, but not by mistake.
    let (done, why) = seal(&state, &tpm, &[]);
    assert!(!done && why.contains("--recovery FOLDER") && why.contains("hint: "), "{why}");
    assert_eq!(files_with(&state, &traces).len(), 2);
    // While it serves.
    let told = sealed(&state, &tpm, &["--recovery", text(&recovery)]);
    assert!(
        told.contains("release.key, cluster.key") && told.contains("ca.key, operator-ada.bundle"),
        "{told}"
    );
    boots(&node, &server).await;
    assert_eq!(server.stop(), Some(0));
    assert_eq!(files_with(&state, &traces), Vec::<PathBuf>::new());
    // Nor what was there before it was removed.
    for file in &mut before {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert!(
            !bytes.is_empty()
                && !traces.iter().any(|trace| bytes.windows(trace.len()).any(|found| found == trace))
        );
    }
    assert_eq!(files_with(&recovery, &traces).len(), 2);

    server.serve();
    boots(&node, &server).await;
    assert_eq!(server.stop(), Some(0));
    assert!(sealed(&state, &tpm, &["--no-recovery"]).contains("nothing to seal"));
    // The same TPM after a power cut, where it is now.
    tpm.reboot();
    StateDir::new(&state).set(&[("tpm", &tpm.tcti())]).unwrap();
    server.serve();
    boots(&node, &server).await;
    assert_eq!(server.stop(), Some(0));

    // A disk that was carried away.
    let other = Swtpm::on_port();
    StateDir::new(&state).set(&[("tpm", &other.tcti())]).unwrap();
    let why = refusal(&state);
    assert!(why.contains("cluster.key") && why.contains("sealed by another TPM"), "{why}");
    assert!(why.contains("hint: ") && why.contains("seal-keys --from FOLDER"), "{why}");
    let (unsealed, why) =
        run(&["unseal-keys", "--state", text(&state), "--out", text(&server.dir.path().join("stolen"))]);
    assert!(!unsealed && why.contains("sealed by another TPM"), "{why}");
    assert!(!server.dir.path().join("stolen").exists());
    // Its owner has the copy.
    sealed(&state, &other, &["--from", text(&recovery)]);
    server.serve();
    boots(&node, &server).await;
    assert_eq!(files_with(&state, &traces), Vec::<PathBuf>::new());
    // A TPM that was cleared is another one.
    assert_eq!(server.stop(), Some(0));
    other.tool("tpm2_clear", &["-c", "p"]);
    assert!(refusal(&state).contains("sealed by another TPM"));
}

#[test]
fn what_is_wrong_with_the_tpm_or_the_settings_is_said() {
    let tpm = Swtpm::on_port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    Server::init(&path);
    let state = StateDir::new(&path);
    let says = |why: String, what: &[&str]| {
        what.iter().for_each(|what| assert!(why.contains(what), "{what}: {why}"))
    };

    state.set(&[("release_key", "tpm")]).unwrap();
    says(refusal(&path), &["cluster.key", "found one for \"file\"", "seal-keys"]);
    state.set(&[("release_key", "file")]).unwrap();
    let (_, why) =
        run(&["seal-keys", "--no-recovery", "--state", text(&path), "--tpm", "device:/nowhere/tpm0"]);
    says(why, &["the TPM /nowhere/tpm0: No such file", "hint: this host shows no TPM"]);
    let (_, why) = run(&["seal-keys", "--no-recovery", "--state", text(&path), "--tpm", "floppy"]);
    says(why, &["expected a TPM as tpm2-tss names it", "\"floppy\"", "device:/dev/tpmrm0"]);
    // A copy that leaves a key as it is.
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let from = ["--from", text(&copy)];
    let (_, why) = seal(&path, &tpm, &from);
    says(why, &["expected keys, found none"]);
    fs::copy(path.join("cluster.key"), copy.join("cluster.key")).unwrap();
    let (_, why) = seal(&path, &tpm, &from);
    says(why, &["release.key: expected it to be sealed, or in the copy", "hint: "]);
    // Nothing was done by these.
    assert_eq!(form(Kind::Release, &state.release_key()), KeyForm::File);

    sealed(&path, &tpm, &["--no-recovery"]);
    state.set(&[("release_key", "file")]).unwrap();
    says(refusal(&path), &["cluster.key", "found one for \"tpm\""]);
    let at = tpm.tcti();
    drop(tpm);
    state.set(&[("release_key", "tpm"), ("tpm", &at)]).unwrap();
    says(refusal(&path), &[&at, "hint: is it there"]);

    // One key in the place of the other.
    let tpm = Swtpm::on_port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    Server::init(&path);
    sealed(&path, &tpm, &["--no-recovery"]);
    fs::copy(path.join("release.key"), path.join("cluster.key")).unwrap();
    says(refusal(&path), &["cluster.key", "found another one"]);
    // A bit of it.
    let whole = fs::read_to_string(path.join("release.key")).unwrap();
    let at = whole.find("\"private\":\"").unwrap() + 60;
    let other = if &whole[at..=at] == "A" { "B" } else { "A" };
    fs::write(path.join("cluster.key"), format!("{}{other}{}", &whole[..at], &whole[at + 1..])).unwrap();
    says(refusal(&path), &["cluster.key", "hint: the file was changed"]);
}

#[test]
fn sealing_that_was_interrupted_is_said_again() {
    let tpm = Swtpm::on_port();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    Server::init(&path);
    let at = |name: &str| path.join(name);
    let traces = traces(&path);
    // Before the sealed file is in its place: the key has two names.
    fs::hard_link(at("release.key"), at("release.key.plain")).unwrap();
    fs::write(at("release.key.sealing"), "{").unwrap();
    let pem = fs::read(at("release.key")).unwrap();
    sealed(&path, &tpm, &["--recovery", text(&dir.path().join("recovery"))]);
    assert_eq!(files_with(&path, &traces), Vec::<PathBuf>::new());
    assert!(!at("release.key.plain").exists() && !at("release.key.sealing").exists());
    // After it.
    fs::write(at("release.key.plain"), &pem).unwrap();
    fs::set_permissions(at("release.key.plain"), fs::metadata(at("release.key")).unwrap().permissions())
        .unwrap();
    let why = refusal(&path);
    assert!(
        why.contains("release.key.plain") && why.contains("say halfkey-verifier seal-keys again"),
        "{why}"
    );
    assert!(sealed(&path, &tpm, &["--no-recovery"]).contains("nothing to seal"));
    assert_eq!(files_with(&path, &traces), Vec::<PathBuf>::new());
    assert!(!at("release.key.plain").exists());
}

#[tokio::test]
async fn a_sealed_cluster_key_is_rotated_and_never_there_as_it_is() {
    let tpm = Swtpm::on_port();
    let mut server = Server::start();
    let node = enrolled_and_allowed(&server).await;
    let state = server.state().to_owned();
    let step = |step: &str| command(&["cluster-key", step, "--state", text(&state)]);
    let (stale, within) = (state.with_file_name("stale"), state.with_file_name("within"));
    sealed(&state, &tpm, &["--recovery", text(&stale), "--pcrs", "16"]);
    step("new");
    assert_eq!(form(Kind::Cluster, &state.join("cluster.key.new")), KeyForm::Tpm);
    for next in ["use", "drop"] {
        assert_eq!(server.stop(), Some(0));
        server.serve();
        boots(&node, &server).await;
        for name in ["cluster.key.old", "cluster.key.used"] {
            if let Ok(file) = File::options().write(true).open(state.join(name)) {
                file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
            }
        }
        step(next);
        if next == "use" {
            command(&["unseal-keys", "--state", text(&state), "--out", text(&within)]);
        }
    }
    assert_eq!(server.stop(), Some(0));
    server.serve();
    boots(&node, &server).await;
    assert_eq!(form(Kind::Cluster, &state.join("cluster.key")), KeyForm::Tpm);
    assert_eq!(server.stop(), Some(0));
    // One of within it has the key of before, which was dropped: that stays so.
    sealed(&state, &tpm, &["--from", text(&within)]);
    assert!(within.join("cluster.key.old").exists() && !state.join("cluster.key.old").exists());
    // A copy of before the rotation, and one of another deployment, take no key's place.
    let elsewhere = state.with_file_name("elsewhere");
    Server::init(&elsewhere);
    for (copy, name) in [(&stale, "cluster.key"), (&elsewhere, "release.key")] {
        let before = fs::read(state.join(name)).unwrap();
        let (done, why) = seal(&state, &tpm, &["--from", text(copy)]);
        let found =
            format!("{}: expected the key that {}", copy.join(name).display(), state.join(name).display());
        assert!(!done && why.contains(&found) && why.contains("hint: "), "{why}");
        assert_eq!(fs::read(state.join(name)).unwrap(), before);
    }
    // The new one is bound to the same PCRs, and so is a copy that is sealed because they have changed.
    let copy = state.with_file_name("copy");
    command(&["unseal-keys", "--state", text(&state), "--out", text(&copy)]);
    for again in [true, false] {
        tpm.measure(16, b"another start");
        let why = refusal(&state);
        assert!(why.contains("cluster.key") && why.contains("PCRs are not what they were"), "{why}");
        assert!(why.contains("seal-keys --from FOLDER"), "{why}");
        if again {
            sealed(&state, &tpm, &["--from", text(&copy)]);
            server.serve();
            boots(&node, &server).await;
            assert_eq!(server.stop(), Some(0));
        }
    }
}

#[tokio::test]
async fn a_backup_is_restored_here_and_with_the_recovery_copy_elsewhere() {
    let (tpm, other) = (Swtpm::on_port(), Swtpm::on_port());
    let mut server = Server::start();
    let node = enrolled_and_allowed(&server).await;
    let dir = server.dir.path().to_owned();
    let (recovery, copy) = (dir.join("recovery"), dir.join("copy"));
    let traces = traces(server.state());
    sealed(server.state(), &tpm, &["--recovery", text(&recovery)]);
    assert_eq!(server.stop(), Some(0));
    command(&["backup", "--state", text(server.state()), "--out", text(&copy)]);
    assert_eq!(files_with(&copy, &traces), Vec::<PathBuf>::new());
    let here = dir.join("here");
    command(&["restore", "--from", text(&copy), "--state", text(&here)]);
    let restored = Server::on(tempfile::tempdir().unwrap(), &here, &[]);
    boots(&node, &restored).await;

    // As on another host.
    StateDir::new(&copy).set(&[("tpm", &other.tcti())]).unwrap();
    let there = dir.join("there");
    let (done, why) = run(&["restore", "--from", text(&copy), "--state", text(&there)]);
    assert!(!done && why.contains("sealed by another TPM"), "{why}");
    assert!(!there.join("cluster.key").exists());
    command(&["restore", "--from", text(&copy), "--state", text(&there), "--keys", text(&recovery)]);
    assert_eq!(files_with(&there, &traces), Vec::<PathBuf>::new());
    let elsewhere = Server::on(tempfile::tempdir().unwrap(), &there, &[]);
    boots(&node, &elsewhere).await;
}

#[tokio::test]
async fn each_replica_has_keys_that_its_own_tpm_has_sealed() {
    let (tpm, other) = (Swtpm::on_port(), Swtpm::on_port());
    let mut first = Server::over(&Postgres::shared().database());
    let node = enrolled_and_allowed(&first).await;
    let traces = traces(first.state());
    sealed(first.state(), &tpm, &["--no-recovery"]);
    assert_eq!(first.stop(), Some(0));
    first.serve();
    // docs/service.md, "Keys that a TPM seals".
    let keys = first.dir.path().join("keys");
    command(&["unseal-keys", "--state", text(first.state()), "--out", text(&keys)]);
    assert_eq!(files_with(&keys, &traces).len(), 2);
    let mut second = first.replica_with(|state| drop(sealed(state, &other, &["--from", text(&keys)])));
    assert_eq!(files_with(second.state(), &traces), Vec::<PathBuf>::new());
    for [one, another] in [[&first, &second], [&second, &first]] {
        node.reboot();
        let session = node.begin(&one.anybody(), "boot").await.unwrap();
        let verdict: Verdict =
            post(&another.anybody(), "/v1/finish", &node.evidence("boot", &session)).await.unwrap();
        assert_eq!(said(&verdict), "released");
    }
    // A new cluster key goes the same way.
    command(&["cluster-key", "new", "--state", text(first.state())]);
    let new = first.dir.path().join("new");
    command(&["unseal-keys", "--state", text(first.state()), "--out", text(&new)]);
    fs::remove_file(new.join("release.key")).unwrap();
    fs::remove_file(new.join("cluster.key")).unwrap();
    sealed(second.state(), &other, &["--from", text(&new)]);
    for server in [&mut first, &mut second] {
        assert_eq!(server.stop(), Some(0));
        server.serve();
        command(&["cluster-key", "use", "--state", text(server.state())]);
        assert_eq!(server.stop(), Some(0));
        server.serve();
    }
    boots(&node, &first).await;
    boots(&node, &second).await;
}

#[tokio::test]
async fn a_release_key_signs_in_the_tpm_as_fast_as_is_demanded() {
    let tpm = Swtpm::on_port();
    let mut server = Server::start();
    let node = enrolled_and_allowed(&server).await;
    let (state, recovery) = (server.state().to_owned(), server.dir.path().join("recovery"));
    let traces = traces(&state);
    assert_eq!(server.stop(), Some(0));
    sealed(&state, &tpm, &["--sign", "--recovery", text(&recovery)]);
    assert_eq!(form(Kind::Release, &state.join("release.key")), KeyForm::TpmSign);
    assert_eq!(form(Kind::Cluster, &state.join("cluster.key")), KeyForm::Tpm);
    assert_eq!(files_with(&state, &traces), Vec::<PathBuf>::new());
    let toml = state.join("halfkey-verifier.toml");
    let settings = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, format!("min_rate = {}\n{settings}", u32::MAX)).unwrap();
    let why = refusal(&state);
    assert!(why.contains("expected at least 4294967295 signatures a second (min_rate), found "), "{why}");
    assert!(why.contains("hint: each boot takes one"), "{why}");

    // However slow this machine is.
    fs::write(&toml, format!("min_rate = 0\n{settings}")).unwrap();
    server.serve();
    assert!(server.log().contains("the release key is in the TPM"), "{}", server.log());
    boots(&node, &server).await;
    boots(&node, &server).await;
    assert_eq!(server.stop(), Some(0));
    let keys = server.dir.path().join("keys");
    let (done, said) = run(&["unseal-keys", "--state", text(&state), "--out", text(&keys)]);
    assert!(done && said.contains("does not come out"), "{said}");
    assert!(!keys.join("release.key").exists() && keys.join("cluster.key").exists());
    // A copy of other keys leaves it there.
    sealed(&state, &tpm, &["--from", text(&keys)]);
    assert_eq!(form(Kind::Release, &state.join("release.key")), KeyForm::TpmSign);
    server.serve();
    boots(&node, &server).await;
    assert_eq!(server.stop(), Some(0));
    // Sealed only: by the copy alone.
    let (done, why) = seal(&state, &tpm, &["--no-recovery"]);
    assert!(!done && why.contains("does not come out of it") && why.contains("hint: "), "{why}");
    sealed(&state, &tpm, &["--from", text(&recovery)]);
    server.serve();
    boots(&node, &server).await;
}
