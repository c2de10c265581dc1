//! Each attack of docs/threat-model.md is shown by a test or a scenario that exists.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

use halfkey_qemu_tests::scenarios::list;
use halfkey_testkit::programs::tree;

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// `a/{b,c}.rs` is two files.
fn files(name: &str) -> Vec<String> {
    match name.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (names, after))) => {
            names.split(',').map(|one| format!("{before}{one}{after}")).collect()
        }
        None => vec![name.to_owned()],
    }
}

/// Whether a file has this test, or any.
fn has_test(file: &str, name: Option<&str>) -> bool {
    let Ok(text) = std::fs::read_to_string(tree().join(file)) else { return false };
    let tests: Vec<&str> = text
        .lines()
        .zip(text.lines().skip(1))
        .filter(|(attribute, _)| matches!(attribute.trim(), "#[test]") || attribute.contains("#[tokio::test"))
        .map(|(_, function)| function.trim().trim_start_matches("async ").trim_start_matches("fn "))
        .collect();
    match name {
        Some(name) => tests.iter().any(|test| test.split('(').next() == Some(name)),
        None => !tests.is_empty(),
    }
}

/// What is wrong with a name of a test, `FILE` or `FILE::FUNCTION`, or of a scenario.
fn wrong(name: &str) -> Option<String> {
    let (file, function) = name.split_once("::").map_or((name, None), |(file, test)| (file, Some(test)));
    if !file.contains('/') {
        return list::find(file).is_none().then(|| format!("there is no scenario {file}"));
    }
    let missing: Vec<_> = files(file).into_iter().filter(|file| !has_test(file, function)).collect();
    (!missing.is_empty()).then(|| format!("there is no test {} in {missing:?}", function.unwrap_or_default()))
}

#[test]
fn every_attack_is_shown_by_a_test_that_exists() {
    let page = std::fs::read_to_string(tree().join("docs/threat-model.md")).unwrap();
    let attacks = page.split("\n## ").find(|section| section.starts_with("Attacks\n")).unwrap();
    let rows: Vec<&str> = attacks.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 60, "the table was not found: {} rows", rows.len());
    let mut all = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [attack, .., shown] = cells[..] else { panic!("{row}") };
        let names = quoted(shown);
        if names.is_empty() {
            all.push(format!("{attack}: nothing shows it"));
        }
        all.extend(names.into_iter().filter_map(wrong).map(|what| format!("{attack}: {what}")));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn a_name_that_is_nobodys_is_noticed() {
    assert_eq!(wrong("cmdline"), None);
    assert_eq!(wrong("agent/tests/{seal,luks}.rs"), None);
    let mine = "qemu-tests/tests/threat_model.rs::a_name_that_is_nobodys_is_noticed";
    assert_eq!(wrong(mine), None);
    for nobody in
        ["no-such-scenario", "agent/tests/{seal,none}.rs", &mine[..mine.len() - 1], "docs/policy.md"]
    {
        assert!(wrong(nobody).is_some(), "{nobody}");
    }
}
