//! `halfkey eventlog`: logs from files, without a server.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::node::software;
use common::{Workstation, golden};
use halfkey_testkit::log::{Record, log_of};
use halfkey_testkit::software::Software;
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

fn records() -> Vec<Record> {
    let software = software("6.1", "root=/dev/mapper/root quiet");
    Software { path: "\\EFI\\debian\\vmlinuz".into(), ..software }.records()
}

/// With SHA-256 only.
fn log() -> Vec<u8> {
    log_of(&records())
}

fn saved(workstation: &Workstation, name: &str, bytes: &[u8]) -> String {
    let path = workstation.path(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_log_is_read_and_replayed() {
    let workstation = Workstation::new();
    let path = saved(&workstation, "log.bin", &log());
    golden::check("eventlog.txt", &workstation.ok(&["eventlog", &path]).stdout);
    let json: Value = serde_json::from_str(&workstation.ok(&["eventlog", &path, "--json"]).stdout).unwrap();
    assert_eq!(json["format"], "crypto_agile");
    assert_eq!(json["banks"][0]["bank"], "sha256");
    let kernel = &json["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["pcr"] == 4 && e["standing"] == "opaque")
        .unwrap();
    assert!(kernel["what"].as_str().unwrap().contains("vmlinuz"), "{kernel}");
    assert_eq!(kernel["kind"], "EV_EFI_BOOT_SERVICES_APPLICATION");
    // What a replay gives is what a TPM would have.
    let mut pcr4 = vec![0; 32];
    for record in records().iter().filter(|record| record.pcr == 4) {
        pcr4 = halfkey_protocol::tpm::kdf::Hash::Sha256.digest(&[&pcr4, &record.digest]);
    }
    let pcrs = json["banks"][0]["pcrs"].as_array().unwrap();
    let value = pcrs.iter().find(|pcr| pcr["pcr"] == 4).unwrap()["value"].as_str().unwrap();
    assert_eq!(value, halfkey::render::text::hex(&pcr4));
}

#[test]
fn standard_input_is_a_file_too() {
    let workstation = Workstation::new();
    let mut child = workstation
        .command(&["eventlog", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&log()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["events"].is_array());
}

#[test]
fn what_is_no_log_is_refused_with_a_word() {
    let workstation = Workstation::new();
    let log = log();
    let mut said = String::new();
    for (name, bytes) in [
        ("empty", &[][..]),
        ("truncated", &log[..log.len() - 1]),
        ("text", b"this is not a log, it is text that is long enough"),
    ] {
        let path = saved(&workstation, name, bytes);
        for json in [&[][..], &["--json"]] {
            let ran = workstation.run(&[&["eventlog", &path], json].concat());
            assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{name}: {ran:?}");
            if json.is_empty() {
                said.push_str(&format!("# {name}\n{}\n", ran.stderr.replace(&path, "FILE")));
            }
        }
    }
    let big = saved(&workstation, "big", &[]);
    std::fs::File::options().write(true).open(&big).unwrap().set_len(20 << 20).unwrap();
    for path in [big.as_str(), "/nonexistent/log"] {
        let ran = workstation.run(&["eventlog", path]);
        assert_eq!(ran.code, 2, "{ran:?}");
        said.push_str(&format!(
            "# {}\n{}\n",
            path.replace(&big, "too large"),
            ran.stderr.replace(&big, "FILE")
        ));
    }
    golden::check("eventlog-errors.txt", &said);
}

#[test]
fn hostile_text_moves_no_cursor() {
    let workstation = Workstation::new();
    // GRUB's text is whatever a boot entry says.
    let mut log = log();
    let at = log.windows(7).position(|window| window == b"Calling").unwrap();
    log[at..at + 4].copy_from_slice(b"\x1b[2J");
    let path = saved(&workstation, "log.bin", &log);
    let ran = workstation.ok(&["eventlog", &path]);
    assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
}
