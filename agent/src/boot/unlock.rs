//! The unlocking: find the volumes, attest, check every seal, test every key, extend the fence, open.
//!
//! Whatever fails, the fence is closed before this returns, so that the ordinary passphrase
//! prompt may appear. See docs/protocol.md, "Opening".

use super::cmdline::{DEFAULT_TIMEOUT, Settings};
use super::devices::{self, Devices};
use super::flow::{Failure, Step, Walk, WayOut};
use super::route::{self, Route};
use super::state::{self, Opened, State, expected_mapping_uuid};
use super::target::{self, Target};
use super::{sysrq, teardown};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::exchange::rules::{Came, ROUNDS};
use crate::exchange::{self, Ask, Attested, Attester, Commitments, Failed};
use crate::luks::{Token, cryptsetup};
use crate::net::race::{Connection, Race, RaceConfig};
use crate::net::tls;
use crate::timing::Timeline;
use crate::tpm::{self, Location, Object, SealedBlob, Tpm, UnsealSession, choice};
use crate::words;
use crate::{console, fence, sd_notify, trace};
use halfkey_protocol::identity::sha256;
use halfkey_protocol::keys::half::VolumeKey;
use halfkey_protocol::keys::label;
use halfkey_protocol::keys::opening::OpeningSecret;
use halfkey_protocol::wire::{Begun, Outcome, Purpose};
use halfkey_protocol::{Half, Key, Role};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// For the volumes and the fence when the deadline is over.
const AFTER_DEADLINE: Duration = Duration::from_secs(60);

/// What the command line of the agent says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// All but the fence and the opening.
    pub dry_run: bool,
    /// Overrides `rd.halfkey.timeout=`.
    pub timeout: Option<Duration>,
    /// LUKS2 devices to unlock; empty: all enrolled volumes that are found.
    pub devices: Vec<PathBuf>,
    /// Device or simulator of the TPM.
    pub tpm: Location,
}

/// What an unlocking came to: who released, and which volumes were opened or, in a dry run, would open.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// URL of the server that released.
    pub server: String,
    /// Number of the evidence at that server, if it gave one.
    pub evidence_id: Option<u64>,
    /// Device, UUID and keyslot of each volume whose key was tested (dry run) or that was opened.
    pub volumes: Vec<(String, String, u32)>,
}

/// An unlocking, with what outlives a failure: the timings, and the TPM that closes the fence.
pub struct Unlock {
    options: Options,
    settings: Settings,
    deadline: Deadline,
    started: Instant,
    /// Durations of network and volume steps.
    pub timeline: Timeline,
    tpm: Option<Tpm>,
    /// Where that one is, once it was chosen.
    at: Location,
    walk: Walk,
    /// What is on record, from [`Step::Record`] on.
    recorded: Option<State>,
}

/// What the TPM has ready before the network is needed.
struct Keys {
    srk: Object,
    ak: Object,
    /// The enrollment whose sealed half is this TPM's.
    enrollment: String,
    /// For the first attempt: to make one takes a chip as long as a quote does.
    session: Option<UnsealSession>,
}

/// A release, and data of the event that opens the fence with it.
struct Release {
    attested: Attested,
    opening: Zeroizing<[u8; 32]>,
    server: String,
}

impl Unlock {
    /// Nothing happens yet; the time counts from here.
    pub fn new(options: Options, settings: Settings) -> Self {
        let timeout = options.timeout.or(settings.timeout).unwrap_or(DEFAULT_TIMEOUT);
        Self {
            deadline: Deadline::after(timeout),
            started: Instant::now(),
            timeline: Timeline::default(),
            tpm: None,
            at: options.tpm.clone(),
            walk: Walk::new(options.dry_run),
            recorded: None,
            options,
            settings,
        }
    }

