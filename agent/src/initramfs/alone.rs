//! Whether an image gets to the root of this machine when Halfkey does not open it: nobody is asked for a passphrase, and no logical volume
//! is there, unless something names them. dracut takes names from the kernel's command line, and in an image for one host (`hostonly`) from
//! that host. Debian's images are for any, and initramfs-tools, in whose place dracut is installed, needs no words.

use super::look::Finding;
use crate::bounded;
use crate::enroll::prompts;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Of a text with command lines, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// Of the texts of a folder.
const MAX_TEXTS: usize = 64;

/// What the root stands on, and what names it for an image.
#[derive(Clone, Debug, Default)]
pub struct Root {
    /// LUKS UUIDs.
    luks: BTreeSet<String>,
    /// LVM is among it.
    lvm: bool,
    /// Words on the command lines of this boot and of the next one, wherever that is written down.
    words: BTreeSet<String>,
}

impl Root {
    /// That of the running system.
    pub fn here() -> Self {
        Self::of(&prompts::mappings_of_root(), &texts(Path::new("/")))
    }

    pub(super) fn of(mappings: &BTreeSet<String>, texts: &[String]) -> Self {
        let end = |c: char| c.is_ascii_whitespace() || matches!(c, '"' | '\'');
        let words = texts.iter().flat_map(|text| text.split(end));
        let words = words.filter(|word| ["rd.", "luks."].iter().any(|start| word.starts_with(start)));
        Self {
            luks: mappings.iter().filter_map(|mapping| prompts::luks_uuid(mapping)).collect(),
            lvm: mappings.iter().any(|mapping| mapping.starts_with("LVM-")),
            words: words.map(str::to_owned).collect(),
        }
    }

    /// What an image with these files misses.
    pub(super) fn missing(&self, files: &BTreeSet<String>) -> Vec<Finding> {
        let says = |names: &[&str], value: &str| {
            self.words.iter().filter_map(|word| word.split_once('=')).any(|(name, found)| {
                names.contains(&name) && found.trim_start_matches("luks-").starts_with(value)
            })
        };
        let auto = ["rd.auto", "rd.auto=1", "rd.auto=yes"].iter().any(|word| self.words.contains(*word));
        let names_lvm = |path: &String| path.starts_with("etc/cmdline.d/") && path.contains("lvm");
        let (mut what, mut words) = (Vec::new(), Vec::new());
        let by_part = says(&["rd.luks.partuuid", "rd.luks.serial"], "");
        for uuid in &self.luks {
            let named = says(&["rd.luks.uuid", "luks.uuid", "rd.luks.name", "luks.name"], uuid);
            if !(auto || named || by_part || files.contains("etc/crypttab")) {
                what.push(format!("ask for the passphrase of volume {uuid}"));
                words.push(format!("rd.luks.name={uuid}=NAME"));
            }
        }
        if self.lvm && !(auto || says(&["rd.lvm.lv", "rd.lvm.vg"], "") || files.iter().any(names_lvm)) {
            what.push("activate the logical volume that the root is on".to_owned());
            words.push("rd.lvm.vg=GROUP".to_owned());
        }
        if what.is_empty() {
            return Vec::new();
        }
        vec![Finding {
            what: format!("nothing tells the image to {}", what.join(", and to ")),
            hint: format!(
                "echo 'hostonly=\"yes\"' >/etc/dracut.conf.d/hostonly.conf, then dracut --force; or put {} on the kernel command line",
                words.join(" ")
            ),
        }]
    }
}

/// Where the command line of this boot stands, and where a boot loader's tools and files have that of the next one: a folder, files
/// below it, and folders with more of them.
const PLACES: [(&str, &[&str], &[&str]); 5] = [
    ("proc", &["cmdline"], &[]),
    ("etc", &["kernel/cmdline", "default/grub"], &["cmdline.d", "default/grub.d", "dracut.conf.d"]),
    ("boot", &["grub/grub.cfg", "grub2/grub.cfg"], &["loader/entries"]),
    ("efi", &[], &["loader/entries"]),
    ("boot/efi", &[], &["loader/entries"]),
];

