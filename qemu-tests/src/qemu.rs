//! The virtual hardware: q35, OVMF that measures, TPM, virtio, two serial lines.

use crate::error::{Context, Error, Result};
use crate::lab::network::Cable;
use crate::process::Guard;
use crate::reaper;
use crate::wire::{Bell, Tap, Wire};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const PROGRAM: &str = "qemu-system-x86_64";

/// How disks are plugged in.
const VIRTIO: &str = "virtio-blk-pci";

/// A build of OVMF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// Without Secure Boot.
    Plain,
    /// With Secure Boot: its variables can be written only in system management mode.
    SecureBoot,
}

impl Firmware {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "/usr/share/OVMF/OVMF_CODE_4M.fd",
            Self::SecureBoot => "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["-machine", "q35,smm=off"],
            Self::SecureBoot => {
                &["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
            }
        }
    }
}

/// How instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU's translator: everywhere, and slow.
    Tcg,
}

impl Accel {
    /// `cpu` is what is emulated.
    fn options(self, cpu: &str) -> [&str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", cpu],
        }
    }

    /// KVM if firmware really starts under it, else TCG: there are hosts with a /dev/kvm under which it hangs. The
    /// answer is kept in `cache`; `HALFKEY_QEMU_ACCEL=kvm|tcg` overrides it.
    ///
    /// # Errors
    /// If QEMU can't be started at all.
    pub fn probe(cache: &Path, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let named = |text: &str| match text.trim() {
            "kvm" => Some(Self::Kvm),
            "tcg" => Some(Self::Tcg),
            _ => None,
        };
        if let Some(accel) = std::env::var("HALFKEY_QEMU_ACCEL").ok().and_then(|text| named(&text)) {
            return Ok(accel);
        }
        if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        // Of this boot of the host: another may behave otherwise.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let file = cache.join(format!("accel-{}", boot.trim()));
        if let Some(accel) = fs::read_to_string(&file).ok().and_then(|text| named(&text)) {
            return Ok(accel);
        }
        say("trying whether KVM works here");
        let works = firmware_starts()?;
        let (accel, name) = if works { (Self::Kvm, "kvm") } else { (Self::Tcg, "tcg") };
        fs::write(&file, name).context(format_args!("can't write {}", file.display()))?;
        Ok(accel)
    }
}

/// Whether OVMF gets as far as looking for something to boot.
fn firmware_starts() -> Result<bool> {
    let sockets = Sockets::new()?;
    let listener = sockets.listen("console")?;
    let mut command = base(Accel::Kvm, "", Firmware::Plain);
    command.args(["-m", "256", "-serial"]).arg(format!("unix:{}", sockets.path("console").display()));
    command.args([
        "-drive",
        &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", Firmware::Plain.code()),
    ]);
    let log = sockets.path("log");
    let mut guard = Guard::start("qemu", &mut command, &log)?;
    let Ok(stream) = accept(&listener, &mut guard, &log) else { return Ok(false) };
    let mut console = Wire::new("firmware", stream, &log, &Bell::default(), None)?;
    Ok(console.expect(&["BdsDxe", "UEFI", "Shell"], Duration::from_secs(20)).is_ok())
}

fn base(accel: Accel, cpu: &str, firmware: Firmware) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(firmware.options()).args(accel.options(cpu));
    command
}

/// What starts without a firmware.
pub struct Linux {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its command line.
    pub cmdline: String,
}

/// A machine without firmware, TPM and network that runs `linux` and ends when it goes off. What its console says goes to `log`.
pub fn bare(accel: Accel, cpu: &str, linux: &Linux, disks: &[&Path], log: &Path) -> Command {
    let mut command = base(accel, cpu, Firmware::Plain);
    command.args(["-smp", "2", "-m", "1024", "-append", &linux.cmdline]);
    command.arg("-kernel").arg(&linux.kernel).arg("-initrd").arg(&linux.initrd);
    command.arg("-serial").arg(format!("file:{}", log.display()));
    for (number, disk) in disks.iter().enumerate() {
        let options = format!("if=none,id=disk{number},cache=unsafe,discard=unmap,format=raw");
        command.arg("-drive").arg(format!("{options},file={}", disk.display()));
        command.arg("-device").arg(format!("{VIRTIO},drive=disk{number}"));
    }
    command
}

