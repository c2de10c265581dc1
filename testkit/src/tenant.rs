//! The operator's workstation: `halfkey --json` on this host.

use crate::error::{Context, Result};
use crate::process::{Guard, run};
use crate::programs::Programs;
use crate::verifier::Verifier;
use halfkey_protocol::wire::operator::{
    AuditEntry, AuditList, EvidenceList, EvidenceRecord, NodeList, NodeRecord,
};
use halfkey_protocol::wire::policies::{ProposalList, ProposalRecord};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// An operator who is logged in.
pub struct Tenant {
    program: PathBuf,
    home: PathBuf,
}

impl Tenant {
    /// Imports the verifier's bundle.
    ///
    /// # Errors
    /// If `halfkey login` fails.
    pub fn login(programs: &Programs, verifier: &Verifier, home: &Path) -> Result<Self> {
        let tenant = Self { program: programs.tenant.clone(), home: home.to_path_buf() };
        run(tenant.command(&["login"]).arg(verifier.bundle()?))?;
        Ok(tenant)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.home).args(args);
        command
    }

    /// Runs a subcommand and returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        run(&mut self.command(args))
    }

    /// Runs a subcommand: exit code, and all that it prints.
    ///
    /// # Errors
    /// If it can't be started, or ends by a signal.
    pub fn try_run(&self, args: &[&str]) -> Result<(i32, String)> {
        let output = self.command(args).stdin(Stdio::null()).output().context("can't run halfkey")?;
        let said = [output.stdout, output.stderr].concat();
        let code = output.status.code().context("halfkey was ended by a signal")?;
        Ok((code, String::from_utf8_lossy(&said).into_owned()))
    }

    /// Proposals that wait; with `all` also those that are decided.
    ///
    /// # Errors
    /// If the verifier does not answer.
    pub fn proposals(&self, all: bool) -> Result<Vec<ProposalRecord>> {
        let list: ProposalList = self.json(if all { &["proposals", "--all"] } else { &["proposals"] })?;
        Ok(list.proposals)
    }

    /// Runs a subcommand with `--json`.
    ///
    /// # Errors
    /// If it fails or prints something else.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let text = run(self.command(&["--json"]).args(args))?;
        serde_json::from_str(&text).context(format_args!("halfkey --json {} printed {text}", args.join(" ")))
    }

    /// Fingerprint of the tenant key, for the node.
    ///
    /// # Errors
    /// If `halfkey key` fails.
    pub fn key(&self) -> Result<String> {
        Ok(self.run(&["key"])?.trim().to_string())
    }

    /// The only node that this verifier knows.
    ///
    /// # Errors
    /// If there are none or several.
    pub fn only_node(&self) -> Result<String> {
        let nodes = self.nodes()?;
        let [node] = nodes.as_slice() else {
            return Err(format!("expected one node at the verifier, found {}", nodes.len()).into());
        };
        Ok(node.clone())
    }

    /// The ids of all nodes that this verifier knows.
    ///
    /// # Errors
    /// If the verifier does not answer.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let list: NodeList = self.json(&["nodes"])?;
        Ok(list.nodes.into_iter().map(|node| node.id).collect())
    }

    /// Waits until the audit trail has an entry of this action, which may be there already.
    ///
    /// # Errors
    /// If the verifier goes away, or nothing of the kind happens within two minutes.
    pub fn wait_for(&self, action: &str) -> Result<()> {
        let mut command = Command::new("timeout");
        command.arg("120").arg(&self.program).arg("--home").arg(&self.home);
        command.args(["--json", "audit", "--follow"]).stdin(Stdio::null());
        let (mut guard, stdout) = Guard::piped("halfkey audit --follow", &mut command)?;
        for line in BufReader::new(stdout).lines() {
            let line = line.context("can't read the audit trail")?;
            let entry: AuditEntry =
                serde_json::from_str(&line).context(format_args!("not an entry: {line}"))?;
            if entry.action == action {
                return guard.terminate(Duration::from_secs(10)).map(drop);
            }
        }
        Err(format!("the audit trail ended without an entry {action:?}").into())
    }

    /// All that the verifier knows of a node.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn node(&self, node: &str) -> Result<NodeRecord> {
        self.json(&["node", "show", node])
    }

    /// The newest records of evidence.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn evidence(&self, node: &str) -> Result<EvidenceList> {
        self.json(&["evidence", node])
    }

    /// One record, whole.
    ///
    /// # Errors
    /// If there is no such record.
    pub fn record(&self, id: u64) -> Result<EvidenceRecord> {
        self.json(&["evidence", "--id", &id.to_string()])
    }

    /// Number of the newest record; 0 if there is none.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn last_evidence(&self, node: &str) -> Result<u64> {
        Ok(self.evidence(node)?.evidence.first().map_or(0, |summary| summary.id))
    }

    /// The audit trail of a node.
    ///
    /// # Errors
    /// If the verifier does not answer.
    pub fn audit(&self, node: &str) -> Result<AuditList> {
        self.json(&["audit", "--node", node])
    }
}
