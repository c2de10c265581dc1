//! From a machine that nobody knows to one that unlocks itself.

use super::{Context, entries};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::guest::PASSPHRASE;
use crate::image::header;
use crate::image::system::{BootPath, System};
use crate::lab::machine::{BOOT, MOMENT, Machine, Reached};
use crate::lab::server::Server;
use crate::lab::workstation::Workstation;
use crate::lab::{LABEL, Lab, closed_fence, machine, wait_for_pending};
use crate::story::Who;
use halfkey_protocol::Reason;
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::wire::operator::NodeState;

/// Where root's shell on the serial console waits for a command.
const SHELL: &str = "root@guest:~# ";

/// First boot with passphrase; enrolled from inside; the tenant enrolls from the host; the next boot is pending until it
/// is approved, and then the root mounts without anybody typing.
pub fn enroll(context: &mut Context) -> Result<()> {
    let system = context.system();
    let machine = machine(&context.env, &system)?;
    let verifier = Server::new(&context.env)?;
    let tenant = Workstation::new(&context.env, &verifier)?;
    let lab = enrolled(context, machine, &verifier, &tenant, system, LABEL)?;
    context.lab = Some(lab);
    Ok(())
}

/// The same with a machine that is there, at a server and a workstation that may know others. It runs when it is returned.
pub(super) fn enrolled(
    context: &Context,
    mut machine: Machine,
    verifier: &Server,
    tenant: &Workstation,
    system: System,
    label: &str,
) -> Result<Lab> {
    let system_path = system.path;
    let story = &context.story;

    story.does(Who::Machine, "first boot; nothing is enrolled, so someone types the passphrase");
    let mut boot = machine.boot()?;
    boot.expect(Reached::Prompt)?;
    boot.type_passphrase()?;
    boot.expect(Reached::System)?;
    let marker = boot.marker()?;
    ensure!(marker.fence_was(&closed_fence())?, "the fence of a passphrase boot is {}", marker.fence);
    ensure!(marker.agent.is_none(), "the agent claims to have opened something");
    story.proves("without enrollment a boot is what it was: a prompt; the fence (PCR 15) is closed");

    story.does(Who::Machine, format!("root runs: halfkey-agent enroll --server {} ...", verifier.url()));
    boot.write_file("/root/ca.pem", &verifier.ca()?)?;
    // The console's shell takes what is typed before it is there.
    boot.wait_console(&[SHELL], BOOT)?;
    boot.type_line(&format!(
        "clear; halfkey-agent enroll --server {} --ca /root/ca.pem --tenant-key {} /dev/vda2 /dev/vdc",
        verifier.url(),
        tenant.key()?
    ))?;
    boot.wait_console(&["EK fingerprint: "], MOMENT)?;
    let shown = boot.rest_of_line()?;
    boot.wait_console(&["xisting passphrase of /dev/vda2"], MOMENT)?;
    boot.type_line(PASSPHRASE)?;
    boot.wait_console(&["waiting for the tenant"], MOMENT)?;

    let node = tenant.newcomer()?;
    let record = tenant.node(&node)?;
    ensure!(
        record.registration.as_ref().is_some_and(|sent| fingerprint(&sent.ek_public) == shown),
        "the console shows EK {shown}, the verifier another"
    );
    story.does(
        Who::Operator,
        format!("compares the EK fingerprint and runs: halfkey enroll {} --label {label}", &node[..8]),
    );
    let roots = context.env.place("ek-roots");
    context.env.manufacturer.roots(&roots)?;
    tenant.run(&["enroll", &node, "--ek-roots", &roots.to_string_lossy(), "--label", label, "--yes"])?;
    boot.wait_console(&["enrolled; the next boot asks"], MOMENT)?;
    let state = tenant.node(&node)?.summary.state;
    ensure!(state == NodeState::Enrolled, "the node is {} after its enrollment", state.as_str());
    boot.power_off()?;

    let mut lab = Lab::new(machine, verifier.clone(), tenant.clone(), system, node);
    let slot = header::keyslot(&lab.token()?)?;
    story.proves(format!(
        "the tenant checked the TPM's certificate itself; the volume has a token and keyslot {slot}"
    ));

    story.does(Who::Machine, "reboots and attests; no boot of it was approved yet");
    let mut boot = lab.boot()?;
    let pending = wait_for_pending(&lab.tenant, &lab.node)?;
    ensure!(pending == Reason::NoPolicy.code(), "the boot is pending because of {pending}");
    story.does(Who::Verifier, "answers `pending`; the machine waits, no prompt yet");
    if system_path == BootPath::Entry {
        entries::learn(story, &lab)?;
    } else {
        story.does(Who::Operator, format!("looks at the boot and runs: halfkey approve {label}"));
        lab.tenant.run(&["approve", label, "--yes"])?;
    }
    boot.expect(Reached::System)?;
    lab.was_attested(&boot.marker()?)?;
    story.proves("approved while it waited: the root mounted, nobody typed");
    lab.keep_running(boot);
    Ok(lab)
}

/// The next boot: nobody types, nobody approves, and PCR 15 is what the verifier expects for this very boot.
pub fn unattended(context: &mut Context) -> Result<()> {
    context.lab()?;
    let story = &context.story;
    let lab = context.lab.as_mut().context("there is an enrolled machine")?;
    story.does(Who::Machine, "boots once more; nobody is there");
    let mut boot = lab.boot()?;
    boot.expect(Reached::System)?;
    let marker = boot.marker()?;
    lab.was_attested(&marker)?;
    let recorded = lab.recorded()?;
    ensure!(recorded.len() == 1, "one attestation was expected, the verifier recorded {}", recorded.len());
    let slot = header::keyslot(&lab.token()?)?;
    story.proves(format!(
        "keyslot {slot} opened the root, and PCR 15 = {}... as the verifier expects for this boot",
        &marker.fence[..16]
    ));
    lab.keep_running(boot);
    Ok(())
}
