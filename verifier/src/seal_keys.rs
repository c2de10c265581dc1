//! Key files of a state folder, sealed by the TPM of this host, and out of it again.

use crate::Failure;
use crate::config::{Config, StateDir};
use crate::key_files::{self, Content, KeyForm, Kind, Secret, left_over};
use crate::keys::{ClusterKey, fill_random, sync, write_secret};
use crate::locked;
use crate::tpm::{self, Tpm};
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The key files of a state folder, and which keys are in them.
const KEYS: [(&str, Kind); 4] = [
    ("release.key", Kind::Release),
    ("cluster.key", Kind::Cluster),
    ("cluster.key.new", Kind::Cluster),
    ("cluster.key.old", Kind::Cluster),
];

/// How keys are sealed.
#[derive(Default)]
pub struct Sealing {
    /// The TPM, if it is another than that of the settings.
    pub tpm: Option<String>,
    /// The release key signs in the TPM, and is not only sealed.
    pub sign: bool,
    /// PCRs of the SHA-256 bank that have to stay what they are. None: those that keys of the folder are bound to already.
    pub pcrs: Vec<u8>,
}

/// Where the keys come from.
pub enum From<'a> {
    /// The folder itself. What is sealed is left, and goes to this folder as it is before, if there is one.
    Here {
        /// Where the recovery copy is made.
        recovery: Option<&'a Path>,
    },
    /// A recovery copy. What the folder has of these is replaced.
    Copy(&'a Path),
}

/// Seals the keys of a folder, and has its settings say so. May be said again after it was interrupted. Gives the files that were
/// sealed.
///
/// # Errors
/// When there is nothing to seal; when a key can't be read, the TPM refuses, or something can't be written. What was not sealed is as it
/// was.
pub fn seal(state: &StateDir, from: &From<'_>, sealing: &Sealing) -> Result<Vec<&'static str>, Failure> {
    let _serving = state.lock_serving()?;
    // It lives for a moment.
    let _ = locked::lock();
    let config = Config::load(state)?;
    let at = sealing.tpm.clone().or(config.tpm).unwrap_or_else(|| tpm::DEFAULT.to_owned());
    for (name, _) in KEYS {
        end_interrupted(&state.file(name))?;
    }
    let keys = match from {
        From::Here { .. } => open(state.path(), &at, |kind, content| {
            content.form() != form(kind, sealing.sign) || !sealing.pcrs.is_empty()
        })?,
        From::Copy(folder) => {
            let mut keys = open(folder, &at, |_, _| true)?;
            // A copy of within a rotation: the key of before was dropped since, and must not be accepted again.
            let dropped = |name: &str| name == "cluster.key.old" && !state.file(name).exists();
            keys.retain(|(name, ..)| !dropped(name) || !state.cluster_key().exists());
            require_all(state, folder, &keys)?;
            require_same(state, folder, &keys)?;
            keys
        }
    };
    if let From::Here { recovery: Some(folder) } = from {
        copy_out(folder, &keys)?;
    }
    let pcrs = if sealing.pcrs.is_empty() { bound(state)? } else { sealing.pcrs.clone() };
    for (name, kind, key) in &keys {
        let path = state.file(name);
        let mut tpm = Tpm::open(&at)?;
        let text = match form(*kind, sealing.sign) {
            KeyForm::TpmSign => key_files::signing(&mut tpm, key)?,
            KeyForm::Tpm | KeyForm::File => key_files::sealed(&mut tpm, *kind, key, &pcrs)?,
        };
        drop(tpm);
        let new = ClusterKey::beside(&path, "sealing");
        write_secret(&new, &text)?;
        require_opens(&new, *kind, key, &at)
            .and_then(|()| replace(state, &path, *kind, &new))
            .inspect_err(|_| drop(remove(&new)))?;
    }
    // Without a release key: a registrar on a host of its own.
    let release = state.release_key();
    let form = if release.exists() { Content::read(Kind::Release, &release)?.form() } else { KeyForm::Tpm };
    state.set(&[("release_key", form.as_str()), ("tpm", &at)])?;
    Ok(keys.iter().map(|(name, ..)| *name).collect())
}

/// Writes the keys of a folder as they are into a new one: a recovery copy, or for another server. Gives the files, and whether the
/// release key is in the TPM to stay.
///
/// # Errors
/// When a key can't be read, the TPM refuses, or something can't be written.
pub fn unseal(state: &StateDir, out: &Path) -> Result<(Vec<&'static str>, bool), Failure> {
    let _serving = state.lock_serving()?;
    // It lives for a moment.
    let _ = locked::lock();
    let at = Config::load(state)?.tpm.unwrap_or_else(|| tpm::DEFAULT.to_owned());
    let mut stays = false;
    let keys = open(state.path(), &at, |_, content| {
        let signs = content.form() == KeyForm::TpmSign;
        stays |= signs;
        !signs
    })?;
    copy_out(out, &keys)?;
    Ok((keys.iter().map(|(name, ..)| *name).collect(), stays))
}

/// What else this disk has that somebody who has it can use against a server that still runs: names of files.
pub fn readable(state: &StateDir) -> Vec<String> {
    let names = fs::read_dir(state.path()).into_iter().flatten().flatten();
    let mut names: Vec<_> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name == "ca.key" || name.ends_with(".bundle"))
        .collect();
    names.sort();
    names
}

