//! GRUB: it measures every command of its script into PCR 8, and every file that it reads into PCR 9.
//!
//! These are the facts. What a boot path pins, and what is demanded of it, is in `evidence/src/policy/boot_path.rs`.
//!
//! | GRUB | log | measured |
//! | --- | --- | --- |
//! | 2.04 and later | `grub_cmd: TEXT`, NUL; the same of the two command lines | TEXT |
//! | 2.02 of Red Hat Enterprise Linux 7 and 8 | `grub_cmd TEXT`, `grub_kernel_cmdline TEXT`, NUL | TEXT, NUL |
//!
//! The text is a command with its arguments joined without their quotes, so it does not say where one ends.

mod commands;
use commands::{BODIES, CHAINLOADER, INITRD, LINUX, OTHERS};

/// What GRUB says that a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// A command of its script.
    Command,
    /// The command line that the kernel gets.
    KernelLine,
    /// That of a module.
    ModuleLine,
}

/// How a text stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// What it is.
    pub text: Text,
    /// What stands before it in the log. It is not measured, so the log could say another one.
    pub word: &'static str,
    /// What may be measured behind it.
    ends: &'static [&'static str],
}

/// Each form; that of a word which another one begins with comes later.
const FORMS: [Form; 5] = [
    Form { text: Text::Command, word: "grub_cmd: ", ends: &[""] },
    Form { text: Text::KernelLine, word: "kernel_cmdline: ", ends: &[""] },
    Form { text: Text::ModuleLine, word: "module_cmdline: ", ends: &[""] },
    Form { text: Text::Command, word: "grub_cmd ", ends: &["\0", ""] },
    Form { text: Text::KernelLine, word: "grub_kernel_cmdline ", ends: &["\0", ""] },
];

/// The word for the kernel's file, at the front of the line that it passes on.
pub const BOOT_IMAGE: &str = "BOOT_IMAGE=";

/// What the log of GRUB 2.02 calls an initrd that `initrdefi` has read, in place of the file's name.
pub const INITRD_OF_LINUXEFI: &str = "grub_linuxefi Initrd";
/// Most files of one command that are looked at.
const MAX_FILES: usize = 64;

/// How an event's data stands in the log, and its text, if it begins as one of GRUB's.
pub fn read(data: &[u8]) -> Option<(Form, &[u8])> {
    FORMS.into_iter().find_map(|form| {
        let text = data.strip_prefix(form.word.as_bytes())?;
        Some((form, text.strip_suffix(&[0]).unwrap_or(text)))
    })
}

impl Form {
    /// All that may be measured for a text.
    pub fn measured(self, text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        self.ends.iter().map(move |end| [text, end.as_bytes()].concat())
    }
}

/// Whether an event's data calls itself a command line.
pub fn is_line(data: &[u8]) -> bool {
    matches!(read(data), Some((Form { text: Text::KernelLine | Text::ModuleLine, .. }, _)))
}

/// The line as the kernel gets it: what is measured begins with the kernel's file, which is measured itself.
pub fn as_passed(measured: &str) -> String {
    format!("{BOOT_IMAGE}{measured}")
}

/// The kernel that a command starts.
pub fn kernel_of(command: &str) -> Option<&str> {
    files_of(command, &LINUX)?.next()
}

/// The files that a command reads as initrd. Those that it packs itself (`newc:NAME:FILE`) come under the name of the file.
pub fn initrds_of(command: &str) -> Option<impl Iterator<Item = &str>> {
    Some(files_of(command, &INITRD)?.map(|file| {
        let packed = file.strip_prefix("newc:").and_then(|rest| rest.split_once(':'));
        packed.map_or(file, |(_, file)| file)
    }))
}

/// Whether a command has GRUB pack a file into the initramfs, under another name and as it is: what is measured is the file alone, which may
/// have been meant as anything.
pub fn packs(command: &str) -> bool {
    // All of its words, however many: a name with spaces is many.
    let mut words = words_of(command);
    words.next().is_some_and(|name| INITRD.contains(&name)) && words.any(|word| word.starts_with("newc:"))
}

/// Whether a command starts something else than a kernel of Linux, gives more to it, or ends GRUB's measuring.
pub fn starts_another(command: &str) -> bool {
    words_of(command).next().is_some_and(|name| OTHERS.contains(&name))
}

