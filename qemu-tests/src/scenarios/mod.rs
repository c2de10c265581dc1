//! The scenarios. Those of a [`Group`] share one machine and are told in order; each needs only what [`Context`] gives it, so
//! any of them can be run alone. Groups know nothing of each other and run at the same time.
//!
//! | number | file |
//! | --- | --- |
//! | 1, 2 | [`unlock`]: enrollment, approval, the unattended boot |
//! | 3 | [`afterwards`]: root in the running system gets nothing; [`second_agent`] is the attacker's tool |
//! | 4, 5, 9, 12 | [`tampered`]: command line, initramfs, TPM, header |
//! | 6, 7, 8 | [`server`]: revoked, down, impersonated |
//! | 10 | [`volumes`]: several volumes |
//! | 11, 36 | [`rogue`]: another root, another /var |
//! | 13, 14 | [`exits`]: shells of the initramfs, an agent that crashes |
//! | 15 to 20 | [`updates`]: kernel updates, announced and not |
//! | 21 to 24, 28 | [`secure_boot`]: images signed by the owner, by others, by nobody |
//! | 25 to 27 | [`loaders`]: shim and GRUB, systemd-boot |
//! | 29 to 31, 37, 38 | [`after_opening`]: a boot that fails after its volumes were opened; [`notes`] has its initramfs |
//! | 32 to 34 | [`entries`]: boot entries that somebody has changed |
//! | 35 | [`repair`]: held, repaired, released, a disk missing |
//! | 39, 40 | [`prompts`]: a prompt after an opening |
//! | 41 | [`exitrd`]: the shutdown of the running system |

mod after_opening;
mod afterwards;
mod entries;
mod exitrd;
mod exits;
mod loaders;
mod notes;
mod prompts;
mod repair;
mod rogue;
mod second_agent;
mod secure_boot;
mod server;
mod tampered;
mod unlock;
mod updates;
mod volumes;

use crate::error::Result;
use crate::image::system::{BootPath, Release, System};
use crate::lab::Lab;
use crate::machine::Boot;
use crate::story::Story;
use crate::test_env::TestEnv;
use halfkey_protocol::wire::Evidence;
use std::path::PathBuf;
use std::sync::Arc;

/// Scenarios that share a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A unified kernel image, without Secure Boot.
    Uki,
    /// The same; it is never enrolled.
    Exits,
    /// The same, with SysRq, and a gate that can be killed.
    Fence,
    /// The same with the previous kernel.
    Updates,
    /// Secure Boot with the owner's keys.
    SecureBoot,
    /// shim and GRUB.
    Grub,
    /// systemd-boot.
    Entry,
}

impl Group {
    /// The group that takes longest first.
    pub const ALL: &[Self] =
        &[Self::Uki, Self::Fence, Self::Updates, Self::SecureBoot, Self::Entry, Self::Exits, Self::Grub];

    const fn tells(
        self,
        number: u32,
        name: &'static str,
        title: &'static str,
        run: fn(&mut Context) -> Result<()>,
    ) -> Scenario {
        Scenario { number, name, group: self, title, run }
    }

    /// How its machine boots.
    pub fn path(self) -> BootPath {
        match self {
            Self::Uki | Self::Exits | Self::Fence | Self::Updates => BootPath::Uki,
            Self::SecureBoot => BootPath::SignedUki,
            Self::Grub => BootPath::Grub,
            Self::Entry => BootPath::Entry,
        }
    }

    /// What the operator approves first.
    fn system(self, env: &TestEnv) -> System {
        match self {
            Self::Fence => return notes::system(env),
            Self::Uki => return rogue::system(env),
            _ => {}
        }
        let release = match self {
            Self::Entry => Release::Measuring,
            Self::Updates | Self::SecureBoot => Release::Previous,
            _ => Release::Newest,
        };
        System { release, ..env.system(self.path()) }
    }
}

/// What a scenario can use.
pub struct Context {
    /// Images and hardware.
    pub env: Arc<TestEnv>,
    /// Who listens.
    pub story: Story,
    group: Group,
    lab: Option<Lab>,
    /// A machine that is not enrolled.
    unenrolled: Option<crate::machine::Machine>,
    /// The machine of the lab, if it runs because someone typed the passphrase.
    by_passphrase: Option<Boot>,
}

