//! Load for a server: any number of machines whose TPMs are keys in memory.

use clap::{Args, Parser, Subcommand};
use halfkey_bench::fleet::Fleet;
use halfkey_bench::https::{Bundle, Client, Target};
use halfkey_bench::load::{self, Pace, Plan, Report};
use halfkey_bench::{Result, cpu};
use halfkey_verifier::keys::{fill_random, read_secret, write_secret};
use halfkey_verifier::serve::raise_open_files;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const AFTER: &str = "A server that is loaded needs other limits in its halfkey-verifier.toml, for one host is many machines:

  evidence_per_minute = 1000000
  registrations_per_minute = 1000000
  registrations_per_source = 1000000
  unenrolled = 1000000

Example, with a server on this host:

  halfkey-loadgen enroll --bundle operator-ada.bundle --fleet fleet.seed --machines 1000
  halfkey-loadgen run --bundle operator-ada.bundle --fleet fleet.seed --machines 1000 --boots 20000 --pid $(pidof halfkey-verifier)
  halfkey-loadgen run --bundle operator-ada.bundle --fleet fleet.seed --machines 1000 --cold --rate 500 --boots 10000
  halfkey-loadgen storm --bundle operator-ada.bundle --fleet fleet.seed --machines 1000

Use a server that is made for it: whoever has the fleet's seed has the keys of its machines and of its tenant.";

/// Loads a verifier with boots of machines whose TPMs are software: real ECDSA quotes, a log of 40 kB with Secure Boot.
#[derive(Parser)]
#[command(version, after_long_help = AFTER, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a seed if there is none, registers and enrolls its machines, and allows what they boot
    Enroll(Whom),
    /// Boots them, over and over
    Run(Run),
    /// Boots each of them once, all at the same moment, until they are released
    Storm(Storm),
}

#[derive(Args)]
struct Whom {
    /// An operator's bundle: the CA, and the URL if there is no --server
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// https://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The 32 bytes that all keys of the fleet come from
    #[arg(long, value_name = "FILE")]
    fleet: PathBuf,
    /// How many of its machines
    #[arg(long, default_value_t = 100)]
    machines: usize,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    whom: Whom,
    /// Boots, all together
    #[arg(long, default_value_t = 1000)]
    boots: usize,
    /// Boots at the same time, at most
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// A new TLS connection for each boot
    #[arg(long)]
    cold: bool,
    /// With --cold: go on with the TLS session of the connection before, if the server lets one
    #[arg(long, requires = "cold")]
    resume: bool,
    /// Boots per second, whether the server keeps up or not; without it the next begins when one is done
    #[arg(long)]
    rate: Option<f64>,
    /// Addresses of the loopback network that they come from
    #[arg(long, default_value_t = 8)]
    sources: usize,
    #[command(flatten)]
    process: Process,
}

#[derive(Args)]
struct Storm {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    process: Process,
}

#[derive(Args)]
struct Process {
    /// Process of the server on this host: its CPU time and memory are told
    #[arg(long)]
    pid: Option<u32>,
    /// First process of its database server: the CPU time of all of them is told
    #[arg(long, value_name = "PID")]
    database_pid: Option<u32>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done =
        runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(command(Cli::parse().command)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("hint: `halfkey-loadgen --help` says what a server needs that is loaded");
            ExitCode::FAILURE
        }
    }
}

async fn command(command: Command) -> Result<()> {
    raise_open_files();
    match command {
        Command::Enroll(whom) => {
            if !whom.fleet.exists() {
                let mut seed = [0; 32];
                fill_random(&mut seed)
                    .and_then(|()| write_secret(&whom.fleet, &seed))
                    .map_err(|e| e.to_string())?;
            }
            let fleet = whom.fleet()?;
            fleet.enroll(&whom.target(Client::Node)?, &*whom.target(Client::Operator)?).await?;
            println!("enrolled {} machines", whom.machines);
        }
        Command::Run(run) => {
            let client = if run.resume { Client::ResumingNode } else { Client::Node };
            let (target, fleet) = (run.whom.target(client)?, run.whom.fleet()?);
            let pace = run.rate.map_or(Pace::Closed, Pace::Open);
            let Run { boots, connections, cold, sources, .. } = run;
            let before = run.process.cpu()?;
            let report =
                load::run(&target, fleet.machines(), Plan { boots, connections, cold, pace, sources })
                    .await?;
            print(&report, &run.process, before)?;
        }
        Command::Storm(storm) => {
            let (target, fleet) = (storm.whom.target(Client::Node)?, storm.whom.fleet()?);
            let before = storm.process.cpu()?;
            let report = load::storm(&target, &fleet).await?;
            print(&report, &storm.process, before)?;
        }
    }
    Ok(())
}

impl Whom {
    fn fleet(&self) -> Result<Fleet> {
        Fleet::new(&seed(&self.fleet)?, self.machines)
    }

    fn target(&self, client: Client) -> Result<Arc<Target>> {
        let bundle = Bundle::read(&self.bundle)?;
        let url = self.server.as_ref().or(bundle.servers.first()).ok_or("a bundle without a URL")?;
        Ok(Arc::new(Target::new(url, &bundle, client)?))
    }
}

fn seed(path: &Path) -> Result<[u8; 32]> {
    let bytes = read_secret(path).map_err(|e| e.to_string())?;
    let found = bytes.len();
    let seed = bytes.as_slice().try_into();
    seed.map_err(|_| format!("{}: expected 32 bytes, found {found}", path.display()).into())
}

impl Process {
    fn cpu(&self) -> Result<[Option<Duration>; 2]> {
        let own = self.pid.map(cpu::of_process).transpose()?;
        Ok([own, self.database_pid.map(cpu::of_family).transpose()?])
    }
}

fn print(report: &Report, process: &Process, before: [Option<Duration>; 2]) -> Result<()> {
    let ms = |part| report.percentile(part).as_secs_f64() * 1000.0;
    let seconds = report.wall.as_secs_f64();
    println!(
        "released   {} in {seconds:.2} s: {:.0} per second",
        report.released,
        report.released as f64 / seconds
    );
    println!("latency    p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", ms(0.5), ms(0.99), ms(1.0));
    for (what, count) in &report.others {
        println!("otherwise  {count} {what}");
    }
    let after = process.cpu()?;
    for (name, before, after) in [("server", before[0], after[0]), ("database", before[1], after[1])] {
        if let (Some(before), Some(after)) = (before, after) {
            let spent = (after - before).as_secs_f64();
            println!(
                "{name:<9}  {spent:.2} s of CPU: {:.0} boots per second of it",
                report.released as f64 / spent
            );
        }
    }
    if let Some(pid) = process.pid {
        println!("memory     {} MiB resident at its highest", cpu::memory(pid, "VmHWM")? >> 10);
    }
    Ok(())
}
