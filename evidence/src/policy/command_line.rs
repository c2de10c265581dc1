//! Rules for kernel command lines.
//!
//! The kernel, systemd and dracut each read the line in their own way: quotes, backslashes and blanks that are not ASCII are
//! split or dropped by one and not by another, `-` and `_` are the same to the kernel and to systemd, and in an initrd systemd
//! takes `rd.systemd.x` for `systemd.x`. A wildcard therefore never stands for a token with such characters, and
//! what is forbidden is compared in a form that has neither difference. A line with anything but printable ASCII and spaces is
//! refused altogether, and so is one that the kernel would cut off: what it cuts off is measured like the rest.

use super::pin::Path;
use super::rules::{Boot, CommandLine, Token};

/// Longest line, in bytes: COMMAND_LINE_SIZE of x86 is 2048 with its NUL, and the smallest of those that matter. The kernel
/// measures a longer one whole, and drops its end.
pub(super) const MAX_LINE: usize = 2047;
/// More files than a boot loader passes on.
const MAX_INITRDS: usize = 16;

const SHELL: &str = "it gives a shell";
const UNIT: &str = "it starts a program or mounts a file system that is in no measured file";

/// What no command line of any policy may have, and why. `*` stands for anything at the end of a word, or at its beginning for
/// anything before the end of a name.
pub(super) const FORBIDDEN: [(&str, &str); 33] = [
    ("rdinit=*", "it starts another program in place of the initrd's init, before anything of halfkey"),
    ("init=*", "it starts another program in place of the system's init"),
    ("rd.cmdline*", "dracut would ask for more options at the console, which nobody measures"),
    ("systemd.confirm_spawn*", "systemd would ask at the console which units to skip"),
    ("SYSTEMD_PROC_CMDLINE*", "it replaces the command line that systemd reads"),
    ("-*", "the kernel passes it to init as an argument"),
    ("*.break", SHELL),
    ("rdbreak", SHELL),
    ("rdbreak=*", SHELL),
    ("systemd.debug_shell*", SHELL),
    ("systemd.crash_shell*", SHELL),
    ("systemd.mount_extra*", UNIT),
    ("systemd.swap_extra*", UNIT),
    ("systemd.run*", UNIT),
    ("systemd.set_credential*", "systemd's credentials start programs and mount file systems"),
    ("systemd.setenv*", "it changes the environment of every program"),
    ("single", SHELL),
    ("s", SHELL),
    ("S", SHELL),
    ("1", SHELL),
    ("emergency", SHELL),
    ("rescue", SHELL),
    ("rd.single", SHELL),
    ("rd.emergency", SHELL),
    ("rd.rescue", SHELL),
    ("kgdb*", "whoever holds the console can change the kernel"),
    ("ekgdb*", "whoever holds the console can change the kernel"),
    ("sysrq_always_enabled*", "whoever holds the console can kill what guards the open disk"),
    ("bootconfig", BOOTCONFIG),
    ("bootconfig=*", BOOTCONFIG),
    ("initrdmem*", "the kernel would take its initrd from memory, where nobody measures it"),
    ("noinitrd", "the kernel would not start its initrd"),
    ("dm_mod.create*", "the kernel would make block devices before the initrd runs"),
];
const BOOTCONFIG: &str = "the kernel would read more options from behind its initrd";
/// `systemd.unit=` and `systemd.wants=` of what gives a shell.
const SHELLS: [&str; 6] =
    ["emergency", "rescue", "debug_shell", "dracut_emergency", "runlevel1.", "breakpoint"];

/// What every command line must have: without it systemd takes credentials from firmware and hypervisor, which nobody
/// measures.
pub(super) const NO_CREDENTIALS: &str = "systemd.import_credentials=no";
/// What it must have unless Secure Boot is required: systemd reads options from EFI variables if Secure Boot is off.
pub(super) const NO_RUNTIME: &str = "efi=noruntime";

/// What every accepted line must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// Secure Boot is required, so [`NO_RUNTIME`] is not.
    pub secure_boot: bool,
    /// A loader's names of files may stand at its front: they are measured, whatever they are.
    pub names_initrds: bool,
    /// The kernel must not be able to mount the root file system by itself: without an initramfs the boot would look the
    /// same.
    pub needs_initrd: bool,
}

