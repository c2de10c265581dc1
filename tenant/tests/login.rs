//! `halfkey login` and `halfkey key`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Workstation, golden, mode};
use halfkey_testkit::pki::Pki;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn bundle(pki: &Pki) -> serde_json::Value {
    serde_json::from_str(&pki.bundle(&["https://verifier.example:8443".into()])).unwrap()
}

#[test]
fn login_keeps_everything_private_and_prints_the_tenant_key() {
    let pki = Pki::new();
    let workstation = Workstation::new();
    let ran = workstation.login(&bundle(&pki).to_string(), &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("created the tenant key"), "{ran:?}");
    assert_eq!(mode(&workstation.home()), 0o700);
    for name in ["tenant.key", "operator.bundle"] {
        assert_eq!(mode(&workstation.home().join(name)), 0o600, "{name}");
    }
    let key = workstation.ok(&["key"]).stdout;
    assert!(key.starts_with("sha256:") && key.trim().len() == 71, "{key}");
    assert!(ran.stdout.contains(key.trim()));
    let json: serde_json::Value = serde_json::from_str(&workstation.ok(&["key", "--json"]).stdout).unwrap();
    assert_eq!(json["tenant_key"], key.trim());

    // Again: the same key.
    let again = workstation.login(&bundle(&pki).to_string(), &["--json"]);
    assert!(!again.stderr.contains("created"), "{again:?}");
    let json: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((json["tenant_key"].as_str(), json["operator"].as_str()), (Some(key.trim()), Some("alice")));
    assert!(!again.stdout.contains("PRIVATE") && !again.stderr.contains("PRIVATE"));
}

#[test]
fn openssl_reads_the_tenant_key() {
    let workstation = Workstation::logged_in(&bundle(&Pki::new()).to_string());
    let made = Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(workstation.home().join("tenant.key"))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = &made.stdout[made.stdout.len() - 32..];
    assert_eq!(halfkey_protocol::identity::fingerprint(public), workstation.ok(&["key"]).stdout.trim());
}

#[test]
fn another_servers_bundle_does_not_slip_in() {
    let (first, second) = (Pki::new(), Pki::new());
    let workstation = Workstation::logged_in(&bundle(&first).to_string());
    let key = workstation.ok(&["key"]).stdout;
    let refused = workstation.login(&bundle(&second).to_string(), &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("--replace"), "{refused:?}");
    assert_eq!(
        workstation.login(&bundle(&first).to_string(), &[]).code,
        0,
        "a new certificate of the same server"
    );
    assert_eq!(workstation.login(&bundle(&second).to_string(), &["--replace"]).code, 0);
    assert_eq!(workstation.ok(&["key"]).stdout, key, "the tenant key stays");
}

#[test]
fn what_is_wrong_with_a_bundle_or_a_home_is_said() {
    let pki = Pki::new();
    let workstation = Workstation::new();
    let mut said = String::new();
    let mut say = |title: &str, code: i32, stderr: String| {
        let stderr = stderr.replace(workstation.dir.path().to_str().unwrap(), "DIR");
        said.push_str(&format!("# {title}: exit {code}\n{stderr}\n"));
    };
    for (title, field, value) in [
        ("newer version", "version", serde_json::json!(2)),
        ("no server", "servers", serde_json::json!([])),
        ("plain http", "servers", serde_json::json!(["http://verifier:80"])),
        ("escape sequence in a url", "servers", serde_json::json!(["https://v\u{1b}[2J"])),
        ("no ca", "ca", serde_json::json!("")),
        ("two cas", "ca", serde_json::json!(format!("{0}{0}", pki.ca_pem))),
        ("another key", "key", serde_json::json!(pki.operator("eve").key_pem())),
        ("no key", "key", serde_json::json!("x")),
    ] {
        let mut bundle = bundle(&pki);
        bundle[field] = value;
        let ran = workstation.login(&bundle.to_string(), &[]);
        say(title, ran.code, ran.stderr);
    }
    let ran = workstation.login("{\"key\": \"secret\"", &[]);
    assert!(!ran.stderr.contains("secret"));
    say("half a file", ran.code, ran.stderr);
    let ran = workstation.run(&["login", "/nonexistent"]);
    say("no file", ran.code, ran.stderr);
    let ran = workstation.run(&["key"]);
    say("no key yet", ran.code, ran.stderr);
    let ran = workstation.run(&["nodes"]);
    say("not logged in", ran.code, ran.stderr);

    assert_eq!(workstation.login(&bundle(&pki).to_string(), &[]).code, 0);
    let key = workstation.home().join("tenant.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = workstation.run(&["key"]);
    say("a key that others can read", ran.code, ran.stderr);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "garbage").unwrap();
    let ran = workstation.login(&bundle(&pki).to_string(), &[]);
    say("a damaged key", ran.code, ran.stderr);
    let ran = workstation.command(&["key"]).env_remove("HALFKEY_HOME").env_remove("HOME").output().unwrap();
    say("no home", ran.status.code().unwrap(), String::from_utf8(ran.stderr).unwrap());
    golden::check("login-errors.txt", &said);
}

#[test]
fn help_and_completions_need_no_home() {
    let workstation = Workstation::new();
    let help = workstation.ok(&["--help"]).stdout;
    for needle in ["Exit codes:", "is not encrypted"] {
        assert!(help.contains(needle), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(workstation.ok(&["completions", shell]).stdout.contains("approve"), "{shell}");
    }
    let pages = tempfile::tempdir().unwrap();
    workstation.ok(&["man-pages", pages.path().to_str().unwrap()]);
    let learn = std::fs::read_to_string(pages.path().join("halfkey-policy-learn.1")).unwrap();
    assert!(learn.contains(".TH halfkey-policy-learn 1"), "{learn}");
    assert_eq!(workstation.run(&["evidence"]).code, 2);
    assert_eq!(workstation.run(&["enroll", "web1"]).code, 2, "how the EK is trusted must be said");
    assert_eq!(workstation.run(&["enroll", "web1", "--ek-roots", "x", "--trust-ek", "y"]).code, 2);
    assert!(!workstation.home().exists());
}