/// PCRs that keys of a folder are bound to already. Who seals a copy because these have changed, or one more key, does not mean to
/// bind it to less.
fn bound(state: &StateDir) -> Result<Vec<u8>, Failure> {
    for (name, kind) in KEYS {
        let path = state.file(name);
        if !path.exists() {
            continue;
        }
        match Content::read(kind, &path)? {
            Content::Sealed(object) if !object.pcrs.is_empty() => return Ok(object.pcrs),
            Content::Plain(_) | Content::Sealed(_) | Content::Signs(_) => {}
        }
    }
    Ok(Vec::new())
}

fn form(kind: Kind, sign: bool) -> KeyForm {
    match kind {
        Kind::Release if sign => KeyForm::TpmSign,
        Kind::Release | Kind::Cluster => KeyForm::Tpm,
    }
}

/// That a copy has keys, and leaves none of the folder as it is.
fn require_all(state: &StateDir, copy: &Path, keys: &Keys) -> Result<(), Failure> {
    if keys.is_empty() {
        return Err(Failure::new("expected keys, found none")
            .hint("a folder that `seal-keys --recovery` or `unseal-keys` made")
            .at(copy));
    }
    for (name, kind) in KEYS {
        let path = state.file(name);
        let copied = keys.iter().any(|(copied, ..)| *copied == name);
        if !copied && path.exists() && Content::read(kind, &path)?.form() == KeyForm::File {
            return Err(Failure::new("expected it to be sealed, or in the copy, found neither")
                .hint("halfkey-verifier seal-keys without --from seals what is there")
                .at(&path));
        }
    }
    Ok(())
}

/// That a key takes no other one's place: a copy of before a rotation, or of another deployment, is taken for this one's by mistake, and
/// where the TPM is gone the folder's is the last that says which key it was.
fn require_same(state: &StateDir, copy: &Path, keys: &Keys) -> Result<(), Failure> {
    for (name, kind, key) in keys {
        let path = state.file(name);
        if path.exists() && key_files::identity_in(*kind, &path)? != key_files::identity(*kind, key) {
            return Err(Failure::new(format!("expected the key that {} has, found another one", path.display()))
                .hint("a copy of before `cluster-key use`, or of another deployment? if it is the right one all the same, move that file away first")
                .at(&copy.join(name)));
        }
    }
    Ok(())
}

type Keys = Vec<(&'static str, Kind, Secret)>;

/// The keys that are there and wanted.
fn open(folder: &Path, at: &str, mut wanted: impl FnMut(Kind, &Content) -> bool) -> Result<Keys, Failure> {
    let mut keys = Vec::new();
    for (name, kind) in KEYS {
        let path = folder.join(name);
        if !path.exists() {
            continue;
        }
        let content = Content::read(kind, &path)?;
        if wanted(kind, &content) {
            keys.push((name, kind, content.open(kind, at).map_err(|e| e.at(&path))?));
        }
    }
    Ok(keys)
}

/// Writes keys as they are. A file that has the same key already is left: the command was interrupted.
fn copy_out(folder: &Path, keys: &Keys) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(e.to_string()).at(folder);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    for (name, kind, key) in keys {
        let path = folder.join(name);
        let same = || matches!(Content::read(*kind, &path), Ok(Content::Plain(found)) if found == *key);
        if !same() {
            write_secret(&path, &key_files::plain(*kind, key))?;
        }
    }
    sync(folder)
}

