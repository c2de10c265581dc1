//! Enrollment, in the running system: register the TPM, wait for the tenant, check the tenant's
//! signature, bind the volumes. Can be interrupted anywhere and run again.
//!
//! | module | what |
//! | --- | --- |
//! | [`address`] | a host with an address that its initramfs has not |
//! | [`anchor`] | a credential that systemd writes to the ESP in each boot |
//! | [`challenge`] | what the enrollment must answer, kept until it is done |
//! | [`register`] | the TPM introduces itself to the registrar |
//! | [`tenant_document`] | what the tenant signed, checked before anything of it is used |
//! | [`plan`] | what each token will say of its volume |
//! | [`bind`] | token, keyslot, token again with the seal |
//! | [`prompts`] | whether anything would ask for a passphrase over the opened volumes |
//! | [`root`] | whether the next boot's root would be on an enrolled volume |
//! | [`running`] | what the running system would take from elsewhere |

pub mod address;
pub mod anchor;
pub mod bind;
pub mod challenge;
pub mod plan;
pub mod prompts;
pub mod register;
pub mod root;
pub mod running;
pub mod tenant_document;

use crate::console;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::exchange::repeat::until_answered;
use crate::exchange::rules::Came;
use crate::exchange::{self, Ask, Attested, Attester, Commitments, Failed};
use crate::firmware;
use crate::initramfs;
use crate::luks::Token;
use crate::luks::cryptsetup::Existing;
use crate::net::race::{Connection, Race, RaceConfig};
use crate::net::{Client, Server, tls};
use crate::propose::{find, grub};
use crate::timing::Timeline;
use crate::tpm::{Hierarchy, Location, Object, Persistent, Tpm};
use challenge::Challenge;
use halfkey_protocol::keys::half::proof_digest;
use halfkey_protocol::tpm::qualifying_data::Wanted;
use halfkey_protocol::tpm::seal_policy;
use halfkey_protocol::wire::{self, Purpose};
use halfkey_protocol::{Half, Key, NodeId, Reason, Role, identity};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tenant_document::TenantDocument;
use zeroize::Zeroizing;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The verifier.
    pub server: Server,
    /// The registrar, if it is another host.
    pub registrar: Option<Server>,
    /// The CA of both, PEM.
    pub ca: String,
    /// Fingerprint of the tenant key.
    pub tenant_key: String,
    /// Opens the volumes; else a passphrase is asked for.
    pub key_file: Option<PathBuf>,
    /// How long to wait for the tenant.
    pub timeout: Duration,
    /// Run dracut first, and look into what it builds.
    pub rebuild_initramfs: bool,
    /// The volumes.
    pub devices: Vec<PathBuf>,
    /// Another system boots from the volumes than the one that runs.
    pub root_elsewhere: bool,
    /// Other volumes that the initramfs opens are opened without a prompt.
    pub others_may_ask: bool,
    /// Device or simulator of the TPM.
    pub tpm: Location,
    /// Passwords of hierarchies that have one.
    pub passwords: Vec<(Hierarchy, PathBuf)>,
}

/// The halves are bound to one TPM, and which of several the firmware measures into is not known here.
fn only(each: Vec<Location>) -> Result<Location> {
    <[Location; 1]>::try_from(each).map(|[one]| one).map_err(|each| {
        Error::new(Kind::Tpm, format!("expected one TPM, found {}", Location::list(&each)))
            .hint("name the one that the firmware measures into: halfkey-agent --tpm DEVICE enroll ..")
    })
}

