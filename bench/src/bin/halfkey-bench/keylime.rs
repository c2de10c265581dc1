//! Keylime's verifier, from PyPI, on our evidence: a boot over HTTPS, an IMA list in its own code. A figure counts only if the genuine
//! one was accepted and changed ones were refused.

use crate::ima;
use crate::run::{Result, output};
use base64ct::{Base64, Encoding as _};
use halfkey_bench::boot::{BANK, SecureBoot};
use halfkey_bench::cpu;
use halfkey_bench::https::{Bundle, Client, Connection, Target};
use halfkey_testkit::hex;
use halfkey_testkit::node::Attester as _;
use halfkey_testkit::port::HeldPort;
use halfkey_testkit::process::{Guard, tail_of};
use halfkey_testkit::programs::tree;
use halfkey_testkit::soft_tpm::SoftTpm;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Its modules of the distribution are there for this one only.
const PYTHON: &str = "/usr/bin/python3";
const EVIDENCE: &str = "/v2.5/verify/evidence";
/// It makes a CA of RSA keys first.
const STARTED: Duration = Duration::from_secs(120);
/// Pieces of evidence that are not counted.
const FIRST: usize = 3;
/// Pieces of evidence.
const COUNTED: usize = 30;

/// What was measured, or why not.
pub struct Figures {
    /// Pieces of evidence per second of its CPU time, `tpm2_eventlog` and all.
    https: std::result::Result<f64, String>,
    /// The list of [`ima::measure`], in milliseconds of CPU time.
    ima_ms: std::result::Result<f64, String>,
}

/// Installs and measures it; what does not work is no reason to measure nothing else.
pub fn measure(work: &Path) -> Figures {
    eprintln!("installing Keylime ...");
    let installed = install();
    let measured = |what: fn(&Path, &Path) -> Result<f64>| match &installed {
        Ok(folder) => what(folder, work).map_err(|e| e.to_string()),
        Err(why) => Err(why.clone()),
    };
    eprintln!("checking evidence with Keylime ...");
    Figures { https: measured(https), ima_ms: measured(ima_list) }
}

fn install() -> std::result::Result<PathBuf, String> {
    let mut command = Command::new(tree().join(".ci/venv"));
    command.args(["keylime", "--system-site-packages"]).env("PYTHON", PYTHON);
    // Its last line says why.
    let folder = output(&mut command)
        .map_err(|e| e.to_string().lines().last().unwrap_or("it can't be installed").to_owned())?;
    Ok(String::from_utf8_lossy(&folder).trim().into())
}

/// Its service, with a folder of its own.
struct Service {
    guard: Guard,
    port: HeldPort,
    folder: PathBuf,
}