/// What a line must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule<'a> {
    /// A boot's own, exactly.
    Own(&'a str),
    /// `[command_line]`
    Shared(&'a CommandLine),
}

/// Why a line is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    /// `required`, `forbidden`, `allowed`, `exact`
    pub rule: &'static str,
    pub expected: String,
    pub found: String,
}

impl Floor {
    /// That of a boot.
    pub fn of(boot: &Boot, secure_boot: bool) -> Self {
        let path = Path::of(boot);
        Self {
            secure_boot,
            names_initrds: path == Path::Kernel && boot.kernel_measures_initrd,
            needs_initrd: path != Path::Uki,
        }
    }

    /// What a line must have whatever it is the line of.
    pub const fn of_any(secure_boot: bool) -> Self {
        Self { secure_boot, names_initrds: true, needs_initrd: false }
    }

    fn required(self) -> impl Iterator<Item = &'static str> {
        [(NO_CREDENTIALS, true), (NO_RUNTIME, !self.secure_boot)]
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(token, _)| token)
    }

    /// What keeps a line below the floor, whatever a policy says.
    pub fn objection(self, line: &str) -> Option<Objection> {
        if line.len() > MAX_LINE {
            return Some(Objection {
                rule: "floor",
                expected: format!("at most {MAX_LINE} bytes"),
                found: line.len().to_string(),
            });
        }
        if let Some(expected) = unreadable(line) {
            return Some(Objection { rule: "floor", expected, found: line.escape_default().to_string() });
        }
        let floor = |expected: String, found: &str| {
            Some(Objection { rule: "floor", expected, found: found.to_owned() })
        };
        // The EFI stub of the kernel looks for it anywhere, also inside of words.
        let rest = if self.names_initrds { parts(line).2 } else { line };
        if let Some(token) = tokens(rest).find(|token| may_name_initrd(token)) {
            return floor(
                "no initrd=: the kernel would load that file, and most kernels do not measure it".to_owned(),
                token,
            );
        }
        for token in tokens(line) {
            if let Some(why) = is_forbidden(token) {
                return floor(format!("no token {token}: {why}"), token);
            }
            if self.needs_initrd && is_root_of_kernel(token) {
                return floor(
                    "root=UUID=.., root=LABEL=.. or root=/dev/mapper/..: the kernel itself could mount this one, without any initramfs".to_owned(),
                    token,
                );
            }
        }
        self.required().find_map(|required| missing_or_contradicted(required, line, "floor"))
    }
}

/// What keeps kernel, systemd and dracut from reading a line as it is read here. Blanks at its end are nobody's business.
fn unreadable(line: &str) -> Option<String> {
    let line = line.trim_ascii_end();
    if line.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
        return Some("printable ASCII and spaces".to_owned());
    }
    let (kernel, initrds, _) = parts(line);
    // What is left out of the comparison must not take its neighbours along.
    let escapes = |token: &str| token.contains(['"', '\'']) || token.ends_with('\\');
    if kernel.is_some_and(escapes) || initrds.split(' ').any(escapes) {
        return Some("names of files without quotes".to_owned());
    }
    (initrds.split(' ').count() > MAX_INITRDS).then(|| format!("at most {MAX_INITRDS} initrds"))
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

/// Whether a line has a token and none that contradicts it.
fn missing_or_contradicted(required: &'static str, line: &str, rule: &'static str) -> Option<Objection> {
    if let Some(other) = tokens(line).find(|token| same_key(required, token) && *token != required) {
        return Some(Objection {
            rule,
            expected: format!("token {required} and no other value"),
            found: other.to_owned(),
        });
    }
    let missing = !tokens(line).any(|token| token == required);
    missing.then(|| Objection { rule, expected: format!("token {required}"), found: "none such".to_owned() })
}

/// The words of a line.
pub(super) fn tokens(line: &str) -> impl Iterator<Item = &str> {
    line.split_ascii_whitespace()
}

/// Without the blanks around it, and without GRUB's word for the kernel's file.
pub(super) fn normal(line: &str) -> &str {
    without_kernel(line).1
}

fn without_kernel(line: &str) -> (Option<&str>, &str) {
    let line = line.trim_ascii();
    if !line.starts_with("BOOT_IMAGE=") {
        return (None, line);
    }
    let (kernel, rest) = line.split_once(' ').unwrap_or((line, ""));
    (Some(kernel), rest.trim_ascii())
}

