//! `status`: what this machine's TPM, fence, volumes and servers look like now.

use crate::boot::devices;
use crate::boot::state::State;
use crate::console::{self, print};
use crate::deadline::Deadline;
use crate::enroll::{bind, root, running};
use crate::error::{Error, Result};
use crate::fence;
use crate::luks::{Header, Token};
use crate::net::{Client, Error as NetError, tls};
use crate::timing::Timeline;
use crate::tpm::{Location, Tpm, choice};
use crate::{firmware, logs};
use halfkey_protocol::wire::{self, Purpose};
use halfkey_protocol::{NodeId, VERSIONS, identity};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A server that does not answer by then is not reachable for a boot either.
const REACH: Duration = Duration::from_secs(5);

/// All of it; the JSON of `--json`.
#[derive(Debug, Default, miniserde::Serialize)]
pub struct Status {
    version: String,
    tpm: Option<TpmStatus>,
    /// Why `tpm` is missing or incomplete.
    tpm_error: Option<String>,
    boot: firmware::Boot,
    /// Why the gate would stop the next boot, if the enrolled volumes are those of this system.
    next_boot_stopped: Option<String>,
    /// What the running system would take from outside the enrolled volumes.
    warnings: Vec<running::Warning>,
    volumes: Vec<VolumeStatus>,
    servers: Vec<ServerStatus>,
}

#[derive(Debug, Default, miniserde::Serialize)]
struct TpmStatus {
    manufacturer: String,
    vendor: String,
    firmware: String,
    in_lockout: bool,
    node: Option<String>,
    ek_fingerprint: Option<String>,
    ek_certificate: Option<bool>,
    fence: String,
    /// PCR 15 in the banks whose hash the agent has.
    fence_pcr: Vec<BankStatus>,
    /// Whether U could be unsealed at all now: only while the fence is open.
    can_unseal: bool,
    evidence_id: Option<u64>,
}

#[derive(Debug, Default, miniserde::Serialize)]
struct BankStatus {
    bank: String,
    /// Hex.
    value: String,
}

#[derive(Debug, Default, miniserde::Serialize)]
struct VolumeStatus {
    device: String,
    uuid: String,
    token: Option<u32>,
    keyslot: Option<u32>,
    node: Option<String>,
    enrollment: Option<String>,
    /// Name of its mapping, by the token.
    mapping: Option<String>,
    /// `root` or `data`.
    role: Option<String>,
    /// `enrolled`, `interrupted`, `changed` (since it was sealed), `damaged`, `refused`.
    state: String,
    why: Option<String>,
    other_keyslots: Vec<u32>,
    /// Opened by attestation in this boot.
    opened: bool,
}

#[derive(Debug, Default, miniserde::Serialize)]
struct ServerStatus {
    url: String,
    reachable: bool,
    why: Option<String>,
}

/// Looks at everything; nothing is changed. `devices` instead of those that are found.
pub fn collect(location: &Location, devices: &[PathBuf]) -> Status {
    let state = State::load().ok().flatten();
    let boot = firmware::Boot::now();
    let mut status = Status { version: env!("CARGO_PKG_VERSION").into(), boot, ..Status::default() };
    let volumes = if devices.is_empty() {
        devices::all()
    } else {
        let open = |path: &PathBuf| bind::open(path).map(|open| (path.clone(), open.header)).ok();
        devices.iter().filter_map(open).collect()
    };
    let mut tokens = Vec::new();
    for (path, header) in &volumes {
        for (number, token) in header.halfkey_tokens() {
            status.volumes.push(volume_status(path, header, number, &token, state.as_ref()));
            tokens.extend(token.ok());
        }
    }
    let tpm = open_tpm(&fence::on_record(location, state.as_ref()), &tokens);
    match tpm.and_then(|tpm| tpm_status(tpm, state.as_ref())) {
        Ok(tpm) => status.tpm = Some(tpm),
        Err(error) => status.tpm_error = Some(error.to_string()),
    }
    let enrolled: Vec<_> = status.volumes.iter().map(|volume| volume.uuid.clone()).collect();
    if !console::in_initramfs() && root::any_open(&enrolled) {
        status.next_boot_stopped = root::stopped(&enrolled);
        status.warnings = running::warnings(&enrolled);
    }
    let enrolled = volumes.iter().filter(|(_, header)| !header.halfkey_tokens().is_empty());
    status.warnings.extend(enrolled.flat_map(|(path, header)| bind::warnings_of_others(path, header)));
    status.servers = servers_of(&tokens);
    status
}

