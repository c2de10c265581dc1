//! What the server's program says to who runs it: `golden/console.txt`.

#![allow(clippy::unwrap_used, reason = "a test that fails here should say where")]

use halfkey_testkit::golden;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_halfkey-verifier");

/// A terminal session, with what changes from run to run named by what it is.
struct Session {
    folder: tempfile::TempDir,
    said: String,
}

impl Session {
    fn command(&mut self, line: &str) -> Command {
        self.said.push_str(&format!("\n$ halfkey-verifier {line}\n"));
        let mut command = Command::new(BINARY);
        command.current_dir(self.folder.path()).args(line.split_whitespace());
        command
    }

    fn show(&mut self, text: &str) {
        let folder = self.folder.path().to_str().unwrap().to_owned();
        for line in text.lines() {
            let words: Vec<String> = line.replace(&folder, "").split(' ').map(named).collect();
            self.said.push_str(words.join(" ").trim_end());
            self.said.push('\n');
        }
    }

    /// Output and errors of a command that ends, and its exit code if that is not 0.
    fn run(&mut self, line: &str) {
        let ran = self.command(line).output().unwrap();
        self.show(&String::from_utf8(ran.stdout).unwrap());
        self.show(&String::from_utf8(ran.stderr).unwrap());
        if !ran.status.success() {
            self.said.push_str(&format!("[exit code {}]\n", ran.status.code().unwrap()));
        }
    }

    /// A server that is stopped as soon as it is ready.
    fn serve(&mut self, line: &str) {
        let mut server = self.command(line).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap());
        let mut said = String::new();
        // One line for each address.
        while said.matches(" ready ").count() < line.matches("listen ").count() {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "{said}");
        }
        let stopped = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
        assert!(stopped.success());
        log.read_to_string(&mut said).unwrap();
        assert!(server.wait().unwrap().success(), "{said}");
        self.show(&said);
    }
}

/// A word of a line, or what it is an example of.
fn named(word: &str) -> String {
    let all = |of: &str| {
        word.len() == of.len()
            && word.chars().zip(of.chars()).all(|(c, of)| match of {
                '0' => c.is_ascii_digit(),
                'f' => c.is_ascii_hexdigit(),
                _ => c == of,
            })
    };
    if all(&"f".repeat(64)) {
        return "<SHA-256>".into();
    }
    if word.len() > 20
        && word.ends_with('Z')
        && all(&format!("0000-00-00T00:00:00.{}Z", "0".repeat(word.len() - 21)))
    {
        return "<time>".into();
    }
    match word.rsplit_once(':') {
        Some((address, port))
            if address.ends_with("127.0.0.1") && port != "0" && port.parse::<u16>().is_ok() =>
        {
            format!("{address}:<port>")
        }
        _ => word.replace(env!("CARGO_PKG_VERSION"), "<version>"),
    }
}

#[test]
fn what_the_server_says_to_who_runs_it() {
    let mut session = Session { folder: tempfile::tempdir().unwrap(), said: String::new() };
    session.run("serve --state state");
    session.run("init --state state --url https://127.0.0.1:8443 --operator alice");
    session.run("init --state state --url https://127.0.0.1:8443 --operator alice");
    session.serve("serve --state state --listen 127.0.0.1:0");
    session.serve("serve --state state --listen 127.0.0.1:0 --operator-listen 127.0.0.1:0");
    session.run("serve --state state --listen 127.0.0.1:0 --role verifier");
    session.run("serve --state state --listen 192.0.2.1:1");
    session.run("operator add bob --state state");
    session.run("operator add bob --state state");
    session.run("operator remove bob --state state");
    session.run("operator remove bob --state state");
    session.run("accept-rollback --state state");
    session.run("certificate --state state");
    session.run("certificate --state state --role registrar --url https://127.0.0.1:9443 --out registrar");
    session.run("certificate --state state --role verifier --url https://127.0.0.1:9443 --out other");
    golden::check(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/console.txt"),
        session.said.trim_start(),
    );
}