/// Enrolls this machine and its volumes.
///
/// # Errors
/// At the first thing that is not as it must be. What was done before stays and is continued by the next run.
pub fn run(options: &Options) -> Result<()> {
    let deadline = Deadline::after(options.timeout);
    let location = only(options.tpm.each())?;
    // Not named, a program is passed over.
    let first = Location::Device("/dev/tpmrm0".into());
    if location.is_software() || (location.is_absent() && first.is_software()) {
        let found = "expected the TPM of this machine, found a program that poses as one";
        return Err(Error::new(Kind::Tpm, found).hint(
            "its keys are in a file, which protects nothing: switch the machine's own TPM on in the firmware's setup, and take systemd.tpm2_software_fallback= off the kernel command line",
        ));
    }
    // What can be found out without a server or a passphrase is found out first.
    for device in &options.devices {
        bind::check_device(device, options.ca.len())?;
    }
    root::check(&options.devices, options.root_elsewhere)?;
    let plans = plan::of(&options.devices, options.root_elsewhere)?;
    if !options.others_may_ask && !options.root_elsewhere {
        prompts::check(&options.devices, &plans)?;
    }
    warn_of_floor(options.root_elsewhere);
    let tenant_key = identity::read_fingerprint(&options.tenant_key).ok_or_else(|| {
        Error::new(Kind::Usage, "expected a fingerprint in --tenant-key, found something else")
            .hint("'halfkey key' prints it at the tenant's workstation: sha256: and 64 hex digits")
    })?;
    if !options.root_elsewhere {
        let warnings = running::warnings_of(&options.devices);
        warnings.iter().flat_map(running::Warning::lines).for_each(|line| console::say(&line));
    }
    let tls = tls::config(&options.ca, 0)?;
    // Without an enrollment such an image asks for the passphrase, as before; an enrollment without it would do so for ever.
    if options.rebuild_initramfs {
        // That takes a while: a TPM that is not there is found out first, and is not held meanwhile.
        drop(Tpm::open(&location)?);
        let added = initramfs::always::add();
        if let Err(error) = initramfs::build::rebuild() {
            if added {
                initramfs::always::remove();
            }
            return Err(error);
        }
    } else if options.root_elsewhere {
        console::say(&format!("note: {}", initramfs::always::NEEDED));
    } else {
        initramfs::always::add();
        initramfs::build::warn();
    }
    let mut tpm = Tpm::open(&location)?;
    supply_passwords(&mut tpm, &options.passwords)?;
    let mut keys = register::Keys::of(&mut tpm)?;
    let timeline = Timeline::default();
    let registrar = options.registrar.as_ref().unwrap_or(&options.server);
    let node = keys.node();
    let challenge = Challenge::of(node)?;
    register::register(&mut tpm, &keys, challenge.bytes(), registrar, tls.clone(), &timeline, deadline)?;
    console::print(&format!(
        "node id:        {node}\nEK fingerprint: {}\n",
        halfkey_protocol::identity::fingerprint(&keys.ek.object.public)
    ));
    let existing = bind::ask_existing(&options.devices, options.key_file.as_deref(), deadline)?;

    let attester = Attester {
        node,
        purpose: Purpose::Enroll,
        srk_name: &keys.srk.name.clone(),
        bank: None,
        enrollments: &[],
    };
    let config = RaceConfig {
        servers: vec![options.server.clone()],
        tls,
        begin: attester.begin(),
        deadline,
        timeline,
    };
    let wanted = Wanted { tenant_key, challenge: *challenge.bytes() };
    let (attested, client) = match released(&mut tpm, &keys, attester, wanted, &config) {
        Err(error) if nothing_is_open(error.code.as_deref()) => {
            return match finish_removal(options, &existing, &attester, &config) {
                Ok(true) => {
                    challenge.done();
                    end();
                    Ok(())
                }
                _ => Err(error),
            };
        }
        released => released?,
    };
    let (document, key, u) = open(&mut tpm, &keys, node, challenge.bytes(), &attested, options)?;
    // The tenant's workstation shows the same one: what was just signed, and nothing from before.
    console::print(&format!("enrollment id:  {}\n", document.enrollment_id));

    keep(&mut tpm, &mut keys)?;
    let policy = seal_policy::seal_policy(document.bank, &document.release_name, &node.0);
    let sealed = tpm.seal(&keys.srk, u.expose(), &policy)?;
    drop(u);
    let common = Token {
        slot: 0,
        complete: false,
        mapping: String::new(),
        role: Role::Data,
        flags: Vec::new(),
        volumes: Vec::new(),
        seal: None,
        node,
        enrollment: document.enrollment_id.clone(),
        servers: document.servers.clone(),
        ca: document.ca.clone(),
        sealed_public: sealed.public,
        sealed_private: sealed.private,
        srk_name: keys.srk.name.clone(),
        bank: document.bank,
        release_public: document.release_public.clone(),
        enrolled_at: document.created,
    };
    let mut bound = Vec::new();
    let current = current(options, &attester, &config);
    for ((device, existing), plan) in options.devices.iter().zip(&existing).zip(&plans) {
        if let Some(current) = &current {
            bind::remove_superseded(device, existing, &common, current.as_deref())?;
        }
        bound.push(bind::bind(device, &plan::token(&common, plan, &plans), &key, existing)?);
    }
    prove(&client, node, &document, &key, deadline)?;
    drop(key);
    challenge.done();
    grub::remember(&find::System::running(None));
    // Only now is the older enrollment of no use any more.
    for ((device, existing), bound) in options.devices.iter().zip(&existing).zip(bound) {
        bind::remove_older(device, existing, &bound, node)?;
        console::print(&format!("{}: keyslot {} and token {}\n", device.display(), bound.slot, bound.token));
    }
    end();
    Ok(())
}

