//! The command line, and its help.

mod ima;
mod policy;

pub use ima::{ImaCommand, ListArgs};
pub use policy::{
    AddTarget, ApplyTarget, GroupCommand, GroupTarget, PolicyCommand, PredictArgs, PredictFiles,
    ProposalCommand, Switch,
};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use halfkey_protocol::tpm::bank::PcrBank;
use std::path::PathBuf;
use std::time::Duration;

const ABOUT: &str = "Enroll machines that unlock their disks with Halfkey, and decide what they may boot";

const AFTER_HELP: &str = "\
NODE is a node's id, an unambiguous prefix of one, or a label.

Tables go to standard output, everything else to standard error. With --json, standard output is
one JSON document, in the types of the operator API (docs/protocol.md) where it has one, or one
JSON line per entry with `watch` and `audit --follow`.

Exit codes:
  0  done
  1  refused by the server, answered with no, or failed on this machine; with `policy test` and
     `policy explain`: a boot would be denied; with `policy check` and `eventlog`: not well formed
  2  the command line can't be used as it is, or there is no terminal to ask on (see --yes)
  3  no such node or record, or several nodes fit
  4  no server answered in time, or it can't work at the moment
  5  no boot of this node waits for an operator
  6  a check made here failed: of the server's certificate, a node's record, an EK, a release key,
     a quote, the signature or the version of a policy

