//! Commands and files of a section of docs/service.md, and hosts to run them on.

use super::common;
use halfkey_testkit::pki::Pki;
use halfkey_testkit::port::HeldPort;
use halfkey_testkit::postgres::Postgres;
use halfkey_testkit::process::{run, run_with_input};
use halfkey_testkit::programs::tree;
use halfkey_testkit::verifier::Verifier;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What the page tells somebody to do.
enum Step {
    /// At a host.
    Run { host: String, command: String },
    /// `editor FILE`, and what is to be in it.
    Edit { host: String, file: String, lines: String },
}

/// A part of the section: its title and its steps.
struct Part {
    title: String,
    steps: Vec<Step>,
}

/// The parts of a section.
fn parts(page: &str, section: &str) -> Vec<Part> {
    let (_, section) = page.split_once(&format!("\n## {section}\n")).expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let titled = section.split("\n### ").skip(1);
    titled
        .map(|part| {
            let (title, text) = part.split_once('\n').unwrap();
            let mut steps = Vec::new();
            // Every second piece is between fences.
            for block in text.split("\n```\n").skip(1).step_by(2) {
                add(&mut steps, block);
            }
            Part { title: title.to_owned(), steps }
        })
        .collect()
}

/// Commands have the prompt of their host; what has none is the content of the file that was named last.
fn add(steps: &mut Vec<Step>, block: &str) {
    let block = block.replace("\\\n", " ");
    let prompt =
        |line: &str| line.split_once("# ").map(|(host, command)| (host.to_owned(), command.to_owned()));
    if let Some(Step::Edit { lines, .. }) =
        steps.last_mut().filter(|step| matches!(step, Step::Edit { lines, .. } if lines.is_empty()))
    {
        *lines = format!("{block}\n");
        return;
    }
    for line in block.lines() {
        let (host, command) =
            prompt(line).unwrap_or_else(|| panic!("expected HOST# COMMAND, found {line:?}"));
        steps.push(match command.strip_prefix("editor ") {
            Some(file) => Step::Edit { host, file: file.to_owned(), lines: String::new() },
            None => Step::Run { host, command },
        });
    }
}

/// The servers' hosts.
pub const SERVERS: [&str; 3] = ["verifier-1", "verifier-2", "verifier-3"];

/// The hosts of the page, on this one.
pub struct Hosts {
    folder: TempDir,
    parts: Vec<Part>,
    /// What the page says, and what it is here.
    here: Vec<(String, String)>,
    servers: [HeldPort; 3],
    balancer: HeldPort,
    database: HeldPort,
    postgres: Postgres,
}

impl Hosts {
    pub fn new(section: &str) -> Self {
        let page = fs::read_to_string(tree().join("docs/service.md")).unwrap();
        let (servers, balancer, database) =
            (std::array::from_fn(|_| HeldPort::new()), HeldPort::new(), HeldPort::new());
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new();
        let postgres = postgres(&pki, database.number());
        let pair = |said: &str, here: String| (said.to_owned(), here);
        let mut here = vec![
            pair("verifier.example:8443", format!("127.0.0.1:{}", balancer.number())),
            pair("bind :8443", format!("bind 127.0.0.1:{}", balancer.number())),
            pair("@db1.example/", format!("@db1.example:{}/", database.number())),
            pair("db1.example:5432", format!("db1.example:{}", database.number())),
            pair("10.1.0.0/24", "127.0.0.1/32".to_owned()),
            pair("\"10.1.0.10\"", "\"127.0.0.1\"".to_owned()),
        ];
        for (place, port) in servers.iter().enumerate() {
            here.push((format!("10.1.0.1{}:8443", place + 1), format!("127.0.0.1:{}", port.number())));
        }
        let hosts =
            Self { parts: parts(&page, section), folder, here, servers, balancer, database, postgres };
        hosts.lay_out(&pki);
        hosts
    }

