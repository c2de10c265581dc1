//! The operator's folder: bundle, tenant key, release keys seen so far.
//!
//! Mode 0700, files 0600. Every file appears whole or not at all.

pub mod bundle;
pub mod key;

use crate::error::{Error, Result};
use crate::home::bundle::{Bundle, MAX_BUNDLE};
use crate::home::key::TenantKey;
use halfkey_protocol::identity;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const BUNDLE: &str = "operator.bundle";
const KEY: &str = "tenant.key";
const RELEASE_KEYS: &str = "release-keys.json";
const DEPLOYMENTS: &str = "deployments.json";
const LOCK: &str = "lock";

/// How long another command may hold the lock. None holds it longer than it takes to write one file.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// The operator's folder on this machine. Nobody else may read or write it.
pub struct Home {
    path: PathBuf,
}

/// Held while a file of the folder is read, changed and written: two commands at once would each write what it has read, and one
/// lose what the other remembers. The kernel lets go of it when the program ends, however it does.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

/// How the release key of a server compares with the one seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleasePin {
    /// Nothing was enrolled with this server yet.
    First,
    /// The same as before.
    Same,
    /// Another one; the fingerprint of the one before.
    Changed(String),
}

impl Home {
    /// The folder given, or `$XDG_CONFIG_HOME/halfkey`, or `~/.config/halfkey`.
    ///
    /// # Errors
    /// When none of them is known.
    pub fn locate(given: Option<PathBuf>) -> Result<Self> {
        // The XDG specification: a relative path there is to be ignored.
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let path = given
            .filter(|path| !path.as_os_str().is_empty())
            .or_else(|| absolute("XDG_CONFIG_HOME").map(|base| base.join("halfkey")))
            .or_else(|| absolute("HOME").map(|base| base.join(".config/halfkey")))
            .ok_or_else(|| {
                Error::failed("no home folder: neither HOME nor XDG_CONFIG_HOME is set")
                    .hint("give one with --home DIR or HALFKEY_HOME")
            })?;
        Ok(Self { path })
    }

    /// Its path, as it was given or found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores a bundle. One of another server (another CA) is replaced only if `replace`.
    ///
    /// # Errors
    /// When another server's bundle is there, or the folder can't be written.
    pub fn import(&self, bundle: &Bundle, replace: bool) -> Result<()> {
        self.create()?;
        let _lock = self.lock()?;
        let ca = bundle.ca_fingerprint()?;
        if !replace
            && self.path.join(BUNDLE).exists()
            && let Ok(present) = self.bundle()
            && present.ca_fingerprint()? != ca
        {
            return Err(Error::failed(format!(
                "{} already holds the bundle of another server ({})",
                self.path.display(),
                present.servers.join(", ")
            ))
            .hint("use another folder with --home DIR, or give --replace"));
        }
        self.write(BUNDLE, &bundle.to_json(), Existing::Replace)
    }

    /// The imported bundle.
    ///
    /// # Errors
    /// When there is none, or others can read it, or it is damaged.
    pub fn bundle(&self) -> Result<Bundle> {
        let json = self.read(BUNDLE, MAX_BUNDLE)?.ok_or_else(|| {
            Error::failed(format!("not logged in: there is no operator bundle in {}", self.path.display()))
                .hint("import one with `halfkey login BUNDLE`")
        })?;
        Bundle::parse(&json).map_err(|e| e.context(self.path.join(BUNDLE).display()))
    }

    /// The tenant key, from `tenant.key`.
    ///
    /// # Errors
    /// When there is none, or others can read it, or it is damaged.
    pub fn tenant_key(&self) -> Result<TenantKey> {
        let pem = self.read(KEY, 16 << 10)?.ok_or_else(|| {
            Error::failed(format!("there is no tenant key in {}", self.path.display()))
                .hint("`halfkey login BUNDLE` creates one; or put back your copy of tenant.key")
        })?;
        TenantKey::from_pem(&pem).map_err(|e| e.context(self.path.join(KEY).display()))
    }

    /// The tenant key, created if there is none. Never replaces one: every enrollment
    /// hangs on it. Says whether it is new.
    ///
    /// # Errors
    /// As [`Home::tenant_key`], or when it can't be written.
    pub fn tenant_key_or_new(&self) -> Result<(TenantKey, bool)> {
        self.create()?;
        let _lock = self.lock()?;
        if self.path.join(KEY).symlink_metadata().is_ok() {
            return Ok((self.tenant_key()?, false));
        }
        let key = TenantKey::generate()?;
        self.write(KEY, &key.to_pem()?, Existing::Keep)?;
        // Whoever was first: what counts is what is on the disk.
        let stored = self.tenant_key()?;
        let new = stored.public() == key.public();
        Ok((stored, new))
    }

