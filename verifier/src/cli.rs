//! Commands and flags.

use crate::config::{Config, DatabaseUrl, LogFormat, Role, StateDir};
use crate::domain::THREADS;
use crate::http::openapi;
use crate::init::{self, Init};
use crate::key_files::KeyForm;
use crate::seal_keys::{self, Sealing};
use crate::{Failure, backup, cluster_key, counted, locked, migrate, pki, serve, webhooks};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt as _;

const SPLIT: &str = "\
Registrar and verifier on two hosts: on the verifier's host run
  halfkey-verifier certificate --state DIR --role registrar --url https://REGISTRAR:PORT --out OTHER
move OTHER to the registrar's host and serve there with --state OTHER; on the verifier's host serve with
  --role verifier --registrar https://REGISTRAR:PORT
or put the same into its halfkey-verifier.toml. Nodes register at the registrar; the verifier asks it over mTLS.";

/// Registrar and verifier of Halfkey.
#[derive(Parser)]
#[command(name = "halfkey-verifier", version, after_help = SPLIT)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a state folder: CA, certificates, key files, database, settings, the first operator's bundle
    Init {
        #[command(flatten)]
        state: State,
        /// URL at which nodes and operators reach this server, https://HOST:PORT; best first
        #[arg(long = "url", required = true)]
        urls: Vec<String>,
        /// Another name or address for the server certificate
        #[arg(long = "san")]
        sans: Vec<String>,
        /// Name of the first operator
        #[arg(long, default_value = "admin")]
        operator: String,
        /// Folder of EK root certificates, for the settings: who has no such TPM can't register
        #[arg(long, value_name = "DIR")]
        ek_roots: Option<PathBuf>,
        /// PostgreSQL database that is empty, postgres://USER@HOST[,HOST]/NAME, instead of an SQLite file: for several servers
        ///
        /// sslrootcert=FILE names the CA of its servers, passfile=FILE the file with the password.
        #[arg(long, value_name = "URL")]
        database: Option<String>,
    },
    /// Serve until SIGTERM; SIGHUP reads certificates and settings again
    Serve(Serve),
    /// Add, list and remove operators
    #[command(subcommand)]
    Operator(Operator),
    /// Accept a database that was restored from a backup: until then nothing is enrolled or unlocked
    ///
    /// Policies, revocations and enrollments that came after the backup are gone. Operators' workstations that know of later ones say so.
    AcceptRollback {
        #[command(flatten)]
        state: State,
        /// A backup was restored, whatever the state file says: it may have come from the backup as well. Enrollments that were
        /// open in it are used up. Stop the server first
        #[arg(long)]
        restored: bool,
    },
    /// Move the records of a state folder from its SQLite file to a PostgreSQL database that is empty. Stop the server first
    Migrate {
        #[command(flatten)]
        state: State,
        /// postgres://USER@HOST[,HOST]/NAME, as for `init`
        #[arg(long, value_name = "URL")]
        database: String,
    },
    /// Put another cluster key in the place of the one in use, while servers work: docs/service.md
    #[command(subcommand)]
    ClusterKey(ClusterKey),
    /// Have this host's TPM seal release key and cluster key: a stolen disk opens nothing then. docs/service.md
    ///
    /// Made once, of keys that are there; say it again where it was interrupted. What the files had is overwritten. The server that runs
    /// goes on, and reads them so at its next start.
    SealKeys {
        #[command(flatten)]
        state: State,
        /// The TPM, as tpm2-tss names it [default: `tpm` of the settings, else device:/dev/tpmrm0]
        #[arg(long, value_name = "TCTI")]
        tpm: Option<String>,
        /// The release key signs inside of the TPM, and leaves it never: as many boots a second as it signs. See `min_rate`
        #[arg(long, conflicts_with = "pcrs")]
        sign: bool,
        /// PCRs that have to stay what they are now, as 0,2,7, of the SHA-256 bank. After an update the recovery copy is sealed again
        #[arg(long, value_name = "LIST")]
        pcrs: Option<String>,
        /// Folder to make, with the keys as they are: for another host, if this one breaks
        #[arg(long, value_name = "FOLDER", conflicts_with_all = ["from", "no_recovery"])]
        recovery: Option<PathBuf>,
        /// Make no such copy
        #[arg(long, conflicts_with = "from")]
        no_recovery: bool,
        /// Seal the keys of such a copy, in place of those that are there: on another host, or for a TPM that was cleared
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
    },
    /// Write the keys of a state folder as they are into a new folder: a recovery copy, or for another server
    UnsealKeys {
        #[command(flatten)]
        state: State,
        /// Folder to make, in memory (/run) or on a disk that you take away
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Copy a state folder into a new one while its server runs
    ///
    /// With SQLite the copy has the database as well. One on a server of PostgreSQL is copied by its own means, after this: docs/service.md.
    /// The copy is as secret as the state folder.
    Backup {
        #[command(flatten)]
        state: State,
        /// Folder to make
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Make a state folder of a backup, and accept its database as it is
    ///
    /// As `accept-rollback --restored`. A database on a server of PostgreSQL has to be put back before.
    Restore {
        #[command(flatten)]
        state: State,
        /// What `backup` made
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// The recovery copy of its keys, to be sealed here: for a backup of another host with keys that its TPM sealed
        #[arg(long, value_name = "FOLDER")]
        keys: Option<PathBuf>,
    },
    /// Renew the server certificate, or make the state folder of a registrar on another host
    Certificate {
        #[command(flatten)]
        state: State,
        /// Another name or address for the server certificate
        #[arg(long = "san")]
        sans: Vec<String>,
        /// For another host with this role (only `registrar`)
        #[arg(long, requires_all = ["url", "out"])]
        role: Option<Role>,
        /// URL of the other host
        #[arg(long, requires = "role")]
        url: Option<String>,
        /// State folder to make for the other host
        #[arg(long, requires = "role")]
        out: Option<PathBuf>,
    },
    /// Print what is served, as OpenAPI 3.1: paths, messages and reasons
    Openapi,
    /// Send a test message to each endpoint of [[webhooks]] in the settings: docs/service.md
    WebhookTest {
        #[command(flatten)]
        state: State,
        /// Only to the one of this name
        name: Option<String>,
    },
    /// Man pages, for packages
    #[command(hide = true)]
    ManPages {
        /// Where to; it exists
        folder: PathBuf,
    },
}

#[derive(Args)]
struct State {
    /// State folder
    #[arg(long = "state", value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    state: State,
    /// Address and port, instead of the settings'; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Address and port for operators alone, besides the other
    #[arg(long, value_name = "ADDR:PORT")]
    operator_listen: Option<SocketAddr>,
    /// Address and port for Prometheus, plain HTTP: whoever reaches it reads how the server is doing
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Role, instead of the settings'
    #[arg(long)]
    role: Option<Role>,
    /// URL of the registrar, with role verifier
    #[arg(long, value_name = "URL")]
    registrar: Option<String>,
    /// Folder of EK root certificates: refuse to register a TPM whose EK certificate leads to none of them
    #[arg(long, value_name = "DIR")]
    ek_roots: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long)]
    log_format: Option<LogFormat>,
    /// Least severity that is logged: error, warn, info, debug, trace
    #[arg(long, default_value = "info")]
    log_level: tracing::Level,
}

