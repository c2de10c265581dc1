//! Rules for kernel command lines, beside their floor ([`halfkey_measure::command_line`]). What is read differently by different
//! programs, a wildcard never stands for.

use super::boot_path::Path;
use super::rules::{Boot, CommandLine, Token};
pub(super) use halfkey_measure::command_line::{
    Floor, IMA_POLICY, MAX_LINE, NO_CREDENTIALS, NO_RUNTIME, Objection, against_ima, forbids, ima_objection,
    is_forbidden, measures_files, normal, parts, tokens,
};
use halfkey_measure::command_line::{is_harmless, same_key};

/// The floor of the lines of a boot.
pub(super) fn floor_of(boot: &Boot, secure_boot: bool) -> Floor {
    let path = Path::of(boot);
    Floor {
        secure_boot,
        names_initrds: path == Path::Kernel && boot.kernel_measures_initrd,
        needs_initrd: path != Path::Uki,
    }
}

/// What a line must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule<'a> {
    /// A boot's own, exactly.
    Own(&'a str),
    /// `[command_line]`
    Shared(&'a CommandLine),
}

/// What a rule, or the floor, has against a line, as it was passed to the kernel.
pub(super) fn objection(rule: Rule<'_>, floor: Floor, line: &str) -> Option<Objection> {
    floor.objection(line).or_else(|| objection_of_rule(rule, line))
}

/// What a rule has against a line.
pub(super) fn objection_of_rule(rule: Rule<'_>, line: &str) -> Option<Objection> {
    match rule {
        Rule::Own(exact) => {
            let (exact, line) = (parts(exact).2, parts(line).2);
            (exact != line).then(|| difference(exact, line))
        }
        Rule::Shared(CommandLine::None) => Some(Objection {
            rule: "exact",
            expected: "a rule for command lines".to_owned(),
            found: "none".to_owned(),
        }),
        Rule::Shared(CommandLine::Exact(lines)) => {
            let (line, exact) = (normal(line), lines.iter().map(|exact| normal(exact)));
            if exact.clone().any(|exact| exact == line) {
                return None;
            }
            // The one that is most like it. None at all accepts nothing.
            Some(difference(exact.max_by_key(|exact| alike(exact, line)).unwrap_or_default(), line))
        }
        Rule::Shared(CommandLine::Tokens { allowed, required, forbidden }) => {
            by_tokens(allowed, required, forbidden, parts(line).2)
        }
    }
}

/// How many words two lines share at the front, and how many at the end.
fn shared_words(exact: &[&str], line: &[&str]) -> (usize, usize) {
    let same = |(one, other): &(&&str, &&str)| one == other;
    let front = exact.iter().zip(line).take_while(same).count();
    let (exact, line) = (&exact[front..], &line[front..]);
    (front, exact.iter().rev().zip(line.iter().rev()).take_while(same).count())
}

fn alike(exact: &str, line: &str) -> usize {
    let words = |line| tokens(line).collect::<Vec<_>>();
    let (front, end) = shared_words(&words(exact), &words(line));
    front + end
}

/// Two lines that are not the same, without what they share at both ends: of a long line one word is to be seen, and it must
/// not be cut off on the console.
fn difference(exact: &str, line: &str) -> Objection {
    let (expected, found): (Vec<_>, Vec<_>) = (tokens(exact).collect(), tokens(line).collect());
    let (front, end) = shared_words(&expected, &found);
    let show = |words: &[&str], whole: &str| {
        let middle = words[front..words.len() - end].join(" ");
        match (words.len() == front + end, expected == found) {
            // But for blanks.
            (_, true) => format!("{whole:?}"),
            (true, _) => "nothing there".to_owned(),
            _ => {
                let (before, after) = (if front > 0 { "… " } else { "" }, if end > 0 { " …" } else { "" });
                format!("{before}{middle}{after}")
            }
        }
    };
    Objection { rule: "exact", expected: show(&expected, exact), found: show(&found, line) }
}

fn by_tokens(allowed: &[Token], required: &[Token], forbidden: &[Token], line: &str) -> Option<Objection> {
    for token in tokens(line) {
        if let Some(pattern) = forbidden.iter().find(|pattern| forbids(&pattern.0, token)) {
            return Some(Objection {
                rule: "forbidden",
                expected: format!("no token {}", pattern.0),
                found: token.to_owned(),
            });
        }
        let literal = |patterns: &[Token]| patterns.iter().any(|pattern| pattern.0 == token);
        if literal(required) || literal(allowed) {
            continue;
        }
        // A second value for what is required would be the one that counts: no wildcard stands for it.
        let overrides = required.iter().any(|required| required.is_literal() && same_key(&required.0, token));
        if overrides || !required.iter().chain(allowed).any(|pattern| pattern.matches(token)) {
            return Some(Objection {
                rule: "allowed",
                expected: "only tokens that are allowed or required".to_owned(),
                found: token.to_owned(),
            });
        }
    }
    let missing = required.iter().find(|required| !tokens(line).any(|token| required.matches(token)))?;
    Some(Objection {
        rule: "required",
        expected: format!("token {}", missing.0),
        found: "none such".to_owned(),
    })
}

impl Token {
    /// Whether it stands for one token only.
    pub fn is_literal(&self) -> bool {
        !self.0.ends_with('*')
    }

    /// Whether it stands for this token.
    pub fn matches(&self, token: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => token.starts_with(prefix) && token[prefix.len()..].chars().all(is_harmless),
            None => self.0 == token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Floor = Floor::of_any(true);

    fn shared(allowed: &[&str], required: &[&str], forbidden: &[&str]) -> CommandLine {
        let tokens = |list: &[&str]| list.iter().map(|text| Token((*text).to_owned())).collect();
        CommandLine::Tokens {
            allowed: tokens(allowed),
            required: tokens(required),
            forbidden: tokens(forbidden),
        }
    }

    fn found(rule: &CommandLine, line: &str) -> Option<(&'static str, String)> {
        let line = format!("{line} systemd.import_credentials=no");
        objection(Rule::Shared(rule), FLOOR, &line).map(|objection| (objection.rule, objection.found))
    }

    #[test]
    fn each_token_needs_a_rule() {
        let rule = shared(&["root=UUID=*", "quiet"], &["ro", NO_CREDENTIALS], &["panic=*"]);
        assert_eq!(found(&rule, "root=UUID=5 ro quiet"), None);
        assert_eq!(found(&rule, "ro debug"), Some(("allowed", "debug".to_owned())));
        assert_eq!(found(&rule, "quiet"), Some(("required", "none such".to_owned())));
        assert_eq!(found(&rule, "ro panic=1"), Some(("forbidden", "panic=1".to_owned())));
        assert_eq!(found(&rule, "BOOT_IMAGE=/vmlinuz ro"), None);
        assert_eq!(found(&rule, "initrd=\\linux\\initrd.img-6.1 ro"), None);
        assert_eq!(found(&rule, "initrd=0x1000,5 ro"), Some(("floor", "initrd=0x1000,5".to_owned())));
    }

    #[test]
    fn wildcards_do_not_stand_for_what_is_read_differently() {
        let rule = shared(&["*"], &["efi=noruntime", NO_CREDENTIALS], &["panic=*"]);
        let objected = |more: &str| found(&rule, &format!("{NO_RUNTIME} {more}")).map(|(rule, _)| rule);
        assert_eq!(objected("anything=else foo.bar-baz=1,2"), None);
        assert_eq!(objected("x=a\\x20b"), Some("allowed"));
        // Nor is what comes behind an open quote a word that is required.
        for token in ["x=\"a", "x='a"] {
            assert_eq!(objected(token), Some("floor"), "{token:?}");
        }
        for token in ["x=\u{a0}rdinit=/bin/sh", "x=\u{b}rdinit=/bin/sh", "x=\u{1}", "x\ny"] {
            assert_eq!(objected(token), Some("floor"), "{token:?}");
        }
        for token in ["x={a", "x=a;b", "x=(a)", "x=%0A", "x=a*", "x=~", "x=!", "x=<a"] {
            assert_eq!(objected(token), Some("allowed"), "{token:?}");
        }
        for word in [
            "memmap=64K$0x18690000",
            "sysctl.kernel.sysrq=1",
            "rd.luks.options=timeout=0,discard",
            "pci=disable_acs_redir=0000:cc:00.0",
            "resume=/dev/sda3",
        ] {
            assert!(FLOOR.objection(&format!("{word} {NO_CREDENTIALS}")).is_none(), "{word}");
        }
        let without = |words: &str| {
            Floor::of_any(false).objection(&format!("{words} {NO_RUNTIME} {NO_CREDENTIALS}")).is_some()
        };
        assert!(without("resume=/dev/sda3") && without("resume=8:3") && without("resume=PARTUUID=1"));
        assert!(!without("resume=/dev/sda3 noresume") && !without("resume=UUID=1"));
        for token in ["memmap=$(a)", "root=UUID=$(mount${IFS}a)", "x=$a", "x=`a`", "root=a;b"] {
            assert_eq!(objected(token), Some("floor"), "{token:?}");
        }
        for token in ["efi=runtime", "efi=debug"] {
            assert_eq!(objected(token), Some("allowed"), "{token}");
        }
        for token in ["panic=1", "\"panic=1\"", "pan'ic'=1"] {
            assert_eq!(objected(token), Some("forbidden"), "{token}");
        }
        for token in [
            "rdinit=/bin/sh",
            "rd.cmdline=ask",
            "systemd.confirm_spawn",
            "systemd.confirm-spawn=yes",
            "rd.systemd.confirm_spawn=1",
            "\"rdinit=/x",
            "--confirm-spawn",
            "--",
            "-b",
            "SYSTEMD_PROC_CMDLINE=x",
            "systemd.import_credentials=yes",
            "systemd.import-credentials=yes",
            "rd.systemd.import_credentials=yes",
        ] {
            assert_eq!(objected(token), Some("floor"), "{token}");
        }
    }

    #[test]
    fn the_floor_holds_for_exact_lines() {
        let without = Floor::of_any(false);
        let line = "root=/dev/x systemd.import_credentials=no";
        assert_eq!(objection(Rule::Own(line), FLOOR, &format!(" {line} \n")), None);
        assert_eq!(
            objection(Rule::Own(line), without, line).map(|found| found.expected),
            Some("token efi=noruntime".into())
        );
        let bare = objection(Rule::Own("quiet"), FLOOR, "quiet").expect("no token of the floor");
        assert_eq!(bare.expected, "token systemd.import_credentials=no");
        // Between quotes it is a part of a longer word.
        let quoted = "x=\"a systemd.import_credentials=no b\"";
        assert!(objection(Rule::Own(quoted), FLOOR, quoted).is_some());
        let unquoted = "dyndbg=\"file a.c +p\" systemd.import_credentials=no y='b c'";
        assert!(objection(Rule::Own(unquoted), FLOOR, unquoted).is_none());
        let other =
            objection(Rule::Own(line), FLOOR, "root=/dev/y systemd.import_credentials=no").expect("another");
        assert_eq!((other.rule, other.found.as_str()), ("exact", "root=/dev/y …"));
        assert!(FLOOR.objection(&"x".repeat(MAX_LINE + 1)).is_some());
    }

    #[test]
    fn the_words_that_differ_are_named() {
        let texts = |exact: &str, line: &str| {
            let Objection { expected, found, .. } = difference(exact, line);
            (expected, found)
        };
        let pair = |expected: &str, found: &str| (expected.to_owned(), found.to_owned());
        assert_eq!(texts("a b c", "a x y c"), pair("… b …", "… x y …"));
        assert_eq!(texts("a a", "a a a"), pair("nothing there", "… a"));
        assert_eq!(texts("a b", "a"), pair("… b", "nothing there"));
        assert_eq!(texts("a b", "b a"), pair("a b", "b a"));
        assert_eq!(texts("a  b", "a b"), pair("\"a  b\"", "\"a b\""));
        assert_eq!(texts("", "a"), pair("nothing there", "a"));

        let line = |rest: &str| format!("{NO_CREDENTIALS} root=x {rest}");
        let either = CommandLine::Exact(vec![line("ro quiet"), line("rw alpha")]);
        let found = objection(Rule::Shared(&either), FLOOR, &line("rw beta")).expect("neither");
        assert_eq!((found.expected.as_str(), found.found.as_str()), ("… alpha", "… beta"));
        assert_eq!(objection(Rule::Shared(&either), FLOOR, &line("rw alpha")), None);
        assert!(objection(Rule::Shared(&CommandLine::Exact(Vec::new())), FLOOR, &line("")).is_some());
    }

    #[test]
    fn addresses_are_no_configuration_of_cloud_init() {
        let of_line = |line: &str| FLOOR.objection(&format!("{line} {NO_CREDENTIALS}"));
        for address in [
            "ifname=net0:cc:00:00:12:34:56",
            "ifname=net0:52:54:00:cc:12:34",
            "BOOTIF=01-cc:1:2",
            "ip=[fe80:cc:1::2]::x",
        ] {
            assert!(of_line(address).is_none(), "{address}");
        }
        for other in [
            "cc:",
            "a=cc:",
            "a=cc:12:",
            "a=cc:bootcmd:x",
            "a=xcc:1",
            "a:cc:12%0Abootcmd:x",
            "acc:1:2",
            "a=cc:1 a=b:%0Abootcmd:x",
        ] {
            assert!(of_line(other).is_some(), "{other}");
        }
    }

    #[test]
    fn what_is_left_out_hides_nothing() {
        let line = "root=/dev/x systemd.import_credentials=no";
        let any = shared(&["*"], &[NO_CREDENTIALS], &[]);
        let refused = |line: &str| {
            [Rule::Own("root=/dev/x systemd.import_credentials=no"), Rule::Shared(&any)]
                .map(|rule| objection(rule, FLOOR, line).is_some())
        };
        for front in ["", "initrd=\\a ", "BOOT_IMAGE=/x ", "BOOT_IMAGE=/x initrd=/a initrd=\\b\\c  "] {
            assert_eq!(refused(&format!("{front}{line}")), [false, false], "{front:?}");
        }
        for front in [
            "initrd=/x\u{a0}rdinit=/bin/sh ",
            "initrd=/x\u{b}rdinit=/bin/sh ",
            "BOOT_IMAGE=/x\u{a0}rdinit=/bin/sh ",
            "BOOT_IMAGE=/x\trdinit=/bin/sh ",
            "BOOT_IMAGE=/x\" ",
            "initrd=\\a\" ",
            "initrd=/a\\ ",
            "BOOT_IMAGE=cc:bootcmd:%20%5B%5D ",
            "BOOT_IMAGE=/x initrd=\\%0Aa ",
            "\n",
        ] {
            assert_eq!(refused(&format!("{front}{line}")), [true, true], "{front:?}");
        }
        assert_eq!(refused(&format!("{}{line}", "initrd=/a ".repeat(17))), [true, true]);
        assert_eq!(refused(&format!("{}{line}", "quiet ".repeat(400))), [true, true]);
        // Only at the front: between quotes it would be part of another token.
        assert!(refused("root=/dev/x initrd=/a systemd.import_credentials=no")[0]);
    }
}
