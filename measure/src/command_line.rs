//! Kernel command lines: how they are read, and what none may have.
//!
//! The kernel, systemd and dracut each read the line in their own way: quotes, backslashes and blanks that are not ASCII are
//! split or dropped by one and not by another, `-` and `_` are the same to the kernel and to systemd, and in an initrd systemd
//! takes `rd.systemd.x` for `systemd.x`. What is forbidden is therefore compared in a form that has neither difference. A line
//! with anything but printable ASCII and spaces is refused altogether, and so is one that the kernel would cut off: what it
//! cuts off is measured like the rest.
//!
//! The verifier judges by this; the agent says it early.

use crate::grub::BOOT_IMAGE;

/// Longest line, in bytes: COMMAND_LINE_SIZE of x86 is 2048 with its NUL, and the smallest of those that matter. The kernel
/// measures a longer one whole, and drops its end.
pub const MAX_LINE: usize = 2047;
/// More files than a boot loader passes on.
const MAX_INITRDS: usize = 16;

const SHELL: &str = "it gives a shell";
const UNIT: &str = "it starts a program or mounts a file system that is in no measured file";

/// What no command line of any policy may have, and why. `*` stands for anything at the end of a word, or at its beginning for
/// anything before the end of a name.
const FORBIDDEN: [(&str, &str); 54] = [
    ("rdinit=*", "it starts another program in place of the initrd's init, before anything of halfkey"),
    ("init=*", "it starts another program in place of the system's init"),
    ("rd.cmdline*", "dracut would ask for more options at the console, which nobody measures"),
    ("systemd.confirm_spawn*", "systemd would ask at the console which units to skip"),
    ("SYSTEMD_PROC_CMDLINE*", "it replaces the command line that systemd reads"),
    ("-*", "the kernel passes it to init as an argument"),
    ("*.break", SHELL),
    ("rdbreak", SHELL),
    ("rdbreak=*", SHELL),
    // systemd 254 and later, in the running system, too, where the root's password is locked; dracut-ng 106 in the initramfs.
    (
        "SYSTEMD_SULOGIN_FORCE*",
        "whoever holds the console gets a shell of root's without a password, also in the running system",
    ),
    ("systemd.debug_shell*", SHELL),
    ("systemd.crash_shell*", SHELL),
    ("systemd.mount_extra*", UNIT),
    ("systemd.swap_extra*", UNIT),
    ("systemd.run*", UNIT),
    (
        "systemd.pull*",
        "systemd would fetch an image from the network, with or without a check, and mount or start what is in it",
    ),
    ("systemd.set_credential*", "systemd's credentials start programs and mount file systems"),
    ("systemd.setenv*", "it changes the environment of every program"),
    ("SYSTEMD_UNIT_PATH*", UNIT),
    ("SYSTEMD_GENERATOR_PATH*", UNIT),
    ("SYSTEMD_ENVIRONMENT_GENERATOR_PATH*", UNIT),
    // systemd.firstboot= only switches off what this starts.
    (
        "systemd.condition_first_boot*",
        "it starts what sets up a new machine at the console, with an account for whoever sits there",
    ),
    ("single", SHELL),
    ("s", SHELL),
    ("S", SHELL),
    ("1", SHELL),
    ("emergency", SHELL),
    ("rescue", SHELL),
    ("rd.single", SHELL),
    ("rd.emergency", SHELL),
    ("rd.rescue", SHELL),
    ("kgdb*", "whoever holds the console can change the kernel"),
    ("ekgdb*", "whoever holds the console can change the kernel"),
    ("kprobe_event*", TRACE),
    ("tp_printk*", TRACE),
    ("trace_event*", TRACE),
    ("trace_trigger*", TRACE),
    ("trace_instance*", TRACE),
    ("ftrace*", TRACE),
    ("live.updates*", "dracut would put files from elsewhere into the initramfs and the root"),
    ("TOMOYO_loader*", LOADS),
    ("TOMOYO_trigger*", LOADS),
    ("sysrq_always_enabled*", "whoever holds the console can kill what guards the open disk"),
    ("bootconfig", BOOTCONFIG),
    ("bootconfig=*", BOOTCONFIG),
    ("initrdmem*", "the kernel would take its initrd from memory, where nobody measures it"),
    ("netroot*", NETWORK),
    ("root=dhcp", NETWORK),
    ("root=dhcp6", NETWORK),
    ("noinitrd", "the kernel would not start its initrd"),
    ("cloud-config-url=*", CLOUD_INIT),
    ("url=*", CLOUD_INIT),
    ("efivar_ssdt*", "the kernel would run ACPI code of an EFI variable, which nobody measures"),
    ("dm_mod.create*", "the kernel would make block devices before the initrd runs"),
];
/// What the kernel's EFI stub (Linux 5.8 and later, `find_file_option`) looks for anywhere in the line, also inside of words.
const INITRD: &str = "initrd=";
/// On ARM and RISC-V, unless Secure Boot is on.
const DEVICE_TREE: (&str, &str) = (
    "dtb=",
    "the kernel would load that device tree and believe what it says of the machine, and nobody measures it",
);
const TRACE: &str =
    "the kernel would show on its console what passes through its functions, keys of disks among it";