/// Whether a command starts a program of the firmware's.
pub fn chainloads(command: &str) -> bool {
    words_of(command).next() == Some(CHAINLOADER)
}

/// Whether a command is one that configurations have which grub-mkconfig writes. What `load_env --skip-sig` reads is not measured.
pub fn is_usual(command: &str) -> bool {
    let mut words = words_of(command);
    let is_of_file = |word: &str| !word.starts_with('-') || ["-f", "--file"].contains(&word);
    match words.next() {
        None => true,
        Some("load_env") => words.all(is_of_file),
        Some(name) => commands::is_usual(name),
    }
}

/// Whether a text has the form of a command and not that of a line, which begins with a file as GRUB names it: `/file`, `(device)/file`, in
/// quotes if there is a space in it, `2048+9` (blocks), or from a network without any of these, but with a root.
pub fn is_command(text: &str) -> bool {
    let mut words = words_of(text);
    let Some(name) = words.next() else { return true };
    // Or an assignment. Those of GRUB's modules have a dot in their names, as files of a network have.
    let (variable, _) = name.split_once('=').unwrap_or((name, ""));
    let is_name = commands::is_name(variable) || commands::is_usual(name);
    let sets_root = || text.strip_prefix("set root=").is_some_and(|value| !value.contains([' ', '=']));
    let has_root = words.any(|word| word.starts_with("root="));
    (name == "[" || is_name) && (!has_root || has_body(text) || sets_root() || LINUX.contains(&name))
}

/// Whether a text is the line of the kernel that a command loads, which GRUB measures next after that command. There each argument with a space in
/// it has quotes, and each quote and backslash of an argument a backslash, so it is compared without these.
pub fn passes(command: &str, line: &str) -> bool {
    passed_by(command).is_some_and(|said| bare(said) == bare(line))
}

/// What a command passes to the kernel that it loads, behind the kernel's file, if it loads one.
pub fn passed_by(command: &str) -> Option<&str> {
    let command = command.strip_prefix("! ").unwrap_or(command);
    command.split_once(' ').filter(|(name, _)| LINUX.contains(name)).map(|(_, said)| said)
}

/// Without what one and the same argument has more of in a line than in a command.
pub fn bare(text: &str) -> String {
    text.replace(['"', '\'', '\\'], "")
}

/// Whether a text contains commands that have not run.
pub fn has_body(text: &str) -> bool {
    words_of(text).next().is_some_and(|name| BODIES.contains(&name))
}

/// Words of a command. `!`, which only turns its success into failure, is measured with it.
fn words_of(command: &str) -> impl Iterator<Item = &str> {
    command.split_ascii_whitespace().skip_while(|word| *word == "!")
}

/// The command of an event as a document has it, if it is one.
pub fn command_of(event: &str) -> Option<&str> {
    match read(event.as_bytes()) {
        Some((Form { text: Text::Command, .. }, text)) => str::from_utf8(text).ok(),
        _ => None,
    }
}

/// Whether firmware's log, as it is, has an event that says that GRUB reads an initrd.
pub fn reads_initrd(log: &[u8]) -> bool {
    INITRD.iter().any(|command| has_command(log, &format!("{command} ")))
}

/// Whether it has one that says that GRUB reads boot entries of the Boot Loader Specification, as Fedora's and Red Hat's does.
pub fn reads_entries(log: &[u8]) -> bool {
    has_command(log, "blscfg")
}

fn has_command(log: &[u8], begin: &str) -> bool {
    let commands = FORMS.iter().filter(|form| form.text == Text::Command);
    commands
        .map(|form| format!("{}{begin}", form.word))
        .any(|begin| log.windows(begin.len()).any(|bytes| bytes == begin.as_bytes()))
}

/// Whether a command writes GRUB's environment.
pub fn writes_environment(command: &str) -> bool {
    command == "save_env" || command.starts_with("save_env ")
}

/// What a boot found in GRUB's environment (the file `grubenv`) of how the boot before went, by what the script did with it. GRUB measures
/// the file when `load_env` reads it, and the commands that follow from it; `save_env` writes it after that, so that the next boot
/// finds something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootBefore {
    /// Somebody marked it as one that succeeded (`boot_success=1`; Fedora and Red Hat: two minutes after a login).
    Succeeded,
    /// Nobody did so.
    Unmarked,
    /// It was not unmarked as one that failed (`recordfail=1`; Ubuntu).
    Failed,
}