impl Context {
    /// With nothing enrolled yet.
    pub fn new(env: Arc<TestEnv>, story: Story, group: Group) -> Self {
        Self { env, story, group, lab: None, unenrolled: None, by_passphrase: None }
    }

    /// What the operator of this group approves first.
    fn system(&self) -> System {
        self.group.system(&self.env)
    }

    /// The enrolled machine; it is enrolled now if there is none.
    fn lab(&mut self) -> Result<&mut Lab> {
        if self.lab.is_none() {
            self.story.prepares("enrolling a machine first");
            unlock::enroll(self)?;
        }
        Ok(self.lab.as_mut().expect("it was just put there"))
    }

    /// Enrolls a machine and boots it: what it sent for its first release, and its
    /// command line.
    ///
    /// # Errors
    /// If it does not come up by itself.
    pub fn attested(&mut self) -> Result<(Evidence, String)> {
        let lab = self.lab()?;
        let marker = lab.running()?.marker()?;
        Ok((lab.last_record()?.evidence, marker.cmdline))
    }

    /// After a failure nobody knows what state the machine is in: the next scenario gets another one.
    pub fn forget(&mut self) {
        (self.lab, self.unenrolled, self.by_passphrase) = (None, None, None);
    }

    /// Switches off what runs.
    ///
    /// # Errors
    /// If the machine does not go off, or the verifier does not end.
    pub fn end(&mut self) -> Result<()> {
        if let Some(boot) = self.by_passphrase.take() {
            boot.pull_plug();
        }
        let Some(mut lab) = self.lab.take() else { return Ok(()) };
        lab.off()?;
        lab.verifier.stop().map(drop)
    }

    /// Where the logs of the current machine are.
    pub fn logs(&self) -> Vec<PathBuf> {
        let unenrolled = self.unenrolled.as_ref().map(crate::machine::Machine::console_log);
        let lab = self.lab.as_ref().map(|lab| [lab.machine.console_log(), lab.verifier.log()]);
        unenrolled.into_iter().chain(lab.into_iter().flatten()).collect()
    }
}

/// A story with an end.
pub struct Scenario {
    /// As in the project's plan.
    pub number: u32,
    /// What `run` is told.
    pub name: &'static str,
    /// Which machine it is about.
    pub group: Group,
    /// One sentence.
    pub title: &'static str,
    /// Tells it.
    pub run: fn(&mut Context) -> Result<()>,
}

use Group::{Entry, Exits, Fence, Grub, SecureBoot, Uki, Updates};