const NETWORK: &str = "the root would come from the network, where no volume of this machine is opened";
const LOADS: &str = "the kernel would start a program that is in no measured file, as root";
const SHELL_TEXT: &str = "dracut writes names of devices into scripts, which would run what stands there";
/// Before 23.4 it takes what follows `cc:`, wherever that stands, up to the end of the line.
const CLOUD_INIT: &str = "cloud-init would take commands for root from there";
const BOOTCONFIG: &str = "the kernel would read more options from behind its initrd";
/// `systemd.unit=` and `systemd.wants=` of what gives a shell.
const SHELLS: [&str; 6] =
    ["emergency", "rescue", "debug_shell", "dracut_emergency", "runlevel1.", "breakpoint"];
/// The same of what gives the disks to anybody in the network (systemd 255 and later).
const GIVES_DISKS: [&str; 2] = ["storage_target_mode", "systemd_storagetm"];
/// Parameters whose values dracut writes into scripts, beside all that begin with `rd.`.
const IN_SCRIPTS: [&str; 6] = ["root=", "resume=", "mount.usr=", "ip=", "ifname=", "boot="];

/// What every command line must have: without it systemd takes credentials from firmware and hypervisor, which nobody
/// measures.
pub const NO_CREDENTIALS: &str = "systemd.import_credentials=no";
/// What it must have unless Secure Boot is required: systemd reads options from EFI variables if Secure Boot is off.
pub const NO_RUNTIME: &str = "efi=noruntime";

/// By which the kernel measures what root uses (`ima_policy` in Documentation/admin-guide/kernel-parameters.txt).
pub const IMA_POLICY: &str = "ima_policy=tcb";
/// What takes that back, and why.
const AGAINST_IMA: [(&str, &str); 4] = [
    ("initcall_blacklist*", "the kernel would not begin to measure"),
    ("ima=*", "it can switch ima off"),
    ("ima_tcb*", "the kernel takes an older policy instead, which measures less"),
    ("ima_template_fmt*", "entries have other fields in front, which can't be judged"),
];

/// What every accepted line must have.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Secure Boot is required, so [`NO_RUNTIME`] is not.
    pub secure_boot: bool,
    /// A loader's names of files may stand at its front: they are measured, whatever they are.
    pub names_initrds: bool,
    /// The kernel must not be able to mount the root file system by itself: without an initramfs the boot would look the
    /// same.
    pub needs_initrd: bool,
}

/// Why a line is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// `floor`; of a policy's rules `required`, `forbidden`, `allowed`, `exact`.
    pub rule: &'static str,
    /// What was expected, for people.
    pub expected: String,
    /// The words that are something else.
    pub found: String,
}

impl Floor {
    /// What a line must have whatever it is the line of.
    pub const fn of_any(secure_boot: bool) -> Self {
        Self { secure_boot, names_initrds: true, needs_initrd: false }
    }

