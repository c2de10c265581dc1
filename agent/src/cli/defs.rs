//! The definition of the command line: commands, options, what they take, and the words about them. Parser, help, man page
//! and shell completions read it; nothing of it stands anywhere else.

/// What comes after an option, or as an operand. The names are those that help shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: the option is a switch.
    Nothing,
    /// Any text.
    Text(&'static str),
    /// Path of a file.
    File(&'static str),
    /// Path of a folder.
    Folder(&'static str),
    /// Path of a block or character device.
    Device(&'static str),
    /// A program and its arguments: everything that follows, whatever it looks like.
    Program(&'static str),
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Without its dashes.
    pub name: &'static str,
    /// What comes after it.
    pub takes: Takes,
    /// Whether it may be given several times. If not, the last one counts.
    pub repeated: bool,
    /// What it is for. Up to the first `;`, `:` or bracket it stands alone, as the completions show it.
    pub help: &'static str,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Cmd {
    /// The word on the command line.
    pub name: &'static str,
    /// What it does, in the list of commands.
    pub about: &'static str,
    /// How it is called, without the program's name; one line for each form.
    pub usage: &'static [&'static str],
    /// What it does, in sentences; a paragraph each.
    pub text: &'static [&'static str],
    /// Its options, besides [`GLOBAL`] and `--help`.
    pub options: &'static [Opt],
    /// What it takes without a dash.
    pub operands: Takes,
    /// Paragraphs below the options.
    pub notes: &'static [&'static str],
}

impl Takes {
    /// The name of the value; none for a switch.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Text(name)
            | Self::File(name)
            | Self::Folder(name)
            | Self::Device(name)
            | Self::Program(name) => Some(name),
        }
    }
}

impl Opt {
    const fn new(name: &'static str, takes: Takes, help: &'static str) -> Self {
        Self { name, takes, repeated: false, help }
    }

    const fn repeated(mut self) -> Self {
        self.repeated = true;
        self
    }

