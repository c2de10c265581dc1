//! Whether an image gets to the root of this machine when Halfkey does not open it: nobody is asked for a passphrase, and no logical volume
//! is there, unless something names them. dracut takes names from the kernel's command line, and in an image for one host (`hostonly`) from
//! that host. Debian's images are for any, and initramfs-tools, in whose place dracut is installed, needs no words.

use super::dracut_conf::DracutConf;
use super::look::Finding;
use crate::bounded;
use crate::enroll::prompts::{self, Mapping};
use crate::propose::find::System;
use std::collections::BTreeSet;
use std::path::Path;

/// Of a file of /etc/cmdline.d, in bytes.
const MAX_FILE: usize = 64 << 10;
/// Of them.
const MAX_FILES: usize = 64;

/// What the root stands on, and what names it for an image.
#[derive(Clone, Debug, Default)]
pub struct Root {
    /// LUKS UUIDs.
    luks: BTreeSet<String>,
    /// Logical volumes that have to be activated: group and name.
    volumes: BTreeSet<(String, String)>,
    /// Words that an image is started with, or that dracut puts into it.
    words: BTreeSet<String>,
    /// Words of files that are in some images, by their paths there.
    installed: Vec<(String, BTreeSet<String>)>,
}

impl Root {
    /// That of the running system.
    pub fn here() -> Self {
        let mut lines = System::running(None).lines_of_an_image();
        lines.push(DracutConf::of(Path::new("/")).value("kernel_cmdline"));
        Self { installed: installed(Path::new("/")), ..Self::of(&prompts::mappings_of_root(), &lines) }
    }

    pub(super) fn of(mappings: &BTreeSet<Mapping>, lines: &[String]) -> Self {
        Self {
            luks: mappings.iter().filter_map(Mapping::luks_uuid).collect(),
            volumes: mappings.iter().filter_map(Mapping::logical_volume).collect(),
            words: lines.iter().flat_map(|line| words(line)).collect(),
            installed: Vec::new(),
        }
    }

