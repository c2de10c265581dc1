//! GRUB's configuration, for the operator: how it differs from the one that the running system was booted with.
//!
//! GRUB measures each of its commands and each file that it reads, so what a changed configuration measures is known once it was booted.
//! What is said here is read by people and by no rule; of its files the digests are said as well, so that it is known what else was read.

use super::file::BootFile;
use super::find::{ENTRIES, System};
use crate::firmware::Came;
use crate::{bounded, durable};
use halfkey_measure::grub::kernel_of;
use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::ProposedLoader;
use std::path::{Path, PathBuf};

/// Where the configuration of before is kept.
const KEPT: &str = "var/lib/halfkey-agent/boot-loader.json";
/// Of the kept file, in bytes.
const MAX_KEPT: usize = 4 << 20;
/// Of one file, in bytes; what is larger is no configuration.
const MAX_FILE: usize = 512 << 10;
/// Files that are looked at.
const MAX_FILES: usize = 128;
/// Lines of all of them.
const MAX_LINES: usize = 20_000;
/// Bytes of a line that are shown.
const MAX_LINE: usize = 240;
/// Of the text about changes, in bytes; the verifier takes more.
const MAX_CHANGES: usize = 12 << 10;
/// Comparisons that are made to find what two texts have in common; beyond, all that lies between is called changed.
const MAX_COMPARISONS: usize = 4 << 20;

/// Names of its files, below the places of boot files.
const FILES: [&str; 6] = [
    "grub/grub.cfg",
    "grub/custom.cfg",
    "grub/grubenv",
    "grub2/grub.cfg",
    "grub2/custom.cfg",
    "grub2/grubenv",
];
/// Parts a line that is not shown as it is from the digest of all of it, which is kept here and not sent: what was cut off or hidden is
/// a difference, too.
const WHOLE: char = '\u{1}';
/// Begins a line that names a file.
const FILE: &str = "=== ";

/// What is kept from one proposal to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, miniserde::Serialize, miniserde::Deserialize)]
struct Kept {
    /// The boot in which it was written: the kernel's boot id.
    boot: String,
    /// The configuration that this boot was made with, as far as it is known.
    booted: Option<String>,
    /// The configuration as it was found last.
    latest: String,
}

/// How GRUB's configuration differs from the one of this boot. The one that is there now is kept for the next boot.
pub fn changes(system: &System) -> ProposedLoader {
    let (loader, kept) = compared(system);
    keep(&system.root.join(KEPT), &kept);
    loader
}

/// The same, and nothing is kept.
pub fn preview(system: &System) -> ProposedLoader {
    compared(system).0
}

fn compared(system: &System) -> (ProposedLoader, Kept) {
    let now = configuration(system);
    let boot = boot_id(system);
    let kept = read(&system.root.join(KEPT))
        .map_or_else(|| Kept { boot: boot.clone(), ..Kept::default() }, |kept| kept.at(&boot));
    let changes = match &kept.booted {
        Some(before) => difference(before, &now),
        None => "not known: the configuration of this boot was not kept\n".to_owned(),
    };
    (ProposedLoader { name: "grub".to_owned(), changes, files: None }, Kept { latest: now, ..kept })
}

/// Digests of what GRUB will read as it is, besides what it has on each boot: these files, its configuration and environment. GRUB measures each
/// of them under any name; an operator who approves the boot has to know which are the machine's own.
pub fn digests(system: &System, whole: &[Vec<u8>], bank: PcrBank) -> Vec<Bytes> {
    let mut found: Vec<Bytes> = whole.iter().map(|file| bank.digest(&[file]).into()).collect();
    let reads_entries = system.came != Some(Came::Grub { entries: false });
    for (root, path) in files(system) {
        // What lies about unread is not made known.
        if path.starts_with(ENTRIES) && !reads_entries {
            continue;
        }
        let Ok(bytes) = bounded::read_beneath(&root, &path, MAX_FILE) else { continue };
        if !is_text(&bytes) {
            continue;
        }
        found.push(bank.digest(&[&bytes]).into());
        if path.ends_with("grubenv") {
            // Whoever logs in changes it, and so may GRUB: as long as before.
            found.extend(marked_otherwise(&bytes).map(|bytes| bank.digest(&[&bytes]).into()));
        }
    }
    found.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    found.dedup();
    found
}

