//! Images that are compared: what an unlocker adds to one that has crypt and network already, on one distribution after the other.
//!
//! They are built in a tree where the module under test is installed beside its peer and all that both use, tpm2-tools too: dracut
//! takes along whatever is there and one of its modules asks for.

use super::cache::cached;
use super::initrd;
use super::packages::Packages;
use super::tree::Tree;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use std::fs;
use std::path::Path;

/// Where dracut writes to, in the tree.
const OUT: &str = "/compared.cpio";
#[rustfmt::skip]
const OPTIONS: &[&str] = &[
    "dracut", "--force", "--quiet", "--no-hostonly", "--no-hostonly-cmdline", "--no-early-microcode", "--reproducible", "--no-compress",
    "--conf", "/dev/null", "--confdir", "/usr/lib/rig/no-conf.d",
];

/// A tree to build them in; goes with this value.
pub struct Compared<'a> {
    packages: &'a Packages,
    tree: Tree,
}

impl<'a> Compared<'a> {
    /// With these packages as well; the root is made once.
    ///
    /// # Errors
    /// If they are not to be had.
    pub fn new(
        paths: &Paths,
        packages: &'a Packages,
        peers: &[&str],
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let key = Key::new("compared 1").text(&packages.key).text(&peers.join(",")).hex();
        let rootfs = cached(paths.cache.join(format!("compared-{key}.tar")), |partial| {
            say(&format!("making one of {} with {}", packages.distribution.title, peers.join(", ")));
            packages.bootstrap_with(peers, partial)
        })?;
        let at = paths.cache.join(format!("compared-{key}.{}.tree", std::process::id()));
        Ok(Self { packages, tree: initrd::install(paths, &rootfs, at)? })
    }

    /// Whether its dracut has this module.
    pub fn has(&self, module: &str) -> bool {
        let modules = fs::read_dir(self.tree.path().join("usr/lib/dracut/modules.d"));
        let is = |name: &str| name.trim_start_matches(|c: char| c.is_ascii_digit()) == module;
        modules.is_ok_and(|modules| modules.flatten().any(|entry| entry.file_name().to_str().is_some_and(is)))
    }

    /// Builds one with these modules of dracut, not compressed, and for the newest kernel.
    ///
    /// # Errors
    /// If dracut fails: the error holds the end of its output.
    pub fn build(&self, modules: &str, to: &Path) -> Result<()> {
        let kernel = &self.packages.newest;
        let drivers = self.packages.distribution.omit_drivers.join(" ");
        let last = ["--omit-drivers", &drivers, "--modules", modules, OUT, &kernel.version];
        let place = format!("/usr/lib/modules/{}", kernel.version);
        self.tree.run(&[(&kernel.modules, &place)], &[OPTIONS, &last].concat())?;
        fs::copy(self.tree.path().join(OUT.trim_start_matches('/')), to)
            .context("can't copy an initramfs")?;
        Ok(())
    }
}
