//! A machine: disk, TPM and firmware variables that survive its boots, and a boot of it.

use super::network::Network;
use crate::error::{Context, Error, Result};
use crate::image::installation::{self, Installation};
use crate::image::system::{Entry, System};
use crate::image::{disk, guest};
use crate::marker::{self, Marker};
use crate::qemu::{Accel, Firmware, Parts, Plugged, Qemu};
use crate::test_env::TestEnv;
use crate::variables::{self, BootEntry, Trust};
use crate::watch::Watch;
use crate::{terminal, wire};
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a boot may take before something is surely wrong: emulated, on a busy host.
pub const BOOT: Duration = Duration::from_secs(900);
/// The same for something small in a running guest.
pub const MOMENT: Duration = Duration::from_secs(300);

/// What systemd-cryptsetup asks.
pub const PROMPT: &str = "enter passphrase for disk";
/// What sulogin asks before it gives a shell.
const MAINTENANCE: &str = "Press Enter for ";
/// How long a shell may take to answer before Enter is pressed again.
const LISTENING: Duration = Duration::from_secs(3);
/// What stands behind it once the terminal does not echo any more.
const NO_ECHO: &str = "no echo)";

/// A machine that is switched off.
pub struct Machine {
    /// Its name in logs.
    pub name: String,
    parts: Parts,
    accel: Accel,
    boots: u32,
    watch: Watch,
    /// What is plugged in at the next boot.
    pub plugged: Plugged,
    /// A word for what the test has put into the initramfs, at the end of the second disk's first line.
    pub note: &'static str,
}

impl Machine {
    /// A new machine with a fresh disk that boots this system, and a TPM of its own.
    ///
    /// # Errors
    /// If a part can't be made.
    pub fn new(env: &TestEnv, system: &System) -> Result<Self> {
        let machine = Self::with_disk(env, system.path.firmware(), |disk| env.images.disk(disk))?;
        machine.install(env, system)?;
        Ok(machine)
    }

    /// A new machine whose owner has installed it so.
    ///
    /// # Errors
    /// If it can't be installed, or a part can't be made.
    pub fn installed(env: &TestEnv, installation: &Installation, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let machine = Self::with_disk(env, installation.path.firmware(), |disk| {
            env.images.installed(installation, env.accel, say, disk)
        })?;
        let path = format!("\\{}", installation.starts.replace('/', "\\"));
        let trust = installation.path.trust(&env.images.keys)?;
        let entry = BootEntry { path, options: String::new() };
        variables::write(&trust, &installation::ESP, &[entry], &machine.parts.variables)?;
        Ok(machine)
    }

    /// All of it but its firmware's variables.
    fn with_disk(env: &TestEnv, firmware: Firmware, make: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        let folder = env.place("machine");
        fs::create_dir_all(&folder).context(format_args!("can't make {}", folder.display()))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parts = Parts {
            disk: folder.join("disk.raw"),
            marker: folder.join("marker.raw"),
            spare: folder.join("spare.raw"),
            visitor: folder.join("visitor.raw"),
            nvme: false,
            cpu: env.distribution.cpu,
            cables: Vec::new(),
            clock: None,
            firmware,
            variables: folder.join("variables.fd"),
            tpm: folder.join("tpm"),
            logs: folder,
        };
        make(&parts.disk)?;
        env.manufacturer.make(&parts.tpm)?;
        marker::blank(&parts.spare, 64 << 20)?;
        marker::blank(&parts.visitor, 64 << 20)?;
        let plugged = Plugged { network: true, spare: true };
        Ok(Self { name, parts, accel: env.accel, boots: 0, watch: env.watch.clone(), plugged, note: "" })
    }

    /// Its boot disk.
    pub fn disk(&self) -> &Path {
        &self.parts.disk
    }

    /// Its third disk.
    pub fn spare(&self) -> &Path {
        &self.parts.spare
    }

    /// Its fourth disk.
    pub fn visitor(&self) -> &Path {
        &self.parts.visitor
    }

    /// Plugs the fourth disk in as an NVMe disk, or as it was.
    pub fn plug_as_nvme(&mut self, nvme: bool) {
        self.parts.nvme = nvme;
    }