/// Whether it can be no initramfs: an archive has NULs, and begins with its magic; a compressed one is no UTF-8, but bzip2's perhaps. Whoever
/// has the disk writes /boot, and what is said of a file there must not make an initramfs known under the name of a configuration.
fn is_text(bytes: &[u8]) -> bool {
    let begins = ["0707", "BZh"].iter().any(|magic| bytes.starts_with(magic.as_bytes()));
    !begins
        && str::from_utf8(bytes)
            .is_ok_and(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r')))
}

/// The environment with the other mark of the boot before (`boot_success` of Fedora and Red Hat).
fn marked_otherwise(environment: &[u8]) -> Option<Vec<u8>> {
    const MARK: &[u8] = b"\nboot_success=";
    let at = environment.windows(MARK.len()).position(|part| part == MARK)? + MARK.len();
    let other = match environment.get(at)? {
        b'0' => b'1',
        b'1' => b'0',
        _ => return None,
    };
    let mut bytes = environment.to_vec();
    bytes[at] = other;
    Some(bytes)
}

/// Keeps the configuration of this boot, unless an earlier one is kept.
pub fn remember(system: &System) {
    let file = system.root.join(KEPT);
    if system.by_grub() && read(&file).is_none() {
        let now = configuration(system);
        keep(&file, &Kept { boot: boot_id(system), booted: Some(now.clone()), latest: now });
    }
}

impl Kept {
    /// In this boot: what was found last in an earlier one is what this one was made with.
    fn at(self, boot: &str) -> Self {
        if self.boot == boot {
            return self;
        }
        Self { boot: boot.to_owned(), booted: Some(self.latest.clone()), latest: self.latest }
    }
}

fn boot_id(system: &System) -> String {
    bounded::read_text(system.root.join("proc/sys/kernel/random/boot_id"), 64).unwrap_or_default()
}

fn read(file: &Path) -> Option<Kept> {
    miniserde::json::from_str(&bounded::read_text(file, MAX_KEPT).ok()?).ok()
}

/// A text that is not kept costs a difference, and no update.
fn keep(file: &Path, kept: &Kept) {
    if let Err(e) = durable::replace(file, miniserde::json::to_string(kept).as_bytes(), 0o600) {
        crate::console::say(&format!("warning: can't keep GRUB's configuration in {}: {e}", file.display()));
    }
}

/// All of it, as text: a line with the name of each file, and its lines.
fn configuration(system: &System) -> String {
    let mut text = String::new();
    let mut lines = 0;
    for (root, path) in files(system) {
        let named = root.join(&path);
        // Whoever has the disk can write an unencrypted /boot: what a link of theirs leads to is not sent.
        let bytes = bounded::read_beneath(&root, &path, MAX_FILE).unwrap_or_else(|e| {
            let size = named.symlink_metadata().map_or(0, |found| found.len());
            format!("(not read, {size} bytes: {e})").into_bytes()
        });
        text.push_str(FILE);
        text.push_str(&clean(&named.display().to_string()));
        text.push('\n');
        let found = String::from_utf8_lossy(&bytes);
        for line in found.lines().filter(|line| !line.starts_with('#')).take(MAX_LINES - lines) {
            let shown = clean(line);
            text.push_str(&shown);
            if shown != line {
                text.push(WHOLE);
                let digest = Hash::Sha256.digest(&[line.as_bytes()]);
                digest.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
            }
            text.push('\n');
            lines += 1;
        }
    }
    text
}

/// What the first entry that starts this kernel passes to it, and the file that says so: entries for repairs come later.
pub fn line_of(roots: &[PathBuf], release: &str) -> Option<(PathBuf, String)> {
    let names = roots.iter().flat_map(|root| ["grub/grub.cfg", "grub2/grub.cfg"].map(|name| (root, name)));
    names.into_iter().find_map(|(root, name)| {
        let text = bounded::read_beneath(root, Path::new(name), MAX_FILE).ok()?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().map(str::trim).find_map(|command| {
            let kernel = kernel_of(command).filter(|kernel| kernel.ends_with(&format!("-{release}")))?;
            Some(command.split_once(kernel)?.1.trim().to_owned())
        })?;
        Some((root.join(name), line))
    })
}

/// Those that are there, in order: which of the places of boot files, and where below it.
fn files(system: &System) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for root in system.roots() {
        let is_there = |path: &PathBuf| BootFile::beneath(&root, path).is_there();
        let mut paths: Vec<PathBuf> = FILES.iter().map(PathBuf::from).filter(is_there).collect();
        let mut others: Vec<PathBuf> = entries(&root, ENTRIES)
            .filter(|path| path.extension().is_some_and(|end| end == "conf"))
            .chain(entries(&root, "EFI").map(|folder| folder.join("grub.cfg")))
            .filter(is_there)
            .collect();
        others.sort();
        paths.append(&mut others);
        found.extend(paths.into_iter().map(|path| (root.clone(), path)));
    }
    found.truncate(MAX_FILES);
    found
}