    /// Unlocks. On any failure the fence is closed and confirmed, or the machine powered off,
    /// before the error is returned; a dry run leaves the fence alone.
    ///
    /// # Errors
    /// Why the ordinary prompt must appear.
    pub fn run(&mut self) -> Result<Report> {
        // What follows the deadline, opening or closing, takes its time too.
        sd_notify::extend(self.deadline.remaining() + AFTER_DEADLINE);
        let error = match self.attempt() {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        match self.walk.way_out() {
            WayOut::Report => Err(error),
            WayOut::CloseFence => {
                console::complain(&error);
                self.close_fence()?;
                Err(error)
            }
            WayOut::TakeBack => {
                let error = self.take_back(error);
                console::complain(&error);
                Err(error)
            }
        }
    }

    /// Commands and durations of the TPM so far.
    pub fn tpm_timings(&self) -> &[tpm::Timing] {
        self.tpm.as_ref().map(Tpm::timings).unwrap_or_default()
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn close_fence(&mut self) -> Result<()> {
        let closed = match self.tpm.as_mut().map(fence::close) {
            Some(Ok(_)) => {
                let mut others = fence::locate(&self.options.tpm, Deadline::after(AFTER_DEADLINE));
                others.retain(|other| *other != self.at);
                fence::ensure_each_closed(&others).map(|others| others.and(fence::Ensured::Closed))
            }
            Some(Err(error)) => {
                // After a command that was not answered nothing is on this handle; another may do.
                console::complain(&error);
                self.tpm = None;
                fence::ensure_closed(&self.options.tpm)
            }
            None => fence::ensure_closed(&self.options.tpm),
        };
        match closed {
            Ok(fence::Ensured::NoTpm) => console::say(words::NO_TPM),
            Ok(_) => console::say(words::FENCE_IS_CLOSED),
            Err(error) if fence::must_power_off(&self.settings) => return Err(fence::power_off(&error)),
            Err(error) => return Err(error.context(words::FENCE_NOT_CLOSED)),
        }
        Ok(())
    }

    fn attempt(&mut self) -> Result<Report> {
        // Closed by the end of the process only, whose memory is gone by then: a disk that does not answer would hold it in the kernel with
        // what it knew of K, for a shell behind the closed fence.
        let found = ManuallyDrop::new(match self.options.devices.as_slice() {
            [] => devices::find(&self.settings, self.deadline)?,
            paths => devices::explicit(paths)?,
        });
        let routes = route::routes(&found.volumes, &self.settings);
        let whole = self.deadline;
        let mut result = Err(Error::new(Kind::NotEnrolled, "no enrolled volume"));
        for (i, route) in routes.iter().enumerate() {
            let left = routes.len() - i;
            self.deadline = whole.within(whole.remaining() / left as u32);
            result = self.follow(route, &found);
            let Err(error) = &result else { break };
            match self.walk.failure(error.kind, left > 1) {
                Failure::OtherEnrollment => {
                    console::complain(error);
                    console::say(words::OTHER_ENROLLMENT);
                    self.tpm = None;
                    // It may be another one's: none is passed over when all are closed.
                    self.at.clone_from(&self.options.tpm);
                    self.walk.start_over();
                }
                // That was done where the keys were prepared.
                Failure::TellVerifier | Failure::Last(_) => break,
            }
        }
        self.deadline = whole;
        result
    }

    /// Attests for one node at its servers, and opens the volumes of the enrollment that they say is current.
    fn follow(&mut self, route: &Route, found: &Devices) -> Result<Report> {
        self.walk.enter(Step::PrepareKeys)?;
        let preferred = &route.tokens[0];
        let enrollments = route.enrollments();
        let config = RaceConfig {
            servers: route.servers.clone(),
            tls: tls::config(&route.ca, preferred.enrolled_at)?,
            begin: Attester { enrollments: &enrollments, ..attester(preferred) }.begin(),
            deadline: self.deadline,
            timeline: self.timeline.clone(),
        };
        trace::announce();
        // The network may still be coming up: the TPM's work goes on beside it.
        let race = Race::start(&config)?;
        let mut keys = match self.prepare_keys(route) {
            Err(error) if self.walk.failure(error.kind, false) == Failure::TellVerifier => {
                self.walk.enter(Step::TellOfOtherTpm)?;
                // Nothing can be opened here, but whoever runs the verifier wants to know of it.
                if let Err(unreported) = self.report_other_tpm(preferred, race) {
                    console::say(&words::verifier_not_told(&unreported));
                }
                return Err(error);
            }
            keys => keys?,
        };
        self.walk.enter(Step::ChooseEnrollment)?;
        let connection = race.winner()?;
        let token = route.current(&connection.begun)?;
        self.walk.enter(Step::CheckVolumes)?;
        let targets = target::targets(found, token, &self.settings)?;
        self.walk.enter(Step::CheckHalf)?;
        self.check_half(&mut keys, token)?;
        self.walk.enter(Step::Attest)?;
        // From here on there is a key to be seen: SysRq shows registers, and kills who would wipe it.
        if console::in_initramfs() && !self.options.dry_run {
            sysrq::switch_off()?;
        }
        let (release, key) = self.release(token, &config, connection, &mut keys)?;
        self.walk.enter(Step::CheckSeals)?;
        for target in &targets {
            target.check_seal(&key)?;
        }
        self.walk.enter(Step::TestKeys)?;
        let passphrases: Vec<_> = targets.iter().map(|target| key.volume_key(&target.copy.uuid)).collect();
        drop(key);
        for (target, passphrase) in targets.iter().zip(&passphrases) {
            self.test(target, passphrase.expose())?;
        }
        let state = self.state(&release, token, &targets);
        let report = Report {
            server: release.server.clone(),
            evidence_id: release.attested.verdict.evidence_id,
            volumes: state
                .volumes
                .iter()
                .map(|volume| (volume.device.clone(), volume.uuid.clone(), volume.keyslot))
                .collect(),
        };
        if !self.options.dry_run {
            // With nothing in the TPM the kernel has nothing to load and save around what follows.
            let Keys { srk, ak, .. } = keys;
            let tpm = self.tpm()?;
            tpm.flush(ak)?;
            tpm.flush(srk)?;
            self.open_all(&release, &targets, passphrases, state)?;
        }
        Ok(report)
    }

    /// Extends the fence, opens.
    fn open_all(
        &mut self,
        release: &Release,
        targets: &[Target],
        passphrases: Vec<VolumeKey>,
        state: State,
    ) -> Result<()> {
        self.walk.enter(Step::CheckMembers)?;
        if let Some(target) = targets.iter().find(|target| devices::is_part(&target.volume.file)) {
            return Err(words::became_a_part(target.volume.path.display()));
        }
        self.walk.enter(Step::LookAtFence)?;
        // Found closed, nothing may be on record: `fence` would take it for open.
        let window = fence::window(self.tpm()?)?;
        self.walk.enter(Step::Record)?;
        // What is about to be opened is on record before the fence says so: `gate` relies on it.
        state.save()?;
        let mut state = self.recorded.insert(state).clone();
        self.walk.enter(Step::ExtendFence)?;
        fence::extend_open(self.tpm()?, window, &*release.opening)?;
        self.walk.enter(Step::Open)?;
        for ((target, passphrase), opened) in targets.iter().zip(&passphrases).zip(&mut state.volumes) {
            self.open(target, passphrase.expose(), opened)?;
        }
        drop(passphrases);
        self.walk.enter(Step::RecordOpened)?;
        state.opening = false;
        // What the gate can't know of must not stay open either.
        state.save()
    }

    /// One of the volumes could not be opened, and a prompt for it is about to come. None may stand over what
    /// attestation opened: the others are closed, and the fence says that a passphrase opens this boot.
    /// Powers off if that can't be had.
    fn take_back(&mut self, why: Error) -> Error {
        let deadline = Deadline::after(teardown::LIMIT);
        let taken_back = match self.recorded.take() {
            None => Err(Error::system("unlock", "expected a record of what is open, found none")),
            Some(mut state) => {
                // In a running system the teardown would take the root away: there, what was opened is closed by name.
                let closed = if console::in_initramfs() {
                    teardown::close_all(deadline)
                } else {
                    close_named(&state, deadline)
                };
                closed.and_then(|()| {
                    state.volumes.iter_mut().for_each(|volume| volume.mapping = None);
                    state.opening = false;
                    state.save()?;
                    fence::extend(self.tpm()?, label::FENCE_PASSPHRASE).map(drop)
                })
            }
        };
        match taken_back {
            Ok(()) => {
                console::say(words::TAKEN_BACK);
                why
            }
            Err(error) => {
                console::complain(&why);
                let error = error.context(words::NOT_TAKEN_BACK);
                if console::in_initramfs() { fence::power_off(&error) } else { error }
            }
        }
    }

    fn tpm(&mut self) -> Result<&mut Tpm> {
        self.tpm.as_mut().ok_or_else(|| Error::new(Kind::Tpm, "the TPM is not open"))
    }

    /// SRK, AK, a look at the sealed half and the PCRs, the session that will unseal: all that needs no network.
    fn prepare_keys(&mut self, route: &Route) -> Result<Keys> {
        let each = fence::locate(&self.options.tpm, self.deadline);
        let mut look = |tpm: &mut Tpm| {
            if tpm.fence_state()?.is_open() { Ok(()) } else { Err(words::window_is_over()) }
        };
        // After a TPM2_Clear there can be enrollments of two SRKs: the TPM has one of them.
        let names: Vec<_> = route.tokens.iter().map(|token| &*token.srk_name).collect();
        let chosen = choice::by_srk(&each, &names, &mut look)?;
        let (token, srk) = (&route.tokens[chosen.index], chosen.srk);
        self.at = chosen.location;
        let tpm = self.tpm.insert(chosen.tpm);
        let ak = tpm.attestation_key()?;
        check_half(tpm, &srk, token)?;
        tpm.read_ahead(token.bank)?;
        let session = Some(tpm.start_unseal(&srk)?);
        Ok(Keys { srk, ak, enrollment: token.enrollment.clone(), session })
    }

    /// Looks at the half of this enrollment, if it was another's.
    fn check_half(&mut self, keys: &mut Keys, token: &Token) -> Result<()> {
        if keys.enrollment == token.enrollment {
            return Ok(());
        }
        if keys.srk.name != token.srk_name {
            return Err(choice::other_tpm());
        }
        check_half(self.tpm()?, &keys.srk, token)?;
        keys.enrollment.clone_from(&token.enrollment);
        Ok(())
    }

    /// Sends evidence of this TPM in the name of the enrolled one: refused by its signature, and on record.
    fn report_other_tpm(&mut self, token: &Token, race: Race) -> Result<()> {
        let connection = race.winner()?;
        let deadline = self.deadline;
        let tpm = self.tpm.insert(Tpm::open(&self.options.tpm)?);
        let srk = tpm.storage_key(None)?;
        let ak = tpm.attestation_key()?;
        let session = tpm.start_unseal(&srk)?;
        let commitments = Commitments { nonce_tpm: &session.nonce_tpm, purpose_data: &[0; 32] };
        let answer = attester(token).finish(tpm, &ak, &connection, commitments, deadline);
        tpm.abandon(session)?;
        match answer {
            Ok(attested) => {
                console::say(&words::verifier_was_told(&attested.refusal()));
                Ok(())
            }
            Err(Failed::Tpm(error)) => Err(error),
            Err(Failed::Net(error)) => Err(error.at(connection.client.server().as_str())),
        }
    }

    /// Attests until K is there, the verifier refuses for good, or the deadline has come.
    fn release(
        &mut self,
        token: &Token,
        config: &RaceConfig,
        connection: Connection,
        keys: &mut Keys,
    ) -> Result<(Release, Key)> {
        let mut connection = Ok(connection);
        // One for all attempts: an answer that got lost is not to look like a second machine.
        let mut r = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *r).map_err(|e| Error::system("random bytes", e))?;
        let r_sha256 = sha256(&*r);
        for _ in 0..ROUNDS {
            let mut ask = AskForHalves { tpm: self.tpm()?, token, keys, r_sha256: &r_sha256 };
            let (attested, session, client) = match exchange::run(&mut ask, config, connection)? {
                (Answer::Released(attested, session), client) => (attested, session, client),
                (Answer::Refused(attested), _) => return Err(attested.refusal()),
            };
            if let Some((key, opening)) = self.combine(token, &attested, session, keys)? {
                let opening = opening.event(&r_sha256, &key);
                return Ok((Release { attested, opening, server: client.server().to_string() }, key));
            }
            console::say(words::PCRS_MOVED);
            connection = exchange::begin_again(client, config);
        }
        Err(tpm::Error::PcrChanged.into())
    }

    /// K from what was released, and what came in the same box with V; `None` if PCRs moved and it takes a new session.
    fn combine(
        &mut self,
        token: &Token,
        attested: &Attested,
        mut session: UnsealSession,
        keys: &Keys,
    ) -> Result<Option<(Key, OpeningSecret)>> {
        let released = attested.open()?;
        let opening = released.opening.ok_or_else(|| {
            Error::new(Kind::Network, "the verdict says released, without what opens the fence")
        })?;
        let signature = attested.verdict.release_signature.as_ref().and_then(|signature| signature.array());
        let signature = signature.ok_or_else(|| {
            Error::new(Kind::Network, "the verdict says released, without a release signature")
        })?;
        let wrong = || Error::new(Kind::Tpm, "expected halves of 32 bytes, found another length");
        let tpm = self.tpm()?;
        let release = tpm::Release {
            bank: token.bank,
            public: &token.release_public,
            signature: &signature,
            node: &token.node.0,
        };
        let mut u = match tpm.unseal(&mut session, &keys.srk, &sealed_half(token), &release) {
            Err(tpm::Error::PcrChanged) => {
                tpm.abandon(session)?;
                return Ok(None);
            }
            other => other?,
        };
        let u = Half::take(&mut u).ok_or_else(wrong)?;
        let mut v = tpm.activate_in(session, &keys.srk, &keys.ak, &released.c_v)?;
        let v = Half::take(&mut v).ok_or_else(wrong)?;
        Ok(Some((Key::combine(&u, &v), opening)))
    }

    fn test(&self, target: &Target, passphrase: &[u8]) -> Result<()> {
        let device = &target.volume.path;
        let what = format!("test {}", device.display());
        let opens = self
            .timeline
            .time("volume", &what, || cryptsetup::test(device, &target.copy, passphrase, self.deadline))?;
        if opens {
            return Ok(());
        }
        Err(words::wrong_key(device.display(), target.copy.slot))
    }

    fn open(&self, target: &Target, passphrase: &[u8], opened: &mut Opened) -> Result<()> {
        let device = &target.volume.path;
        let options = self.settings.cryptsetup_options(&target.copy.uuid);
        // Beyond the deadline, too: what is released is opened. Several slow volumes must not add up to the unit's time-out.
        sd_notify::extend(AFTER_DEADLINE);
        let deadline = Deadline::after(Duration::from_secs(30));
        let what = format!("open {}", device.display());
        self.timeline.time("volume", &what, || {
            cryptsetup::open(device, &opened.name, &target.copy, passphrase, &options, deadline)
        })?;
        let (name, slot) = (&opened.name, opened.keyslot);
        let expected = expected_mapping_uuid(&target.copy.uuid, name);
        let mapping = state::mapping(Path::new("/sys"), name).filter(|found| found.dm_uuid == expected);
        opened.mapping = Some(mapping.ok_or_else(|| words::no_mapping(device.display(), expected))?);
        console::say(&words::opened(device.display(), name, slot));
        Ok(())
    }

    fn state(&self, release: &Release, token: &Token, targets: &[Target]) -> State {
        let opened = |target: &Target| Opened {
            device: target.volume.path.display().to_string(),
            uuid: target.copy.uuid.clone(),
            name: target.token.mapping.clone(),
            root: target.token.role == Role::Root,
            mapping: None,
            keyslot: target.copy.slot,
        };
        State {
            version: 1,
            node: token.node.to_string(),
            tpm: Some(self.at.to_string()),
            evidence_id: release.attested.verdict.evidence_id,
            fence: fence::opened_with(&*release.opening),
            server: release.server.clone(),
            // A crash in the middle of the opening must not look as if nothing had been opened.
            opening: true,
            volumes: targets.iter().map(opened).collect(),
        }
    }
}

/// Attests with purpose `boot`; each attempt with a session of its own.
struct AskForHalves<'a> {
    tpm: &'a mut Tpm,
    token: &'a Token,
    keys: &'a mut Keys,
    r_sha256: &'a [u8],
}

