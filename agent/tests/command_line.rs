//! The command line: what is parsed, what help, man page and completions say of it, all from one definition.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

use halfkey_agent::cli::defs::{COMMANDS, Cmd, EXIT_CODES, GLOBAL, Opt, Takes};
use halfkey_agent::cli::{self, Command, completions, help, man, parse};
use halfkey_agent::error::{Error, Kind, Result};
use halfkey_testkit::golden;
use proptest::prelude::*;
use std::ffi::OsString;

fn parsed(line: &str) -> Result<Command> {
    parse(line.split_whitespace().map(OsString::from), None)
}

fn refused(line: &str) -> Error {
    let error = parsed(line).expect_err(line);
    assert_eq!(error.kind, Kind::Usage, "{line}: {error}");
    error
}

fn share(name: &str) -> String {
    format!("{}/share/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What a command can't do without.
fn least(command: &Cmd) -> String {
    match command.name {
        "enroll" => "--server https://a:1 --ca /dev/null --tenant-key sha256:00 /dev/null".to_owned(),
        "unbind" => "/dev/null".to_owned(),
        "fence-exec" | "before" => "true".to_owned(),
        _ => String::new(),
    }
}

fn value(option: &Opt) -> &'static str {
    match (option.name, option.takes) {
        ("server" | "registrar", _) => "https://b:2",
        ("timeout", _) => "77",
        ("ca", _) => "Cargo.toml",
        ("tpm", _) => "swtpm:127.0.0.1:77",
        (_, Takes::Nothing) => "",
        (_, Takes::Device(_) | Takes::File(_)) => "/dev/zero",
        (_, Takes::Folder(_) | Takes::Text(_)) => "other",
        (_, Takes::Program(_)) => "true --json",
    }
}

#[test]
fn help_is_as_it_was_read_last() {
    let mut pages = vec![help::program()];
    pages.extend(COMMANDS.iter().map(help::command));
    for page in &pages {
        assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
    }
    golden::check(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/help.txt"),
        &pages.join("\n--------\n\n"),
    );
    for line in ["", "--help", "-h", "help"] {
        assert!(matches!(parsed(line), Ok(Command::Print(text)) if text == pages[0]), "{line}");
    }
    for (command, page) in COMMANDS.iter().zip(&pages[1..]) {
        let line = format!("{} --help", command.name);
        assert!(matches!(parsed(&line), Ok(Command::Print(text)) if text == *page), "{line}");
    }
}

/// Every option changes what is asked for, so none of the definition is there in vain, and stands wherever people look.
#[test]
fn each_option_is_parsed_and_in_help_man_page_and_completions() {
    let (page, bash, zsh, fish) = (man::page(), completions::bash(), completions::zsh(), completions::fish());
    for command in COMMANDS {
        let least = least(command);
        let without = format!("{:?}", parsed(&format!("{} {least}", command.name)).expect(command.name));
        let help = help::command(command);
        for option in command.options.iter().chain(GLOBAL) {
            let spelled = option.spelled();
            let shown = if GLOBAL.iter().any(|global| global.name == option.name) {
                help::program()
            } else {
                help.clone()
            };
            assert!(shown.contains(&format!("  {spelled}")), "{spelled}: {shown}");
            assert!(page.contains(&format!(".B {}\n", spelled.replace('-', "\\-"))), "{spelled}");
            for script in [&bash, &zsh] {
                assert!(script.contains(&format!("--{}", option.name)), "{spelled}");
            }
            assert!(fish.contains(&format!("-l {} ", option.name)), "{spelled}");
            if let Takes::Program(_) = command.operands {
                // What follows is the program's.
                continue;
            }
            let with = match option.name {
                "initrd" | "cmdline" => format!("--kernel /dev/zero --{} {}", option.name, value(option)),
                name => format!("{least} --{name} {}", value(option)),
            };
            let with = parsed(&format!("{} {with}", command.name)).expect(&with);
            // What no TPM is needed for takes the option of all commands, and that is all.
            let in_vain = matches!((command.name, option.name), ("unbind" | "look", "tpm"));
            assert_eq!(format!("{with:?}") == without, in_vain, "{} --{}", command.name, option.name);
        }
        for usage in command.usage {
            assert!(usage.starts_with(command.name), "{usage}");
            for word in usage.split([' ', '[', ']']).filter_map(|word| word.strip_prefix("--")) {
                assert!(command.option(word).is_some(), "{usage}: --{word}");
            }
        }
    }
}

#[test]
fn exit_codes_of_the_program_are_those_of_the_help() {
    let mut codes: Vec<u8> = Kind::ALL.iter().map(|kind| kind.exit_code()).chain([0]).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes, EXIT_CODES.iter().map(|(code, _)| *code).collect::<Vec<_>>());
}