    /// What an image with these files misses.
    pub(super) fn missing(&self, files: &BTreeSet<String>) -> Vec<Finding> {
        let there = self.installed.iter().filter(|(path, _)| files.contains(path));
        let told: BTreeSet<_> =
            self.words.iter().chain(there.flat_map(|(_, words)| words)).map(String::as_str).collect();
        let says = |names: &[&str], value: &str| {
            told.iter().filter_map(|word| word.split_once('=')).any(|(name, found)| {
                names.contains(&name) && found.trim_start_matches("luks-").starts_with(value)
            })
        };
        let auto = ["rd.auto", "rd.auto=1", "rd.auto=yes"].iter().any(|word| told.contains(word));
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
        let activates_all = auto || files.iter().any(names_lvm);
        for (group, volume) in self.volumes.iter().filter(|_| !activates_all) {
            let one = format!("rd.lvm.lv={group}/{volume}");
            if !told.contains(&*one) && !told.contains(&*format!("rd.lvm.vg={group}")) {
                what.push(format!("activate the logical volume {group}/{volume}, which the root is on"));
                words.push(one);
            }
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

/// Those of a command line that are about what an initramfs opens.
fn words(line: &str) -> impl Iterator<Item = String> {
    let words = line.split_ascii_whitespace().map(|word| word.replace(['"', '\''], ""));
    words.filter(|word| ["rd.", "luks."].iter().any(|start| word.starts_with(start)))
}

/// dracut(8) reads /etc/cmdline.d in an image, where `install_items` can have put files of the host.
fn installed(root: &Path) -> Vec<(String, BTreeSet<String>)> {
    let entries = root.join("etc/cmdline.d").read_dir().into_iter().flatten().flatten().take(MAX_FILES);
    let read = |entry: std::fs::DirEntry| {
        let path = format!("etc/cmdline.d/{}", entry.file_name().to_string_lossy());
        let text = bounded::read_text(entry.path(), MAX_FILE).ok()?;
        Some((path, words(&text).collect()))
    };
    entries.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0afd6329-fe84-4fc3-be1c-f947e595762f";
    const CRYPT: &str = "CRYPT-LUKS2-0afd6329fe844fc3be1cf947e595762f-vda3_crypt";

    fn missing(mappings: &[Mapping], lines: &[&str], files: &[&str]) -> Vec<String> {
        let all = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let root = Root::of(&mappings.iter().cloned().collect(), &all(lines));
        let files = all(files).into_iter().collect();
        root.missing(&files).into_iter().flat_map(|found| [found.what, found.hint]).collect()
    }

    fn crypt() -> Mapping {
        Mapping { uuid: CRYPT.into(), ..Mapping::default() }
    }

    fn lvm(name: &str, is_part: bool) -> Mapping {
        Mapping { uuid: "LVM-abc".into(), name: name.into(), is_part }
    }

    #[test]
    fn an_image_for_any_host_must_be_told_what_the_root_is_on() {
        let both = [crypt(), lvm("vg-root", false)];
        // As Debian's installer and its dracut leave it.
        let found = missing(&both, &["root=/dev/mapper/vg-root ro quiet", ""], &["usr/bin/lvm"]);
        assert!(found[0].contains(&format!("passphrase of volume {A}, and to activate")), "{found:?}");
        assert!(
            found[1].contains("hostonly")
                && found[1].contains(&format!("rd.luks.name={A}=NAME rd.lvm.lv=vg/root"))
        );
        // What dracut puts into an image for one host.
        let image = ["etc/crypttab", "etc/cmdline.d/90lvm.conf"];
        assert_eq!(missing(&both, &[], &image), [""; 0]);
        let half = missing(&both, &[], &image[..1]);
        assert!(
            half[0].ends_with("to activate the logical volume vg/root, which the root is on"),
            "{half:?}"
        );
        // Words, wherever they stand.
        for words in [
            format!("rd.luks.name={A}=x rd.lvm.lv=vg/root"),
            format!("rd.luks.uuid=\"luks-{A}\" 'rd.lvm.vg=vg'"),
            "quiet rd.auto".to_owned(),
        ] {
            assert_eq!(missing(&both, &[&words], &[]), [""; 0], "{words}");
        }
        let other = A.replace('0', "1");
        assert!(!missing(&[crypt()], &[&format!("rd.luks.name={other}=x")], &[]).is_empty());
        // A root that nothing has to be opened for.
        assert_eq!(missing(&[], &[], &[]), [""; 0]);
    }

    #[test]
    fn a_logical_volume_is_activated_by_its_own_names() {
        let said = |mappings: &[Mapping], line: &str| missing(mappings, &[line], &[]);
        let root = lvm("my--vg-the--root", false);
        for line in
            ["rd.lvm.lv=my-vg/the-root", "rd.lvm.vg=my-vg", "rd.lvm.vg=other rd.lvm.lv=my-vg/the-root"]
        {
            assert_eq!(said(std::slice::from_ref(&root), line), [""; 0], "{line}");
        }
        // Of another group, another volume of its group, or as device-mapper writes it.
        for line in [
            "rd.lvm.vg=vg",
            "rd.lvm.lv=my-vg/the",
            "rd.lvm.lv=other/the-root",
            "rd.lvm.lv=my--vg/the--root",
            "rd.lvm.vg=my",
        ] {
            let found = said(std::slice::from_ref(&root), line);
            assert!(
                found[0].contains("volume my-vg/the-root,")
                    && found[1].contains("put rd.lvm.lv=my-vg/the-root on"),
                "{line}: {found:?}"
            );
        }
        // /usr has one of its own; a pool comes with the volume that is in it.
        let both = [lvm("vg-root", false), lvm("vg-usr", false), lvm("vg-pool-tpool", true)];
        let found = said(&both, "rd.lvm.lv=vg/root");
        assert!(found[0].contains("volume vg/usr") && !found[0].contains("vg/root"), "{found:?}");
        assert_eq!(said(&both, "rd.lvm.vg=vg"), [""; 0]);
    }
    #[test]
    fn a_file_of_words_counts_for_the_images_that_have_it() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("etc/cmdline.d")).unwrap();
        std::fs::write(top.path().join("etc/cmdline.d/root.conf"), "quiet rd.lvm.vg=vg\n").unwrap();
        let root = Root {
            installed: installed(top.path()),
            ..Root::of(&BTreeSet::from([lvm("vg-root", false)]), &[])
        };
        let missing = |path: &str| root.missing(&BTreeSet::from([path.to_owned()])).len();
        assert_eq!((missing("etc/cmdline.d/root.conf"), missing("etc/cmdline.d/other.conf")), (0, 1));
    }
}