/// A verdict; what is released can be unsealed in the session that it was quoted with.
enum Answer {
    Released(Attested, UnsealSession),
    Refused(Attested),
}

impl Answer {
    fn attested(&self) -> &Attested {
        match self {
            Self::Released(attested, _) | Self::Refused(attested) => attested,
        }
    }
}

impl Ask for AskForHalves<'_> {
    type Answer = Answer;

    fn attester(&self) -> Attester<'_> {
        attester(self.token)
    }

    /// The volumes and the sealed half are those of one enrollment: it must stay the same.
    fn accepts(&self, begun: &Begun) -> Result<()> {
        if begun.enrollment.as_ref() == Some(&self.token.enrollment) {
            return Ok(());
        }
        Err(words::enrollment_changed())
    }

    fn attempt(
        &mut self,
        connection: &Connection,
        deadline: Deadline,
    ) -> std::result::Result<Answer, Failed> {
        let failed = |error: tpm::Error| Failed::Tpm(error.into());
        let session = match self.keys.session.take() {
            Some(session) => session,
            None => self.tpm.start_unseal(&self.keys.srk).map_err(failed)?,
        };
        let commitments = Commitments { nonce_tpm: &session.nonce_tpm, purpose_data: self.r_sha256 };
        let attester = attester(self.token);
        match attester.finish(self.tpm, &self.keys.ak, connection, commitments, deadline) {
            Ok(attested) if attested.outcome == Outcome::Released => Ok(Answer::Released(attested, session)),
            Err(Failed::Tpm(error)) => Err(Failed::Tpm(error)),
            // A TPM has room for three sessions, and the next attempt may be long in coming.
            other => {
                self.tpm.abandon(session).map_err(failed)?;
                other.map(Answer::Refused)
            }
        }
    }

    fn came(answer: &Answer) -> Came {
        answer.attested().came()
    }

    fn ticket(answer: &Answer) -> Option<&str> {
        answer.attested().verdict.ticket.as_deref()
    }

    fn refusal(answer: &Answer) -> Error {
        answer.attested().refusal()
    }
}

/// Closes every mapping of `state`, those that were opened and what the failed opening may have left.
fn close_named(state: &State, deadline: Deadline) -> Result<()> {
    for volume in state.volumes.iter().rev() {
        if state::mapping_uuid(&volume.name).is_some() {
            cryptsetup::close(&volume.name, deadline)?;
        }
    }
    Ok(())
}

fn attester(token: &Token) -> Attester<'_> {
    Attester {
        node: token.node,
        purpose: Purpose::Boot,
        srk_name: &token.srk_name,
        bank: Some(token.bank),
        enrollments: std::slice::from_ref(&token.enrollment),
    }
}

/// Whether the sealed half in the token is this TPM's: found out before anybody is told of this boot.
fn check_half(tpm: &mut Tpm, srk: &Object, token: &Token) -> Result<()> {
    let half = tpm.load(srk, &sealed_half(token));
    let half = half.map_err(|e| Error::from(e).context("the sealed half in the token"))?;
    Ok(tpm.flush(half)?)
}

fn sealed_half(token: &Token) -> SealedBlob {
    SealedBlob { public: token.sealed_public.clone(), private: token.sealed_private.clone() }
}