/// The files that a machine is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Boot disk.
    pub disk: PathBuf,
    /// Second disk: where the guest leaves its marker.
    pub marker: PathBuf,
    /// Third disk: empty, or what a scenario puts there. It is always there, so that firmware measures the same hardware, but
    /// where that it is missing is the point.
    pub spare: PathBuf,
    /// Fourth disk: as the third.
    pub visitor: PathBuf,
    /// Whether that is an NVMe disk, whose driver is part of newer kernels.
    pub nvme: bool,
    /// The processor, where it is emulated.
    pub cpu: &'static str,
    /// Networks besides the one to this host.
    pub cables: Vec<Cable>,
    /// What its clock says at first; none: the time of this host.
    pub clock: Option<String>,
    /// The firmware.
    pub firmware: Firmware,
    /// Its variables.
    pub variables: PathBuf,
    /// swtpm's state.
    pub tpm: PathBuf,
    /// Folder for logs.
    pub logs: PathBuf,
}

/// What is plugged in when it is switched on.
#[derive(Clone, Copy, Debug)]
pub struct Plugged {
    /// The network cable. The card is always there.
    pub network: bool,
    /// The third disk.
    pub spare: bool,
}

/// A machine that is switched on.
pub struct Qemu {
    // In this order they go: the machine before its TPM, the sockets last.
    machine: Guard,
    _tpm: Guard,
    _sockets: Sockets,
    /// What a person at the machine sees (ttyS0).
    pub console: Wire,
    /// The tests' own line (ttyS1).
    pub shell: Wire,
    /// QEMU's own console: what a hand at the hardware could do.
    pub monitor: Wire,
    /// Rung by both.
    pub bell: Bell,
}

impl Qemu {
    /// Switches it on. `number` tells the logs of a machine's boots apart.
    ///
    /// # Errors
    /// If QEMU or swtpm can't be started.
    pub fn start(parts: &Parts, accel: Accel, number: u32, plugged: Plugged, tap: Tap) -> Result<Self> {
        let sockets = Sockets::new()?;
        let log = |name: &str| parts.logs.join(format!("{number:02}-{name}.log"));
        let tpm_socket = sockets.path("tpm");
        let tpm = crate::swtpm::for_machine(&parts.tpm, &tpm_socket, &log("swtpm"))?;

        let mut command = base(accel, parts.cpu, parts.firmware);
        // One processor: machines run beside each other, and a boot has little to do at once.
        command.args(["-smp", "1", "-m", "1024"]);
        let drive = |options: &str, path: &Path| format!("{options},format=raw,file={}", path.display());
        command.arg("-drive").arg(drive("if=pflash,unit=0,readonly=on", Path::new(parts.firmware.code())));
        command.arg("-drive").arg(drive("if=pflash,unit=1", &parts.variables));
        let plug = |command: &mut Command, path: &Path, serial: &str, driver: &str, bus: &str| {
            // The host's page cache outlives QEMU, so nothing is lost that matters here.
            command
                .arg("-drive")
                .arg(drive(&format!("if=none,id={serial},cache=unsafe,discard=unmap"), path));
            let device = format!("{driver},id={serial}-disk,drive={serial},serial={serial},bus={bus}");
            command.arg("-device").arg(device);
        };
        plug(&mut command, &parts.disk, "boot", VIRTIO, "pcie.0");
        plug(&mut command, &parts.marker, "marker", VIRTIO, "pcie.0");
        // What is behind a port of its own can be pulled, and comes after the others.
        for (chassis, port) in ["spare-port", "visitor-port"].into_iter().enumerate() {
            command.arg("-device").arg(format!("pcie-root-port,id={port},chassis={}", chassis + 1));
        }
        if plugged.spare {
            plug(&mut command, &parts.spare, "spare", VIRTIO, "spare-port");
        }
        command.arg("-chardev").arg(format!("socket,id=tpm,path={}", tpm_socket.display()));
        command.args(["-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"]);
        // No network still has the network card: a cable that is not plugged in.
        let restrict = if plugged.network { "user,id=net" } else { "hubport,id=net,hubid=0" };
        command.args(["-netdev", restrict, "-device", "virtio-net-pci,netdev=net,romfile="]);
        for (id, cable) in parts.cables.iter().enumerate() {
            command.args(cable.options(id));
        }
        if let Some(time) = &parts.clock {
            command.arg("-rtc").arg(format!("base={time}"));
        }
        command.args(["-device", "virtio-rng-pci"]);
        let (driver, bus) = if parts.nvme { ("nvme", "pcie.0") } else { (VIRTIO, "visitor-port") };
        plug(&mut command, &parts.visitor, "visitor", driver, bus);
        let mut listeners = Vec::new();
        for (option, name) in [("-serial", "console"), ("-serial", "shell"), ("-monitor", "monitor")] {
            listeners.push(sockets.listen(name)?);
            command.arg(option).arg(format!("unix:{}", sockets.path(name).display()));
        }
        let mut machine = Guard::start("qemu", &mut command, &log("qemu"))?;
        let bell = Bell::default();
        let console = accept(&listeners[0], &mut machine, &log("qemu"))?;
        let shell = accept(&listeners[1], &mut machine, &log("qemu"))?;
        let monitor = accept(&listeners[2], &mut machine, &log("qemu"))?;
        Ok(Self {
            machine,
            _tpm: tpm,
            _sockets: sockets,
            console: Wire::new("console", console, &log("console"), &bell, Some(tap))?,
            shell: Wire::new("shell", shell, &log("shell"), &bell, None)?,
            monitor: Wire::new("monitor", monitor, &log("monitor"), &Bell::default(), None)?,
            bell,
        })
    }