/// Keeps AK and SRK in the TPM: to make them again takes a chip half a second of each boot, and what is not persistent is loaded
/// and saved around each command. A hierarchy with a password can't make them in the initramfs: there they must be kept.
fn keep(tpm: &mut Tpm, keys: &mut register::Keys) -> Result<()> {
    let permanent = tpm.permanent()?;
    for (which, key, needed) in [
        (Persistent::Ak, &mut keys.ak, permanent.endorsement_auth),
        (Persistent::Srk, &mut keys.srk, permanent.owner_auth),
    ] {
        match tpm.persist(which, key) {
            Ok(kept) => {
                let made = std::mem::replace(key, kept);
                tpm.flush(made)?;
            }
            Err(error) if needed => return Err(error.into()),
            Err(error) => console::say(&format!(
                "warning: the {} is not kept in the TPM, and each boot has to make it again: {error}",
                which.name()
            )),
        }
    }
    Ok(())
}

fn end() {
    console::print("enrolled; the next boot asks the verifier\n");
}

/// There is nothing to enroll any more. If an earlier run was ended after its proof, what it had still to remove is
/// removed; whether it had come that far, the verifier knows.
fn finish_removal(
    options: &Options,
    existing: &[Existing],
    attester: &Attester,
    config: &RaceConfig,
) -> Result<bool> {
    let newest = bind::enrollments(&options.devices, attester.node)?.into_iter().next();
    match current(options, attester, config) {
        // A newer one that is not proved can't be finished any more, and is the tenant's business.
        Some(Some(current)) if newest.as_ref() == Some(&current) => {
            bind::finish_removal(&options.devices, existing, attester.node, &current)
        }
        _ => Ok(false),
    }
}

/// The enrollment on these volumes that the verifier releases at a boot, if one is; `None` if it does not say.
fn current(options: &Options, attester: &Attester, config: &RaceConfig) -> Option<Option<String>> {
    let enrollments = bind::enrollments(&options.devices, attester.node).ok()?;
    let asks = Attester { purpose: Purpose::Boot, enrollments: &enrollments, ..*attester };
    match Race::start(&RaceConfig { begin: asks.begin(), ..config.clone() }).ok()?.winner() {
        Ok(connection) => Some(connection.begun.enrollment),
        Err(error) if error.code.as_deref() == Some(Reason::EnrollmentOpen.code()) => Some(None),
        Err(_) => None,
    }
}

/// What no policy could accept is said now, not when the first boot is to be approved.
fn warn_of_floor(root_elsewhere: bool) {
    if !root_elsewhere {
        let next: Vec<_> = find::System::running(None)
            .next_lines()
            .iter()
            .map(|next| firmware::NextLine::of(&next.file, &next.line, next.built))
            .collect();
        firmware::Boot::now().warnings_before(&next).iter().for_each(|line| console::say(line));
    }
}

fn supply_passwords(tpm: &mut Tpm, passwords: &[(Hierarchy, PathBuf)]) -> Result<()> {
    for (hierarchy, file) in passwords {
        let mut text =
            Zeroizing::new(crate::bounded::read(file, 64).map_err(|e| Error::system(file.display(), e))?);
        while text.ends_with(b"\n") {
            text.pop();
        }
        tpm.set_hierarchy_auth(*hierarchy, text);
    }
    Ok(())
}

/// Attests with purpose `enroll`.
struct AskForEnrollment<'a> {
    attester: Attester<'a>,
    tpm: &'a mut Tpm,
    ak: &'a Object,
    wanted: Wanted,
}