/// `status --removable`: scripts of packages ask. Neither TPM nor server is needed.
///
/// # Errors
/// As [`bind::removable`], or if a device of `devices` can't be read.
pub fn removable(devices: &[PathBuf]) -> Result<()> {
    if devices.is_empty() {
        return bind::removable(&devices::all());
    }
    let open = |path: &PathBuf| bind::open(path).map(|open| (path.clone(), open.header));
    let mut volumes = devices.iter().map(open).collect::<Result<Vec<_>>>()?;
    volumes.retain(|(_, header)| !header.halfkey_tokens().is_empty());
    bind::removable(&volumes)
}

/// Of several TPMs, that of the enrollment, else the first.
fn open_tpm(each: &[Location], tokens: &[Token]) -> Result<Tpm> {
    let names: Vec<_> = tokens.iter().map(|token| &*token.srk_name).collect();
    if each.len() > 1
        && let Ok(chosen) = choice::by_srk(each, &names, &mut |_| Ok(()))
    {
        return Ok(chosen.tpm);
    }
    Ok(Tpm::open(&each[0])?)
}

fn tpm_status(mut tpm: Tpm, state: Option<&State>) -> Result<TpmStatus> {
    let description = tpm.description()?;
    let fence = tpm.fence_state()?;
    let meaning = fence::meaning(&fence, state, &logs::systemd());
    // A TPM whose EK can't be had still has a fence worth showing.
    let ek = tpm.endorsement_key().ok();
    Ok(TpmStatus {
        manufacturer: description.manufacturer,
        vendor: description.vendor,
        firmware: format!("{:016x}", description.firmware),
        in_lockout: tpm.permanent()?.in_lockout,
        node: ek.as_ref().map(|ek| NodeId::from_ek_name(&ek.object.name).to_string()),
        ek_fingerprint: ek.as_ref().map(|ek| identity::fingerprint(&ek.object.public)),
        ek_certificate: ek.as_ref().map(|ek| ek.certificate.is_some()),
        fence: meaning.as_str().into(),
        fence_pcr: fence
            .known()
            .map(|(bank, value)| BankStatus {
                bank: bank.name().into(),
                value: value.iter().map(|byte| format!("{byte:02x}")).collect(),
            })
            .collect(),
        can_unseal: fence.is_open(),
        evidence_id: state.and_then(|state| state.evidence_id),
    })
}

fn volume_status(
    path: &Path,
    header: &Header,
    number: u32,
    token: &Result<Token>,
    state: Option<&State>,
) -> VolumeStatus {
    let (word, why) = match token {
        Err(error) => ("damaged", Some(error.to_string())),
        Ok(token) if !token.complete => ("interrupted", Some("run halfkey-agent enroll again".into())),
        Ok(token) => match sealed_as_it_is(path, header, token) {
            Ok(true) => ("enrolled", None),
            Ok(false) => ("changed", Some(CHANGED.into())),
            Err(error) => ("refused", Some(error.to_string())),
        },
    };
    let token = token.as_ref().ok();
    VolumeStatus {
        device: path.display().to_string(),
        uuid: header.uuid.clone(),
        token: Some(number),
        keyslot: token.map(|token| token.slot),
        node: token.map(|token| token.node.to_string()),
        enrollment: token.map(|token| token.enrollment.clone()),
        mapping: token.map(|token| token.mapping.clone()),
        role: token.map(|token| token.role.as_str().into()),
        state: word.into(),
        why,
        other_keyslots: bind::others(header),
        opened: state.is_some_and(|state| {
            state.volumes.iter().any(|volume| volume.uuid == header.uuid && volume.mapping.is_some())
        }),
    }
}

const CHANGED: &str = "header or token are not those that were sealed at the enrollment, and the next boot will ask for the passphrase; if that was on purpose, enroll again";

/// Whether the header is still the one that was sealed. Without K only its fingerprint in the token can tell: that finds what
/// an owner changed, not what an attacker did.
fn sealed_as_it_is(path: &Path, header: &Header, token: &Token) -> Result<bool> {
    let file = std::fs::File::open(path).map_err(|e| Error::system(path.display(), e))?;
    let size = devices::size_of(&file).map_err(|e| Error::system(path.display(), e))?;
    let copy = header.check(token.slot, size)?.copy(&file, &token.flags)?;
    Ok(token.seal.as_ref().is_some_and(|seal| seal.fingerprint == copy.sealed(token).fingerprint()))
}