/// All of them.
pub const ALL: &[Scenario] = &[
    Uki.tells(
        1,
        "enroll",
        "first boot with passphrase, enrolled from inside, next boot waits until it is approved",
        unlock::enroll,
    ),
    Uki.tells(2, "unattended", "unlocked with no one typing", unlock::unattended),
    Uki.tells(3, "afterwards", "after the boot root gets neither half", afterwards::run),
    Uki.tells(4, "cmdline", "changed kernel command line: denied, passphrase works", tampered::cmdline),
    Uki.tells(5, "initramfs", "changed initramfs: denied", tampered::initramfs),
    Uki.tells(6, "revoked", "revoked: denied; restored: unlocks", server::revoked),
    Uki.tells(7, "down", "verifier down: prompt in time; verifier late: unlocks", server::down),
    Uki.tells(8, "wrong-ca", "another CA in the token: nothing is sent", server::wrong_ca),
    Uki.tells(
        9,
        "other-tpm",
        "the disk in another machine: nothing unlocks, it is recorded",
        tampered::other_tpm,
    ),
    Uki.tells(10, "volumes", "two volumes with one attestation", volumes::run),
    Uki.tells(
        11,
        "rogue-root",
        "a plaintext root with the right UUID: powered off before any of it runs",
        rogue::run,
    ),
    Uki.tells(
        12,
        "rogue-header",
        "the token in a look-alike volume: prompt, and the fence tells",
        tampered::header,
    ),
    Exits.tells(13, "shells", "rd.break and emergency shells find the fence closed", exits::shells),
    Exits.tells(
        14,
        "crashes",
        "the agent is killed or hangs: prompt, and the fence is closed",
        exits::crashes,
    ),
    Updates.tells(15, "surprise", "a new kernel that nobody announced: denied and named", updates::surprise),
    Updates.tells(
        16,
        "unattested",
        "a proposal of a machine that its passphrase opened: refused",
        updates::unattested,
    ),
    Updates.tells(17, "predicted", "a new kernel that was predicted: unlocks", updates::predicted),
    Updates.tells(
        18,
        "rollback",
        "the old kernel: unlocks within the policy, denied outside",
        updates::rollback,
    ),
    Updates.tells(
        19,
        "proposal",
        "an unsigned proposal waits; accepted, it boots unattended",
        updates::proposal,
    ),
    Updates.tells(
        20,
        "opt-out",
        "trust-root-with-next-boot: one update without an operator, no second",
        updates::opt_out,
    ),
    SecureBoot.tells(
        21,
        "signed",
        "a new kernel by the policy's signer: proposed, unlocks",
        secure_boot::signed,
    ),
    SecureBoot.tells(
        22,
        "dbx",
        "more in dbx: unlocks if the policy says at least, else not",
        secure_boot::dbx,
    ),
    SecureBoot.tells(
        23,
        "other-signer",
        "an image by another signer, whose key is in db: denied and named",
        secure_boot::other_signer,
    ),
    SecureBoot.tells(
        24,
        "unsigned",
        "Secure Boot off and an unsigned image: denied and named",
        secure_boot::unsigned,
    ),
    SecureBoot.tells(
        28,
        "token",
        "a forbidden word on a signed command line: denied and named",
        secure_boot::token,
    ),
    Grub.tells(25, "grub", "shim and GRUB: approved, then unattended", loaders::unattended),
    Grub.tells(26, "grub-command", "another command in grub.cfg: denied and named", loaders::grub_command),
    Entry.tells(
        27,
        "entry",
        "systemd-boot with a type 1 entry: learned only on the operator's word, then unattended",
        loaders::unattended,
    ),
    Entry.tells(
        32,
        "initrd-option",
        "initrd= in the options of the entry, and a forged log: denied, the initramfs is named",
        entries::named,
    ),
    Entry.tells(
        33,
        "no-initrd",
        "no initramfs, a root that the kernel mounts, and a forged log: denied",
        entries::bare,
    ),
    Entry.tells(
        34,
        "loader-fails",
        "the loader gives up, the next boot entry starts the kernel: denied",
        entries::fails,
    ),
    Fence.tells(
        29,
        "damaged",
        "root damaged, second disk answers with errors after the opening: no shell over an open volume",
        after_opening::damaged,
    ),
    Fence.tells(
        30,
        "sector-size",
        "another sector size in the header: no shell over an open volume",
        after_opening::sector_size,
    ),
    Fence.tells(
        31,
        "gate-killed",
        "the gate is killed, SysRq is pressed: no shell over an open volume",
        after_opening::gate_killed,
    ),
    Fence.tells(
        35,
        "repair",
        "held: a shell, nothing open; released: asks if a disk is missing, else unlocks, and leaves an added swap area alone",
        repair::run,
    ),
    Fence.tells(
        36,
        "var",
        "/var in the initramfs from a disk without encryption: powered off",
        rogue::var,
    ),
    Fence.tells(
        37,
        "interpreter",
        "systemd's interpreter damaged, second disk unplugged: no shell over an open volume",
        after_opening::interpreter,
    ),
    Fence.tells(
        38,
        "stays-open",
        "something that can't be closed is over an opened volume: powered off",
        after_opening::something_stays,
    ),
    Fence.tells(
        39,
        "take-back",
        "one of two volumes can't be opened: the other is closed before the prompt",
        prompts::take_back,
    ),
    Fence.tells(
        40,
        "other-asks",
        "a volume that is not enrolled asks after the opening: all is closed first",
        prompts::other_volume,
    ),
    Uki.tells(
        41,
        "exitrd",
        "an initramfs of somebody else on /boot, Ctrl-Alt-Del is pressed: it does not get the open root",
        exitrd::run,
    ),
];

/// The scenario with this name or number.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name || scenario.number.to_string() == name)
}