/// That what was written is the key, before anything else of it goes.
fn require_opens(sealed: &Path, kind: Kind, key: &Secret, at: &str) -> Result<(), Failure> {
    let same = match Content::read(kind, sealed)? {
        Content::Signs(object) => {
            use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, UnparsedPublicKey};
            let message = b"halfkey v1: a signature that is made only to see that a TPM has taken a key, and that is shown to nobody";
            let signature =
                Tpm::open(at)?.signer(at, &object)?.sign(&halfkey_protocol::identity::sha256(message))?;
            let pair = key_files::pair(key)?;
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
            public.verify(message, &signature).is_ok()
        }
        content => content.open(kind, at)? == *key,
    };
    if same {
        Ok(())
    } else {
        Err(Failure::new("the TPM gives back another key than it was given").at(sealed))
    }
}

/// Puts a sealed file in the place of another one, which is overwritten where it has the key as it is. At every moment one of both is
/// there and whole.
fn replace(state: &StateDir, path: &Path, kind: Kind, sealed: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(e.to_string()).at(path);
    let plain = left_over(path);
    let was_plain =
        path.exists() && Content::read(kind, path).map_or(true, |before| before.form() == KeyForm::File);
    if was_plain {
        if fs::metadata(path).map_err(failed)?.nlink() != 1 {
            return Err(Failure::new(
                "expected a file with one name, found one with several: it is overwritten when it is sealed",
            )
            .hint("a recovery copy has to be a copy")
            .at(path));
        }
        fs::hard_link(path, &plain).map_err(failed)?;
    }
    fs::rename(sealed, path).map_err(failed)?;
    sync(state.path())?;
    if was_plain {
        overwrite(&plain)?;
        sync(state.path())?;
    }
    Ok(())
}

/// What an interrupted run has left: a sealed file that is not in place yet is made anew, a key that is sealed is overwritten.
fn end_interrupted(path: &Path) -> Result<(), Failure> {
    let (sealing, plain) = (ClusterKey::beside(path, "sealing"), left_over(path));
    remove(&sealing)?;
    // What a rotation that was interrupted had not put in place.
    let part = ClusterKey::beside(path, "tmp");
    if part.exists() {
        overwrite(&part)?;
    }
    if !plain.exists() {
        return Ok(());
    }
    let file = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .map_err(|e| Failure::new(e.to_string()).at(path))
    };
    // The same file under both names is the key that is not sealed yet.
    if file(path)? == file(&plain)? { remove(&plain) } else { overwrite(&plain) }
}

/// Writes over what is in a file, and removes it.
fn overwrite(path: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::new(e.to_string()).at(path);
    let mut file = File::options().write(true).open(path).map_err(failed)?;
    let mut noise = vec![0; file.metadata().map_err(failed)?.len() as usize];
    fill_random(&mut noise)?;
    file.write_all(&noise).and_then(|()| file.sync_all()).map_err(failed)?;
    remove(path)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::new(e.to_string()).at(path)),
        _ => Ok(()),
    }
}

/// PCRs of a command line: `0,2,7`.
///
/// # Errors
/// When one is none.
pub fn pcrs(text: &str) -> Result<Vec<u8>, String> {
    let number = |word: &str| word.trim().parse::<u8>().ok().filter(|pcr| *pcr < 24);
    let bad = || format!("expected numbers of PCRs as 0,2,7, found {text:?}");
    text.split(',').map(number).collect::<Option<Vec<_>>>().ok_or_else(bad)
}

/// Where a recovery copy is to be made, if one is.
pub fn require_choice(recovery: Option<PathBuf>, without: bool) -> Result<Option<PathBuf>, Failure> {
    if recovery.is_some() || without {
        return Ok(recovery);
    }
    Err(Failure::new("expected --recovery FOLDER or --no-recovery, found neither").hint(
        "the TPM may break: without a copy of release.key every machine needs its passphrase then, and a new enrollment. FOLDER is on a disk that you take away",
    ))
}