    /// As it is written: `--timeout SECONDS`.
    pub fn spelled(&self) -> String {
        match self.takes.name() {
            Some(value) => format!("--{} {value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

impl Cmd {
    /// The option with this name, its own or a global one.
    pub fn option(&self, name: &str) -> Option<&'static Opt> {
        self.options.iter().chain(GLOBAL).find(|option| option.name == name)
    }
}

/// The command with this name.
pub fn command(name: &str) -> Option<&'static Cmd> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The program.
pub const PROGRAM: &str = "halfkey-agent";

/// What it is, in one line.
pub const ABOUT: &str = "unlocks this machine's LUKS2 volumes once its TPM has proved what it booted";

/// How it is called.
pub const USAGE: &str = "[--tpm TPM] COMMAND [OPTIONS]";

/// The environment variable that [`GLOBAL`]'s `--tpm` defaults to.
pub const TPM_VARIABLE: &str = "HALFKEY_TPM";

const TIMEOUT: &str = "timeout";
const JSON: &str = "json";

/// Options of every command, before it or after it.
pub const GLOBAL: &[Opt] = &[Opt::new(
    "tpm",
    Takes::Device("TPM"),
    "device of the TPM [default: HALFKEY_TPM, else whatever the machine has]; swtpm:HOST:PORT or swtpm:unix:PATH for a simulator. \
     In the initramfs only a device, and HALFKEY_TPM counts for nothing",
)];

/// What the process exits with ([`crate::error::Kind::exit_code`]), and what that means.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "the system refused something"),
    (2, "command line"),
    (3, "not enrolled"),
    (4, "TPM"),
    (5, "no server answered in time"),
    (6, "refused by verifier or tenant's signature"),
    (7, "waits for an operator"),
    (8, "a volume is not as it must be"),
    (9, "fence"),
];

/// The commands, in the order of the help.
pub const COMMANDS: &[Cmd] = &[
    Cmd {
        name: "enroll",
        about: "bind this machine and its volumes to a verifier",
        usage: &["enroll --server URL --ca FILE --tenant-key FINGERPRINT [OPTIONS] DEVICE..."],
        text: &[
            "Registers this TPM, waits until the tenant has enrolled the node, verifies the tenant's signature, and adds \
                 a keyslot and a token to each LUKS2 volume. Can be run again.",
        ],
        options: &[
            Opt::new("server", Takes::Text("URL"), "the verifier: https://HOST:PORT"),
            Opt::new("registrar", Takes::Text("URL"), "the registrar, if it is another host"),
            Opt::new("ca", Takes::File("FILE"), "CA of the servers (ca.pem of the verifier's state folder)"),
            Opt::new(
                "tenant-key",
                Takes::Text("FINGERPRINT"),
                "fingerprint that 'halfkey key' prints at the tenant's workstation",
            ),
            Opt::new(
                "key-file",
                Takes::File("FILE"),
                "opens the volumes; else an existing passphrase is asked for",
            ),
            Opt::new(TIMEOUT, Takes::Text("SECONDS"), "how long to wait for the tenant [default: 3600]"),
            Opt::new(
                "rebuild-initramfs",
                Takes::Nothing,
                "run dracut first, and look whether what it builds can unlock this machine",
            ),
            Opt::new(
                "root-elsewhere",
                Takes::Nothing,
                "the system that boots from these volumes is not the one that runs; else the volumes of its / and /usr \
                 must be among them",
            ),
            Opt::new(
                "others-may-ask",
                Takes::Nothing,
                "the initramfs opens other LUKS volumes too, without asking anybody (a key file in it); else enroll \
                 refuses such a set",
            ),
            Opt::new(
                "owner-password-file",
                Takes::File("FILE"),
                "if the owner hierarchy of the TPM has a password",
            ),
            Opt::new(
                "endorsement-password-file",
                Takes::File("FILE"),
                "if the endorsement hierarchy of the TPM has a password",
            ),
        ],
        operands: Takes::Device("DEVICE"),
        notes: &[],
    },
    Cmd {
        name: "unlock",
        about: "attest and open the enrolled volumes (in the initramfs)",
        usage: &["unlock [OPTIONS]"],
        text: &[
            "Finds the enrolled volumes, attests, tests their keys, extends the fence and opens them. If anything fails \
                 the fence is closed, so that a passphrase may be asked for.",
        ],
        options: &[
            Opt::new(
                "dry-run",
                Takes::Nothing,
                "all but fence and opening; prints the duration of each step",
            ),
            Opt::new(JSON, Takes::Nothing, "report as JSON on standard output"),
            Opt::new(
                TIMEOUT,
                Takes::Text("SECONDS"),
                "overall deadline [default: rd.halfkey.timeout=, else 60]",
            ),
            Opt::new("device", Takes::Device("PATH"), "this volume instead of all that are found").repeated(),
        ],
        operands: Takes::Nothing,
        notes: &[
            "kernel command line: rd.halfkey=off (don't unlock; boots even if the fence can't be closed), rd.halfkey=on \
                  (wait for an enrolled volume although nothing names it), rd.halfkey.timeout=S, rd.luks.uuid=, \
                  rd.luks.name=, rd.luks.options= as for systemd-cryptsetup-generator(8)",
        ],
    },
    Cmd {
        name: "status",
        about: "show TPM, fence, volumes and servers",
        usage: &[
            "status [--json] [DEVICE...]",
            "status --image FILE [--json]",
            "status --removable [DEVICE...]",
        ],
        text: &[
            "Shows TPM, EK certificate, fence, enrolled volumes, and whether their servers answer; or whether an initramfs has \
                 all that it takes to unlock this machine.",
        ],
        options: &[
            Opt::new(
                "image",
                Takes::File("FILE"),
                "look into this initramfs, or unified kernel image, by dracut's lsinitrd",
            ),
            Opt::new(JSON, Takes::Nothing, "the same as JSON on standard output"),
            Opt::new(
                "removable",
                Takes::Nothing,
                "look at the volumes only; exit code 0 if each enrolled one has another way in, 8 if one has none, 3 if \
                 none is enrolled",
            ),
        ],
        operands: Takes::Device("DEVICE"),
        notes: &[],
    },
    Cmd {
        name: "propose",
        about: "tell the verifier what will be booted next, after an update",
        usage: &[
            "propose [--kernel-version VERSION] [OPTIONS]",
            "propose --uki FILE [OPTIONS]",
            "propose --entry FILE [OPTIONS]",
            "propose --kernel FILE [--initrd FILE]... [--cmdline TEXT] [OPTIONS]",
        ],
        text: &[
            "Measures what will be booted next and proposes it to the verifier, under a quote of the running machine. A \
                 signed image that the policy trusts, or one that it expects, is accepted at once; anything else waits for \
                 an operator. Run as root, after the image was rebuilt and before a reboot.",
        ],
        options: &[
            Opt::new(
                "kernel-version",
                Takes::Text("VERSION"),
                "what the boot loader has for this kernel [default: the running one]: a unified kernel image, a boot \
                 entry, or vmlinuz and initrd.img",
            ),
            Opt::new("uki", Takes::File("FILE"), "this unified kernel image"),
            Opt::new("entry", Takes::File("FILE"), "this boot entry, of a folder loader/entries"),
            Opt::new(
                "kernel",
                Takes::File("FILE"),
                "this kernel, with the initrds and the command line that follow",
            ),
            Opt::new("initrd", Takes::File("FILE"), "an initrd of the kernel; in the order of loading")
                .repeated(),
            Opt::new("cmdline", Takes::Text("TEXT"), "all that the boot loader will pass to the kernel"),
            Opt::new(
                "written",
                Takes::File("FILE"),
                "for hooks: what the update has written, where it was made; what is found has to have this content to \
                 be called the update's",
            )
            .repeated(),
            Opt::new(
                "made-of",
                Takes::File("FILE"),
                "for hooks: what that was made of; none of it may be on a boot partition",
            )
            .repeated(),
            Opt::new(
                "boot-root",
                Takes::Folder("DIR"),
                "where the boot loader's files are [default: /efi, /boot, /boot/efi]",
            ),
            Opt::new(
                "name",
                Takes::Text("TEXT"),
                "for the operator [default: the version or the file's name]",
            ),
            Opt::new(
                "device",
                Takes::Device("PATH"),
                "this volume's token instead of the newest that is found",
            )
            .repeated(),
            Opt::new(TIMEOUT, Takes::Text("SECONDS"), "when to give up [default: 30]"),
            Opt::new("dry-run", Takes::Nothing, "print what would be proposed, as JSON, and send nothing"),
            Opt::new(
                "quiet-if-not-enrolled",
                Takes::Nothing,
                "succeed without a word on a machine without an enrolled volume",
            ),
            Opt::new(JSON, Takes::Nothing, "proposal and answer as JSON on standard output"),
        ],
        operands: Takes::Nothing,
        notes: &[
            "GRUB measures its own commands and files in PCR 8 and 9: no proposal can foretell them.",
            "exit codes: 0 accepted, 7 waits for an operator, 6 refused; others as for all commands",
        ],
    },
    Cmd {
        name: "unbind",
        about: "remove keyslot and token from a volume",
        usage: &["unbind [--key-file FILE] DEVICE..."],
        text: &["Removes halfkey's keyslot and token; refuses to remove the last way into a volume."],
        options: &[Opt::new(
            "key-file",
            Takes::File("FILE"),
            "opens the volume; else an existing passphrase is asked for",
        )],
        operands: Takes::Device("DEVICE"),
        notes: &[],
    },
    Cmd {
        name: "fence",
        about: "close the boot window (PCR 15)",
        usage: &["fence [--passphrase MAPPING | --shell UNIT | --exec COMMAND [ARGUMENT...]]"],
        text: FENCE,
        options: &[
            Opt::new(
                "passphrase",
                Takes::Text("MAPPING"),
                "a passphrase is about to be asked for /dev/mapper/MAPPING: note that on top of an opened fence; \
                 nothing if the mapping is open already",
            ),
            Opt::new(
                "shell",
                Takes::Text("UNIT"),
                "then become what the file of this unit starts: a shell of the initramfs",
            ),
            Opt::new("exec", Takes::Program("COMMAND..."), "the same as fence-exec"),
        ],
        operands: Takes::Nothing,
        notes: &[],
    },
    Cmd {
        name: "fence-exec",
        about: "close the boot window, then become another program",
        usage: &["fence-exec COMMAND [ARGUMENT...]"],
        text: FENCE,
        options: &[],
        operands: Takes::Program("COMMAND..."),
        notes: &[],
    },
    Cmd {
        name: "look",
        about: "open devices for unlock",
        usage: &["look"],
        text: &[
            "Called by unlock, with a socket as standard input. A device that does not answer holds whoever opens it, and this \
                 process is one that nobody has to wait for.",
        ],
        options: &[],
        operands: Takes::Nothing,
        notes: &[],
    },
    Cmd {
        name: "before",
        about: "do what comes before a unit of the initramfs",
        usage: &["before NAME [INSTANCE]"],
        text: &[
            "Called by drop-ins, with the unit's name as systemd's %p and %I give it. Before systemd-cryptsetup asks for a \
                 passphrase: fence --passphrase INSTANCE. Before any other unit, which uses the mounted root: gate --look.",
        ],
        options: &[],
        operands: Takes::Text("NAME"),
        notes: &[],
    },
    Cmd {
        name: "gate",
        about: "check that the root is on a volume that was opened (before switch-root)",
        usage: &["gate [--look | --exec COMMAND [ARGUMENT...]]"],
        text: &[
            "If volumes were opened by attestation in this boot, /sysroot (and /sysroot/usr) must be on them; else \
                 closes them, extends the fence as rogue and powers off.",
        ],
        options: &[
            Opt::new("look", Takes::Nothing, "look only, at what is mounted so far"),
            Opt::new(
                "exec",
                Takes::Program("COMMAND..."),
                "close the boot window, check the root, then become that program",
            ),
        ],
        operands: Takes::Nothing,
        notes: &[],
    },
];

const FENCE: &[&str] = &[
    "Extends PCR 15 as closed unless it is extended already, and reads it back. Without a TPM there is \
     nothing to do. In the initramfs the machine is powered off if the firmware shows a TPM and the fence can't be \
     confirmed, unless rd.halfkey=off is on the kernel command line.",
];