impl BootBefore {
    /// For people, behind the name of a boot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "after a boot that was marked as successful",
            Self::Unmarked => "after a boot that was not marked as successful",
            Self::Failed => "after a boot that failed",
        }
    }

    /// The one that a boot after this one may find as well.
    pub fn other(self) -> Option<Self> {
        match self {
            Self::Succeeded => Some(Self::Unmarked),
            Self::Unmarked => Some(Self::Succeeded),
            Self::Failed => None,
        }
    }

    /// By the commands of a boot, in order. None where the script asks for none of this.
    pub fn of<'c>(commands: impl Iterator<Item = &'c str>) -> Option<Self> {
        let mut before = "";
        for command in commands {
            // `[ "${boot_success}" = "1" -o "${boot_indeterminate}" = "1" ]` of 10_reset_boot_success, before that of 01_menu_auto_hide
            let hides = ["set menu_hide_ok=", "set last_boot_ok="].iter().any(|set| command.starts_with(set));
            if hides && before.starts_with("[ ") && before.contains(" = 1 -o ") {
                let succeeded = before.starts_with("[ 1 = 1 -o ");
                return Some(if succeeded { Self::Succeeded } else { Self::Unmarked });
            }
            // `[ "${recordfail}" = 1 ]` of 00_header
            if before == "[ 1 = 1 ]" && command.starts_with("set timeout=") {
                return Some(Self::Failed);
            }
            before = command;
        }
        None
    }
}