    /// Compares a server's release key (`TPMT_PUBLIC`) with the one that enrollments used before.
    ///
    /// # Errors
    /// When the record of earlier keys can't be read.
    pub fn release_pin(&self, ca_fingerprint: &str, release_public: &[u8]) -> Result<ReleasePin> {
        Ok(match self.release_keys()?.remove(ca_fingerprint) {
            None => ReleasePin::First,
            Some(pinned) if pinned == identity::fingerprint(release_public) => ReleasePin::Same,
            Some(pinned) => ReleasePin::Changed(pinned),
        })
    }

    /// Remembers a server's release key.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn pin_release(&self, ca_fingerprint: &str, release_public: &[u8]) -> Result<()> {
        let _lock = self.lock()?;
        let mut keys = self.release_keys()?;
        keys.insert(ca_fingerprint.to_owned(), identity::fingerprint(release_public));
        let json = serde_json::to_vec_pretty(&keys).expect("strings have a JSON form");
        self.write(RELEASE_KEYS, &json, Existing::Replace)
    }

    /// The deployment of the server with this CA, as it was at the first use.
    ///
    /// # Errors
    /// When the record can't be read.
    pub fn deployment(&self, ca_fingerprint: &str) -> Result<Option<String>> {
        Ok(self.pins(DEPLOYMENTS, "another deployment")?.remove(ca_fingerprint))
    }

    /// Remembers a server's deployment.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn pin_deployment(&self, ca_fingerprint: &str, deployment: &str) -> Result<()> {
        let _lock = self.lock()?;
        let mut pins = self.pins(DEPLOYMENTS, "another deployment")?;
        pins.insert(ca_fingerprint.to_owned(), deployment.to_owned());
        let json = serde_json::to_vec_pretty(&pins).expect("strings have a JSON form");
        self.write(DEPLOYMENTS, &json, Existing::Replace)
    }

    fn release_keys(&self) -> Result<BTreeMap<String, String>> {
        self.pins(RELEASE_KEYS, "a changed release key")
    }

    fn pins(&self, file: &str, what: &str) -> Result<BTreeMap<String, String>> {
        let Some(json) = self.read(file, 1 << 20)? else { return Ok(BTreeMap::new()) };
        serde_json::from_slice(&json).map_err(|_| {
            Error::failed(format!("{} is damaged", self.path.join(file).display()))
                .hint(format!("restore it from a backup; without it {what} would go unnoticed"))
        })
    }

    /// Creates the folder, or checks that it is private.
    pub(crate) fn create(&self) -> Result<()> {
        let fail = |e| Error::failed(format!("can't create {}: {e}", self.path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(fail)?;
        self.check_folder()
    }

    /// Whoever can write the folder can replace the key in it.
    fn check_folder(&self) -> Result<()> {
        let meta = fs::metadata(&self.path)
            .map_err(|e| Error::failed(format!("can't look at {}: {e}", self.path.display())))?;
        private(&self.path, &meta, "700")
    }

    /// Waits until no other command changes a file of the folder.
    ///
    /// # Errors
    /// `Failed` when another holds it for longer than 10 s, or the folder can't be used.
    pub(crate) fn lock(&self) -> Result<Lock> {
        self.lock_within(LOCK_WAIT)
    }

    fn lock_within(&self, wait: Duration) -> Result<Lock> {
        let path = self.path.join(LOCK);
        let fail = |e: io::Error| Error::failed(format!("can't lock {}: {e}", path.display()));
        self.check_folder()?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(fail)?;
        let until = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.remove_left_overs();
                    return Ok(Lock(file));
                }
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_LOOK),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::failed(format!(
                        "another command has held {} for {} s",
                        path.display(),
                        wait.as_secs()
                    ))
                    .hint(format!("`fuser {}` says which; end it and try again", path.display())));
                }
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
        }
    }

    /// Removes secrets that a command which was killed has left in temporary files. None is being written: that is done under the lock,
    /// which is held. What can't be removed now is another time.
    fn remove_left_overs(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let of = |file: &str| {
                let rest = name.to_str()?.strip_prefix('.')?.strip_prefix(file)?.strip_prefix('.')?;
                (!rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
            };
            if of(KEY).or_else(|| of(BUNDLE)).is_some() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// A file of the folder, whole; `None` if it is not there.
    pub(crate) fn read(&self, name: &str, max: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.path.join(name);
        let fail = |e: io::Error| Error::failed(format!("can't read {}: {e}", path.display()));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        self.check_folder()?;
        // The open file, not the path: it can't be exchanged in between.
        let meta = file.metadata().map_err(fail)?;
        private(&path, &meta, "600")?;
        if !meta.is_file() || meta.len() > max {
            return Err(Error::failed(format!(
                "expected a file of at most {max} bytes at {}",
                path.display()
            )));
        }
        // Room for all of it at once: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(max.min(meta.len() + 1) as usize));
        file.take(max).read_to_end(&mut bytes).map_err(fail)?;
        Ok(Some(bytes))
    }

    /// Writes a file whole: a temporary one, synced, then renamed or linked. Bundle and key are written under the lock.
    pub(crate) fn write(&self, name: &str, bytes: &[u8], existing: Existing) -> Result<()> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!(".{name}.{}", std::process::id()));
        let attempt = || -> io::Result<()> {
            let _ = fs::remove_file(&temporary);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            match existing {
                Existing::Replace => fs::rename(&temporary, &path)?,
                Existing::Keep => match fs::hard_link(&temporary, &path) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                    _ => fs::remove_file(&temporary)?,
                },
            }
            File::open(&self.path)?.sync_all()
        };
        attempt().map_err(|e| {
            let _ = fs::remove_file(&temporary);
            Error::failed(format!("can't write {}: {e}", path.display()))
        })
    }
}