/// Asks each server of the tokens once. `begin` changes nothing there, and a refusal is an answer.
fn servers_of(tokens: &[Token]) -> Vec<ServerStatus> {
    let mut servers: Vec<ServerStatus> = Vec::new();
    for token in tokens {
        for server in &token.servers {
            if servers.iter().any(|known| known.url == server.as_str()) {
                continue;
            }
            let begin = wire::Begin {
                versions: VERSIONS.to_vec(),
                node_id: token.node.to_string(),
                purpose: Purpose::Runtime.as_str().into(),
                enrollments: Vec::new(),
            };
            let why = match tls::config(&token.ca, token.enrolled_at) {
                Err(error) => Some(error.to_string()),
                Ok(tls) => {
                    let client = Client::new(server.clone(), tls, Timeline::default());
                    match client.post::<_, wire::Begun>("/v1/begin", &begin, REACH, Deadline::after(REACH)) {
                        Ok(_) | Err(NetError::Problem { .. }) => None,
                        Err(error) => Some(error.to_string()),
                    }
                }
            };
            servers.push(ServerStatus { url: server.to_string(), reachable: why.is_none(), why });
        }
    }
    servers
}

impl Status {
    /// One JSON object and a line feed.
    pub fn print_json(&self) {
        print(&format!("{}\n", miniserde::json::to_string(self)));
    }

    /// For people.
    pub fn print(&self) {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<16}{value}\n"));
        if let Some(tpm) = &self.tpm {
            line("tpm", &format!("{} {}, firmware {}", tpm.manufacturer, tpm.vendor, tpm.firmware));
            if tpm.in_lockout {
                line("", "in lockout after failed authorizations");
            }
            line("node", tpm.node.as_deref().unwrap_or("unknown: the TPM gives no EK"));
            line("EK fingerprint", tpm.ek_fingerprint.as_deref().unwrap_or("-"));
            line(
                "EK certificate",
                if tpm.ek_certificate == Some(true) { "in the TPM" } else { "none in the TPM" },
            );
            let fence = match tpm.fence.as_str() {
                "open" => "open: the boot window has not been closed, this node's half can still be unsealed",
                "opened" => "fence extended: the volumes were opened by attestation in this boot",
                "closed" => "fence extended: closed without an attested opening (passphrase boot)",
                "passphrase" => {
                    "fence extended: opened by attestation, closed again, then a passphrase was asked for"
                }
                "shell" => "fence extended: opened by attestation, closed again, then a shell was to be had",
                "rogue" => "fence extended: the root was not on an opened volume",
                _ => "fence extended: by something that the agent does not know",
            };
            line("fence", fence);
            for bank in &tpm.fence_pcr {
                line(&format!("PCR 15 {}", bank.bank), &bank.value);
            }
        }
        if let Some(error) = &self.tpm_error {
            line("tpm", error);
        }
        let secure_boot = match self.boot.secure_boot {
            Some(true) => "on",
            Some(false) => "off",
            None => "unknown: neither event log nor firmware variable tells",
        };
        line("Secure Boot", secure_boot);
        self.boot.warnings().iter().for_each(|warning| line("", warning));
        if let Some(why) = &self.next_boot_stopped {
            line("", &format!("warning: the next boot will be stopped before switch-root: {why}"));
            line("", &format!("hint: {}", root::REMEDY));
        }
        self.warnings.iter().flat_map(running::Warning::lines).for_each(|text| line("", &text));
        for volume in &self.volumes {
            let slot = volume.keyslot.map(|slot| format!(", keyslot {slot}")).unwrap_or_default();
            let opened = if volume.opened { ", opened in this boot" } else { "" };
            let why = volume.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            line("volume", &format!("{} {}{slot}{opened}{why}", volume.device, volume.state));
            if volume.other_keyslots.is_empty() {
                line("", "warning: no other keyslot: if TPM or verifier are lost, so is the data");
            }
        }
        if self.volumes.is_empty() {
            line("volume", "none with a halfkey token");
        }
        for server in &self.servers {
            let why = server.why.as_ref().map(|why| format!("not reachable: {why}"));
            line("server", &format!("{} {}", server.url, why.as_deref().unwrap_or("reachable")));
        }
        print(&out);
    }
}