fn files_of<'c>(command: &'c str, names: &[&str]) -> Option<impl Iterator<Item = &'c str> + use<'c>> {
    let mut words = words_of(command);
    let name = words.next()?;
    names.contains(&name).then(|| words.take(MAX_FILES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_in_all_forms() {
        for (data, text, found) in [
            ("grub_cmd: set a=b\0", Text::Command, "set a=b"),
            ("grub_cmd set a=b\0", Text::Command, "set a=b"),
            ("grub_cmd: ", Text::Command, ""),
            ("kernel_cmdline: /vmlinuz ro\0", Text::KernelLine, "/vmlinuz ro"),
            ("grub_kernel_cmdline /vmlinuz ro\0", Text::KernelLine, "/vmlinuz ro"),
            ("module_cmdline: /xen", Text::ModuleLine, "/xen"),
        ] {
            let (form, read) = read(data.as_bytes()).unwrap();
            assert_eq!((form.text, read), (text, found.as_bytes()), "{data:?}");
            assert_eq!(is_line(data.as_bytes()), text != Text::Command);
        }
        for data in
            ["grub_cmdx", "grub_cmd:set", "kernel_cmdline /x", "grub_linuxefi Kernel", " grub_cmd: x", ""]
        {
            assert_eq!(read(data.as_bytes()), None, "{data:?}");
        }
    }

    #[test]
    fn what_is_measured_depends_on_the_form() {
        let measured = |data: &[u8]| {
            let (form, text) = read(data).unwrap();
            form.measured(text).collect::<Vec<_>>()
        };
        assert_eq!(measured(b"grub_cmd: a\0"), [b"a".to_vec()]);
        assert_eq!(measured(b"grub_cmd a\0"), [b"a\0".to_vec(), b"a".to_vec()]);
    }

    #[test]
    fn the_environment_shows_in_what_the_script_does() {
        let of = |commands: &[&str]| BootBefore::of(commands.iter().copied());
        for (test, found) in [
            ("[ 1 = 1 -o 0 = 1 ]", Some(BootBefore::Succeeded)),
            ("[ 0 = 1 -o 1 = 1 ]", Some(BootBefore::Unmarked)),
            ("[  = 1 -o  = 1 ]", Some(BootBefore::Unmarked)),
            ("[ xy = xy ]", None),
        ] {
            assert_eq!(
                of(&["load_env -f (hd0)/grubenv", test, "set menu_hide_ok=1", "save_env boot_success"]),
                found
            );
        }
        assert_eq!(of(&["terminal_output console", "[ 1 = 1 ]", "set timeout=30"]), Some(BootBefore::Failed));
        assert_eq!(of(&["[  = 1 ]", "[ xy = xy ]", "set timeout_style=hidden", "set timeout=0"]), None);
        // Fedora: after the question above, another one.
        assert_eq!(of(&["[ 1 = 1 ]", "set boot_indeterminate=0", "set boot_success=0"]), None);
    }

    #[test]
    fn commands_name_their_files() {
        let initrds = |text| initrds_of(text).map(|files| files.collect::<Vec<_>>());
        assert_eq!(kernel_of("linuxefi (hd0,gpt2)/vmlinuz ro"), Some("(hd0,gpt2)/vmlinuz"));
        assert_eq!(initrds("initrd /ucode /initrd.img "), Some(vec!["/ucode", "/initrd.img"]));
        assert_eq!(initrds("initrdefi newc:etc/x:/x /initrd.img"), Some(vec!["/x", "/initrd.img"]));
        assert_eq!(initrds("initrd"), Some(vec![]));
        for other in ["initrds /x", "echo initrd /x", "set initrd=/x", ""] {
            assert_eq!((initrds(other), kernel_of(other)), (None, None), "{other}");
        }
        assert!(starts_another("multiboot2 /xen") && !starts_another("linux /x") && !starts_another(""));
        assert!(packs("! initrd /x newc:etc/x:/x") && !packs("initrd /newc:x") && !packs("linux newc:a:/b"));
        assert!(is_usual("load_env -f (hd0,gpt2)/grub/grubenv a"));
        for typed in [
            "load_env --skip-sig -f /e x",
            "load_env -sf /e",
            "load_env -s",
            "rmmod tpm",
            "! rmmod tpm",
            "normal_exit",
            "boot",
            "ls",
            "my_function",
            "/x",
        ] {
            assert!(!is_usual(typed), "{typed}");
        }
        for usual in
            ["", "! [ -e /x ]", "menuentry_id_option=--id", "set a=b", "search.fs_uuid x", "recordfail"]
        {
            assert!(is_usual(usual) && !starts_another(usual), "{usual}");
        }
        let many = format!("initrd{} newc:a:/b", " /x".repeat(2 * MAX_FILES));
        assert!(packs(&many));
        assert!(is_command("search.fs_uuid 4841-4C46 root hd0,gpt2 ") && !is_command("vmlinuz.x root=a"));
        assert!(starts_another("rmmod tpm") && chainloads("chainloader /x.efi") && !chainloads("linux /x"));
        for command in [
            "",
            "set root=hd0",
            "a=b",
            "[ -e (hd0)/x ]",
            "search --set=root 5",
            "! linux /x root=a",
            "menuentry x { linux /x root=a\n}",
        ] {
            assert!(is_command(command), "{command}");
        }
        for line in [
            "/x ro",
            "(hd0)/x ro",
            "\"/a b\" ro",
            "2048+9 ro",
            "x root=a",
            "a=b root=a",
            "set root=UUID=5",
            "set root=UUID=5 ro quiet",
            "set root=hd0 ro",
            "set quiet root=LABEL=x",
        ] {
            assert!(!is_command(line), "{line}");
        }
        for (command, line) in [
            ("linux /x root=a ro", "/x root=a ro"),
            ("! linuxefi /x", "/x"),
            (
                "linux (hd0,gpt1)/a b a=\"b c\" d=\\e 'f'",
                "\"(hd0,gpt1)/a b\" \"a=\\\"b c\\\"\" d=\\\\e \\'f\\'",
            ),
            ("linux /x  ", "/x  "),
            ("linux /x a\\x20b", "/x a\\x20b"),
        ] {
            assert!(passes(command, line), "{command} | {line}");
        }
        for (command, line) in [
            ("linux /x ro", "/x"),
            ("linux /x", "/x ro"),
            ("linux /x ro", "/xro"),
            ("initrd /x", "/x"),
            ("linux", ""),
            ("set root=a", "root=a"),
        ] {
            assert!(!passes(command, line), "{command} | {line}");
        }
        assert_eq!(command_of("grub_cmd initrd /x"), Some("initrd /x"));
        assert_eq!(command_of("kernel_cmdline: initrd /x"), None);
        assert!(reads_initrd(b"..grub_cmd initrdefi /x\0..") && !reads_initrd(b"..grub_cmd: initrds /x\0.."));
    }
}
