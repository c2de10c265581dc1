//! Binds a volume: token, keyslot, token again.
//!
//! The token comes first and names the slot that will be used, so an interruption leaves nothing
//! that the next run could not explain. An older enrollment of the volume stays until the new one is proved.

use crate::boot::devices::size_of;
use crate::console;
use crate::deadline::Deadline;
use crate::enroll::challenge::Challenge;
use crate::enroll::running::Warning;
use crate::error::{Error, Kind, Result};
use crate::luks::cryptsetup::{self, Existing};
use crate::luks::header::{Found, free};
use crate::luks::token::Seal;
use crate::luks::{Header, Token};
use crate::net::Server;
use crate::terminal::ask_passphrase;
use halfkey_protocol::{Key, MAX_VOLUMES, NodeId};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// cryptsetup stretches the existing passphrase, on a slow machine with a lot of memory.
const CRYPTSETUP: Duration = Duration::from_secs(120);

/// Where a new binding is.
pub struct Bound {
    /// Number of the LUKS2 keyslot that the new passphrase opens.
    pub slot: u32,
    /// Number of the LUKS2 token that names it.
    pub token: u32,
}

/// A volume, open for reading, and its header as it is now.
pub struct Open {
    /// The device, open for reading.
    pub file: File,
    /// Size in bytes.
    pub size: u64,
    /// Its LUKS2 header, as it was read.
    pub header: Header,
}

/// Reads a volume's header.
///
/// # Errors
/// When it is not LUKS2.
pub fn open(device: &Path) -> Result<Open> {
    let file = File::open(device).map_err(|e| Error::system(device.display(), e))?;
    let not_luks2 =
        |what: &str| Error::volume(format!("{}: expected a LUKS2 volume, found {what}", device.display()));
    let header = match Header::read(&file).map_err(|e| e.context(device.display()))? {
        Found::Luks2(header) => *header,
        Found::Luks1 => {
            return Err(
                not_luks2("LUKS version 1").hint("convert it offline: cryptsetup convert --type luks2")
            );
        }
        Found::Nothing => {
            return Err(not_luks2("no LUKS header").hint("name the partition, not the mapping or the disk"));
        }
    };
    let size = size_of(&file).map_err(|e| Error::system(device.display(), e))?;
    Ok(Open { file, size, header })
}

/// What a token has besides the CA: two sealed halves, public keys, URLs, names.
const TOKEN: usize = 2 << 10;

/// Whether this device can be enrolled at all, with a token that holds a CA of `ca` bytes.
///
/// # Errors
/// When the boot would refuse its header, or there is no room for a keyslot and a token.
pub fn check_device(device: &Path, ca: usize) -> Result<()> {
    let open = open(device)?;
    let checked = open.header.check_volume(open.size).and_then(|()| {
        let tokens = open.header.halfkey_tokens();
        // What interrupted runs left is used, or makes room.
        let interrupted = tokens.iter().any(|(_, token)| token.as_ref().is_ok_and(|token| !token.complete));
        if interrupted || tokens.len() > 1 { Ok(()) } else { open.header.check_room(ca + TOKEN) }
    });
    checked.map_err(|e| e.context(device.display()))
}

/// When the newest enrollment of this node was made that is in use on one of the volumes, in seconds since 1970.
///
/// # Errors
/// When a volume can't be read.
pub fn newest_in_use(devices: &[PathBuf], node: NodeId) -> Result<Option<u64>> {
    let mut newest = None;
    for device in devices {
        let tokens = open(device)?.header.halfkey_tokens();
        let ours = tokens.into_iter().filter_map(|(_, token)| token.ok());
        let made = ours.filter(|token| token.complete && token.node == node).map(|token| token.enrolled_at);
        newest = newest.max(made.max());
    }
    Ok(newest)
}