    /// Plugs it into one more network, from the next boot on.
    pub fn join(&mut self, network: &Network) {
        self.parts.cables.push(network.cable());
    }

    /// Sets its hardware clock for the next boots: UTC, as `2031-01-31T12:00:00`; none: the time of this host.
    pub fn set_clock(&mut self, time: Option<String>) {
        self.parts.clock = time;
    }

    /// The cards that its cables end in, in the order in which it joined: their addresses as the guest's Linux writes them.
    pub fn cards(&self) -> impl Iterator<Item = &str> {
        self.parts.cables.iter().map(|cable| cable.mac.as_str())
    }

    /// Folder of its logs.
    pub fn logs(&self) -> &Path {
        &self.parts.logs
    }

    /// Replaces what boots, as someone with access to the disk can. The firmware's variables are as on the first day.
    ///
    /// # Errors
    /// If disk or variables can't be written.
    pub fn install(&self, env: &TestEnv, system: &System) -> Result<()> {
        self.install_trusting(env, system, &system.path.trust(&env.images.keys)?)
    }

    /// The same, and exchanges the keys of Secure Boot, as someone at the firmware's setup can.
    ///
    /// # Errors
    /// If disk or variables can't be written.
    pub fn install_trusting(&self, env: &TestEnv, system: &System, trust: &Trust) -> Result<()> {
        let files = env.images.files(system)?;
        disk::install(&self.parts.disk, &files)?;
        let first = files.first().context("nothing boots")?;
        let entry = |path: &str, options: &str| BootEntry {
            path: format!("\\{}", path.replace('/', "\\")),
            options: options.into(),
        };
        let mut entries = vec![entry(&first.path, "")];
        if let Entry::Fails(options) = &system.entry {
            let kernel = files.iter().find(|file| file.path.starts_with("linux/vmlinuz"));
            entries.push(entry(&kernel.context("there is no kernel")?.path, options));
        }
        variables::write(trust, &disk::ESP, &entries, &self.parts.variables)
    }

    /// Exchanges its TPM for another one, or back: the disk in another machine.
    ///
    /// # Errors
    /// If the other one can't be moved.
    pub fn exchange_tpm(&self, other: &Path) -> Result<()> {
        let here = &self.parts.tpm;
        let between = here.with_extension("between");
        for (from, to) in [(here.as_path(), between.as_path()), (other, here), (&between, other)] {
            fs::rename(from, to).context("can't exchange a TPM")?;
        }
        Ok(())
    }

    /// Keeps a copy of its boot disk.
    ///
    /// # Errors
    /// If it can't be copied.
    pub fn keep_disk(&self) -> Result<PathBuf> {
        let kept = self.parts.disk.with_extension("kept");
        fs::copy(&self.parts.disk, &kept).context("can't copy a disk")?;
        Ok(kept)
    }

    /// Puts that copy in the place of the disk.
    ///
    /// # Errors
    /// If it can't be moved.
    pub fn put_disk_back(&self, kept: &Path) -> Result<()> {
        fs::rename(kept, &self.parts.disk).context("can't put a disk back")
    }

    /// Switches it on.
    ///
    /// # Errors
    /// If QEMU or swtpm can't be started.
    pub fn boot(&mut self) -> Result<Boot> {
        self.boots += 1;
        let token = format!("{}-{}{}", self.name, self.boots, self.note);
        marker::prepare(&self.parts.marker, &token)?;
        // The same disk can't be in two machines.
        drop(self.watch.left());
        let qemu = Qemu::start(&self.parts, self.accel, self.boots, self.plugged, self.watch.tap())?;
        Ok(Boot {
            qemu: Some(qemu),
            watch: self.watch.clone(),
            token,
            name: self.name.clone(),
            marker: self.parts.marker.clone(),
            log: self.console_log(),
            at_shell: false,
        })
    }

    /// The console of the last boot.
    pub fn console_log(&self) -> PathBuf {
        self.parts.logs.join(format!("{:02}-console.log", self.boots))
    }
}

