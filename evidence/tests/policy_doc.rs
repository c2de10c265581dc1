//! docs/policy.md: each example in it is what it says it is.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::boots::Appraised as _;
use halfkey_evidence::policy::{Additions, Policy};

const PAGE: &str = include_str!("../../docs/policy.md");

/// The fenced blocks of the page: what stands after the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    let mut rest = PAGE;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (info, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("```").unwrap();
        blocks.push((info, text));
        rest = after;
    }
    blocks
}

/// The complete example up to its first `[[boot]]`.
fn head() -> &'static str {
    let (_, text) = blocks().into_iter().find(|(info, _)| *info == "toml").unwrap();
    text.split_once("[[boot]]").unwrap().0
}

#[test]
fn every_example_is_what_the_page_says() {
    let blocks = blocks();
    let (_, complete) = blocks.iter().find(|(info, _)| *info == "toml").unwrap();
    let mut seen = 0;
    for (index, (info, text)) in blocks.iter().enumerate() {
        let (document, wrong) = match *info {
            "toml" | "toml wrong" => ((*text).to_owned(), info.ends_with("wrong")),
            "toml boot" => (format!("{complete}\n{text}"), false),
            "toml ima" => {
                let no = "required = [\"systemd.import_credentials=no\"";
                (format!("{}\n{text}", complete.replace(no, &format!("{no}, \"ima_policy=tcb\""))), false)
            }
            "toml wrong boot" => (format!("{}\n{text}", head()), true),
            "toml additions" => {
                let additions =
                    Additions::parse(text).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
                let policy = Policy::parse(complete).unwrap();
                assert_eq!(policy.with(&additions).name(), "web servers");
                seen += 1;
                continue;
            }
            "sh" | "text" => continue,
            other => panic!("an example of another kind: {other}"),
        };
        seen += 1;
        let parsed = Policy::parse(&document);
        if !wrong {
            parsed.unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
            continue;
        }
        let problems = parsed.unwrap_err();
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let ("text", messages) = blocks[index + 1] else { panic!("no message after\n{text}") };
        for message in messages.lines() {
            assert!(shown.iter().any(|problem| problem.contains(message)), "{message}\n{shown:#?}");
        }
    }
    assert!(seen >= 9, "{seen} examples");
}

/// Digests as the page shortens them.
fn short(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut short = parts.next().unwrap().to_owned();
    for part in parts {
        short.push_str(&format!("sha256:{}…{}", &part[..4], &part[64..]));
    }
    short
}

#[test]
fn a_denial_looks_as_the_page_shows_it() {
    let boot = common::boots::boot("uki-secure-boot-own-keys");
    let text = boot.learned();
    let text = text.replace("name = \"linux-6.1.0-55-cloud-amd64.efi\"", "name = \"6.1.0-54\"");
    let text = text.replace("authenticode = [\"sha256:6062", "authenticode = [\"sha256:6162");
    let findings = boot.judge(&Policy::parse(&text).unwrap()).findings;
    assert_eq!(findings.len(), 1);
    let shown = short(&findings[0].to_string());
    assert!(PAGE.lines().any(|line| line == shown), "{shown}");
}

#[test]
fn every_key_of_the_schema_is_in_the_table() {
    // The schema's own list of keys, from its messages about unknown ones. A new table needs an `x = 1` here.
    let unknown = "x = 1\n[secure_boot]\nx = 1\n[firmware]\nx = 1\n[tpm]\nx = 1\n[command_line]\nx = 1\n[trust_root_with_next_boot]\nx = 1\n[ima]\nx = 1\n[[ima.list]]\nx = 1\n[[ima.signer]]\nx = 1\n[[ima.buffer]]\nx = 1\n[[boot]]\nx = 1\n[[boot.image]]\nx = 1\n[[event]]\nx = 1\n";
    let problems = Policy::parse(unknown).unwrap_err();
    let mut keys = 0;
    for problem in problems.iter().filter(|problem| problem.message.starts_with("unknown key")) {
        let (_, known) = problem.hint.as_deref().unwrap().split_once("known here: ").unwrap();
        for key in known.split(", ") {
            keys += 1;
            let ways = [format!("`{key}`"), format!(".{key}`"), format!("[{key}]`"), format!("{key}]]`")];
            assert!(
                ways.iter().any(|way| PAGE.contains(way)),
                "expected {key} in the table \"Every key\" of docs/policy.md, found none"
            );
        }
    }
    assert!(keys > 30, "{keys}");
}