fn entries(root: &Path, folder: &str) -> impl Iterator<Item = PathBuf> {
    let folder = PathBuf::from(folder);
    let names = bounded::names_beneath(root, &folder, 4096).unwrap_or_default();
    names.into_iter().map(move |name| folder.join(name))
}

/// A line as it may be shown and sent: no control characters, no end of it hidden, no password.
fn clean(line: &str) -> String {
    if line.to_ascii_lowercase().contains("password") || line.contains("grub.pbkdf2") {
        return "(a line with a password)".to_owned();
    }
    let mut out = String::new();
    for c in line.chars() {
        match c {
            '\t' => out.push_str("    "),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
        if out.len() >= MAX_LINE {
            out.push_str("...");
            break;
        }
    }
    out
}

/// Lines that are gone with `-`, new ones with `+`, each file's name before them; empty where nothing changed.
fn difference(before: &str, after: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let mut text = String::new();
    let (mut file, mut named) = ("", "");
    let mut left_out = 0;
    for (sign, line) in compare(&before, &after) {
        if line.starts_with(FILE) && sign != '-' {
            file = line;
        }
        if sign == ' ' {
            continue;
        }
        let mut more = String::new();
        if file != named && !line.starts_with(FILE) {
            more = format!("{file}\n");
        }
        let shown = line.split(WHOLE).next().unwrap_or_default();
        more.push_str(&format!("{sign}{shown}\n"));
        if text.len() + more.len() > MAX_CHANGES {
            left_out += 1;
            continue;
        }
        named = file;
        text.push_str(&more);
    }
    if left_out > 0 {
        text.push_str(&format!("... and {left_out} more lines\n"));
    }
    text
}

/// Each line of both, with what became of it.
fn compare<'t>(before: &[&'t str], after: &[&'t str]) -> Vec<(char, &'t str)> {
    let same = before.iter().zip(after).take_while(|(one, other)| one == other).count();
    let (head, before, after) = (&before[..same], &before[same..], &after[same..]);
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(one, other)| one == other).count();
    let (before, end) = before.split_at(before.len() - tail);
    let after = &after[..after.len() - tail];
    let mut found: Vec<(char, &str)> = head.iter().map(|line| (' ', *line)).collect();
    found.extend(middle(before, after));
    found.extend(end.iter().map(|line| (' ', *line)));
    found
}