/// How far a boot got by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The guest's system is up, and the marker is written.
    System,
    /// Someone is asked for the passphrase.
    Prompt,
    /// Who presses Enter has a root shell of the initramfs.
    Shell,
    /// The machine switched itself off.
    Off,
}

/// A serial line of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// What people see: ttyS0.
    Console,
    /// The tests' own: ttyS1.
    Second,
}

/// A machine that is switched on. Going out of scope pulls the plug.
pub struct Boot {
    /// None once it was switched off on purpose.
    qemu: Option<Qemu>,
    watch: Watch,
    token: String,
    name: String,
    marker: PathBuf,
    log: PathBuf,
    at_shell: bool,
}

impl Boot {
    /// Waits until the boot comes to a stand: system, prompt, shell, or off.
    ///
    /// # Errors
    /// If none of them happens in time.
    pub fn reached(&mut self) -> Result<Reached> {
        let qemu = self.qemu();
        let bell = qemu.bell.clone();
        let (console, shell) = (&mut qemu.console, &mut qemu.shell);
        let reached = bell.wait(BOOT, || {
            if shell.find(&["READY"]).is_some() {
                return Some(Reached::System);
            }
            if console.find(&[PROMPT]).is_some() {
                return Some(Reached::Prompt);
            }
            if console.find(&[MAINTENANCE]).is_some() {
                return Some(Reached::Shell);
            }
            (console.is_closed() && shell.is_closed()).then_some(Reached::Off)
        });
        self.at_shell |= reached == Some(Reached::System);
        reached.context(format_args!(
            "{}: neither system nor prompt within {} s (console: {})",
            self.name,
            BOOT.as_secs(),
            self.log.display()
        ))
    }

    /// The boot must come to a stand here.
    ///
    /// # Errors
    /// If it does not, or elsewhere.
    pub fn expect(&mut self, expected: Reached) -> Result<()> {
        let found = self.reached()?;
        if found == expected {
            return Ok(());
        }
        let name = |reached| match reached {
            Reached::System => "the system came up",
            Reached::Prompt => "someone was asked for a passphrase",
            Reached::Shell => "a shell of the initramfs was offered",
            Reached::Off => "the machine switched itself off",
        };
        Err(Error::new(format!(
            "{}: expected that {}, but {} (console: {})",
            self.name,
            name(expected),
            name(found),
            self.log.display()
        )))
    }