    fn lay_out(&self, pki: &Pki) {
        let root = self.folder.path();
        for host in SERVERS.iter().chain(&["db1", "balancer"]) {
            for folder in ["etc/halfkey", "etc/haproxy", "var/lib/haproxy", "run/haproxy"] {
                fs::create_dir_all(root.join(host).join(folder)).unwrap();
            }
        }
        for (server, port) in SERVERS.iter().zip(&self.servers) {
            fs::write(root.join(server).join("run/listen"), format!("127.0.0.1:{}", port.number())).unwrap();
        }
        fs::write(root.join("verifier-1/db-ca.pem"), &pki.ca_pem).unwrap();
        fs::write(root.join("names"), "127.0.0.1 localhost db1.example\n").unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        let hba = root.join("db1/etc/postgresql/15/main");
        fs::create_dir_all(&hba).unwrap();
        symlink(self.postgres.folder().join("data/pg_hba.conf"), hba.join("pg_hba.conf")).unwrap();
        // As the package has it, without what only root with a syslog can do.
        run(Command::new("cp").arg("-r").arg("/etc/haproxy/.").arg(root.join("balancer/etc/haproxy")))
            .unwrap();
        let settings = root.join("balancer/etc/haproxy/haproxy.cfg");
        let text = fs::read_to_string(&settings).unwrap();
        let not_here = ["user ", "group ", "chroot ", "log /dev/log"];
        let kept =
            text.lines().filter(|line| !not_here.iter().any(|word| line.trim_start().starts_with(word)));
        fs::write(&settings, kept.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let programs = root.join("bin");
        fs::create_dir(&programs).unwrap();
        let beside = tree().join("verifier/tests/service_page");
        for name in ["chown", "apt-get", "runuser", "install", "ssh", "scp", "systemctl"] {
            symlink(beside.join("stand-in"), programs.join(name)).unwrap();
        }
        symlink(beside.join("on"), programs.join("on")).unwrap();
        symlink(common::BINARY, programs.join("halfkey-verifier")).unwrap();
    }

    /// What is written, with the ports and addresses of here.
    fn here(&self, text: &str) -> String {
        self.here.iter().fold(text.to_owned(), |text, (said, here)| text.replace(said, here))
    }

    /// Runs a command as root of a host; gives what it prints.
    pub fn on(&self, host: &str, command: &str) -> String {
        let mut on = Command::new(self.folder.path().join("bin/on"));
        on.args([host, &self.here(command)])
            .env("HOSTS", self.folder.path())
            .env("UNIT", tree().join("packaging/verifier/halfkey-verifier.service"))
            .env("PGHOST", self.postgres.folder())
            .env("PGPORT", self.database.number().to_string())
            .env("PGUSER", "postgres");
        // What `createuser --pwprompt` asks for, twice. Nothing else reads anything.
        run_with_input(&mut on, b"PASSWORD\nPASSWORD\n").unwrap_or_else(|e| panic!("{host}# {command}: {e}"))
    }

    /// Does what the page says under this title, which comes next.
    pub fn follow(&self, title: &str) {
        let part = self.parts.iter().find(|part| part.title == title);
        let steps = &part.unwrap_or_else(|| panic!("no part {title:?}")).steps;
        assert!(!steps.is_empty(), "{title}: no commands");
        for step in steps {
            match step {
                Step::Run { host, command } => drop(self.on(host, command)),
                Step::Edit { host, file, lines } => self.edit(host, file, &self.here(lines)),
            }
        }
    }

    fn edit(&self, host: &str, file: &str, lines: &str) {
        assert!(!lines.is_empty(), "{file}: the page does not say what is written there");
        let path = self.root(host).join(file.trim_start_matches('/'));
        if file.ends_with(".toml") {
            return Verifier::on(Path::new(common::BINARY), path.parent().unwrap()).settings(lines).unwrap();
        }
        let mut opened = fs::File::options().append(true).open(&path).unwrap();
        opened.write_all(lines.as_bytes()).unwrap();
    }

    /// Titles of the parts that have commands.
    pub fn titles(&self) -> Vec<&str> {
        self.parts.iter().filter(|part| !part.steps.is_empty()).map(|part| part.title.as_str()).collect()
    }

    fn root(&self, host: &str) -> PathBuf {
        self.folder.path().join(host)
    }

    /// The state folder of the first server, with the CA and the operator's bundle.
    pub fn state(&self) -> PathBuf {
        self.root(SERVERS[0]).join("var/lib/halfkey")
    }

    /// Where the balancer listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.balancer.number())
    }

    /// Where the first server listens.
    pub fn first_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.servers[0].number())
    }

    pub fn log(&self, host: &str) -> String {
        fs::read_to_string(self.root(host).join("run/log")).unwrap_or_default()
    }

    /// SIGKILL. When this returns nothing listens there any more: who was connected in between would be cut off in the middle of
    /// a handshake, which only the machine's own second try mends, and not the balancer.
    pub fn kill(&self, server: usize) {
        let process =
            fs::read_to_string(self.root(SERVERS[server]).join("run/halfkey-verifier.pid")).unwrap();
        run(Command::new("kill").args(["-KILL", process.trim()])).unwrap();
        while TcpStream::connect(("127.0.0.1", self.servers[server].number())).is_ok() {
            std::thread::yield_now();
        }
    }

    /// What the balancer says.
    pub fn balancer(&self, command: &str) -> String {
        let mut socket = UnixStream::connect(self.root("balancer").join("run/haproxy/admin.sock")).unwrap();
        socket.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
        said
    }

    /// How many servers it sends somebody to.
    pub fn up(&self) -> usize {
        let stat = self.balancer("show stat");
        let of_server = |line: &&str| line.starts_with("halfkey,verifier-");
        stat.lines().filter(of_server).filter(|line| line.split(',').nth(17) == Some("UP")).count()
    }

    /// From now on new connections go to this one.
    pub fn only(&self, server: &str) {
        for other in SERVERS {
            let state = if other == server { "ready" } else { "drain" };
            self.balancer(&format!("set server halfkey/{other} state {state}"));
        }
    }

    /// To all again.
    pub fn all(&self) {
        for server in SERVERS {
            self.balancer(&format!("set server halfkey/{server} state ready"));
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in SERVERS.iter().chain(&["balancer"]) {
                eprintln!("{host}:\n{}", self.log(host));
            }
        }
    }
}

/// A server of the host db1.example, whose superuser is `postgres` and which lets nobody in over the network yet.
fn postgres(pki: &Pki, port: u16) -> Postgres {
    let mut postgres = Postgres::start(&[]).unwrap();
    postgres.sql("postgres", "CREATE ROLE postgres SUPERUSER LOGIN");
    postgres.stop();
    let leaf = pki.server("db1.example");
    postgres.listen(port, &leaf.pem, &leaf.key_pem()).unwrap();
    fs::write(postgres.folder().join("data/pg_hba.conf"), "local all all trust\n").unwrap();
    postgres.resume().unwrap();
    // The role that the page makes has the name of the one that made the cluster.
    let mut rename = Command::new("psql");
    rename.args(["-qX", "-U", "postgres", "-h"]).arg(postgres.folder()).args(["-p", &port.to_string()]);
    run(rename.args(["-d", "postgres", "-c", "ALTER ROLE halfkey RENAME TO owner"])).unwrap();
    postgres
}