/// Enrollments of this node that are complete on one of the volumes, newest first.
///
/// # Errors
/// When a volume can't be read.
pub fn enrollments(devices: &[PathBuf], node: NodeId) -> Result<Vec<String>> {
    let mut found: Vec<(u64, String)> = Vec::new();
    for device in devices {
        let tokens = open(device)?.header.halfkey_tokens().into_iter().filter_map(|(_, token)| token.ok());
        let ours = tokens.filter(|token| token.complete && token.node == node);
        found.extend(ours.map(|token| (token.enrolled_at, token.enrollment)));
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    found.truncate(MAX_VOLUMES);
    Ok(found.into_iter().map(|(_, enrollment)| enrollment).collect())
}

/// Finishes a run that was ended after its proof: `current` is what the verifier releases, so whatever else this node has on the
/// volumes is of no use. False if there was nothing to do, `current` is not on all of them, or a newer one was begun on one.
///
/// # Errors
/// When cryptsetup refuses.
pub fn finish_removal(
    devices: &[PathBuf],
    existing: &[Existing],
    node: NodeId,
    current: &str,
) -> Result<bool> {
    let mut left = false;
    let mut bound = Vec::new();
    for device in devices {
        let header = open(device)?.header;
        let tokens: Vec<_> = header
            .halfkey_tokens()
            .into_iter()
            .filter_map(|(number, token)| Some((number, token.ok().filter(|token| token.node == node)?)))
            .collect();
        let ours = |(_, token): &&(u32, Token)| token.complete && token.enrollment == current;
        let Some((number, token)) = tokens.iter().find(ours) else { return Ok(false) };
        // A renewal that was cut short, which nobody may be told is done: it is enrolled once more.
        if tokens.iter().any(|(_, other)| other.enrolled_at > token.enrolled_at) {
            return Ok(false);
        }
        left |= tokens.len() > 1;
        bound.push(Bound { slot: token.slot, token: *number });
    }
    for ((device, existing), bound) in devices.iter().zip(existing).zip(&bound).filter(|_| left) {
        remove_older(device, existing, bound, node)?;
    }
    Ok(left)
}

/// A way into each volume: the key file, or a passphrase asked for on the terminal (asked once if it opens all).
///
/// # Errors
/// When one of them can't be opened.
pub fn ask_existing(
    devices: &[impl AsRef<Path>],
    key_file: Option<&Path>,
    deadline: Deadline,
) -> Result<Vec<Existing>> {
    let mut ways: Vec<Existing> = Vec::new();
    for device in devices {
        let device = device.as_ref();
        let limit = deadline.within(CRYPTSETUP);
        if let Some(file) = key_file {
            let way = Existing::File(file.to_owned());
            if !cryptsetup::opens(device, &way, limit)? {
                return Err(Error::volume(format!(
                    "{}: {} does not open it",
                    device.display(),
                    file.display()
                ))
                .hint("a key file is used byte for byte: a line feed at its end counts"));
            }
            ways.push(way);
            continue;
        }
        if let Some(Existing::Typed(before)) = ways.last() {
            let same = Existing::Typed(before.clone());
            if cryptsetup::opens(device, &same, limit)? {
                ways.push(same);
                continue;
            }
        }
        ways.push(ask(device, deadline)?);
    }
    Ok(ways)
}

fn ask(device: &Path, deadline: Deadline) -> Result<Existing> {
    for _ in 0..3 {
        let typed: Zeroizing<Vec<u8>> =
            ask_passphrase(&format!("Existing passphrase of {}: ", device.display()))?;
        let way = Existing::Typed(typed);
        if cryptsetup::opens(device, &way, deadline.within(CRYPTSETUP))? {
            return Ok(way);
        }
        console::say("no keyslot opens with this passphrase");
    }
    Err(Error::volume(format!("{}: three passphrases, none right", device.display())))
}

/// Adds token and keyslot, tests the key as the boot will, with the checked header copy, and seals what was tested. The token
/// says of the volume what is to be sealed; its slot and seal are set here.
///
/// # Errors
/// When cryptsetup refuses, or the key does not open what was just made.
pub fn bind(device: &Path, token: &Token, key: &Key, existing: &Existing) -> Result<Bound> {
    let deadline = Deadline::after(3 * CRYPTSETUP);
    let token = Token { complete: false, seal: None, ..token.clone() };
    let header = open(device)?.header;
    let passphrase = key.volume_key(&header.uuid);
    let full = |what| Error::volume(format!("{}: all {what} are taken", device.display()));

    let begun = begun(device, &header, &token, passphrase.expose(), existing, deadline)?;
    if let Some((number, slot)) = begun {
        return finish(device, number, Token { slot, ..token }, key, deadline);
    }
    let header = open(device)?.header;
    let mut taken = header.keyslots();
    taken.extend(header.slots_of_tokens(&[]));
    let slot = free(&taken).ok_or_else(|| full("keyslots"))?;
    let number = free(&header.token_numbers()).ok_or_else(|| full("tokens"))?;
    let token = Token { slot, ..token };
    cryptsetup::import_token(device, number, &token.to_json(), false, deadline)?;
    cryptsetup::add_key(device, existing, slot, passphrase.expose(), deadline)?;
    finish(device, number, token, key, deadline)
}

/// Clears up after an interrupted run. If its keyslot opens with this very key (the same
/// enrollment), it is kept: its token's number and its slot. A complete token of another enrollment is what the
/// machine boots with.
fn begun(
    device: &Path,
    header: &Header,
    new: &Token,
    passphrase: &[u8],
    existing: &Existing,
    deadline: Deadline,
) -> Result<Option<(u32, u32)>> {
    let mut kept = None;
    for (number, token) in header.halfkey_tokens() {
        let token = match token {
            Ok(token) if token.node != new.node => continue,
            Ok(token) if token.complete && token.enrollment != new.enrollment => continue,
            Ok(token) => token,
            Err(error) => {
                console::complain(&error);
                cryptsetup::remove_token(device, number, deadline)?;
                continue;
            }
        };
        let slot = slot_of(header, number, &token);
        if let Some(slot) = slot.filter(|_| kept.is_none())
            && opens(device, slot, passphrase, deadline)?
        {
            kept = Some((number, slot));
            continue;
        }
        if let Some(slot) = slot {
            cryptsetup::remove_key(device, existing, slot, deadline)?;
        }
        cryptsetup::remove_token(device, number, deadline)?;
    }
    Ok(kept)
}

/// The keyslot that this token names, if halfkey made it as far as can be told: since an interrupted run the slot may
/// have been given to somebody's passphrase, or to another program whose token names it.
fn slot_of(header: &Header, number: u32, token: &Token) -> Option<u32> {
    let slot = token.slot;
    let ours = header.keyslots().contains(&slot)
        && header.is_unstretched(slot)
        && !header.slots_of_tokens(&[number]).contains(&slot);
    ours.then_some(slot)
}

/// Whether the key opens the slot, through the same eye of the needle as at boot.
fn opens(device: &Path, slot: u32, passphrase: &[u8], deadline: Deadline) -> Result<bool> {
    let open = open(device)?;
    let Ok(checked) = open.header.check(slot, open.size) else { return Ok(false) };
    cryptsetup::test(device, &checked.copy(&open.file, &[])?, passphrase, deadline)
}

/// The last write: the token with the seal over what was tested.
fn finish(device: &Path, number: u32, token: Token, key: &Key, deadline: Deadline) -> Result<Bound> {
    let open = open(device)?;
    let checked = open.header.check(token.slot, open.size).map_err(|e| e.context(device.display()))?;
    let copy = checked.copy(&open.file, &token.flags)?;
    if !cryptsetup::test(device, &copy, key.volume_key(&copy.uuid).expose(), deadline)? {
        return Err(Error::volume(format!(
            "{}: the new keyslot does not open with its key",
            device.display()
        ))
        .hint("run the enrollment again; if this repeats, the disk does not keep what is written"));
    }
    let sealed = copy.sealed(&token);
    let seal = Seal { mac: sealed.seal(key), fingerprint: sealed.fingerprint() };
    let token = Token { complete: true, seal: Some(seal), ..token };
    cryptsetup::import_token(device, number, &token.to_json(), true, deadline)?;
    Ok(Bound { slot: token.slot, token: number })
}

/// Removes what older enrollments of this node left, and warns if no other way into the volume is left, or if one was at other servers.
/// Another node's token and keyslot are not ours to remove.
///
/// # Errors
/// When cryptsetup refuses.
pub fn remove_older(device: &Path, existing: &Existing, bound: &Bound, node: NodeId) -> Result<()> {
    let deadline = Deadline::after(3 * CRYPTSETUP);
    let header = open(device)?.header;
    let tokens = header.halfkey_tokens();
    let new =
        tokens.iter().find_map(|(number, token)| token.as_ref().ok().filter(|_| *number == bound.token));
    let new = new.map(|token| token.servers.clone()).unwrap_or_default();
    for (number, token) in tokens {
        match token {
            _ if number == bound.token => {}
            Ok(token) if token.node != node => console::say(&format!(
                "{}: token {number} is of node {} and stays. hint: halfkey-agent unbind removes all",
                device.display(),
                token.node
            )),
            token => {
                let token = token.ok();
                remove(device, &header, number, token.as_ref(), existing, deadline)?;
                token
                    .and_then(|token| left_behind(device, &token, &new))
                    .iter()
                    .for_each(|line| console::say(line));
            }
        }
    }
    let header = open(device)?.header;
    warnings_of_others(device, &header)
        .flat_map(|warning| warning.lines())
        .for_each(|line| console::say(&line));
    if others(&header).is_empty() {
        console::say(&format!(
            "warning: {} has no other keyslot: if TPM or verifier are lost, so is the data. hint: cryptsetup luksAddKey",
            device.display()
        ));
    }
    Ok(())
}

/// What is to be said of an enrollment that was removed from the header, if it is at none of the servers of the `new` one: a copy
/// of the header still has it, and `revoke` at the new deployment does not reach the other.
fn left_behind(device: &Path, old: &Token, new: &[Server]) -> Option<String> {
    if old.servers.iter().any(|server| new.contains(server)) {
        return None;
    }
    let servers: Vec<_> = old.servers.iter().map(ToString::to_string).collect();
    Some(format!(
        "warning: {}: an older copy of its header still opens with what {} releases. hint: if it is not to open again, at the workstation of that deployment: halfkey revoke {}",
        device.display(),
        servers.join(", "),
        old.node
    ))
}

/// Removes what runs left that were ended before their proof: enrollments at the same servers that are neither the `new` one nor
/// the `current` one. Nothing will ever be released for them, and there is room for a few tokens only.
///
/// # Errors
/// When cryptsetup refuses.
pub fn remove_superseded(
    device: &Path,
    existing: &Existing,
    new: &Token,
    current: Option<&str>,
) -> Result<()> {
    let deadline = Deadline::after(3 * CRYPTSETUP);
    for (number, token) in open(device)?.header.halfkey_tokens() {
        let Ok(token) = token else { continue };
        let same_place = (token.node, &token.servers, &token.ca) == (new.node, &new.servers, &new.ca);
        let counts = token.enrollment == new.enrollment || Some(token.enrollment.as_str()) == current;
        if token.complete && same_place && !counts {
            // Each removal changes the header.
            remove(device, &open(device)?.header, number, Some(&token), existing, deadline)?;
        }
    }
    Ok(())
}

/// Other ways into the volume: keyslots that open its data and are not of a halfkey token, damaged ones included.
pub fn others(header: &Header) -> Vec<u32> {
    let ours = |(number, token): (u32, Result<Token>)| match token {
        Ok(token) => slot_of(header, number, &token).into_iter().collect(),
        Err(_) => header.slots_of_token(number),
    };
    let ours: Vec<u32> = header.halfkey_tokens().into_iter().flat_map(ours).collect();
    header.bound_keyslots().into_iter().filter(|slot| !ours.contains(slot)).collect()
}

/// What is to be said of each token by which another program opens the volume, with or without an attestation.
pub fn warnings_of_others<'h>(device: &'h Path, header: &Header) -> impl Iterator<Item = Warning> + use<'h> {
    header.other_tokens().into_iter().map(|(number, kind)| Warning {
        what: format!(
            "{}: token {number} ({kind}) opens it as well, also where halfkey denies it",
            device.display()
        ),
        hint: "once halfkey unlocks it: systemd-cryptenroll --wipe-slot=.., or clevis luks unbind".into(),
    })
}