    fn required(self) -> impl Iterator<Item = &'static str> {
        [(NO_CREDENTIALS, true), (NO_RUNTIME, !self.secure_boot)]
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(token, _)| token)
    }

    /// What keeps a line below the floor first, whatever a policy says.
    pub fn objection(self, line: &str) -> Option<Objection> {
        self.objections(line).into_iter().next()
    }

    /// All that keeps a line below the floor.
    pub fn objections(self, line: &str) -> Vec<Objection> {
        let floor = |expected: String, found: String| Objection { rule: "floor", expected, found };
        if line.len() > MAX_LINE {
            return vec![floor(format!("at most {MAX_LINE} bytes"), line.len().to_string())];
        }
        if let Some(expected) = unreadable(line) {
            return vec![floor(expected, line.escape_default().to_string())];
        }
        let mut objections = Vec::new();
        let rest = if self.names_initrds { parts(line).2 } else { line };
        if let Some(token) = tokens(rest).find(|token| may_hold(INITRD, token)) {
            let expected = "no initrd=: the kernel would load that file, and most kernels do not measure it";
            objections.push(floor(expected.to_owned(), token.to_owned()));
        }
        // Written so, a blank or the end of a line makes of anything that follows a line of its own.
        if line.split_once("cc:").is_some_and(|(_, rest)| rest.contains(['%', '\\', '"', '\''])) {
            objections.push(floor(format!("plain words behind cc: ({CLOUD_INIT})"), line.to_owned()));
        }
        for token in tokens(line) {
            if self.needs_initrd && is_root_of_kernel(token) {
                let expected = "root=UUID=.., root=LABEL=.. or root=/dev/mapper/..: the kernel itself could mount this one, without any initramfs";
                objections.push(floor(expected.to_owned(), token.to_owned()));
            }
            if let Some(why) = is_forbidden(token) {
                objections.push(floor(format!("no token {token}: {why}"), token.to_owned()));
            }
        }
        // Without Secure Boot the kernel goes on by itself with what stands there, before any initramfs.
        let resumes = tokens(line).find(|token| same_key("resume=", token) && !is_by_initramfs(token));
        let never = tokens(line).any(|token| ["noresume", "nohibernate"].contains(&token));
        if let Some(token) = resumes.filter(|_| !self.secure_boot && !never) {
            let expected = "resume=UUID=.., resume=LABEL=.., resume=/dev/mapper/.. or noresume: the kernel itself could go on with another system from this one";
            objections.push(floor(expected.to_owned(), token.to_owned()));
        }
        let missing = |required| missing_or_contradicted(required, line, "floor");
        objections.extend(self.required().filter_map(missing));
        objections
    }
}

/// Why a token is none for a machine that is to measure what is used.
pub fn against_ima(token: &str) -> Option<&'static str> {
    AGAINST_IMA.iter().find(|(pattern, _)| forbids(pattern, token)).map(|(_, why)| *why)
}

/// Whether by this token the kernel measures what root uses: `tcb` alone or among other policies.
pub fn measures_files(token: &str) -> bool {
    let policies = token.strip_prefix("ima_policy=").filter(|policies| is_plain(policies));
    policies.is_some_and(|policies| policies.split('|').any(|policy| policy == "tcb"))
}

/// What keeps the kernel of a line from measuring what root uses.
pub fn ima_objection(line: &str) -> Option<Objection> {
    let objection =
        |expected: String, found: &str| Some(Objection { rule: "ima", expected, found: found.to_owned() });
    if let Some((token, why)) = tokens(line).find_map(|token| Some((token, against_ima(token)?))) {
        return objection(format!("no token {token}: {why}"), token);
    }
    if tokens(line).any(|token| measures_files(token) && !is_quoted(line, token)) {
        return None;
    }
    objection(format!("token {IMA_POLICY}, as the policy has [ima]"), "none such")
}

