//! `halfkey ima list`: the digests of files.

use crate::cli::ListArgs;
use crate::context::{self, Context};
use crate::documents::{rpm, tree};
use crate::error::{Error, Result};
use crate::render::text::{clean, hex};
use aws_lc_rs::digest::{self, SHA256};
use halfkey_evidence::ima::digest_list::MAX_PATH;
use halfkey_evidence::ima::{DigestList, PathPattern};
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Folders that are links into /usr on every distribution that has merged them.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// `halfkey ima list --json`.
#[derive(Serialize)]
struct Made<'a> {
    /// What the policy calls it.
    name: &'a str,
    /// What it says: `sha256:<hex>`.
    digest: String,
    /// How many lines it has.
    lines: usize,
    /// How many files have a name that no list can have.
    left_out: usize,
}

/// Lines in the making.
struct Lines {
    text: Vec<u8>,
    without: Vec<PathPattern>,
    any_path: bool,
    left_out: usize,
}

/// Makes a list.
///
/// # Errors
/// `Usage` when a source can't be read; `Failed` when the list can't be written.
pub fn run(context: &Context, args: &ListArgs) -> Result<()> {
    let pattern =
        |text: &String| PathPattern::parse(text).map_err(|what| Error::usage(format!("--without: {what}")));
    let without = args.without.iter().map(pattern).collect::<Result<_>>()?;
    let mut lines = Lines { text: Vec::new(), without, any_path: args.any_path, left_out: 0 };
    for source in &args.sources {
        if source.is_dir() {
            lines.folder(source, <[u8]>::to_vec)?;
            continue;
        }
        match source.extension().and_then(OsStr::to_str) {
            Some("deb") => lines.folder(tree::unpack(source)?.path(), merged)?,
            Some("rpm") => lines.header(source)?,
            _ => lines.text.extend(super::read(source)?.to_text()),
        }
    }
    let list = DigestList::parse(&lines.text).map_err(|what| Error::failed(format!("the list: {what}")))?;
    if list.is_empty() {
        return Err(Error::usage("expected a file, found none"));
    }
    context::create(&args.output, &list.to_text())?;
    if lines.left_out > 0 {
        context.out.note(&format!(
            "warning: {} files are not in the list: their names have a line break, or more than {MAX_PATH} bytes",
            lines.left_out
        ));
    }
    let stem = args.output.file_stem().unwrap_or_default().to_string_lossy();
    let name = args.name.as_deref().unwrap_or(&stem);
    let digest = format!("sha256:{}", hex(list.id()));
    let made = Made { name, digest, lines: list.len(), left_out: lines.left_out };
    context.out.value(&made, || block(&made))
}

/// `[[ima.list]]`
fn block(made: &Made<'_>) -> String {
    let name = clean(made.name).replace('\\', "\\\\").replace('"', "\\\"");
    format!("[[ima.list]]\nname = \"{name}\"\ndigest = \"{}\" # {} lines", made.digest, made.lines)
}

impl Lines {
    /// All files of a tree. `place` is where a machine has what the tree has at a path.
    fn folder(&mut self, folder: &Path, place: impl Fn(&[u8]) -> Vec<u8>) -> Result<()> {
        let skip = |path: &[u8]| self.without.iter().any(|pattern| pattern.matches(&place(path)));
        for file in tree::files(folder, skip)? {
            let digest =
                of_file(&file).map_err(|e| Error::usage(format!("can't read {}: {e}", file.display())))?;
            self.add(&place(&tree::inside(folder, &file)), &format!("sha256:{}", hex(digest.as_ref())));
        }
        Ok(())
    }

    /// All files of an RPM package, by its header.
    fn header(&mut self, package: &Path) -> Result<()> {
        let failed = |what: String| Error::usage(format!("can't read {}: {what}", package.display()));
        let file = File::open(package).map_err(|e| failed(e.to_string()))?;
        for file in rpm::files(&mut BufReader::new(file)).map_err(failed)? {
            let path = merged(&file.path);
            if !self.without.iter().any(|pattern| pattern.matches(&path)) {
                self.add(&path, &file.digest);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &[u8], digest: &str) {
        if path.contains(&b'\n') || path.len() > MAX_PATH {
            self.left_out += 1;
            return;
        }
        let path = if self.any_path { b"*" } else { path };
        self.text.extend([digest.as_bytes(), b" ", path, b"\n"].concat());
    }
}

/// Below /usr, where a package still says otherwise.
fn merged(path: &[u8]) -> Vec<u8> {
    let first =
        path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/').next().unwrap_or_default();
    let is_merged = MERGED.iter().any(|folder| folder.as_bytes() == first);
    let start: &[u8] = if is_merged { b"/usr" } else { b"" };
    [start, path].concat()
}

fn of_file(path: &Path) -> io::Result<digest::Digest> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&SHA256);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(context.finish()),
            read => context.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_packages_are_where_a_machine_has_them() {
        for (path, place) in [
            ("/bin/sh", "/usr/bin/sh"),
            ("/lib/modules/6.1/x.ko", "/usr/lib/modules/6.1/x.ko"),
            ("/lib64/ld.so", "/usr/lib64/ld.so"),
            ("/library", "/library"),
            ("/usr/bin/x", "/usr/bin/x"),
            ("/", "/"),
        ] {
            assert_eq!(merged(path.as_bytes()), place.as_bytes());
        }
    }
}
