//! Finds the enrolled volumes, and waits for late ones: by kernel events, not by looking again and again.

use super::cmdline::Settings;
use super::looker::{Answer, Looker};
use super::uevent::{self, Uevents};
use crate::bounded;
use crate::console;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::luks::header::Found;
use crate::luks::{Header, Token};
use crate::words;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long udev may still be busy when all that is named is there.
const SETTLE: Duration = Duration::from_secs(5);
/// Devices that hold no LUKS volume or answer slowly. Optical drives are looked at: what is in one can have any UUID.
const SKIPPED: &[&str] = &["ram", "zram", "fd", "nbd"];
/// How long a device may take to answer, a disk that has to spin up among them.
const PATIENCE: Duration = Duration::from_secs(10);
/// This program.
const ITSELF: &str = "/proc/self/exe";
/// Where sysfs lists block devices.
const BLOCK: &str = "/sys/class/block";

/// A device with a LUKS2 header and a halfkey token.
pub struct Volume {
    /// The device or, in tests, a file.
    pub path: PathBuf,
    /// Open for reading.
    pub file: File,
    /// Size in bytes.
    pub size: u64,
    /// The header as it was read, once.
    pub header: Header,
    /// Complete tokens and their numbers, newest first; at least one.
    pub tokens: Vec<(u32, Token)>,
}

/// What is there.
#[derive(Default)]
pub struct Devices {
    /// Volumes with a complete token.
    pub volumes: Vec<Volume>,
    /// LUKS volumes without: device and UUID.
    pub others: Vec<(PathBuf, String)>,
}

/// What a look at one device found.
enum Look {
    Enrolled(Box<Volume>),
    /// A LUKS volume without a usable token: its UUID, and why not if that is worth a line.
    Other {
        path: PathBuf,
        uuid: Option<String>,
        why: Option<Error>,
    },
}

/// Looks at devices that were named on the command line of the agent.
///
/// # Errors
/// When one of them is not an enrolled LUKS2 volume.
pub fn explicit(paths: &[PathBuf]) -> Result<Devices> {
    let enrolled = |path: &PathBuf| match look(path)? {
        Look::Enrolled(volume) => Ok(*volume),
        Look::Other { why, .. } => Err(why.unwrap_or_else(|| {
            words::not_enrolled(format!("{}: no LUKS2 volume with a halfkey token", path.display()))
        })),
    };
    let volumes = paths.iter().map(enrolled).collect::<Result<_>>()?;
    Ok(Devices { volumes, others: Vec::new() })
}

/// All enrolled volumes that are there, once those are there that this boot names.
///
/// - Something is named (`rd.luks.*`, crypttab, or the token of a volume that is there: it names all volumes of its
///   enrollment): waits for it. After half of the time it goes on with what is there, so that time is left for the network: the
///   enrollment that the verifier says is current may do without what is missing.
/// - Nothing is named: takes what is there when udev has worked through its events. If that is
///   nothing, this machine is not enrolled, and its boot must not wait; `rd.halfkey=on` says
///   that it is.
///
/// # Errors
/// [`crate::error::Kind::NotEnrolled`] when no enrolled volume is or comes.
pub fn find(settings: &Settings, deadline: Deadline) -> Result<Devices> {
    let events = Uevents::open().map_err(|e| Error::system("kernel events", e.desc()))?;
    let half = deadline.within(deadline.remaining() / 2);
    let mut search = Search::new(Path::new(BLOCK), Path::new("/dev"), Path::new(ITSELF), PATIENCE);
    let mut settled = false;
    let mut said = false;
    loop {
        search.scan(deadline);
        let missing = missing(settings, &search.looked);
        let enrolled = search.looked.values().filter(|look| matches!(look, Look::Enrolled(_))).count();
        let waits_for_any = settings.named.is_empty() && enrolled == 0 && settings.expected;
        if missing.is_empty() && !waits_for_any {
            if settled {
                return result(search.looked, words::NO_TOKEN);
            }
            // Others that nothing names may be about to appear: they are opened as well.
            uevent::wait_until_settled(deadline.within(SETTLE));
            // And what was looked at may have become a part of something bigger.
            search.looked.clear();
            settled = true;
            continue;
        }
        let until = if enrolled > 0 { half } else { deadline };
        if until.is_over() {
            if !missing.is_empty() {
                console::say(&words::did_not_appear(&missing));
            }
            return result(search.looked, words::NONE_APPEARED);
        }
        if !said {
            console::say(&words::waiting_for_volumes(&missing, until.seconds()));
            said = true;
        }
        events.wait_beside(search.looker.as_ref().map(AsFd::as_fd), "block", until);
    }
}

