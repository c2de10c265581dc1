//! The dracut module: what it says when an image is made.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

use std::path::Path;
use std::process::Command;

/// What the module warns of in an image with systemd-repart and these definitions.
fn warnings(definitions: &[(&str, &str)], repart: bool) -> String {
    let image = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = image.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    if repart {
        put("usr/lib/systemd/system/systemd-repart.service", "");
    }
    definitions.iter().for_each(|(path, text)| put(path, text));
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dracut-module/90halfkey/module-setup.sh");
    let script = "set -eu; dwarn() { echo \"$*\"; }; . \"$1\"; warn_of_repart";
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"]).arg(module).env("initdir", image.path());
    let ran = bash.env("systemdsystemunitdir", "/usr/lib/systemd/system").output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn a_root_that_repart_can_make_is_warned_of() {
    const ROOT: &str = "[Partition]\nType=root\nFormat=ext4\n";
    for (path, text) in [
        ("usr/lib/repart.d/50-root.conf", ROOT),
        ("usr/local/lib/repart.d/50-root.conf", ROOT),
        ("etc/repart.d/50-root.conf", "[Partition]\n Type = root-x86-64 \n"),
        ("etc/repart.d/60-usr.conf", "[Partition]\nType=usr-arm64-verity\n"),
    ] {
        let said = warnings(&[("etc/repart.d/10-esp.conf", "[Partition]\nType=esp\n"), (path, text)], true);
        assert!(said.contains(&format!("/{path} is for a root")) && said.contains("hint: "), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert_eq!(warnings(&[(path, text)], false), "", "nobody reads it");
    }
    for other in ["Type=swap", "#Type=root", "Type=home", "Label=root"] {
        let text = format!("[Partition]\n{other}\n");
        assert_eq!(warnings(&[("etc/repart.d/50-x.conf", &text)], true), "", "{other}");
    }
    assert_eq!(warnings(&[], true), "");
}
