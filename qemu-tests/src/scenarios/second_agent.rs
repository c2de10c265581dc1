//! An agent made of tpm2-tools, curl and docs/protocol.md: what an attacker who is root would write, without the checks that
//! ours makes before it asks.

use crate::error::{Context, Result};
use crate::lab::Lab;
use crate::lab::machine::{Boot, unbase64};
use crate::process::run_with_input;
use halfkey_protocol::tpm::name::object_name;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::wire::{Begin, Begun, Evidence, Purpose, Verdict};
use halfkey_protocol::{NodeId, QUOTED_PCRS};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::process::Command;

/// Where it works in the guest.
pub const FOLDER: &str = "/root/attack";

/// Runs a script there, with tpm2-tools on the guest's TPM. It must succeed.
///
/// # Errors
/// If it does not.
pub fn guest(boot: &mut Boot, script: &str) -> Result<String> {
    boot.run(&format!(
        "set -e; mkdir -p {FOLDER}; cd {FOLDER}; export TPM2TOOLS_TCTI=device:/dev/tpmrm0\n{script}"
    ))
}

/// Makes one of the fixed keys: `hierarchy` is `o` or `e`, `kind` and `attributes` are tpm2-tools' words. Returns its name.
///
/// # Errors
/// If tpm2-tools fail.
pub fn primary(
    boot: &mut Boot,
    file: &str,
    hierarchy: &str,
    kind: &str,
    attributes: &str,
) -> Result<Vec<u8>> {
    // TPMS_ECC_POINT as tpm2-tools has it in memory: two coordinates of 32 zero bytes in buffers of 128.
    let coordinate = [&32u16.to_le_bytes()[..], &[0; 128]].concat();
    boot.write_file(&format!("{FOLDER}/unique"), &[coordinate.as_slice(), &coordinate].concat())?;
    let fixed = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted";
    let public = read(
        boot,
        &format!(
            "tpm2_createprimary -Q -C {hierarchy} -G {kind} -u unique -c {file}.ctx -a '{fixed}|{attributes}'
             tpm2_readpublic -Q -c {file}.ctx -f tss -o {file}.public"
        ),
        &format!("{file}.public"),
    )?;
    // TPM2B_PUBLIC: the size before the public area.
    public.get(2..).and_then(object_name).context("tpm2_readpublic wrote no public area")
}

/// Runs a script and returns a file that it wrote.
///
/// # Errors
/// If the script fails or the file is not there.
pub fn read(boot: &mut Boot, script: &str, file: &str) -> Result<Vec<u8>> {
    let text = guest(boot, &format!("{script}\nbase64 -w0 {file}"))?;
    unbase64(&text).context(format_args!("expected {file} in base64, found {text}"))
}

/// Attests as the agent would at boot, in the state in which the machine is, and returns the verifier's verdict.
///
/// # Errors
/// If TPM or verifier do not play along.
pub fn attest(boot: &mut Boot, lab: &Lab, srk_name: &[u8]) -> Result<Verdict> {
    let purpose = Purpose::Boot.as_str();
    let node = NodeId::parse(&lab.node).context("a node id is a UUID")?;
    let begin =
        Begin { versions: vec![1], node_id: lab.node.clone(), purpose: purpose.into(), enrollments: vec![] };
    let begun: Begun = post(lab, "begin", &begin)?;

    // Nothing will be opened, so fixed values do as ephemeral key, session nonce and SHA-256(r).
    let (hpke_public, nonce_tpm, r_sha256) = ([9; 32], [2; 32], [3; 32]);
    let qualifying_data = QualifyingData {
        version: begun.version,
        node: &node.0,
        purpose: Purpose::Boot,
        nonce: &begun.nonce,
        hpke_public: &hpke_public,
        nonce_tpm: &nonce_tpm,
        srk_name,
        purpose_data: &r_sha256,
    };
    primary(boot, "ak", "e", "ecc256:ecdsa-sha256:null", "sign")?;
    let selection = "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15";
    let qualifying = halfkey_testkit::hex(&qualifying_data.digest());
    let quote = format!(
        "tpm2_quote -Q -c ak.ctx -l {selection} -q {qualifying} -m quote -s signature -f tss
         tpm2_pcrread -Q {selection} -o pcrs"
    );
    let pcrs = read(boot, &quote, "pcrs")?;
    crate::ensure!(pcrs.len() == QUOTED_PCRS * 32, "tpm2_pcrread wrote {} bytes", pcrs.len());
    let evidence = Evidence {
        version: begun.version,
        node_id: lab.node.clone(),
        purpose: purpose.into(),
        nonce: begun.nonce.clone(),
        hpke_public: hpke_public.to_vec().into(),
        nonce_tpm: nonce_tpm.to_vec().into(),
        purpose_data: r_sha256.to_vec().into(),
        quote: read(boot, "", "quote")?.into(),
        signature: read(boot, "", "signature")?.into(),
        bank: begun.bank,
        pcrs: pcrs.chunks(32).map(|pcr| pcr.to_vec().into()).collect(),
        event_log: Some(read(boot, "", "/sys/kernel/security/tpm0/binary_bios_measurements")?.into()),
        systemd_log: None,
        ima_log: None,
        command_line: None,
        agent: "tpm2-tools".into(),
    };
    post(lab, "finish", &evidence)
}

fn post<T: DeserializeOwned>(lab: &Lab, path: &str, message: &impl Serialize) -> Result<T> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "--cacert"]);
    curl.arg(lab.verifier.state().join("ca.pem"));
    curl.args(["--header", "content-type: application/json", "--data-binary", "@-"]);
    curl.arg(format!("{}/v1/{path}", lab.verifier.local_url()));
    let body = serde_json::to_vec(message).context("can't write a message")?;
    let answer = run_with_input(&mut curl, &body)?;
    serde_json::from_str(&answer).context(format_args!("/v1/{path} answered {answer}"))
}