/// Every device with a LUKS2 header and a halfkey token of whatever state, open mappings included: for `status`.
pub fn all() -> Vec<(PathBuf, Header)> {
    let mut found: Vec<(PathBuf, Header)> = Vec::new();
    for entry in std::fs::read_dir(BLOCK).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if SKIPPED.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let path = Path::new("/dev").join(name.replace('!', "/"));
        if let Ok(file) = File::open(&path)
            && let Ok(Found::Luks2(header)) = Header::read(&file)
            && !header.halfkey_tokens().is_empty()
            && found.iter().all(|(_, other)| other.uuid != header.uuid)
        {
            found.push((path, *header));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn result(looked: BTreeMap<String, Look>, none: &str) -> Result<Devices> {
    let mut found = Devices::default();
    for look in looked.into_values() {
        match look {
            Look::Enrolled(volume) if is_part(&volume.file) => {}
            Look::Enrolled(volume) => found.volumes.push(*volume),
            Look::Other { path, uuid, why } => {
                why.iter().for_each(console::complain);
                found.others.extend(uuid.map(|uuid| (path, uuid)));
            }
        }
    }
    if found.volumes.is_empty() { Err(words::not_enrolled(none)) } else { Ok(found) }
}

/// UUIDs that are named and not there.
fn missing(settings: &Settings, looked: &BTreeMap<String, Look>) -> Vec<String> {
    let there = |uuid: &str| {
        looked.values().any(|look| match look {
            Look::Enrolled(volume) => volume.header.uuid == uuid,
            Look::Other { uuid: other, .. } => other.as_deref() == Some(uuid),
        })
    };
    // The newest token of each volume says what belongs to its enrollment.
    let enrolled = looked.values().filter_map(|look| match look {
        Look::Enrolled(volume) => volume.tokens.first().map(|(_, token)| token.volumes.as_slice()),
        Look::Other { .. } => None,
    });
    let named = settings.named.iter().map(|named| named.uuid.as_str());
    let named = named.chain(enrolled.flatten().map(String::as_str));
    let mut missing: Vec<_> = named.filter(|uuid| !there(uuid)).map(str::to_owned).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// What was looked at so far.
pub struct Search {
    /// Where sysfs lists block devices.
    block: PathBuf,
    /// Where their nodes are.
    dev: PathBuf,
    /// How long a device may take to answer before it is left.
    patience: Duration,
    /// None: it could not be started, or is gone, and devices are opened here.
    looker: Option<Looker>,
    looked: BTreeMap<String, Look>,
    /// Those that are known not to answer.
    said: Vec<PathBuf>,
}

impl Search {
    /// Nothing yet. `program` is the agent.
    pub fn new(block: &Path, dev: &Path, program: &Path, patience: Duration) -> Self {
        let looker = Looker::start(program);
        if let Err(error) = &looker {
            console::complain(&Error::system("look in another process", error));
        }
        Self {
            block: block.to_owned(),
            dev: dev.to_owned(),
            patience,
            looker: looker.ok(),
            looked: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// Looks at every block device that was not looked at before, until the deadline. One that does not answer is named and left;
    /// if it answers later, the next scan finds that.
    pub fn scan(&mut self, deadline: Deadline) {
        let Ok(entries) = std::fs::read_dir(&self.block) else { return };
        for entry in entries.flatten() {
            if deadline.is_over() {
                return;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            if self.looked.contains_key(&name) || SKIPPED.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let sys = entry.path();
            // A size of 0 is a drive without a medium, or a device that is not ready: its event comes.
            let empty = bounded::read_text(sys.join("size"), 32).is_ok_and(|size| size == "0");
            if empty || is_held(&sys) {
                continue;
            }
            let path = self.dev.join(name.replace('!', "/"));
            let until = deadline.within(self.patience);
            // When there is no room for it, another one has to answer first.
            while !self.ask(&path, until) && self.take() {}
        }
        let apart = self.looker.is_some();
        while self.take() {}
        if apart && self.looker.is_none() {
            return self.scan(deadline);
        }
        for path in self.looker.iter().flat_map(Looker::late) {
            if !self.said.iter().any(|said| said == path) {
                self.said.push(path.to_owned());
                console::say(&words::does_not_answer(path.display(), self.patience.as_secs()));
            }
        }
    }

    /// Has it looked at. False if there is no room for another one.
    fn ask(&mut self, path: &Path, until: Deadline) -> bool {
        match self.looker.as_mut().map(|looker| looker.ask(path, until)) {
            Some(Ok(asked)) => asked,
            Some(Err(error)) => {
                self.is_gone(error);
                self.ask(path, until)
            }
            None => {
                self.put(path, File::open(path).ok());
                true
            }
        }
    }

    /// From here on devices are opened in this process: those that answer are found all the same.
    fn is_gone(&mut self, error: std::io::Error) {
        console::complain(&Error::system("look in another process", error));
        self.looker = None;
    }

    /// Takes the next answer. False if there is none to be had.
    fn take(&mut self) -> bool {
        let Some(looker) = &mut self.looker else { return false };
        match looker.answer() {
            Ok(Some(Answer { path, file })) => {
                self.put(&path, file);
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.is_gone(error);
                false
            }
        }
    }

    fn put(&mut self, path: &Path, file: Option<File>) {
        let name = path.strip_prefix(&self.dev).unwrap_or(path).to_string_lossy().replace('/', "!");
        // Not readable yet: another event will bring us back.
        if let Some(file) = file
            && let Ok(found) = look_at(path, file)
        {
            self.looked.insert(name, found);
        }
    }

    /// What was found so far.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotEnrolled`] if no enrolled volume is among it.
    pub fn found(self) -> Result<Devices> {
        result(self.looked, words::NO_TOKEN)
    }
}

/// A part of something bigger (RAID, multipath, an open mapping): that bigger one is looked at.
fn is_held(sys: &Path) -> bool {
    std::fs::read_dir(sys.join("holders")).is_ok_and(|mut holders| holders.next().is_some())
}

/// The same for an open device; a plain file is part of nothing.
pub fn is_part(file: &File) -> bool {
    use nix::sys::stat::{major, minor};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Ok(metadata) = file.metadata() else { return false };
    let number = metadata.rdev();
    metadata.file_type().is_block_device()
        && is_held(&PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number))))
}

fn look(path: &Path) -> Result<Look> {
    look_at(path, File::open(path).map_err(|e| Error::system(path.display(), e))?)
}

fn look_at(path: &Path, file: File) -> Result<Look> {
    let at = |error: Error| error.context(path.display());
    let other = |uuid, why| Look::Other { path: path.to_owned(), uuid, why };
    let header = match Header::read(&file) {
        Ok(Found::Luks2(header)) => *header,
        Ok(Found::Luks1) => {
            return Ok(other(Header::claimed_uuid(&file), Some(words::luks1(path.display()))));
        }
        Ok(Found::Nothing) => return Ok(other(None, None)),
        Err(error) => return Ok(other(Header::claimed_uuid(&file), Some(at(error)))),
    };
    let size = size_of(&file).map_err(|e| Error::system(path.display(), e))?;
    // While an enrollment is being replaced there are two.
    let mut tokens: Vec<(u32, Token)> = Vec::new();
    let mut why = None;
    for (number, token) in header.halfkey_tokens() {
        match token {
            Ok(token) if !token.complete => {
                why =
                    Some(words::not_enrolled(format!("{}: the enrollment was interrupted", path.display())));
            }
            Ok(token) => tokens.push((number, token)),
            Err(error) => why = Some(at(error)),
        }
    }
    if tokens.is_empty() {
        return Ok(other(Some(header.uuid), why));
    }
    tokens.sort_by_key(|(_, token)| std::cmp::Reverse(token.enrolled_at));
    Ok(Look::Enrolled(Box::new(Volume { path: path.to_owned(), file, size, header, tokens })))
}

/// Size of a block device or a file, in bytes.
///
/// # Errors
/// When it can't be told.
pub fn size_of(file: &File) -> std::io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(end)
}
