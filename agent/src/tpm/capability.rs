//! TPM2_GetCapability and TPM2_ReadClock.

use super::codec::{Reader, Writer};
use super::entity::Hierarchy;
use super::{Error, Tpm, codes, rc};

const CAP_HANDLES: u32 = 1;
const CAP_PCRS: u32 = 5;
const CAP_PROPERTIES: u32 = 6;

const PT_MANUFACTURER: u32 = 0x105;
const PT_NV_BUFFER_MAX: u32 = 0x12c;
const PT_PERMANENT: u32 = 0x200;
const PT_STARTUP_CLEAR: u32 = 0x201;
const PT_LOCKOUT_INTERVAL: u32 = 0x210;

/// Which authorization values are set, and the state of the lockout.
#[derive(Clone, Copy, Debug)]
pub struct Permanent {
    /// The owner hierarchy has an authorization value.
    pub owner_auth: bool,
    /// The endorsement hierarchy has one.
    pub endorsement_auth: bool,
    /// The lockout hierarchy has one.
    pub lockout_auth: bool,
    /// The dictionary attack protection has locked the TPM.
    pub in_lockout: bool,
    /// The owner hierarchy is enabled.
    pub owner_enabled: bool,
    /// The endorsement hierarchy is enabled.
    pub endorsement_enabled: bool,
}

/// What the TPM says about itself, for `status`.
#[derive(Clone, Debug)]
pub struct Description {
    /// At most four characters, such as `IFX`, `INTC`, `IBM`.
    pub manufacturer: String,
    /// The vendor's text.
    pub vendor: String,
    /// Firmware version.
    pub firmware: u64,
}

/// TPM2_ReadClock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Milliseconds.
    pub clock: u64,
    /// Resets of the TPM.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether the clock is known not to have run backwards.
    pub safe: bool,
}

impl Tpm {
    /// Which authorization values are set (`TPMA_PERMANENT`, `TPMA_STARTUP_CLEAR`).
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn permanent(&mut self) -> Result<Permanent, Error> {
        let properties = self.properties(PT_PERMANENT, 2)?;
        let find = |tag| properties.iter().find(|(t, _)| *t == tag).map_or(0, |(_, value)| *value);
        let (permanent, startup) = (find(PT_PERMANENT), find(PT_STARTUP_CLEAR));
        Ok(Permanent {
            owner_auth: permanent & 1 != 0,
            endorsement_auth: permanent & 2 != 0,
            lockout_auth: permanent & 4 != 0,
            in_lockout: permanent & 0x200 != 0,
            owner_enabled: startup & 2 != 0,
            endorsement_enabled: startup & 4 != 0,
        })
    }