    /// Waits until the machine has switched itself off.
    ///
    /// # Errors
    /// If it is still on at the deadline.
    pub fn wait_off(&mut self, deadline: Duration) -> Result<()> {
        self.machine.wait(deadline).context("the machine was expected to go off")?;
        Ok(())
    }
}

/// Waits for QEMU's own connection; it connects before it runs the machine.
fn accept(listener: &UnixListener, guard: &mut Guard, log: &Path) -> Result<UnixStream> {
    listener.set_nonblocking(true).context("can't prepare a socket")?;
    for _ in 0..6000 {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).context("can't prepare a socket")?;
            return Ok(stream);
        }
        if guard.exited()?.is_some() {
            return Err(Error::new(format!("QEMU ended at once:\n{}", crate::process::tail_of(log, 10))));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::new("QEMU did not connect within a minute"))
}

/// How the names of [`Sockets`] begin; the process and a number follow.
const SOCKETS: &str = "halfkey-rig-";

/// Removes the sockets of earlier runs that could not do that themselves: if also their reaper was killed.
fn sweep(all: &Path) {
    let left = |name: &str| {
        let process = name.strip_prefix(SOCKETS)?.split('-').next()?.parse::<u32>().ok()?;
        Some(!Path::new(&format!("/proc/{process}")).exists())
    };
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        // A container that shares the folder with others does not see their processes; no run takes a day.
        let old = age.is_some_and(|age| age > Duration::from_secs(24 * 3600));
        if old && left(&entry.file_name().to_string_lossy()) == Some(true) {
            // Another user's stay.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A private folder with short paths: the name of a socket has at most 107 bytes.
struct Sockets(PathBuf);

impl Sockets {
    fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let all = std::env::temp_dir();
        if number == 0 {
            sweep(&all);
        }
        let folder = all.join(format!("{SOCKETS}{}-{number}", std::process::id()));
        reaper::remove_with_me(&folder);
        fs::create_dir(&folder).context(format_args!("can't make {}", folder.display()))?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&folder, mode).context("can't set a mode")?;
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn listen(&self, name: &str) -> Result<UnixListener> {
        UnixListener::bind(self.path(name))
            .context(format_args!("can't listen on {}", self.path(name).display()))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Left-over sockets in the temporary folder hurt nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::FileTimes;
    use std::time::SystemTime;

    #[test]
    fn sockets_of_runs_that_are_gone_go_after_a_day() {
        /// More than there can be.
        const NOBODY: u32 = u32::MAX;
        let all = tempfile::tempdir().unwrap();
        let folder = |process: u32, number: u32, days: u64| {
            let folder = all.path().join(format!("{SOCKETS}{process}-{number}"));
            fs::create_dir(&folder).unwrap();
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            fs::File::open(&folder).unwrap().set_times(FileTimes::new().set_modified(then)).unwrap();
            folder
        };
        let (old, new) = (folder(NOBODY, 0, 2), folder(NOBODY, 1, 0));
        let running = folder(std::process::id(), 0, 2);
        sweep(all.path());
        assert_eq!([&old, &new, &running].map(|folder| folder.exists()), [false, true, true]);
    }
}