#[derive(Subcommand)]
enum Operator {
    /// List a new operator and write their bundle, for `halfkey login`
    Add {
        /// Name on the certificate and in the audit trail
        name: String,
        #[command(flatten)]
        state: State,
        /// Bundle to write [default: operator-NAME.bundle in the state folder]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the certificates that are accepted
    List {
        #[command(flatten)]
        state: State,
    },
    /// Stop accepting an operator's certificate, at once
    Remove {
        /// Name on the certificate
        name: String,
        #[command(flatten)]
        state: State,
    },
}

#[derive(Subcommand)]
enum ClusterKey {
    /// Make cluster.key.new: servers that have this file when they start accept it
    New {
        #[command(flatten)]
        state: State,
    },
    /// Use cluster.key.new from the next start on, and accept the key before
    Use {
        #[command(flatten)]
        state: State,
    },
    /// Have everything in the database by the key in use, and forget the one before
    ///
    /// When every server has been started with the new one, and what was made before is over.
    Drop {
        #[command(flatten)]
        state: State,
    },
}

/// Runs what the command line says.
///
/// # Errors
/// What went wrong, for standard error.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Init { state, urls, sans, operator, ek_roots, database } => {
            let state = StateDir::new(state.dir);
            let any_tpm = ek_roots.is_none();
            let database = database.map(DatabaseUrl::new);
            let bundle = init::init(&state, &Init { urls, sans, operator, ek_roots, database })?;
            println!("{}", bundle.display());
            eprintln!("made {}", state.path().display());
            if any_tpm {
                eprintln!(
                    "any TPM can register, also software; better: --ek-roots DIR with the certificates of its makers"
                );
            }
            eprintln!("next: halfkey-verifier serve --state {}", state.path().display());
            eprintln!("then, at the operator's workstation: halfkey login {}", bundle.display());
            Ok(())
        }
        Command::Serve(serve) => serve.run(),
        Command::Openapi => {
            println!("{:#}", openapi::document());
            Ok(())
        }
        Command::ManPages { folder } => {
            let mut program = Cli::command().disable_help_subcommand(true);
            program.build();
            man_pages(program, &folder)
                .map_err(|e| Failure::new(format!("can't write to {}: {e}", folder.display())))
        }
        Command::Operator(operator) => operator.run(),
        Command::AcceptRollback { state, restored } => {
            match init::accept_rollback(&StateDir::new(state.dir), restored)? {
                Some((why, now)) => say_accepted(&why, &now),
                None => {
                    eprintln!("nothing to accept: the database is the one that the state file names");
                    eprintln!(
                        "hint: if both were restored from a backup: accept-rollback --restored; enrollments that were open in it may have been proved since"
                    );
                }
            }
            Ok(())
        }
        Command::Migrate { state, database } => {
            let state = StateDir::new(state.dir);
            let (rows, left) = migrate::migrate(&state, &DatabaseUrl::new(database))?;
            eprintln!(
                "moved {}; {} names the database now",
                counted(rows, "row"),
                state.config_file().display()
            );
            eprintln!(
                "{} is not used any more: delete it when all is well, it is as secret as a backup",
                left.display()
            );
            Ok(())
        }
        Command::ClusterKey(command) => command.run(),
        Command::Backup { state, out } => {
            let database = backup::backup(&StateDir::new(state.dir), &out)?;
            eprintln!("made {}: it is as secret as the state folder", out.display());
            if database == backup::Database::Elsewhere {
                eprintln!("next: pg_dump of the database, docs/service.md");
            }
            Ok(())
        }
        Command::SealKeys { state, tpm, sign, pcrs, recovery, no_recovery, from } => {
            let pcrs = pcrs.as_deref().map(seal_keys::pcrs).transpose().map_err(Failure::new)?;
            let sealing = Sealing { tpm, sign, pcrs: pcrs.unwrap_or_default() };
            seal(&StateDir::new(state.dir), &sealing, recovery, no_recovery, from.as_deref())
        }
        Command::UnsealKeys { state, out } => {
            let (files, stays) = seal_keys::unseal(&StateDir::new(state.dir), &out)?;
            eprintln!("made {}: {}; who reads them has the keys", out.display(), files.join(", "));
            if stays {
                eprintln!("release.key is in the TPM, and does not come out of it");
            }
            Ok(())
        }
        Command::Restore { state, from, keys } => {
            let state = StateDir::new(state.dir);
            let accepted = backup::restore(&state, &from, keys.as_deref())?;
            eprintln!("made {}", state.path().display());
            if let Some((why, now)) = accepted {
                say_accepted(&why, &now);
            }
            Ok(())
        }
        Command::WebhookTest { state, name } => {
            let told = webhooks::test(&StateDir::new(state.dir), name.as_deref())?;
            for (endpoint, told) in &told {
                let came_of_it = told.as_ref().map_or_else(String::as_str, |()| "delivered");
                println!("{endpoint}\t{came_of_it}");
            }
            match told.iter().filter(|(_, told)| told.is_err()).count() {
                0 => Ok(()),
                failed => Err(Failure::new(format!("{} did not take it", counted(failed, "endpoint")))),
            }
        }
        Command::Certificate { state, sans, role: None, .. } => {
            init::renew(&StateDir::new(state.dir), &sans)?;
            eprintln!(
                "made a new server certificate; the server takes it at SIGHUP (`systemctl reload halfkey-verifier`)"
            );
            Ok(())
        }
        Command::Certificate { state, sans, role: Some(Role::Registrar), url: Some(url), out: Some(out) } => {
            let out = StateDir::new(out);
            init::split_registrar(&StateDir::new(state.dir), &out, &url, &sans)?;
            eprintln!("made {}: move it to the registrar's host and serve there", out.path().display());
            eprintln!("serve here with: --role verifier --registrar {url}");
            Ok(())
        }
        Command::Certificate { .. } => {
            Err(Failure::new("certificate --role: only registrar can be split off")
                .hint("the verifier stays where its keys are: on the host of `init`"))
        }
    }
}

