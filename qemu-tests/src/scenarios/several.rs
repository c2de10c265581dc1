//! Several machines at one server, with one operator.

use super::{Context, unlock};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::lab::machine::Reached;
use crate::lab::network::Network;
use crate::lab::server::Server;
use crate::lab::workstation::Workstation;
use crate::lab::{LABEL, Lab, machine};
use crate::process::run as run_here;
use crate::story::Who::{Machine, Operator, Verifier};
use halfkey_protocol::Reason;
use std::process::Command;

/// What the operator calls the second machine.
const OTHER: &str = "other";

/// Two machines of one image, with TPMs of their own, on a network of their own: one is revoked and gets nothing, the other unlocks
/// itself, whose clock is a day ahead.
pub fn one_revoked(context: &mut Context) -> Result<()> {
    let system = context.system();
    let server = Server::new(&context.env)?;
    let workstation = Workstation::new(&context.env, &server)?;
    let network = Network::new();
    for label in [LABEL, OTHER] {
        let mut machine = machine(&context.env, &system)?;
        machine.join(&network);
        let lab = unlock::enrolled(context, machine, &server, &workstation, system.clone(), label)?;
        if label == LABEL { context.lab = Some(lab) } else { context.other = Some(lab) }
    }
    let Context { story, lab, other, .. } = context;
    let first = lab.as_mut().context("there is an enrolled machine")?;
    let second = other.as_mut().context("there is another enrolled machine")?;
    ensure!(first.node != second.node, "both machines are node {}", first.node);
    ensure!(workstation.nodes()?.len() == 2, "the verifier knows other machines as well");
    reach(first, second)?;
    story.proves("two machines of one image are two nodes; they see each other on a network of their own");

    story.does(Operator, format!("runs: halfkey revoke {LABEL} --because stolen"));
    workstation.run(&["revoke", LABEL, "--because", "stolen"])?;
    let tomorrow = run_here(Command::new("date").args(["--utc", "--date", "tomorrow", "+%FT%T"]))?;
    second.machine.set_clock(Some(tomorrow.trim().into()));
    story.does(Machine, "boots, and so does the other, whose clock is a day ahead");
    second.off()?;
    let (mut denied, mut released) = (first.boot()?, second.boot()?);
    denied.expect(Reached::Prompt)?;
    first.was_denied(Reason::Revoked.code())?;
    story.does(Verifier, "denies the one: it is revoked");
    released.expect(Reached::System)?;
    second.was_attested(&released.marker()?)?;
    let clock = released.run("date -u +%F")?;
    ensure!(tomorrow.starts_with(clock.trim()), "the clock was to say {tomorrow}, it says {clock}");
    story.proves("the other unlocks itself: what one machine is refused is nothing to its neighbour");
    denied.pull_plug();
    second.keep_running(released);
    Ok(())
}

/// Gives both an address on the network that they share; a port of the second, where nobody listens, refuses the first.
fn reach(first: &mut Lab, second: &mut Lab) -> Result<()> {
    const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    for (lab, address) in [&mut *first, &mut *second].into_iter().zip(ADDRESSES) {
        let card = lab.machine.cards().next().context("the machine is on no network")?.to_owned();
        // NetworkManager asks for an address on any card, and takes all others from it when nobody gives one.
        lab.running()?.run(&format!(
            "for d in /sys/class/net/*; do [ $(cat $d/address) = {card} ] || continue; d=${{d##*/}}; \
             ! command -v nmcli || nmcli device set $d managed no || exit; \
             ip address add {address}/24 dev $d && ip link set $d up; exit; done; exit 1"
        ))?;
    }
    let said = first.running()?.script(&format!("bash -c ': </dev/tcp/{}/9'", ADDRESSES[1]))?.1;
    ensure!(said.contains("refused"), "the first machine does not reach the second: {said}");
    Ok(())
}