/// GRUB's word for the kernel's file; the files at the front that a loader passes on for the EFI stub of the kernel to load; and
/// the line itself.
fn parts(line: &str) -> (Option<&str>, &str, &str) {
    let (kernel, line) = without_kernel(line);
    let mut rest = line;
    while names_initrd(rest) {
        rest = rest.split_once(' ').map_or("", |(_, rest)| rest.trim_ascii_start());
    }
    (kernel, line[..line.len() - rest.len()].trim_ascii_end(), rest)
}

/// `initrd=\path`, as systemd-boot writes it for a kernel without LoadFile2: its name follows the kernel's version. Not
/// `initrd=start,size`, which is memory. Left out only where the kernel measures what it names ([`Floor::names_initrds`]).
fn names_initrd(token: &str) -> bool {
    token.strip_prefix("initrd=").is_some_and(|file| file.starts_with(['\\', '/']))
}

impl Token {
    /// Whether it stands for one token only.
    pub fn is_literal(&self) -> bool {
        !self.0.ends_with('*')
    }

    /// Whether it stands for this token.
    pub fn matches(&self, token: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => token.starts_with(prefix) && is_plain(&token[prefix.len()..]),
            None => self.0 == token,
        }
    }
}

/// Whether kernel, systemd and dracut all read it as what it looks like.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\'))
}

/// Why no command line may have a token.
pub(super) fn is_forbidden(token: &str) -> Option<&'static str> {
    if let Some((_, why)) = FORBIDDEN.iter().find(|(pattern, _)| forbids(pattern, token)) {
        return Some(why);
    }
    let unit = ["systemd.unit=", "systemd.wants="]
        .iter()
        .any(|key| SHELLS.iter().any(|shell| forbids(&format!("{key}{shell}*"), token)));
    unit.then_some(SHELL)
}

/// Whether the kernel's EFI stub, or what else reads raw bytes, may find `initrd=` in it.
fn may_name_initrd(token: &str) -> bool {
    token.contains("initrd=")
        || canonical(token).collect::<Vec<_>>().windows(7).any(|bytes| bytes == b"initrd=")
}

/// `root=` of another kind than those that only an initramfs can resolve.
fn is_root_of_kernel(token: &str) -> bool {
    let by_initramfs = ["root=UUID=", "root=LABEL=", "root=/dev/mapper/"];
    same_key("root=", token)
        && !by_initramfs
            .iter()
            .any(|start| token.strip_prefix(start).is_some_and(|name| !name.is_empty() && is_plain(name)))
}

/// Whether a pattern forbids a token, however it is written.
pub(super) fn forbids(pattern: &str, token: &str) -> bool {
    let mut written = canonical(token);
    if let Some(end) = pattern.strip_prefix('*').filter(|end| !end.is_empty() && !end.ends_with('*')) {
        let name: Vec<u8> = written.take_while(|byte| *byte != b'=').collect();
        return name.ends_with(&canonical(end).collect::<Vec<_>>());
    }
    match pattern.strip_suffix('*') {
        Some(prefix) => canonical(prefix).all(|byte| written.next() == Some(byte)),
        None => canonical(pattern).eq(written),
    }
}

fn same_key(one: &str, other: &str) -> bool {
    let key = |token| canonical(token).take_while(|byte| *byte != b'=');
    key(one).eq(key(other))
}

/// Without quotes and backslashes, `-` as `_`, and `rd.systemd.` as `systemd.`.
fn canonical(token: &str) -> impl Iterator<Item = u8> + Clone {
    let plain = token
        .bytes()
        .filter(|byte| !matches!(byte, b'"' | b'\'' | b'\\'))
        .map(|byte| if byte == b'-' { b'_' } else { byte });
    let in_initrd = plain.clone().take(11).eq(*b"rd.systemd.");
    plain.skip(if in_initrd { 3 } else { 0 })
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
        for token in ["x=\"a", "x='a", "x=a\\x20b"] {
            assert_eq!(objected(token), Some("allowed"), "{token:?}");
        }
        for token in ["x=\u{a0}rdinit=/bin/sh", "x=\u{b}rdinit=/bin/sh", "x=\u{1}", "x\ny"] {
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