fn seal(
    state: &StateDir,
    sealing: &Sealing,
    recovery: Option<PathBuf>,
    no_recovery: bool,
    from: Option<&Path>,
) -> Result<(), Failure> {
    let recovery = if from.is_none() { seal_keys::require_choice(recovery, no_recovery)? } else { None };
    let source = match from {
        Some(folder) => seal_keys::From::Copy(folder),
        None => seal_keys::From::Here { recovery: recovery.as_deref() },
    };
    let files = seal_keys::seal(state, &source, sealing)?;
    if files.is_empty() {
        eprintln!("nothing to seal: all keys are");
    } else {
        eprintln!("sealed by the TPM of this host: {}", files.join(", "));
    }
    if let Some(folder) = recovery {
        eprintln!(
            "{} has them as they are: take it away, and keep it as you would a master key",
            folder.display()
        );
    }
    let left = seal_keys::readable(state);
    if !left.is_empty() {
        eprintln!("still to be read by who has this disk: {}; take them away as well", left.join(", "));
    }
    eprintln!(
        "next: start the server again; after that `halfkey-verifier cluster-key new`, docs/service.md: a disk may keep what was overwritten"
    );
    Ok(())
}

fn say_accepted(why: &str, now: &str) {
    eprintln!("accepted, and recorded in the audit trail: {why}");
    eprintln!("{now}");
    eprintln!(
        "next: look at each revocation, policy and group, `halfkey audit` and `halfkey policy list`; start the server"
    );
}

