//! Each attack of docs/threat-model.md is shown by a test or a scenario that exists; so is what docs/accepting.md names.

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

/// Every Rust file of the tree, by its path in it.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec![tree().to_path_buf()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.is_file() && (name.ends_with(".rs") || name == "module-setup.sh") {
                let inside = path.strip_prefix(tree()).unwrap().to_string_lossy().into_owned();
                found.push((inside, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// Each way to get a yes names code that does it, and tests, that exist. `FILE::{a, b}` is two names; a file may be named by its last parts.
#[test]
fn what_accepts_is_where_the_page_says() {
    let page = std::fs::read_to_string(tree().join("docs/accepting.md")).unwrap();
    let sources = sources();
    let named: Vec<_> = quoted(&page).into_iter().filter_map(|name| name.split_once("::")).collect();
    assert!(named.len() > 60, "{} names", named.len());
    for (file, names) in named {
        let holds = |path: &str| path == file || path.ends_with(&format!("/{file}"));
        let texts: Vec<&String> =
            sources.iter().filter(|(path, _)| holds(path)).map(|(_, text)| text).collect();
        assert!(!texts.is_empty(), "there is no {file}");
        let word = |char: char| char.is_ascii_alphanumeric() || char == '_';
        for name in names.split(|char| !word(char)).filter(|name| !name.is_empty()) {
            let has = |text: &&String| text.split(|char| !word(char)).any(|found| found == name);
            assert!(texts.iter().any(has), "there is no {name} in {file}");
        }
    }
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