#[test]
fn what_is_mistyped_is_answered_with_what_was_meant() {
    for (line, said, hint) in [
        ("unlok", "expected a command, found 'unlok'", "halfkey-agent unlock? halfkey-agent --help lists"),
        ("frobnicate", "expected a command, found 'frobnicate'", "halfkey-agent --help"),
        ("--versoin", "expected an option, found '--versoin'", "halfkey-agent --help"),
        (
            "unlock --dryrun",
            "unlock: expected an option, found '--dryrun'",
            "--dry-run? halfkey-agent unlock",
        ),
        (
            "unlock --dry",
            "unlock: expected an option, found '--dry'",
            "--dry-run? halfkey-agent unlock --help",
        ),
        ("enroll --root", "enroll: expected an option, found '--root'", "--root-elsewhere? halfkey-agent"),
        ("unlock --zzz", "unlock: expected an option, found '--zzz'", "halfkey-agent unlock --help"),
        ("status -j", "status: expected an option, found '-j'", "halfkey-agent status --help"),
        ("unlock x", "unlock: expected an option, found 'x'", "halfkey-agent unlock --help"),
        ("unlock --json=x", "unlock: unexpected argument for option '--json': \"x\"", "halfkey-agent unlock"),
        ("unlock --device", "unlock: missing argument for option '--device'", "halfkey-agent unlock --help"),
        ("enroll", "enroll: expected --ca FILE, found none", "halfkey-agent enroll --help"),
        ("fence-exec", "fence-exec: expected a program, found none", "halfkey-agent fence-exec --help"),
        ("gate --exec", "gate: expected a program, found none", "halfkey-agent gate --help"),
        ("unbind", "unbind: expected at least one LUKS2 device, found none", "halfkey-agent unbind --help"),
        ("before", "before: expected the name of a unit, found none", "halfkey-agent before --help"),
        (
            "before a b \u{1b}[2J",
            "before: expected a name and an instance, found '\\u{1b}[2J' as well",
            "halfkey-agent",
        ),
        (
            "fence --passphrase a --shell b",
            "fence: expected one of --passphrase",
            "halfkey-agent fence --help",
        ),
        ("gate --look --exec true", "gate: expected one of --look and --exec", "halfkey-agent gate --help"),
        ("unlock --timeout 0", "expected seconds from 1 to 604800, found '0'", "halfkey-agent --help"),
    ] {
        let error = refused(line);
        assert!(error.message.starts_with(said), "{line}: {error}");
        assert!(
            error.hint.as_deref().is_some_and(|found| found.starts_with(hint)),
            "{line}: {:?}",
            error.hint
        );
    }
}

#[test]
fn man_page_and_completions_are_those_of_the_definition() {
    golden::check(share("man/man8/halfkey-agent.8"), &man::page());
    golden::check(share("bash-completion/completions/halfkey-agent"), &completions::bash());
    golden::check(share("zsh/site-functions/_halfkey-agent"), &completions::zsh());
    golden::check(share("fish/vendor_completions.d/halfkey-agent.fish"), &completions::fish());
}

/// What bash offers behind this line; its last word is the one that is being typed.
fn completed(words: &[&str]) -> Vec<String> {
    let script = "set -u; source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _halfkey_agent; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let file = share("bash-completion/completions/halfkey-agent");
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", script, "bash", &file, "halfkey-agent"]).args(words);
    let ran = bash.output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    let out = String::from_utf8(ran.stdout).unwrap();
    out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_it() {
    assert_eq!(completed(&["un"]), ["unlock", "unbind"]);
    assert_eq!(completed(&["--t"]), ["--tpm"]);
    assert_eq!(completed(&["fence"]), ["fence", "fence-exec"]);
    assert_eq!(completed(&["--tpm", "/dev/tpm0", "stat"]), ["status"]);
    assert_eq!(completed(&["unlock", "--d"]), ["--dry-run", "--device"]);
    assert_eq!(completed(&["propose", "--json", "--quiet"]), ["--quiet-if-not-enrolled"]);
    assert!(completed(&["enroll", "--ca", "/etc/host"]).contains(&"/etc/hosts".to_owned()));
    assert_eq!(completed(&["status", "/dev/nul"]), ["/dev/null"]);
    // A text, and what takes nothing, has no completion.
    assert!(
        completed(&["unlock", "--timeout", "1"]).is_empty() && completed(&["unlock", "/dev/nul"]).is_empty()
    );
    assert!(completed(&["gate", "--exec", "bas"]).contains(&"bash".to_owned()));
}

/// Options, commands and values as they are, cut or mixed.
fn words() -> impl Strategy<Value = String> {
    let known: Vec<String> = COMMANDS
        .iter()
        .flat_map(|command| command.options.iter().chain(GLOBAL).map(|option| format!("--{}", option.name)))
        .chain(COMMANDS.iter().map(|command| command.name.to_owned()))
        .chain(["--help", "--", "-h", "-", "=", "--json=", "7", "/dev/null", "é", ""].map(str::to_owned))
        .collect();
    let cut = (prop::sample::select(known.clone()), any::<prop::sample::Index>()).prop_map(|(word, at)| {
        word.char_indices()
            .map(|(at, _)| at)
            .nth(at.index(word.len().max(1)))
            .map_or(word.clone(), |at| word[..at].into())
    });
    prop_oneof![3 => prop::sample::select(known), 1 => cut, 1 => "\\PC{0,60}"]
}

proptest! {
    #[test]
    fn any_command_line_is_read_or_refused(
        command in prop::sample::select(COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>()),
        words in prop::collection::vec(words(), 0..7),
        bytes in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        use std::os::unix::ffi::OsStringExt;
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let odd = OsString::from_vec(bytes);
        for line in [
            [&words[..], std::slice::from_ref(&odd)].concat(),
            [&[OsString::from(command)], &words[..]].concat(),
            [&[OsString::from(command)], &words[..], &[odd]].concat(),
        ] {
            if let Err(error) = cli::parse(line, None) {
                prop_assert!(error.message.len() < 1000 && !error.message.contains(['\n', '\u{1b}']), "{error:?}");
            }
        }
    }
}