    /// Types the passphrase at the prompt that was reached.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn type_passphrase(&mut self) -> Result<()> {
        self.type_secret(guest::PASSPHRASE)
    }

    /// Types another passphrase there.
    ///
    /// # Errors
    /// If the machine is off, or does not stop to echo.
    pub fn type_secret(&mut self, passphrase: &str) -> Result<()> {
        self.wait_console(&[NO_ECHO], MOMENT)?;
        self.type_line(passphrase)
    }

    /// Types a line at the console.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.qemu().console.send(format!("{line}\n").as_bytes())
    }

    /// Presses Enter until there is a root shell.
    ///
    /// # Errors
    /// If there is none.
    pub fn enter_shell(&mut self, line: Line) -> Result<()> {
        for _ in 0..30 {
            // What is typed before the shell reads is lost.
            self.line(line).send(b"\n")?;
            if self.line(line).expect(&["# "], LISTENING).is_ok() {
                return Ok(());
            }
        }
        Err(Error::new(format!("{}: no shell after Enter (console: {})", self.name, self.log.display())))
    }

    /// Runs a short script in the root shell of the initramfs: its output in one line.
    ///
    /// # Errors
    /// If there is no shell that answers.
    pub fn ask_shell(&mut self, line: Line, script: &str) -> Result<String> {
        self.line(line).send(format!("echo ANSWER-$((6*7)) $({script}) END\n").as_bytes())?;
        self.line(line).expect(&["ANSWER-42 "], MOMENT)?;
        let answer = wire::plain(&self.line(line).rest_of_line(MOMENT)?);
        let answer =
            answer.strip_suffix("END").context(format_args!("{}: a cut answer: {answer}", self.name))?;
        Ok(answer.trim().to_owned())
    }

    fn line(&mut self, line: Line) -> &mut wire::Wire {
        match line {
            Line::Console => &mut self.qemu().console,
            Line::Second => &mut self.qemu().shell,
        }
    }

    /// Presses SysRq with each of these keys in turn, so many times, at the serial console.
    ///
    /// # Errors
    /// If the machine is off already.
    pub fn press_sysrq(&mut self, keys: &[&str], times: usize) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(100);
        for key in keys.iter().cycle().take(times) {
            // The break is the SysRq key; what follows within five seconds is its command.
            self.qemu().monitor.send(b"chardev-send-break serial0\n")?;
            std::thread::sleep(PAUSE);
            if self.qemu().console.send(key.as_bytes()).is_err() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The third disk fails: from now on it answers with errors only.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn break_spare(&mut self) -> Result<()> {
        self.qemu().monitor.send(b"drive_del spare\n")
    }

    /// Pulls the third disk out: the guest is told, lets go of it, and has it no more.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn unplug_spare(&mut self) -> Result<()> {
        self.qemu().monitor.send(b"device_del spare-disk\n")
    }

    /// Lets the fourth disk announce itself again and again, as a disk can: each time udev looks at it anew, and the last to
    /// be looked at gets the link below /dev/disk/by-uuid.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn announce_visitor(&self) -> Result<()> {
        let sizes = (0..6000).map(|i| format!("block_resize visitor {}K\n", (64 << 10) + 4 * i));
        self.hardware().monitor.send_slowly(sizes, Duration::from_millis(300))
    }

    /// Waits for one of these on the console and says which it was.
    ///
    /// # Errors
    /// If none comes in time.
    pub fn wait_console(&mut self, texts: &[&str], deadline: Duration) -> Result<usize> {
        self.qemu().console.expect(texts, deadline)
    }

    /// The same on the second serial line.
    ///
    /// # Errors
    /// If none comes in time.
    pub fn wait_second(&mut self, texts: &[&str], deadline: Duration) -> Result<usize> {
        self.qemu().shell.expect(texts, deadline)
    }

    /// Waits for the end of the line that was just matched.
    ///
    /// # Errors
    /// If it does not come in time.
    pub fn rest_of_line(&mut self) -> Result<String> {
        self.qemu().console.rest_of_line(MOMENT)
    }

    /// The console so far, without colours.
    pub fn console(&self) -> String {
        self.hardware().console.text()
    }

    /// The marker of this boot.
    ///
    /// # Errors
    /// If the guest wrote none, or not of this boot.
    pub fn marker(&self) -> Result<Marker> {
        let marker = marker::read(&self.marker, &self.token)?;
        marker.context(format_args!("{}: the guest left no marker on its second disk", self.name))
    }

    /// Whether the guest has written a marker: then its system ran.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn has_marker(&self) -> Result<bool> {
        Ok(marker::read(&self.marker, &self.token)?.is_some())
    }

    /// Runs a script as root in the running guest: exit status, and stdout with stderr.
    ///
    /// # Errors
    /// If the system is not up or does not answer in time.
    pub fn script(&mut self, script: &str) -> Result<(i32, String)> {
        crate::ensure!(self.at_shell, "{}: the system is not up", self.name);
        let line = base64(script.as_bytes()) + "\n";
        let shell = &mut self.qemu().shell;
        shell.send(line.as_bytes())?;
        shell.expect(&["DONE "], BOOT)?;
        let answer = shell.rest_of_line(MOMENT)?;
        let (status, output) = answer.split_once(' ').unwrap_or((&answer, ""));
        let status = status.parse().context("the guest's shell gave no status")?;
        let output = unbase64(output).context("the guest's shell answered something else than base64")?;
        Ok((status, String::from_utf8_lossy(&output).into_owned()))
    }

    /// Runs a script that must succeed.
    ///
    /// # Errors
    /// If it fails: the error holds what it printed.
    pub fn run(&mut self, script: &str) -> Result<String> {
        let (status, output) = self.script(script)?;
        crate::ensure!(status == 0, "in the guest, `{script}` failed ({status}):\n{output}");
        Ok(output)
    }

    /// Writes a file in the running guest.
    ///
    /// # Errors
    /// If the guest can't.
    pub fn write_file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.run(&format!("mkdir -p \"$(dirname {path})\" && : >{path}"))?;
        for chunk in content.chunks(1500) {
            self.run(&format!("echo {} | base64 -d >>{path}", base64(chunk)))?;
        }
        Ok(())
    }

    /// Brings a file of this host into the running guest, over its network.
    ///
    /// # Errors
    /// If the guest does not fetch it whole.
    pub fn send_file(&mut self, from: &Path, to: &str) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr().context("no free port")?;
        let content = fs::read(from).context(format_args!("can't read {}", from.display()))?;
        // The system can be up before its network is.
        let script = format!(
            "for i in {{1..1500}}; do ip route get 10.0.2.2 >/dev/null 2>&1 && break; sleep 0.2; done; \
             exec 3<>/dev/tcp/10.0.2.2/{}; cat <&3 >{to}; stat -c %s {to}",
            address.port()
        );
        let said = std::thread::scope(|scope| {
            // What the guest did not get it misses below.
            scope.spawn(|| drop(listener.accept().and_then(|(mut stream, _)| stream.write_all(&content))));
            let said = self.run(&format!("bash -c '{script}'"));
            // Wakes the thread if the guest never came.
            drop(TcpStream::connect(address));
            said
        })?;
        crate::ensure!(said.trim() == content.len().to_string(), "the guest fetched {said} bytes of {to}");
        Ok(())
    }

    /// Shuts down as quickly as is safe for disk and TPM.
    ///
    /// # Errors
    /// If it does not go off.
    pub fn power_off(mut self) -> Result<()> {
        let line = base64(b"sync; systemctl poweroff --force --force") + "\n";
        self.qemu().shell.send(line.as_bytes())?;
        self.qemu().wait_off(MOMENT)?;
        self.qemu = None;
        Ok(())
    }

    /// Does what the kernel does when somebody presses Ctrl-Alt-Del, and waits until the system has shut itself down: what it said
    /// until then.
    ///
    /// # Errors
    /// If it stays on.
    pub fn press_ctrl_alt_del(mut self) -> Result<String> {
        self.qemu().shell.send((base64(b"kill -INT 1") + "\n").as_bytes())?;
        self.qemu().wait_off(BOOT)?;
        let (bell, console) = (self.hardware().bell.clone(), &self.hardware().console);
        let whole = bell.wait(MOMENT, || console.is_closed().then_some(()));
        whole.context(format_args!("{}: the console did not end with the machine", self.name))?;
        let said = self.console();
        self.qemu = None;
        Ok(said)
    }

    /// Waits until it goes off by itself.
    ///
    /// # Errors
    /// If it stays on.
    pub fn wait_off(mut self) -> Result<()> {
        self.qemu().wait_off(BOOT)?;
        self.qemu = None;
        Ok(())
    }

    /// Pulls the plug.
    pub fn pull_plug(mut self) {
        self.qemu = None;
    }

    /// Lets a person at its console.
    ///
    /// # Errors
    /// If the console can't be shown.
    pub fn visit(&mut self) -> Result<()> {
        terminal::visit(&mut self.qemu().console)
    }

    /// Whether it went off by itself.
    pub fn is_off(&self) -> bool {
        self.hardware().console.is_closed()
    }

    fn hardware(&self) -> &Qemu {
        self.qemu.as_ref().expect("what switches it off takes it")
    }

    fn qemu(&mut self) -> &mut Qemu {
        self.qemu.as_mut().expect("what switches it off takes it")
    }
}

impl Drop for Boot {
    /// Nobody has switched it off: its scenario has failed, or is over.
    fn drop(&mut self) {
        drop(self.qemu.take().and_then(|qemu| self.watch.leave(qemu)));
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, as base64(1) writes it.
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// What [`base64`] wrote; none if it is something else.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0);
    for digit in text.trim().trim_end_matches('=').bytes() {
        word = word << 6 | DIGITS.iter().position(|known| *known == digit)? as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded).unwrap(), plain.as_bytes());
        }
        assert!(unbase64("a b").is_none());
    }
}
