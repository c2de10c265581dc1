//! What a unit runs that gives a shell, as its file says: `fence` stands in its place, by a drop-in that all such units share.

use crate::bounded;
use std::ffi::OsString;
use std::path::Path;

/// Where PID 1 finds a unit's file, in its order.
const PLACES: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
/// What a unit's file may be large, in bytes.
const MAX: usize = 64 << 10;
/// What systemd reads otherwise than as it stands there: quotes, escapes, variables, specifiers, a second command.
const READ_OTHERWISE: [char; 6] = ['"', '\'', '\\', '$', '%', ';'];
/// In every image.
const SHELL: &str = "/bin/sh";

/// The program of `unit` and its arguments; `root` is / but for tests. [`SHELL`] where the unit's file names none, a bash that
/// the image came without, or a command that is not its words alone.
pub fn command(root: &Path, unit: &str) -> Vec<OsString> {
    let path = |place: &&str| root.join(place).join(unit);
    let read = |place: &&str| bounded::read_text(path(place), MAX).ok();
    let named =
        PLACES.iter().filter(|_| !unit.contains('/')).find_map(read).and_then(|text| exec_start(&text));
    let is_there = |program: &str| !program.ends_with("/bash") || root.join(&program[1..]).exists();
    let words = named
        .filter(|line| !line.contains(READ_OTHERWISE))
        .filter(|line| line.split_ascii_whitespace().next().is_some_and(is_there));
    let words = words.unwrap_or_else(|| SHELL.to_owned());
    words.split_ascii_whitespace().map(OsString::from).collect()
}

/// The last ExecStart= of a unit's file that names a program, without what systemd writes before it.
fn exec_start(text: &str) -> Option<String> {
    let value = |line: &str| line.strip_prefix("ExecStart=").map(str::to_owned);
    let program = |value: String| {
        let value = value.trim_start_matches(['-', ':', '+', '!']);
        value.starts_with('/').then(|| value.to_owned())
    };
    text.lines().rev().filter_map(value).find_map(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, text).unwrap();
    }

    #[test]
    fn a_shell_is_what_its_unit_runs() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let of = |unit: &str| command(root, unit).join(" ".as_ref()).into_string().unwrap();
        assert_eq!(of("emergency.service"), "/bin/sh", "no file");
        for (text, expected) in [
            (
                "ExecStart=-/usr/lib/systemd/systemd-sulogin-shell emergency",
                "/usr/lib/systemd/systemd-sulogin-shell emergency",
            ),
            (
                "ExecStartPre=/bin/plymouth\nExecStart=/bin/dracut-emergency\nExecStopPost=-/bin/rm",
                "/bin/dracut-emergency",
            ),
            ("ExecStart=/bin/one\nExecStart=\nExecStart=:+!/bin/two  -x\n", "/bin/two -x"),
            ("ExecStart=/bin/bash\n", "/bin/sh"),
            ("ExecStart=/bin/ask \"two words\"\n", "/bin/sh"),
            ("ExecStart=/bin/login %I $TERM\n", "/bin/sh"),
            ("ExecStart=/bin/one ; /bin/two\n", "/bin/sh"),
            ("ExecStart=\nExecStart=bash -l\n#ExecStart=/bin/three", "/bin/sh"),
            ("", "/bin/sh"),
        ] {
            put(root, "usr/lib/systemd/system/emergency.service", &format!("[Service]\n{text}\n"));
            assert_eq!(of("emergency.service"), expected, "{text}");
        }
        put(root, "bin/bash", "");
        put(root, "lib/systemd/system/debug-shell.service", "[Service]\nExecStart=/bin/bash\n");
        assert_eq!(of("debug-shell.service"), "/bin/bash");
        put(root, "etc/systemd/system/debug-shell.service", "[Service]\nExecStart=/bin/owners -i\n");
        assert_eq!(of("debug-shell.service"), "/bin/owners -i", "PID 1 takes this one");
        assert_eq!(of("../../../bin/bash"), "/bin/sh", "no name of a unit");
        put(root, "etc/systemd/system/debug-shell.service", &"#".repeat(MAX + 1));
        assert_eq!(of("debug-shell.service"), "/bin/bash", "too large");
    }
}
