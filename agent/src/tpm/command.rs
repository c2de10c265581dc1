//! Command and answer frames: handles, authorization area, parameters
//! (TPM 2.0 Part 1, section 18), retries, timing.

use super::codec::{Reader, Writer};
use super::codes::{CREATE_PRIMARY, Command, LOAD, NV_READ};
use super::entity::Entity;
use super::session::{Auth, authorize, check};
use super::transport::{HEADER, MAX_FRAME};
use super::{Error, Timing, Tpm, rc};
use halfkey_protocol::tpm::name::object_name;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

/// How long one answer may take. Making an RSA key takes a discrete TPM up to a minute.
const WAIT: Duration = Duration::from_secs(20);
const WAIT_FOR_PRIMARY: Duration = Duration::from_secs(120);
/// How long a TPM may say "not now": self-tests take seconds.
const RETRY_FOR: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// An answer, its HMACs checked and its first parameter decrypted.
pub(super) struct Answer {
    name: &'static str,
    /// 0 if the command returns none.
    pub handle: u32,
    parameters: Zeroizing<Vec<u8>>,
}

impl Answer {
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self.name, &self.parameters)
    }
}

impl Tpm {
    /// Runs a command without sessions.
    pub(super) fn plain(
        &mut self,
        command: Command,
        handles: &[Entity],
        parameters: Writer,
    ) -> Result<Answer, Error> {
        self.run(command, handles, parameters, &mut [])
    }

    /// Runs a command. `auths` authorizes the handles, in order; what follows only
    /// encrypts parameters, and if one of them does, it is the first that is no password.
    ///
    /// # Errors
    /// [`Error`]: from the transport, or what the TPM refused.
    pub(super) fn run(
        &mut self,
        command: Command,
        handles: &[Entity],
        parameters: Writer,
        auths: &mut [Auth],
    ) -> Result<Answer, Error> {
        let start = Instant::now();
        let result = self.run_untimed(command, handles, parameters, auths);
        self.timings.push(Timing { name: command.name, duration: start.elapsed() });
        match result {
            Err(Error::Refused(command, rc::LOCKOUT)) => {
                Err(Error::Lockout { command, interval: self.lockout_interval() })
            }
            other => other,
        }
    }

    fn run_untimed(
        &mut self,
        command: Command,
        handles: &[Entity],
        parameters: Writer,
        auths: &mut [Auth],
    ) -> Result<Answer, Error> {
        let mut parameters = Zeroizing::new(parameters.0);
        let mut frame = Writer::default().u16(if auths.is_empty() { NO_SESSIONS } else { SESSIONS });
        frame = frame.u32(0).u32(command.code);
        let mut names = Vec::new();
        for entity in handles {
            frame = frame.u32(entity.handle);
            match entity.name {
                Some(name) => names.extend_from_slice(name),
                None => names.extend_from_slice(&entity.handle.to_be_bytes()),
            }
        }
        if !auths.is_empty() {
            let area = authorize(command, &names, &mut parameters, auths)?;
            frame = frame.u32(area.len() as u32).bytes(&area);
        }
        let mut frame = frame.bytes(&parameters).0;
        // Refused here, a damaged token costs only itself; refused by the transport, it
        // would cost the connection, and with it the fence.
        if frame.len() > MAX_FRAME {
            return Err(Error::TooLarge(command.name));
        }
        let size = frame.len() as u32;
        frame[2..6].copy_from_slice(&size.to_be_bytes());

        let answer = self.insist(command, &frame)?;
        let result = parse(command, &answer, auths);
        // Whatever the rest of the answer is, what was made must be flushed.
        match &result {
            Ok(answer) if command.returns_handle => self.made.push(answer.handle),
            Err(_) if command.returns_handle => {
                self.made.extend(Reader::new(command.name, &answer[HEADER..]).u32());
            }
            _ => {}
        }
        result
    }

    /// Sends a frame until the TPM is ready for it. The TPM has no event for that,
    /// so this is one of the few places that wait for time to pass.
    fn insist(&mut self, command: Command, frame: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let wait = if command.code == CREATE_PRIMARY.code { WAIT_FOR_PRIMARY } else { WAIT };
        let deadline = Instant::now() + RETRY_FOR;
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = Zeroizing::new(self.transport.exchange(command.name, frame, wait)?);
            let mut code = Reader::new(command.name, &answer);
            code.take(6)?;
            match code.u32()? {
                rc::SUCCESS => return Ok(answer),
                code if rc::is_transient(code) && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                code => return Err(Error::Refused(command.name, code)),
            }
        }
    }
}

/// Takes a successful answer apart.
fn parse(command: Command, frame: &[u8], auths: &mut [Auth]) -> Result<Answer, Error> {
    let mut reader = Reader::new(command.name, frame);
    let tag = reader.u16()?;
    reader.take(HEADER - 2)?;
    if tag != if auths.is_empty() { NO_SESSIONS } else { SESSIONS } {
        return Err(Error::Malformed(command.name));
    }
    let handle = if command.returns_handle { reader.u32()? } else { 0 };
    let parameters = if auths.is_empty() {
        Zeroizing::new(reader.rest().to_vec())
    } else {
        let length = reader.u32()? as usize;
        let mut parameters = Zeroizing::new(reader.take(length)?.to_vec());
        check(command, &mut parameters, reader, auths)?;
        parameters
    };
    Ok(Answer { name: command.name, handle, parameters })
}

/// The name of the object with this public area, which the TPM also told.
///
/// # Errors
/// [`Error::Malformed`] if they differ: then the answer is not about this key.
pub(super) fn checked_name(what: &'static str, public: &[u8], told: &[u8]) -> Result<Vec<u8>, Error> {
    object_name(public).filter(|name| name == told).ok_or(Error::Malformed(what))
}

/// For fuzzing and property tests: any answer to a command with one password
/// authorization or none is taken apart or refused.
pub fn parse_answer(frame: &[u8], with_handle: bool, with_auth: bool) -> Result<(), Error> {
    let command = if with_handle { LOAD } else { NV_READ };
    let mut auths = [Auth::Password];
    parse(command, frame, if with_auth { &mut auths } else { &mut [] })?;
    Ok(())
}
