//! Whoever breaks into the running system comes too late.

use super::Context;
use super::second_agent::{FOLDER, attest, guest, primary, read};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::lab::Lab;
use crate::lab::machine::Boot;
use crate::process::run as run_here;
use crate::story::Who::Attacker;
use halfkey_protocol::{Bytes, NodeId, Reason};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// As root in the guest: U can't be unsealed (also not with a release signature recorded from an earlier session), V is not
/// released, and `status` says so. The attacker uses tpm2-tools, so nothing here depends on the agent's own TPM layer.
pub fn run(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let (mut boot, lab) = lab.lend()?;
    let token = lab.token()?;

    let status = boot.run("halfkey-agent status --json")?;
    let status: Value = serde_json::from_str(&status).context("halfkey-agent status --json")?;
    ensure!(status["tpm"]["fence"] == "opened", "status says that the fence is {}", status["tpm"]["fence"]);
    ensure!(status["tpm"]["can_unseal"] == false, "status says that the half could be unsealed");
    let (code, said) = boot.script("halfkey-agent unlock --dry-run --device /dev/vda2")?;
    ensure!(code != 0, "a second unlock succeeded: {said}");
    story.proves("the agent itself says that the boot window is over: the fence is `opened`");

    story.does(
        Attacker,
        "is root in the running system and asks the verifier for its half, with an agent of his own",
    );
    let srk = primary(&mut boot, "srk", "o", "ecc256:aes128cfb", "decrypt")?;
    ensure!(srk == field_of(&token, "srk_name")?, "tpm2-tools made another storage key than the agent");
    let verdict = attest(&mut boot, lab, &srk)?;
    ensure!(
        verdict.outcome == "denied" && verdict.code.as_deref() == Some(Reason::FenceExtended.code()),
        "expected a refusal, found {} ({:?}): {}",
        verdict.outcome,
        verdict.code,
        verdict.message
    );
    ensure!(verdict.sealed.is_none() && verdict.release_signature.is_none(), "the refusal holds a release");
    let recorded = lab.last_record()?.summary;
    ensure!(Some(recorded.id) == verdict.evidence_id, "the refusal is not on record");
    story.proves("V is not released: the quote shows that the fence is extended");

    story.does(Attacker, "has the sealed blob and the storage key, and talks to the TPM");
    unseal(&mut boot, lab, &token)?;
    story.proves(
        "U is not unsealed: not by password, not with an earlier signature, not even with a fresh one",
    );
    boot.run(&format!("rm -r {FOLDER}"))?;
    lab.keep_running(boot);
    Ok(())
}

fn unseal(boot: &mut Boot, lab: &Lab, token: &Value) -> Result<()> {
    for (file, field) in [("pub", "sealed_public"), ("priv", "sealed_private"), ("release", "release_public")]
    {
        boot.write_file(&format!("{FOLDER}/{file}"), &sized(&field_of(token, field)?))?;
    }
    let node = NodeId::parse(&lab.node).context("a node id is a UUID")?;
    boot.write_file(&format!("{FOLDER}/node"), &node.0)?;
    guest(
        boot,
        "tpm2_load -Q -C srk.ctx -u pub -r priv -c u.ctx
         tpm2_loadexternal -Q -C n -u release -c release.ctx",
    )?;
    fails(boot, "tpm2_unseal -c u.ctx", "authPolicy is not available")?;

    // Signed for a session that is over.
    let earlier = sign(lab, &begin_session(boot)?)?;
    guest(boot, "tpm2_flushcontext session")?;
    begin_session(boot)?;
    boot.write_file(&format!("{FOLDER}/signature"), &earlier)?;
    fails(boot, POLICY_SIGNED, "signature")?;

    // As if the release key itself had been stolen.
    guest(boot, "tpm2_flushcontext session")?;
    let fresh = sign(lab, &begin_session(boot)?)?;
    boot.write_file(&format!("{FOLDER}/signature"), &fresh)?;
    guest(boot, POLICY_SIGNED)?;
    fails(boot, "tpm2_unseal -c u.ctx -p session:session", "policy check failed")
}

const POLICY_SIGNED: &str =
    "tpm2_policysigned -Q -S session -g sha256 -c release.ctx -x -q node -f ecdsa -s signature";

/// Starts a policy session and returns what the release key would have to sign for it.
fn begin_session(boot: &mut Boot) -> Result<Vec<u8>> {
    read(
        boot,
        "tpm2_startauthsession -Q -S session --policy-session -g sha256
         tpm2_policypcr -Q -S session -l sha256:15
         tpm2_policysigned -Q -S session -g sha256 -c release.ctx -x -q node --raw-data to-sign",
        "to-sign",
    )
}

/// Signs as the verifier would.
fn sign(lab: &Lab, message: &[u8]) -> Result<Vec<u8>> {
    let file = lab.verifier.state().with_extension("to-sign");
    let signature = file.with_extension("signature");
    fs::write(&file, message).context("can't write a file")?;
    run_here(
        Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(lab.verifier.state().join("release.key"))
            .arg("-out")
            .arg(&signature)
            .arg(&file),
    )?;
    fs::read(&signature).context("can't read the signature")
}

/// The command must fail, and with this error.
fn fails(boot: &mut Boot, command: &str, error: &str) -> Result<()> {
    let script = format!("cd {FOLDER}; export TPM2TOOLS_TCTI=device:/dev/tpmrm0\n{command}");
    let (code, said) = boot.script(&script)?;
    ensure!(code != 0, "`{command}` succeeded");
    ensure!(said.contains(error), "`{command}` was expected to fail because of {error:?}, but said {said}");
    Ok(())
}

fn field_of(token: &Value, name: &str) -> Result<Vec<u8>> {
    let bytes = serde_json::from_value::<Bytes>(token[name].clone());
    bytes.map(|bytes| bytes.0).context(format_args!("the token's {name}"))
}

/// TPM2B: a length before the bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a TPM structure is short");
    [&length.to_be_bytes()[..], bytes].concat()
}