    /// Manufacturer, vendor text and firmware version.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn description(&mut self) -> Result<Description, Error> {
        let properties = self.properties(PT_MANUFACTURER, 8)?;
        let find = |tag| properties.iter().find(|(t, _)| *t == tag).map_or(0, |(_, value)| *value);
        let text = |tags: &[u32]| -> String {
            let bytes = tags.iter().flat_map(|tag| find(PT_MANUFACTURER + tag).to_be_bytes());
            // From the TPM to a terminal: printable ASCII only.
            bytes.filter(|b| (b' '..=b'~').contains(b)).map(char::from).collect::<String>().trim().to_owned()
        };
        Ok(Description {
            manufacturer: text(&[0]),
            vendor: text(&[1, 2, 3, 4]),
            firmware: u64::from(find(PT_MANUFACTURER + 6)) << 32 | u64::from(find(PT_MANUFACTURER + 7)),
        })
    }

    /// The TPM's clock and counters.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn read_clock(&mut self) -> Result<Clock, Error> {
        let answer = self.plain(codes::READ_CLOCK, &[], Writer::default())?;
        let mut reader = answer.reader();
        reader.u64()?; // time since power-on
        let clock = reader.u64()?;
        let (reset_count, restart_count) = (reader.u32()?, reader.u32()?);
        let safe = reader.u8()? == 1;
        reader.end()?;
        Ok(Clock { clock, reset_count, restart_count, safe })
    }

    /// `TPM_ALG_ID` of every bank that has the fence PCR (4 is SHA-1).
    ///
    /// # Errors
    /// [`Error`] from the TPM; [`Error::Unsuitable`] if no bank has it.
    pub fn active_banks(&mut self) -> Result<Vec<u16>, Error> {
        if let Some(banks) = &self.banks {
            return Ok(banks.clone());
        }
        let answer = self.capability(CAP_PCRS, 0, 1)?;
        let mut reader = Reader::new(codes::GET_CAPABILITY.name, &answer);
        let mut banks = Vec::new();
        for _ in 0..reader.u32()?.min(16) {
            let bank = reader.u16()?;
            let size = reader.u8()?;
            let mask = reader.take(size.into())?;
            let fence = usize::from(halfkey_protocol::FENCE_PCR);
            if mask.get(fence / 8).is_some_and(|byte| byte & (1 << (fence % 8)) != 0) {
                banks.push(bank);
            }
        }
        if banks.is_empty() {
            return Err(Error::NoActiveBank);
        }
        self.banks = Some(banks.clone());
        Ok(banks)
    }

    /// Up to `count` handles from `first` on, in order.
    pub(super) fn handles(&mut self, first: u32, count: u32) -> Result<Vec<u32>, Error> {
        let answer = self.capability(CAP_HANDLES, first, count)?;
        let mut reader = Reader::new(codes::GET_CAPABILITY.name, &answer);
        (0..reader.u32()?.min(count)).map(|_| reader.u32()).collect()
    }

    /// How much NV_Read gives at once, in bytes.
    pub(super) fn nv_buffer(&mut self) -> u16 {
        let told = self.properties(PT_NV_BUFFER_MAX, 1).unwrap_or_default();
        match told.first() {
            // 512 is what every TPM can do (PC Client Platform TPM Profile).
            Some((PT_NV_BUFFER_MAX, size)) => (*size).clamp(64, 2048) as u16,
            _ => 512,
        }
    }

    /// Seconds until one failed authorization is forgotten; 0 if never or unknown.
    pub(super) fn lockout_interval(&mut self) -> u32 {
        match self.properties(PT_LOCKOUT_INTERVAL, 1).unwrap_or_default().first() {
            Some((PT_LOCKOUT_INTERVAL, seconds)) => *seconds,
            _ => 0,
        }
    }

    fn properties(&mut self, first: u32, count: u32) -> Result<Vec<(u32, u32)>, Error> {
        let answer = self.capability(CAP_PROPERTIES, first, count)?;
        let mut reader = Reader::new(codes::GET_CAPABILITY.name, &answer);
        (0..reader.u32()?.min(count)).map(|_| Ok((reader.u32()?, reader.u32()?))).collect()
    }

    /// `TPMU_CAPABILITIES` of one capability.
    fn capability(&mut self, capability: u32, property: u32, count: u32) -> Result<Vec<u8>, Error> {
        let parameters = Writer::default().u32(capability).u32(property).u32(count);
        let answer = self.plain(codes::GET_CAPABILITY, &[], parameters)?;
        let mut reader = answer.reader();
        reader.u8()?; // more data
        if reader.u32()? != capability {
            return Err(Error::Malformed(codes::GET_CAPABILITY.name));
        }
        Ok(reader.rest().to_vec())
    }

    /// The words for a hierarchy that refused: has it a password, or is it disabled?
    pub(super) fn explain_hierarchy(&mut self, hierarchy: Hierarchy, error: Error) -> Error {
        let name = hierarchy.name();
        if error.is(rc::BAD_AUTH) || error.is(rc::AUTH_FAIL) {
            Error::HierarchyAuth(name)
        } else if error.is(rc::HIERARCHY) {
            Error::HierarchyDisabled(name)
        } else {
            error
        }
    }
}