/// By their longest common part.
fn middle<'t>(before: &[&'t str], after: &[&'t str]) -> Vec<(char, &'t str)> {
    let width = after.len() + 1;
    if before.len().saturating_mul(width) > MAX_COMPARISONS {
        let gone = before.iter().map(|line| ('-', *line));
        return gone.chain(after.iter().map(|line| ('+', *line))).collect();
    }
    // How many lines two ends have in common.
    let mut common = vec![0u16; (before.len() + 1) * width];
    for (i, one) in before.iter().enumerate().rev() {
        for (j, other) in after.iter().enumerate().rev() {
            common[i * width + j] = if one == other {
                common[(i + 1) * width + j + 1].saturating_add(1)
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            found.push((' ', before[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == after.len()
            || i < before.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
        {
            found.push(('-', before[i]));
            i += 1;
        } else {
            found.push(('+', after[j]));
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn machine() -> (tempfile::TempDir, System) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let system = System {
            root,
            boot_root: None,
            command_line: "BOOT_IMAGE=/vmlinuz-6.1 ro".into(),
            release: "6.1".into(),
            came: None,
        };
        (folder, system)
    }

    fn write(system: &System, path: &str, content: &[u8]) {
        let path = system.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn booted(system: &System, id: &str) {
        write(system, "proc/sys/kernel/random/boot_id", id.as_bytes());
    }

    #[test]
    fn what_changed_since_the_boot_is_said() {
        const BEFORE: &[u8] = b"# made\nset default=0\nlinux /vmlinuz-6.1 ro\ninitrd /initrd-6.1\n";
        let (_folder, system) = machine();
        booted(&system, "one");
        write(&system, "boot/grub/grub.cfg", BEFORE);
        write(&system, "boot/loader/entries/a.conf", b"version 6.1\n");
        let seen = preview(&system);
        assert!(!system.root.join(KEPT).exists(), "a look keeps nothing");
        assert_eq!(changes(&system), seen);
        assert!(seen.changes.starts_with("not known"));
        let (_folder, system) = machine();
        write(&system, "boot/grub/grub.cfg", BEFORE);
        booted(&system, "one");
        remember(&system);
        assert_eq!(changes(&system).changes, "");
        write(
            &system,
            "boot/grub/grub.cfg",
            b"# anew\nset default=0\nlinux /vmlinuz-6.2 ro\ninitrd /initrd-6.1\n\x1b[2J\n",
        );
        write(&system, "boot/loader/entries/b.conf", b"version 6.2\n");
        let root = system.root.display();
        let said = format!(
            "=== {root}/boot/grub/grub.cfg\n-linux /vmlinuz-6.1 ro\n+linux /vmlinuz-6.2 ro\n+?[2J\n+=== {root}/boot/loader/entries/b.conf\n+version 6.2\n"
        );
        // As often as it is asked in this boot.
        for _ in 0..2 {
            assert_eq!(changes(&system).changes, said);
        }
        // The next one was made with it.
        booted(&system, "two");
        assert_eq!(changes(&system).changes, "");
        remember(&system);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(system.root.join(KEPT)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        // What is damaged is begun anew.
        write(&system, KEPT, b"{");
        assert!(changes(&system).changes.starts_with("not known"));
        assert_eq!(changes(&system).changes.lines().count(), 1);
    }

    #[test]
    fn what_grub_will_read_is_known_by_its_digests() {
        let (_folder, system) = machine();
        let environment = b"# GRUB Environment Block\nkernelopts=x\nboot_success=0\n####";
        write(&system, "boot/grub2/grub.cfg", b"blscfg\n");
        write(&system, "boot/grub2/grubenv", environment);
        write(&system, "boot/loader/entries/a.conf", b"version 6.1\n");
        // No configuration, and it could be an initramfs.
        write(&system, "boot/grub2/custom.cfg", b"070701\0\0");
        write(&system, "boot/loader/entries/b.conf", b"\x1f\x8b\x08");
        let found = digests(&system, &[b"kernel".to_vec()], PcrBank::Sha384);
        let marked = b"# GRUB Environment Block\nkernelopts=x\nboot_success=1\n####";
        for content in [&b"kernel"[..], b"blscfg\n", environment, b"version 6.1\n", marked] {
            assert!(found.contains(&PcrBank::Sha384.digest(&[content]).into()), "{content:?}");
        }
        assert_eq!(found.len(), 5);
        // A GRUB without entries reads none.
        let system = System { came: Some(Came::Grub { entries: false }), ..system };
        assert_eq!(digests(&system, &[b"kernel".to_vec()], PcrBank::Sha384).len(), 4);
        for other in [&b"boot_success=0"[..], b"\nboot_success=", b"\nboot_success=x", b""] {
            assert_eq!(marked_otherwise(other), None);
        }
    }

    #[test]
    fn the_line_of_a_kernel_is_that_of_its_first_entry() {
        let (_folder, system) = machine();
        let config = "menuentry 'Debian' {\n\tlinux\t/vmlinuz-6.1 root=/dev/x ro  quiet\n\tinitrd /initrd-6.1\n}\n\
            linux /vmlinuz-6.1 root=/dev/x single\nlinuxefi /vmlinuz-5.6.1 a\n";
        write(&system, "boot/grub/grub.cfg", config.as_bytes());
        let of = |release: &str| line_of(&system.roots(), release).map(|(_, line)| line);
        assert_eq!(of("6.1").unwrap(), "root=/dev/x ro  quiet");
        assert_eq!(of("5.6.1").unwrap(), "a");
        assert_eq!(of("1"), None);
    }

    #[test]
    fn no_password_and_nothing_without_end_is_sent() {
        let (_folder, system) = machine();
        booted(&system, "one");
        write(&system, "boot/grub2/grub.cfg", b"");
        remember(&system);
        let hash = "password_pbkdf2 root grub.pbkdf2.sha512.10000.AB";
        let many: String = (0..400).map(|number| format!("set a{number}={}\n", "x".repeat(1000))).collect();
        write(
            &system,
            "boot/grub2/grub.cfg",
            format!("{hash}\nset p=grub.pbkdf2.sha512.1\n{many}").as_bytes(),
        );
        let said = changes(&system).changes;
        assert!(!said.contains("pbkdf2") && said.contains("+(a line with a password)"), "{said}");
        assert!(said.len() < MAX_CHANGES + 100 && said.contains("... and "), "{}", said.len());
        assert!(said.lines().all(|line| line.len() <= MAX_LINE + 8));
    }

    #[test]
    fn what_is_not_shown_is_a_difference_too() {
        let (_folder, system) = machine();
        let long = |end: &str| format!("linux /vmlinuz {} {end}\n", "x".repeat(300));
        for (before, after) in [
            (long("ro"), long("init=/bin/sh")),
            ("set password=a b\n".into(), "set password=a c\n".into()),
            ("set a=\u{e4}\n".into(), "set a=\u{f6}\n".into()),
        ] {
            let _ = fs::remove_file(system.root.join(KEPT));
            write(&system, "boot/grub/grub.cfg", before.as_bytes());
            booted(&system, "one");
            remember(&system);
            assert_eq!(changes(&system).changes, "");
            write(&system, "boot/grub/grub.cfg", after.as_bytes());
            let said = changes(&system).changes;
            assert!(said.lines().count() == 3 && said.lines().all(|line| line.len() < 260), "{said}");
        }
    }

    #[test]
    fn what_a_link_leads_to_is_not_sent() {
        let (_folder, system) = machine();
        write(&system, "root/key", b"a secret");
        write(&system, "boot/grub/grub.cfg", b"");
        remember(&system);
        std::os::unix::fs::symlink(system.root.join("root/key"), system.root.join("boot/grub/custom.cfg"))
            .unwrap();
        let said = changes(&system).changes;
        assert!(
            said.contains("custom.cfg") && said.contains("(not read") && !said.contains("secret"),
            "{said}"
        );
        // Nor are its names.
        write(&system, "root/keys/server.conf", b"");
        fs::create_dir_all(system.root.join("boot/loader")).unwrap();
        std::os::unix::fs::symlink(system.root.join("root/keys"), system.root.join("boot/loader/entries"))
            .unwrap();
        assert!(!changes(&system).changes.contains("server.conf"));
    }

    proptest! {
        #[test]
        fn both_texts_can_be_made_of_the_difference(before in "[a-d\n]{0,60}", after in "[a-d\n]{0,60}") {
            let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
            let found = compare(&before, &after);
            let of = |but: char| found.iter().filter(|(sign, _)| *sign != but).map(|(_, line)| *line).collect::<Vec<_>>();
            prop_assert_eq!(of('+'), before);
            prop_assert_eq!(of('-'), after);
        }

        #[test]
        fn any_configuration_is_shown_as_text(before in ".{0,200}", after: Vec<u8>) {
            let (_folder, system) = machine();
            write(&system, "boot/grub/grub.cfg", before.as_bytes());
            remember(&system);
            write(&system, "boot/grub/grub.cfg", &after);
            let said = changes(&system).changes;
            prop_assert!(said.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{said:?}");
        }
    }
}