/// All of them, without comments. Who can write /boot does not choose what else is read, nor how long.
fn texts(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (place, files, folders) in PLACES {
        let place = root.join(place);
        let in_folder = |folder: &&str| {
            let folder = Path::new(folder).to_owned();
            let names = bounded::names_beneath(&place, &folder, MAX_TEXTS).unwrap_or_default();
            names.into_iter().map(move |name| folder.join(name))
        };
        let paths = files.iter().map(PathBuf::from).chain(folders.iter().flat_map(in_folder));
        let texts = paths.filter_map(|path| bounded::read_beneath(&place, &path, MAX_TEXT).ok());
        found.extend(texts.map(|text| without_comments(&String::from_utf8_lossy(&text))));
    }
    found
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    const A: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const CRYPT: &str = "CRYPT-LUKS2-0afd6329fe844fc3be1cf947e595762f-vda3_crypt";

    fn missing(mappings: &[&str], texts: &[&str], files: &[&str]) -> Vec<String> {
        let all = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let root = Root::of(&all(mappings).into_iter().collect(), &all(texts));
        let files = all(files).into_iter().collect();
        root.missing(&files).into_iter().flat_map(|found| [found.what, found.hint]).collect()
    }

    #[test]
    fn what_boot_has_is_read_beneath_it_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        create_dir_all(root.join("boot/loader/entries")).unwrap();
        create_dir_all(root.join("etc/default")).unwrap();
        write(root.join("etc/default/grub"), "#GRUB_CMDLINE_LINUX=rd.auto\nGRUB_TIMEOUT=1\n").unwrap();
        write(root.join("etc/secret"), "rd.auto").unwrap();
        write(root.join("boot/loader/entries/a.conf"), "options quiet").unwrap();
        std::os::unix::fs::symlink("../../../etc/secret", root.join("boot/loader/entries/b.conf")).unwrap();
        nix::unistd::mkfifo(&root.join("boot/loader/entries/c.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(texts(root), ["GRUB_TIMEOUT=1\n", "options quiet\n"]);
    }

    #[test]
    fn an_image_for_any_host_must_be_told_what_the_root_is_on() {
        let both = [CRYPT, "LVM-abc"];
        // As Debian's installer and its dracut leave it.
        let found = missing(
            &both,
            &["root=/dev/mapper/vg-root ro quiet", "GRUB_CMDLINE_LINUX=\"\""],
            &["usr/bin/lvm"],
        );
        assert!(found[0].contains(&format!("passphrase of volume {A}, and to activate")), "{found:?}");
        assert!(
            found[1].contains("hostonly")
                && found[1].contains(&format!("rd.luks.name={A}=NAME rd.lvm.vg=GROUP"))
        );
        // What dracut puts into an image for one host.
        let image = ["etc/crypttab", "etc/cmdline.d/90lvm.conf"];
        assert_eq!(missing(&both, &[], &image), [""; 0]);
        let half = missing(&both, &[], &image[..1]);
        assert!(half[0].ends_with("to activate the logical volume that the root is on"), "{half:?}");
        // Words, wherever they stand.
        for words in [
            format!("rd.luks.name={A}=x rd.lvm.lv=vg/root"),
            format!("GRUB_CMDLINE_LINUX=\"rd.luks.uuid=luks-{A} rd.lvm.vg=vg\""),
            "quiet rd.auto".to_owned(),
        ] {
            assert_eq!(missing(&both, &[&words], &[]), [""; 0], "{words}");
        }
        let other = A.replace('0', "1");
        assert!(!missing(&[CRYPT], &[&format!("rd.luks.name={other}=x")], &[]).is_empty());
        // A root that nothing has to be opened for.
        assert_eq!(missing(&[], &[], &[]), [""; 0]);
    }

    #[test]
    fn the_next_command_line_is_read_where_it_is_written() {
        let root = tempfile::tempdir().unwrap();
        for (path, word) in [
            ("etc/default/grub", "rd.a"),
            ("boot/loader/entries/1.conf", "rd.b"),
            ("etc/kernel/cmdline", "rd.c"),
        ] {
            let path = root.path().join(path);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, format!("x={word}\" {word}\n")).unwrap();
        }
        let found = Root::of(&BTreeSet::new(), &texts(root.path()));
        assert_eq!(found.words.into_iter().collect::<Vec<_>>(), ["rd.a", "rd.b", "rd.c"]);
    }
}