impl Ask for AskForEnrollment<'_> {
    type Answer = Attested;

    fn attester(&self) -> Attester<'_> {
        self.attester
    }

    fn attempt(
        &mut self,
        connection: &Connection,
        deadline: Deadline,
    ) -> std::result::Result<Attested, Failed> {
        let commitments = Commitments { nonce_tpm: &[], purpose_data: &self.wanted.bytes() };
        self.attester.finish(self.tpm, self.ak, connection, commitments, deadline)
    }

    fn came(attested: &Attested) -> Came {
        attested.came()
    }

    fn ticket(attested: &Attested) -> Option<&str> {
        attested.verdict.ticket.as_deref()
    }

    fn refusal(attested: &Attested) -> Error {
        attested.refusal()
    }
}

/// Attests until the tenant has enrolled the node and the verifier released.
fn released(
    tpm: &mut Tpm,
    keys: &register::Keys,
    attester: Attester,
    wanted: Wanted,
    config: &RaceConfig,
) -> Result<(Attested, Client)> {
    let connection = Race::start(config)?.winner();
    let mut ask = AskForEnrollment { attester, tpm, ak: &keys.ak, wanted };
    exchange::run(&mut ask, config, connection)
}

/// No enrollment waits for this machine, or another tenant's does, which this machine can't finish.
fn nothing_is_open(code: Option<&str>) -> bool {
    [Reason::EnrollmentUsed, Reason::EnrollmentSignature].iter().any(|reason| code == Some(reason.code()))
}

/// Checks the tenant's document, and only then uses what came with it: K and U.
fn open(
    tpm: &mut Tpm,
    keys: &register::Keys,
    node: NodeId,
    challenge: &[u8; 32],
    attested: &Attested,
    options: &Options,
) -> Result<(TenantDocument, Key, Half)> {
    let missing = |what| Error::new(Kind::Network, format!("the verdict says released, without {what}"));
    let signed = attested.verdict.enrollment.as_ref().ok_or_else(|| missing("the tenant's document"))?;
    let released = attested.open()?;
    let c_u = released.c_u.as_ref().ok_or_else(|| missing("C_U"))?;
    let expected = tenant_document::Expected {
        tenant_key: &options.tenant_key,
        node,
        ek_name: &keys.ek.object.name,
        ak_name: &keys.ak.name,
        srk_name: &keys.srk.name,
        challenge,
        c_u,
        c_v: &released.c_v,
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        in_use: bind::newest_in_use(&options.devices, node)?,
    };
    let document = TenantDocument::verify(signed, &expected)?;
    let wrong = || Error::new(Kind::Refused, "the halves do not have 32 bytes");
    let u = Half::take(&mut tpm.activate_with_ek(&keys.srk, &keys.ek, &keys.ak, c_u)?).ok_or_else(wrong)?;
    let v = Half::take(&mut tpm.activate_with_srk(&keys.srk, &keys.ak, &released.c_v)?).ok_or_else(wrong)?;
    let key = Key::combine(&u, &v);
    if proof_digest(&key.proof()) != document.proof_sha256 {
        return Err(Error::new(Kind::Refused, "the halves do not make the key that the tenant signed for"));
    }
    Ok((document, key, u))
}

/// Proves K: from now on the purpose `boot` is open. Asked again while the server is not well.
fn prove(
    client: &Client,
    node: NodeId,
    document: &TenantDocument,
    key: &Key,
    deadline: Deadline,
) -> Result<()> {
    let request = wire::Prove {
        node_id: node.to_string(),
        enrollment_id: document.enrollment_id.clone(),
        proof: key.proof().into(),
    };
    until_answered::<_, wire::Proved>(client, "/v1/prove", &request, deadline).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_tpms_one_has_to_be_named() {
        let device = |number| Location::Device(format!("/dev/tpmrm{number}").into());
        assert_eq!(only(vec![device(1)]).unwrap(), device(1));
        let error = only(vec![device(0), device(1)]).unwrap_err();
        assert_eq!(error.to_string(), "expected one TPM, found /dev/tpmrm0, /dev/tpmrm1");
        assert!(error.hint.unwrap().contains("--tpm DEVICE"));
    }
}