/// What keeps kernel, systemd and dracut from reading a line as it is read here. Blanks at its end are nobody's business.
fn unreadable(line: &str) -> Option<String> {
    let line = line.trim_ascii_end();
    if line.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
        return Some("printable ASCII and spaces".to_owned());
    }
    let (kernel, initrds, _) = parts(line);
    // What is left out of the comparison must not take its neighbours along, or tell anybody anything.
    let in_name = |c: char| c.is_ascii_alphanumeric() || "/\\._-+~(),@^=".contains(c);
    let hides = |token: &str| {
        let (_, name) = token.split_once('=').unwrap_or_default();
        !name.chars().all(in_name) || name.ends_with('\\')
    };
    if kernel.is_some_and(hides) || initrds.split(' ').any(hides) {
        return Some("plain names of files in front".to_owned());
    }
    (initrds.split(' ').count() > MAX_INITRDS).then(|| format!("at most {MAX_INITRDS} initrds"))
}

/// Whether a line has a token and none that contradicts it.
fn missing_or_contradicted(required: &'static str, line: &str, rule: &'static str) -> Option<Objection> {
    if let Some(other) = tokens(line).find(|token| same_key(required, token) && *token != required) {
        return Some(Objection {
            rule,
            expected: format!("token {required} and no other value"),
            found: other.to_owned(),
        });
    }
    let missing = !tokens(line).any(|token| token == required && !is_quoted(line, token));
    missing.then(|| Objection { rule, expected: format!("token {required}"), found: "none such".to_owned() })
}

/// Whether a word of a line may stand between quotes: to the kernel and to systemd it is then a part of a longer one.
fn is_quoted(line: &str, token: &str) -> bool {
    let before = &line[..token.as_ptr().addr() - line.as_ptr().addr()];
    ['"', '\''].iter().any(|quote| before.matches(*quote).count() % 2 == 1)
}

/// The words of a line.
pub fn tokens(line: &str) -> impl Iterator<Item = &str> {
    line.split_ascii_whitespace()
}

/// Without the blanks around it, and without GRUB's word for the kernel's file.
pub fn normal(line: &str) -> &str {
    without_kernel(line).1
}

fn without_kernel(line: &str) -> (Option<&str>, &str) {
    let line = line.trim_ascii();
    if !line.starts_with(BOOT_IMAGE) {
        return (None, line);
    }
    let (kernel, rest) = line.split_once(' ').unwrap_or((line, ""));
    (Some(kernel), rest.trim_ascii())
}

/// GRUB's word for the kernel's file; the files at the front that a loader passes on for the EFI stub of the kernel to load; and
/// the line itself.
pub fn parts(line: &str) -> (Option<&str>, &str, &str) {
    let (kernel, line) = without_kernel(line);
    let mut rest = line;
    while names_initrd(rest) {
        rest = rest.split_once(' ').map_or("", |(_, rest)| rest.trim_ascii_start());
    }
    (kernel, line[..line.len() - rest.len()].trim_ascii_end(), rest)
}

/// `initrd=\path`, as systemd-boot writes it for a kernel without LoadFile2: its name follows the kernel's version. Not
/// `initrd=start,size`, which is memory. Left out only where the kernel measures what it names ([`Floor::names_initrds`]).
fn names_initrd(token: &str) -> bool {
    token.strip_prefix("initrd=").is_some_and(|file| file.starts_with(['\\', '/']))
}

/// Whether it is a character of names, addresses and lists, to everybody who may read a line: to a shell as well, and to who unpacks `%0A`.
pub fn is_harmless(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._:,/+@=[]-".contains(c)
}

/// Whether kernel, systemd and dracut all read it as what it looks like.
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\'))
}