/// Threads of the runtime. The work of a request is some hundred microseconds; the rest of its time it waits for a commit that it shares
/// with all that wait at the same time. A disk that hangs holds two of them at most, whoever has the connection of SQLite that reads
/// and whoever has the one that writes: one more is left for health, metrics and signals, and [`crate::pulse`] wakes it.
fn workers(processors: usize) -> usize {
    processors.clamp(3, 4)
}

/// A page of section 8 for a command, and one for each below it.
fn man_pages(command: clap::Command, folder: &Path) -> std::io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        man_pages(below.clone(), folder)?;
    }
    clap_mangen::Man::new(command).section("8").generate_to(folder).map(drop)
}

impl Serve {
    fn run(self) -> Result<(), Failure> {
        let state = StateDir::new(&self.state.dir);
        let _serving = state.lock_serving()?;
        let config = self.config(&state)?;
        start_log(config.log_format, self.log_level);
        if config.release_key != KeyForm::File {
            locked::lock()?;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers(processors))
            .max_blocking_threads(THREADS)
            .enable_all()
            .build()
            .map_err(|e| Failure::new(format!("runtime: {e}")))?;
        let again = state.clone();
        runtime.block_on(serve::run(&state, config, Box::new(move || self.config(&again))))
    }

    /// The settings, over which flags win.
    fn config(&self, state: &StateDir) -> Result<Config, Failure> {
        let mut config = Config::load(state)?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.operator_listen = self.operator_listen.or(config.operator_listen);
        config.metrics_listen = self.metrics_listen.or(config.metrics_listen);
        config.role = self.role.unwrap_or(config.role);
        config.log_format = self.log_format.unwrap_or(config.log_format);
        config.registrar = self.registrar.clone().or(config.registrar);
        config.ek_roots = self.ek_roots.clone().or(config.ek_roots);
        Ok(config)
    }
}

impl ClusterKey {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::New { state } => {
                let file = cluster_key::new(&StateDir::new(state.dir))?;
                println!("{}", file.display());
                eprintln!(
                    "next: copy it to the state folder of every other server, mode 0600, and start all again"
                );
                eprintln!("then, at each: halfkey-verifier cluster-key use");
            }
            Self::Use { state } => {
                cluster_key::use_new(&StateDir::new(state.dir))?;
                eprintln!("next: start this server again; then do the same at every other");
                eprintln!("then, at each: halfkey-verifier cluster-key drop");
            }
            Self::Drop { state } => {
                let rows = cluster_key::drop_old(&StateDir::new(state.dir))?;
                eprintln!(
                    "{} made anew; the key before is gone here: start this server again",
                    counted(rows, "row")
                );
            }
        }
        Ok(())
    }
}

impl Operator {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Add { name, state, out } => {
                let state = StateDir::new(state.dir);
                let config = Config::load(&state)?;
                let ca = pki::Ca::load(state.path())?;
                let bundle = init::add_operator(&state, &ca, &config, &name, out.as_deref())?;
                println!("{}", bundle.display());
            }
            Self::List { state } => {
                let clients = init::open_records(&StateDir::new(state.dir))?.clients();
                for client in clients.map_err(|e| Failure::new(e.to_string()))? {
                    println!("{}\t{}\t{}", client.kind.as_str(), client.name, client.fingerprint);
                }
            }
            Self::Remove { name, state } => {
                init::remove_operator(&StateDir::new(state.dir), &name)?;
                eprintln!("{name} is no longer accepted");
            }
        }
        Ok(())
    }
}

fn start_log(format: LogFormat, level: tracing::Level) {
    // A log that can't be written (on a full disk) is no reason to stop serving.
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    // The client of PostgreSQL tells the values of its statements.
    let quiet = level.min(tracing::Level::WARN);
    let shown = Targets::new().with_default(level).with_target("tokio_postgres", quiet);
    let shown = shown.with_target("deadpool", quiet).with_target("tss_esapi", quiet);
    match format {
        LogFormat::Text => registry().with(log.with_target(false).with_ansi(false)).with(shown).init(),
        LogFormat::Json => {
            registry().with(log.json().flatten_event(true).with_span_list(false)).with(shown).init()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_hangs_leaves_a_worker_on_any_host() {
        assert_eq!([1, 2, 3, 4, 64].map(workers), [3, 3, 3, 4, 4]);
    }
}