impl Service {
    fn start(installed: &Path, work: &Path) -> Result<Self> {
        let (folder, port) = (work.join("keylime"), HeldPort::new());
        fs::create_dir_all(&folder)?;
        let mut command = Command::new(installed.join("bin/keylime_verifier"));
        let files = [
            ("VERIFIER", format!("[verifier]\nport = {}\n{VERIFIER}", port.number())),
            ("CA", CA.to_owned()),
            ("LOGGING", LOGGING.to_owned()),
        ];
        for (name, text) in files {
            let file = folder.join(name);
            fs::write(&file, text)?;
            command.env(format!("KEYLIME_{name}_CONFIG"), file);
        }
        // It forks; all of them are one group, which ends together.
        command.env("KEYLIME_DIR", &folder).current_dir(&folder).process_group(0);
        let guard = Guard::start("keylime_verifier", &mut command, &folder.join("log"))?;
        let mut service = Self { guard, port, folder };
        service.wait()?;
        Ok(service)
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.number())).is_err() {
            if self.guard.exited()?.is_some() || start.elapsed() > STARTED {
                let said = tail_of(&self.folder.join("log"), 5);
                return Err(format!("keylime_verifier was expected to listen, and does not:\n{said}").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Connection> {
        let file = |name: &str| fs::read_to_string(self.folder.join("cv_ca").join(name));
        let url = format!("https://127.0.0.1:{}", self.port.number());
        let bundle: Bundle = serde_json::from_value(json!({
            "servers": [url],
            "ca": file("cacert.crt")?,
            "certificate": file("client-cert.crt")?,
            "key": file("client-private.pem")?,
        }))?;
        Ok(Target::new(&url, &bundle, Client::Operator)?.connect(Ipv4Addr::LOCALHOST).await?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // All may have ended already.
        let _ = killpg(Pid::from_raw(self.guard.pid() as i32), Signal::SIGKILL);
    }
}

fn https(installed: &Path, work: &Path) -> Result<f64> {
    let boot = SecureBoot::new()?;
    let (tpm, register) = SoftTpm::new(boot.pcrs.clone());
    let nonce = [2; 32];
    let (quote, signature) = tpm.quote(BANK, &nonce);
    let pcrs: Vec<_> = tpm.pcrs(BANK).iter().map(|pcr| pcr.to_vec()).collect();
    let message = |quote: &[u8], signature: &[u8], log: &[u8]| {
        json!({"type": "tpm", "data": {
            "quote": format!("r{}:{}:{}", b64(quote), b64(signature), b64(&tools_blob(&pcrs))),
            "nonce": b64(&nonce),
            "hash_alg": "sha256",
            // Looked at only by who binds the AK to it.
            "tpm_ek": b64(&tpm2b(&register.ek_public)),
            "tpm_ak": b64(&tpm2b(&register.ak_public)),
            "tpm_policy": tpm_policy(&pcrs),
            // Any that is not empty has the log replayed to the PCRs.
            "mb_policy": "{\"replay\": true}",
            "mb_log": b64(log),
        }})
    };
    let genuine = message(&quote, &signature, &boot.log);
    let forged = [
        ("quote", message(&changed(&quote, quote.len() - 1), &signature, &boot.log)),
        ("signature", message(&quote, &changed(&signature, signature.len() - 1), &boot.log)),
        ("event log", message(&quote, &signature, &changed_digest(&boot.log)?)),
    ];

    let service = Service::start(installed, work)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut connection = service.connect().await?;
        for (what, message) in &forged {
            if accepted(&mut connection, message).await? {
                return Err(format!("Keylime accepts a changed {what}").into());
            }
        }
        let mut before = Duration::ZERO;
        for number in 0..FIRST + COUNTED {
            if number == FIRST {
                before = cpu::of_family(service.guard.pid())?;
            }
            if !accepted(&mut connection, &genuine).await? {
                return Err("Keylime refuses the genuine evidence".into());
            }
        }
        let spent = cpu::of_family(service.guard.pid())? - before;
        Ok(COUNTED as f64 / spent.as_secs_f64())
    })
}

async fn accepted(connection: &mut Connection, message: &Value) -> Result<bool> {
    let answer: Value = connection.post(EVIDENCE, message).await?;
    answer["results"]["valid"]
        .as_bool()
        .ok_or_else(|| format!("expected a verdict, found {answer:.300}").into())
}

/// The values that PCR 0 to 9 and 14 may have; 10 is IMA's.
fn tpm_policy(pcrs: &[Vec<u8>]) -> String {
    let values = (0..10).chain([14]).map(|pcr| (pcr.to_string(), json!([hex(&pcrs[pcr])])));
    Value::Object(values.collect()).to_string()
}

/// PCR 0 to 15 as tpm2-tools writes them: `TPML_PCR_SELECTION` with room for 16 banks, then `TPML_DIGEST` of eight, as they are in memory.
fn tools_blob(pcrs: &[Vec<u8>]) -> Vec<u8> {
    let mut blob = [&1u32.to_le_bytes()[..], &BANK.alg().to_le_bytes(), &[3, 0xff, 0xff, 0, 0, 0]].concat();
    blob.resize(4 + 16 * 8, 0);
    let lists = pcrs.chunks(8);
    blob.extend((lists.len() as u32).to_le_bytes());
    for list in lists {
        blob.extend((list.len() as u32).to_le_bytes());
        for pcr in list {
            blob.extend((pcr.len() as u16).to_le_bytes());
            blob.extend(pcr);
            blob.resize(blob.len() + 64 - pcr.len(), 0);
        }
    }
    blob
}

fn tpm2b(public: &[u8]) -> Vec<u8> {
    [&(public.len() as u16).to_be_bytes(), public].concat()
}

fn b64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

fn changed(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// The log with one byte changed that a PCR stands for.
fn changed_digest(log: &[u8]) -> Result<Vec<u8>> {
    let replayed = halfkey_evidence::eventlog::replay(log, BANK)?;
    let event = replayed.events().last().ok_or("a log without events")?;
    Ok(changed(log, event.digest.as_ptr() as usize - log.as_ptr() as usize))
}

/// In its own code: over HTTPS its policy of 200,000 digests would be read each time.
fn ima_list(installed: &Path, work: &Path) -> Result<f64> {
    let (digests, list) = ima::example();
    let [digests_file, list_file] = ["digests", "list"].map(|name| work.join(format!("keylime-{name}")));
    fs::write(&digests_file, digests)?;
    fs::write(&list_file, &list.bytes)?;
    let mut command = Command::new(installed.join("bin/python"));
    command.args(["-c", include_str!("keylime_ima.py")]).arg(&digests_file).arg(&list_file);
    let said = output(command.arg(hex(list.value())))?;
    let said = String::from_utf8_lossy(&said);
    said.trim().parse().map_err(|_| format!("expected milliseconds, found {said:.300}").into())
}

/// For people; beside it what our server does in the same run: all of an attestation.
pub fn print(figures: &Figures, ours: Option<f64>) {
    println!("Keylime's verifier, on our evidence");
    let name = "/verify/evidence: quote, replay, values of PCRs";
    match (&figures.https, ours) {
        (Ok(rate), None) => println!("  {name:<50} {rate:>12.1} per second of its CPU"),
        (Ok(rate), Some(ours)) => println!(
            "  {name:<50} {rate:>12.1} per second of its CPU; halfkey-verifier, policy and release as well: {ours:.0}"
        ),
        (Err(why), _) => println!("  {name:<50} not measured: {why}"),
    }
    let name = format!("IMA list of {} entries, in process", ima::ENTRIES);
    match &figures.ima_ms {
        Ok(ms) => println!("  {name:<50} {ms:>12.0} ms"),
        Err(why) => println!("  {name:<50} not measured: {why}"),
    }
}

/// Rows of dist/bench.json; null is not measured.
pub fn json(figures: &Figures) -> serde_json::Map<String, Value> {
    let rounded = |figure: &std::result::Result<f64, String>| match figure {
        Ok(figure) => json!((figure * 10.0).round() / 10.0),
        Err(_) => Value::Null,
    };
    [("keylime_https_per_s", rounded(&figures.https)), ("keylime_ima_ms", rounded(&figures.ima_ms))]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// As its own template says, but for what it would do besides: one worker, no agents, no notices.
const VERIFIER: &str = r#"version = 2.5
uuid = default
ip = "127.0.0.1"
registrar_ip = "127.0.0.1"
registrar_port = 8891
enable_agent_mtls = True
tls_dir = generate
server_key = default
server_key_password = ""
server_cert = default
trusted_client_ca = default
client_key = default
client_key_password = ""
client_cert = default
trusted_server_ca = default
database_url = sqlite
database_pool_sz_ovfl = 5,10
auto_migrate_db = True
num_workers = 1
exponential_backoff = True
retry_interval = 2
max_retries = 5
quote_interval = 2
max_upload_size = 104857600
request_timeout = 60
measured_boot_policy_name = accept-all
measured_boot_imports = []
measured_boot_evaluate = once
severity_labels = ["info", "notice", "warning", "error", "critical", "alert", "emergency"]
severity_policy = [{"event_id": ".*", "severity_label": "emergency"}]
ignore_tomtou_errors = False
durable_attestation_import =
require_allow_list_signatures = False
mode = pull

[revocations]
enabled_revocation_notifications = []
"#;

const CA: &str = "[ca]
version = 2.5
password = default
cert_country = US
cert_ca_name = bench
cert_state = bench
cert_locality = bench
cert_organization = bench
cert_org_unit = bench
cert_ca_lifetime = 10
cert_lifetime = 10
cert_bits = 2048
cert_crl_dist = http://localhost:38080/crl
";

const LOGGING: &str = "[logging]
version = 2.5
[loggers]
keys = root,keylime
[handlers]
keys = consoleHandler
[formatters]
keys = formatter
[formatter_formatter]
format = %(name)s %(levelname)s %(message)s
[logger_root]
level = WARNING
handlers = consoleHandler
[handler_consoleHandler]
class = StreamHandler
level = WARNING
formatter = formatter
args = (sys.stdout,)
[logger_keylime]
level = WARNING
qualname = keylime
handlers =
";