/// What to do with a file that is there.
pub(crate) enum Existing {
    /// The new file takes its place.
    Replace,
    /// It stays, and the new file is dropped.
    Keep,
}

/// Refuses what others on this machine can read or write.
fn private(path: &Path, meta: &fs::Metadata, mode: &str) -> Result<()> {
    if meta.mode() & 0o077 != 0 {
        return Err(Error::failed(format!(
            "others on this machine can use {} (mode {:o})",
            path.display(),
            meta.permissions().mode() & 0o7777
        ))
        .hint(format!("chmod {mode} {}", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { path: dir.path().join("deep/home") };
        (dir, home)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_tenant_key_is_made_once_and_is_private() {
        let (_dir, home) = home();
        assert!(home.tenant_key().err().unwrap().hint.unwrap().contains("login"));
        let (first, new) = home.tenant_key_or_new().unwrap();
        assert!(new);
        let (second, new) = home.tenant_key_or_new().unwrap();
        assert!(!new && first.public() == second.public());
        assert_eq!((mode(home.path()), mode(&home.path().join(KEY))), (0o700, 0o600));
        assert_eq!(files(&home), ["lock", KEY], "no temporary file is left");
    }

    fn files(home: &Home) -> Vec<String> {
        let names =
            fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// Killed after the key was written, and before its second name was removed.
    #[test]
    fn a_key_that_a_killed_command_left_behind_is_removed() {
        let (_dir, home) = home();
        home.create().unwrap();
        let others = [".tenant.key.bak", ".tenant.key.", "tenant.key.17", ".notes.17"];
        for name in [".tenant.key.17", ".operator.bundle.4194304"].iter().chain(&others) {
            fs::write(home.path().join(name), b"secret").unwrap();
        }
        let (first, new) = home.tenant_key_or_new().unwrap();
        fs::hard_link(home.path().join(KEY), home.path().join(".tenant.key.18")).unwrap();
        // Whatever changes something, not only the command that makes a key.
        home.pin_release("ca", b"one").unwrap();
        let mut kept = [&others[..], &["lock", KEY, RELEASE_KEYS]].concat();
        kept.sort_unstable();
        assert_eq!(files(&home), kept);
        assert!(new && home.tenant_key().unwrap().public() == first.public());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_dir, home) = home();
        home.tenant_key_or_new().unwrap();
        fs::set_permissions(home.path().join(KEY), fs::Permissions::from_mode(0o640)).unwrap();
        let error = home.tenant_key().err().unwrap();
        assert!(error.message.contains("mode 640"), "{error}");
        assert!(error.hint.unwrap().starts_with("chmod 600"));
        fs::set_permissions(home.path().join(KEY), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(home.tenant_key().err().unwrap().hint.unwrap().starts_with("chmod 700"));
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let (_dir, home) = home();
        home.tenant_key_or_new().unwrap();
        home.write(KEY, b"garbage", Existing::Replace).unwrap();
        assert!(home.tenant_key_or_new().is_err());
        assert_eq!(fs::read(home.path().join(KEY)).unwrap(), b"garbage");
    }

    #[test]
    fn a_lock_that_another_holds_is_not_waited_for_without_end() {
        let (_dir, home) = home();
        home.create().unwrap();
        let held = home.lock().unwrap();
        let error = home.lock_within(Duration::ZERO).err().unwrap();
        assert!(error.message.contains("another command has held"), "{error}");
        assert!(error.hint.unwrap().contains("fuser"));
        drop(held);
        home.lock_within(Duration::ZERO).unwrap();
        assert_eq!(mode(&home.path().join(LOCK)), 0o600);
    }

    #[test]
    fn a_release_key_is_pinned_at_first_use_per_server() {
        let (_dir, home) = home();
        home.create().unwrap();
        assert_eq!(home.release_pin("ca", b"one").unwrap(), ReleasePin::First);
        home.pin_release("ca", b"one").unwrap();
        assert_eq!(home.release_pin("ca", b"one").unwrap(), ReleasePin::Same);
        assert_eq!(home.release_pin("other", b"two").unwrap(), ReleasePin::First);
        let before = identity::fingerprint(b"one");
        assert_eq!(home.release_pin("ca", b"two").unwrap(), ReleasePin::Changed(before));
        home.write(RELEASE_KEYS, b"[", Existing::Replace).unwrap();
        assert!(home.release_pin("ca", b"two").is_err(), "a damaged record is not an empty one");
    }
}