/// Why no command line may have a token.
pub fn is_forbidden(token: &str) -> Option<&'static str> {
    if let Some((_, why)) = FORBIDDEN.iter().find(|(pattern, _)| forbids(pattern, token)) {
        return Some(why);
    }
    if may_hold(DEVICE_TREE.0, token) {
        return Some(DEVICE_TREE.1);
    }
    // Plain, it only says which source there is.
    let seeds = token.contains(';') && ["ds=", "ci.ds="].iter().any(|key| same_key(key, token));
    if seeds || token.match_indices("cc:").any(|(at, _)| !is_in_address(token, at)) {
        return Some(CLOUD_INIT);
    }
    let device = token.trim_end_matches('*');
    // Of the kernel alone, for memory that is reserved: `memmap=64K$0x18690000`.
    let of_memory = |c: char| is_harmless(c) || "$!#".contains(c);
    let reserves = same_key("memmap=", token) && token.chars().all(of_memory);
    let runs = token.contains(['$', '`']) && !reserves;
    let of_dracut = ["rd.*", "rd_*"].iter().any(|prefix| forbids(prefix, token))
        || IN_SCRIPTS.iter().any(|key| same_key(key, token));
    if runs || of_dracut && !device.chars().all(is_harmless) {
        return Some(SHELL_TEXT);
    }
    // `sysctl.kernel.modprobe=/x`; numbers are no programs.
    let starts = ["sysctl.*", "sysctl/*"].iter().any(|prefix| forbids(prefix, token));
    let value = token.split_once('=').map_or("", |(_, value)| value);
    if starts && value.contains(['/', '|']) {
        return Some(LOADS);
    }
    let is_unit = |units: &[&str]| {
        let mut keys = ["systemd.unit=", "systemd.wants="].iter();
        keys.any(|key| units.iter().any(|unit| forbids(&format!("{key}{unit}*"), token)))
    };
    match (is_unit(&SHELLS), is_unit(&GIVES_DISKS)) {
        (true, _) => Some(SHELL),
        (_, true) => Some("whoever is in the network would get the disks"),
        _ => None,
    }
}

/// Whether the `cc:` at this place of a token is a part of a network address, or of the id of a device.
fn is_in_address(token: &str, at: usize) -> bool {
    let (before, after) = (&token[..at], &token[at + 3..]);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = before.bytes().rev().take_while(u8::is_ascii_hexdigit).count();
    let group = after.split([':', '.']).next().unwrap_or_default();
    digits <= 2
        && before[..at - digits].ends_with([':', '=', '[', ',', '-'])
        && group.len() <= 4
        && hex(group)
        && !after.is_empty()
        && !after.ends_with(':')
        && after.chars().all(is_harmless)
}

/// Whether the kernel's EFI stub, or what else reads raw bytes, may find `name` in it.
fn may_hold(name: &str, token: &str) -> bool {
    let written: Vec<u8> = canonical(token).collect();
    token.contains(name) || written.windows(name.len()).any(|bytes| bytes == name.as_bytes())
}

/// `root=` of another kind than those that only an initramfs can resolve.
fn is_root_of_kernel(token: &str) -> bool {
    same_key("root=", token) && !is_by_initramfs(token)
}

/// Whether the device that a token names is one that only an initramfs can find.
fn is_by_initramfs(token: &str) -> bool {
    let device = token.split_once('=').map_or("", |(_, device)| device);
    ["UUID=", "LABEL=", "/dev/mapper/"]
        .iter()
        .any(|start| device.strip_prefix(start).is_some_and(|name| !name.is_empty() && is_plain(name)))
}

/// Whether a pattern forbids a token, however it is written.
pub fn forbids(pattern: &str, token: &str) -> bool {
    let mut written = canonical(token);
    if let Some(end) = pattern.strip_prefix('*').filter(|end| !end.is_empty() && !end.ends_with('*')) {
        let name: Vec<u8> = written.take_while(|byte| *byte != b'=').collect();
        return name.ends_with(&canonical(end).collect::<Vec<_>>());
    }
    match pattern.strip_suffix('*') {
        Some(prefix) => canonical(prefix).all(|byte| written.next() == Some(byte)),
        None => canonical(pattern).eq(written),
    }
}

/// Whether two tokens are of one parameter.
pub fn same_key(one: &str, other: &str) -> bool {
    let key = |token| canonical(token).take_while(|byte| *byte != b'=');
    key(one).eq(key(other))
}

/// Without quotes and backslashes, `-` as `_`, and `rd.systemd.` as `systemd.`.
fn canonical(token: &str) -> impl Iterator<Item = u8> + Clone {
    let plain = token
        .bytes()
        .filter(|byte| !matches!(byte, b'"' | b'\'' | b'\\'))
        .map(|byte| if byte == b'-' { b'_' } else { byte });
    let in_initrd = plain.clone().take(11).eq(*b"rd.systemd.");
    plain.skip(if in_initrd { 3 } else { 0 })
}
