//! The server as its package installs it: a unit that may do next to nothing, under the systemd that keeps it to that.

use super::{Context, packages};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::system::BootPath;
use crate::lab::machine::{Boot, Machine, Reached};
use crate::story::Who;

/// What README says on a server, and its name.
const INIT: &str = "echo 127.0.0.1 verifier.example >>/etc/hosts; runuser -u halfkey -- \
    halfkey-verifier init --state /var/lib/halfkey --url https://verifier.example:8443 --operator alice";
const START: &str = "systemctl enable --now halfkey-verifier 2>&1";
const LOGIN: &str =
    "cd /root && export HOME=/root && halfkey login /var/lib/halfkey/operator-alice.bundle && halfkey key";
/// Once it answers: the unit is of the type that is started before it does.
const ASK: &str =
    "export HOME=/root; for i in $(seq 100); do halfkey nodes && exit 0; sleep 0.2; done 2>&1; exit 1";
/// Its exposure, as systemd sees it, of 10.0 at most.
const EXPOSURE: &str = "systemd-analyze security --no-pager halfkey-verifier | tail -n 1";
/// More is a line of the unit that does not count any more.
const EXPOSED: f32 = 2.0;

/// Installed, set up and started; killed, stopped; then removed.
pub fn server(context: &mut Context) -> Result<()> {
    let mut machine = Machine::new(&context.env, &context.env.system(BootPath::Uki))?;
    let story = &context.story;
    let mut boot = machine.boot()?;
    boot.expect(Reached::Prompt)?;
    boot.type_passphrase()?;
    boot.expect(Reached::System)?;
    story.does(Who::Machine, "is a server: installs the packages of server and command line");
    for name in ["halfkey-verifier_", "halfkey_"] {
        boot.send_file(&packages::newest(&context.env, name)?, &format!("/root/{name}.deb"))?;
    }
    boot.run("dpkg --install /root/*.deb 2>&1")?;
    let refused = boot.run(
        "systemctl start halfkey-verifier; systemctl show -p ConditionResult --value halfkey-verifier",
    )?;
    ensure!(refused.trim() == "no", "it was started with nothing to serve: {refused}");
    boot.run(INIT)?;
    boot.run(START)?;
    boot.run(LOGIN)?;
    answers(&mut boot)?;
    let said = boot.run(EXPOSURE)?;
    let exposure: Option<f32> = said.split_whitespace().find_map(|word| word.parse().ok());
    let exposure = exposure.context(format_args!("systemd-analyze says {said}"))?;
    ensure!(exposure <= EXPOSED, "expected an exposure of at most {EXPOSED}, found {exposure}: {said}");
    story.proves(format!("it serves, confined to its folder and its port: exposure {exposure}"));

    story.does(Who::Machine, "its server is killed");
    let before = pid(&mut boot)?;
    boot.run("systemctl kill --signal=KILL halfkey-verifier")?;
    answers(&mut boot)?;
    ensure!(pid(&mut boot)? != before, "it is the same process that was killed");
    story.proves("systemd started it again");

    boot.run("systemctl stop halfkey-verifier")?;
    let result =
        boot.run("systemctl show -p Result,ExecMainStatus --value halfkey-verifier | tr '\\n' ' '")?;
    ensure!(result.trim() == "success 0", "it was stopped: {result}");
    let log = boot.run("journalctl --no-pager --output=cat --unit=halfkey-verifier")?;
    ensure!(!log.to_lowercase().contains("error"), "it says in its log:\n{log}");
    boot.run("systemctl start halfkey-verifier && dpkg --remove halfkey-verifier 2>&1")?;
    let left = boot.run("systemctl is-active halfkey-verifier; ls /var/lib/halfkey/halfkey-verifier.toml")?;
    ensure!(left.starts_with("inactive\n/var"), "after its removal: {left}");
    story.proves("stopped without an error in its log; removed, its state stays");
    boot.power_off()
}

fn answers(boot: &mut Boot) -> Result<()> {
    let (status, said) = boot.script(ASK)?;
    if status == 0 {
        return Ok(());
    }
    let log = boot.run("systemctl status --no-pager --full halfkey-verifier; journalctl --no-pager -n 30")?;
    Err(format!("it does not answer:\n{said}\n{log}").into())
}

fn pid(boot: &mut Boot) -> Result<String> {
    boot.run("systemctl show -p MainPID --value halfkey-verifier")
}