/// Whether the agent could be removed: each of these volumes has another way in.
///
/// # Errors
/// If there is none with a halfkey token, or if one has no other way in.
pub fn removable(volumes: &[(PathBuf, Header)]) -> Result<()> {
    if volumes.is_empty() {
        return Err(Error::new(Kind::NotEnrolled, "no volume has a halfkey token"));
    }
    let stuck = volumes.iter().filter(|(_, header)| others(header).is_empty());
    let stuck: Vec<_> = stuck.map(|(path, _)| path.display().to_string()).collect();
    match stuck.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Error::volume(format!(
            "{}: the keyslot of halfkey is the only way in: without the agent the data are lost",
            stuck.join(", ")
        ))
        .hint(format!("add a passphrase first: cryptsetup luksAddKey {first}"))),
    }
}

/// Removes one token and its keyslot; `existing` must open another one.
///
/// # Errors
/// When cryptsetup refuses.
pub fn remove(
    device: &Path,
    header: &Header,
    number: u32,
    token: Option<&Token>,
    existing: &Existing,
    deadline: Deadline,
) -> Result<()> {
    if let Some(token) = token {
        match slot_of(header, number, token) {
            Some(slot) => cryptsetup::remove_key(device, existing, slot, deadline)?,
            None if header.keyslots().contains(&token.slot) => console::say(&format!(
                "{}: keyslot {} is not one that halfkey made and stays",
                device.display(),
                token.slot
            )),
            None => {}
        }
    }
    cryptsetup::remove_token(device, number, deadline)
}

