//! The scenarios, in the order in which they are told. Each needs only what [`World`] gives it, so any of them can be run
//! alone; run together, they share one machine.
//!
//! | number | file |
//! | --- | --- |
//! | 1, 2 | [`unlock`]: enrollment, approval, the unattended boot |
//! | 3 | [`afterwards`]: root in the running system gets nothing; [`second_agent`] is the attacker's tool |
//! | 4, 5, 9, 12 | [`tampered`]: command line, initramfs, TPM, header |
//! | 6, 7, 8 | [`server`]: revoked, down, impersonated |
//! | 10 | [`volumes`]: several volumes |
//! | 11 | [`rogue`]: another root |

mod afterwards;
mod rogue;
mod second_agent;
mod server;
mod tampered;
mod unlock;
mod volumes;

use crate::error::Result;
use crate::estate::Estate;
use crate::rig::Rig;
use crate::story::Story;

/// What a scenario can use.
pub struct World {
    /// Images and hardware.
    pub rig: Rig,
    /// Who listens.
    pub story: Story,
    estate: Option<Estate>,
}

impl World {
    /// With nothing enrolled yet.
    pub fn new(rig: Rig, story: Story) -> Self {
        Self { rig, story, estate: None }
    }

    /// The enrolled machine; it is enrolled now if there is none.
    fn estate(&mut self) -> Result<&mut Estate> {
        if self.estate.is_none() {
            self.story.prepares("enrolling a machine first");
            unlock::enroll(self)?;
        }
        Ok(self.estate.as_mut().expect("it was just put there"))
    }

    /// After a failure nobody knows what state the machine is in: the next scenario gets another one.
    pub fn forget(&mut self) {
        self.estate = None;
    }

    /// Switches off what runs.
    ///
    /// # Errors
    /// If the machine does not go off, or the verifier does not end.
    pub fn end(&mut self) -> Result<()> {
        let Some(mut estate) = self.estate.take() else { return Ok(()) };
        estate.off()?;
        estate.verifier.stop()
    }

    /// Where the logs of the current machine are.
    pub fn logs(&self) -> Vec<std::path::PathBuf> {
        let Some(estate) = &self.estate else { return Vec::new() };
        vec![estate.machine.console_log(), estate.verifier.log()]
    }
}

/// A story with an end.
pub struct Scenario {
    /// As in the project's plan.
    pub number: u32,
    /// What `run` is told.
    pub name: &'static str,
    /// One sentence.
    pub title: &'static str,
    /// Tells it.
    pub run: fn(&mut World) -> Result<()>,
}

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        number: 1,
        name: "enroll",
        title: "first boot with passphrase, enrolled from inside, next boot waits until it is approved",
        run: unlock::enroll,
    },
    Scenario { number: 2, name: "unattended", title: "unlocked with no one typing", run: unlock::unattended },
    Scenario {
        number: 3,
        name: "afterwards",
        title: "after the boot root gets neither half",
        run: afterwards::run,
    },
    Scenario {
        number: 4,
        name: "cmdline",
        title: "changed kernel command line: denied, passphrase works",
        run: tampered::cmdline,
    },
    Scenario { number: 5, name: "initramfs", title: "changed initramfs: denied", run: tampered::initramfs },
    Scenario {
        number: 6,
        name: "revoked",
        title: "revoked: denied; restored: unlocks",
        run: server::revoked,
    },
    Scenario {
        number: 7,
        name: "down",
        title: "verifier down: prompt in time; verifier late: unlocks",
        run: server::down,
    },
    Scenario {
        number: 8,
        name: "wrong-ca",
        title: "another CA in the token: nothing is sent",
        run: server::wrong_ca,
    },
    Scenario {
        number: 9,
        name: "other-tpm",
        title: "the disk in another machine: nothing unlocks, it is recorded",
        run: tampered::other_tpm,
    },
    Scenario { number: 10, name: "volumes", title: "two volumes with one attestation", run: volumes::run },
    Scenario {
        number: 11,
        name: "rogue-root",
        title: "a plaintext root with the right UUID: powered off before it runs",
        run: rogue::run,
    },
    Scenario {
        number: 12,
        name: "rogue-header",
        title: "the token in a look-alike volume: prompt, and the fence tells",
        run: tampered::header,
    },
];

/// The scenario with this name or number.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name || scenario.number.to_string() == name)
}