Files: --home, or HALFKEY_HOME, or $XDG_CONFIG_HOME/halfkey, or ~/.config/halfkey holds the operator
bundle, the tenant key (tenant.key, Ed25519, PKCS#8 in PEM), the release keys seen so far and the
versions of the policies signed here. The tenant key is not encrypted: it is protected by its file mode alone, so keep the folder on an
encrypted disk and back it up. HTTPS_PROXY and NO_PROXY are honoured.";

/// The command line.
#[derive(Parser)]
#[command(name = "halfkey", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args)]
pub struct Global {
    /// Folder of the operator's files
    #[arg(long, global = true, help_heading = "Global options", value_name = "DIR", env = "HALFKEY_HOME")]
    pub home: Option<PathBuf>,
    /// JSON instead of tables
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// How long a request to a server may take
    #[arg(long, global = true, help_heading = "Global options", value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    /// Colours in tables
    #[arg(long, global = true, help_heading = "Global options", value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Which nodes are listed.
#[derive(Args, Debug, Default)]
pub struct Only {
    /// Only those whose boot waits for an operator
    #[arg(long)]
    pub pending: bool,
    /// Only those in this state
    #[arg(long, value_parser = ["registered", "enrolling", "enrolled", "revoked", "held", "cloned"])]
    pub state: Option<String>,
    /// Only those whose last verdict was this outcome or had this reason: `denied`, `policy_mismatch`
    #[arg(long, value_name = "WORD")]
    pub last: Option<String>,
    /// Only those with this text in their label, or whose id begins so, in upper or lower case
    pub text: Option<String>,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Import an operator bundle, create the tenant key if there is none, print its fingerprint
    Login {
        /// The file that `halfkey-verifier init` made
        bundle: PathBuf,
        /// Replace the bundle of another server
        #[arg(long)]
        replace: bool,
    },
    /// Print the fingerprint of the tenant key, for `halfkey-agent enroll --tenant-key`
    Key,
    /// List the nodes
    Nodes {
        /// What is listed of them; all if nothing is said.
        #[command(flatten)]
        only: Only,
    },
    /// Look at one node
    Node {
        /// What to do
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Check a registered node's TPM and give it its half of a new key
    Enroll(EnrollArgs),
    /// Show the boot that waits, and approve it: once, or as part of the policy
    #[command(group = ArgGroup::new("how").multiple(false))]
    Approve {
        /// Id, prefix or label
        node: String,
        /// Release this boot only; leave the policy as it is
        #[arg(long, group = "how")]
        once: bool,
        /// Allow this boot from now on, besides what the policy allows; the first policy if there is none
        #[arg(long, group = "how")]
        learn: bool,
        /// With --learn, for a node that its group's policy governs: allow it for the whole group, and not for this node alone. Shows
        /// for how many members it will differ, and in which events
        #[arg(long, requires = "learn")]
        for_group: bool,
        /// Allow this boot from now on and nothing else: a new policy for this node alone
        #[arg(long, group = "how")]
        replace: bool,
        /// For a boot without uki and without GRUB: its kernel measures its initrd wherever it comes from (Linux 6.13 and
        /// later)
        #[arg(long, conflicts_with = "once")]
        kernel_measures_initrd: bool,
        /// Allow also the images that were started before this boot and came back to the firmware (a UEFI shell, a network
        /// boot program): whatever they can be made to do has the key
        #[arg(long, conflicts_with = "once")]
        trust_returned_images: bool,
        /// Allow also what no text proves and neither the policy nor the proposal has (a file that GRUB read, credentials beside a
        /// uki): any of it may be the initramfs or a command line, whatever it is called
        #[arg(long, conflicts_with = "once")]
        trust_unknown_events: bool,
        /// Allow also the command line of this boot, where the machine has announced it with another one
        #[arg(long, conflicts_with = "once")]
        trust_command_line: bool,
        /// Wait this long for a boot to become pending
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<Duration>,
        /// Do not ask; without --once and --replace it means --learn
        #[arg(long)]
        yes: bool,
    },
    /// Deny the boot that waits
    Deny {
        /// Id, prefix or label
        node: String,
        /// Reason, for the audit trail and the machine's console
        #[arg(long, value_name = "TEXT")]
        because: String,
    },
    /// Release nothing to this node any more
    Revoke {
        /// Id, prefix or label
        node: String,
        /// Reason, for the audit trail
        #[arg(long, value_name = "TEXT")]
        because: String,
    },
    /// Undo a revocation, by the tenant key that enrolled the node
    Restore {
        /// Id, prefix or label
        node: String,
        /// Reason, for the audit trail
        #[arg(long, value_name = "TEXT")]
        because: String,
    },
    /// Deny a node's next boots: they ask for the passphrase at once, with the disk closed and a shell to be had
    Hold {
        /// Id, prefix or label
        node: String,
        /// Reason, for the audit trail and the machine's console
        #[arg(long, value_name = "TEXT", default_value = "maintenance")]
        because: String,
    },
    /// Undo a hold, by the tenant key that enrolled the node: its boots are judged by its policy again
    Release {
        /// Id, prefix or label
        node: String,
        /// Reason, for the audit trail
        #[arg(long, value_name = "TEXT", default_value = "maintenance is over")]
        because: String,
    },
    /// What nodes may boot
    Policy {
        /// What to do
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// What nodes want to boot next and no rule accepts
    Proposals {
        /// Only this node
        #[arg(long)]
        node: Option<String>,
        /// Also those that are decided
        #[arg(long)]
        all: bool,
    },
    /// Look at, accept or deny one proposal
    Proposal {
        /// What to do
        #[command(subcommand)]
        command: ProposalCommand,
    },
    /// Groups of nodes with one policy
    Group {
        /// What to do
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Read and replay a firmware event log: every event, and the PCRs that they give
    Eventlog {
        /// Such as /sys/kernel/security/tpm0/binary_bios_measurements; `-` is standard input
        file: PathBuf,
    },
    /// Lists of digests, by which a policy knows what may be used while a machine runs
    Ima {
        /// What to do
        #[command(subcommand)]
        command: ImaCommand,
    },
    /// What a node sent and how it was judged
    Evidence {
        /// Id, prefix or label
        #[arg(required_unless_present = "id")]
        node: Option<String>,
        /// The newest N records
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u32,
        /// One record, whole
        #[arg(long, value_name = "N", conflicts_with_all = ["node", "limit"])]
        id: Option<u64>,
        /// Save the firmware's event log of that record
        #[arg(long, value_name = "FILE", requires = "id", conflicts_with = "node")]
        event_log: Option<PathBuf>,
    },
    /// Go on with a verifier that was restored from a backup: until then nothing is signed here
    ///
    /// Shows which documents are missing there, asks, and forgets them: apply policies, groups and enrollments again.
    AcceptRollback {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// The audit trail
    Audit {
        /// Only this node
        #[arg(long)]
        node: Option<String>,
        /// The newest N entries
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// Go on with new entries as they come
        #[arg(long)]
        follow: bool,
    },
    /// What happens, as it happens: one line each
    Watch {
        /// Only this node
        #[arg(long)]
        node: Option<String>,
        /// Begin after this entry instead of now
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
    /// Completions for a shell, on standard output
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Man pages, for packages
    #[command(hide = true)]
    ManPages {
        /// Where to; it exists
        folder: PathBuf,
    },
}

/// What can be done with one node.
#[derive(Subcommand)]
pub enum NodeCommand {
    /// Show all that the verifier knows of it, and check what can be checked here
    Show {
        /// Id, prefix or label
        node: String,
    },
}

/// `halfkey enroll`.
#[derive(Args)]
pub struct EnrollArgs {
    /// Id, prefix or label
    pub node: String,
    /// How the TPM is trusted.
    #[command(flatten)]
    pub trust: Trust,
    /// Label of the node; otherwise the one it has, or suggests
    #[arg(long)]
    pub label: Option<String>,
    /// PCR bank that the node must quote
    #[arg(long, default_value = "sha256")]
    pub bank: Bank,
    /// Accept a changed release key of this server, with this fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    pub trust_release: Option<String>,
    /// Wait this long for the machine to finish its side
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub wait: Option<Duration>,
    /// Do not ask whether the fingerprint is that of the machine's console
    #[arg(long)]
    pub yes: bool,
}

/// Why the TPM is believed to be a TPM.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Trust {
    /// Folder of root certificates of TPM manufacturers (DER or PEM)
    #[arg(long, value_name = "DIR")]
    pub ek_roots: Option<PathBuf>,
    /// The EK's fingerprint, as the machine's console or the cloud provider shows it
    #[arg(long, value_name = "FINGERPRINT")]
    pub trust_ek: Option<String>,
}

/// A PCR bank.
#[derive(Clone, Copy, ValueEnum)]
pub enum Bank {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
}

impl Bank {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
        }
    }

    /// The bank, as agent and servers have it.
    pub fn pcr_bank(self) -> PcrBank {
        match self {
            Self::Sha256 => PcrBank::Sha256,
            Self::Sha384 => PcrBank::Sha384,
        }
    }
}

/// One second to one day.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a whole number of seconds, 1 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