/// `unbind`: removes every halfkey token and keyslot of the volume, and the challenge of an enrollment that was not done.
///
/// # Errors
/// When that would remove the last way into the volume, or cryptsetup refuses.
pub fn unbind(device: &Path, key_file: Option<&Path>) -> Result<()> {
    let header = open(device)?.header;
    let tokens = header.halfkey_tokens();
    if tokens.is_empty() {
        return Err(Error::new(
            Kind::NotEnrolled,
            format!("{}: there is no halfkey token", device.display()),
        ));
    }
    if others(&header).is_empty() {
        return Err(Error::volume(format!(
            "{}: the keyslot of halfkey is the only way into this volume",
            device.display()
        ))
        .hint("add a passphrase first: cryptsetup luksAddKey"));
    }
    let deadline = Deadline::after(10 * CRYPTSETUP);
    let existing = ask_existing(&[device], key_file, deadline)?.remove(0);
    for (number, token) in tokens {
        let token = token.ok();
        remove(device, &header, number, token.as_ref(), &existing, deadline)?;
        if let Some(token) = token {
            Challenge::forget(token.node);
            left_behind(device, &token, &[]).iter().for_each(|line| console::say(line));
        }
        console::print(&format!("{}: removed token {number} and its keyslot\n", device.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luks::token::tests::token;

    #[test]
    fn an_enrollment_at_another_deployment_is_said_to_be_left() {
        let servers = |urls: &[&str]| urls.iter().map(|url| Server::parse(url).unwrap()).collect::<Vec<_>>();
        let old = Token { servers: servers(&["https://a:1", "https://b:1"]), ..token(1, true) };
        let said = |new: &[&str]| left_behind(Path::new("/dev/vda2"), &old, &servers(new));
        // One more server, or one less, is the same deployment.
        assert_eq!(said(&["https://b:1", "https://c:1"]), None);
        let said = said(&["https://c:1"]).unwrap();
        for part in ["/dev/vda2", "https://a:1, https://b:1", &format!("halfkey revoke {}", old.node)] {
            assert!(said.contains(part), "{said}");
        }
    }
}
