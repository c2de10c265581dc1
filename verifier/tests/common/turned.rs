//! A server in this process, whose clock a test turns.

use super::Server;
use halfkey_testkit::clock::TurnedClock;
use halfkey_verifier::Clock;
use halfkey_verifier::client::Client;
use halfkey_verifier::config::{Config, StateDir};
use halfkey_verifier::serve::{Listening, Told};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub struct TurnedServer {
    pub clock: TurnedClock,
    state: PathBuf,
    url: String,
    running: Option<(mpsc::Sender<Told>, JoinHandle<()>)>,
    _dir: TempDir,
}

impl TurnedServer {
    /// At some time, with lines for the end of the settings file.
    pub async fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Server::init(&state).settings(settings).unwrap();
        let clock = TurnedClock::at(2_000_000_000);
        let mut server = Self { clock, state, url: String::new(), running: None, _dir: dir };
        server.serve().await;
        server
    }

    async fn serve(&mut self) {
        let state = StateDir::new(&self.state);
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::load(&state).unwrap() };
        let clock = self.clock.clone();
        let server = Listening::open(&state, config, Clock::of(move || clock.now())).await.unwrap();
        self.url = format!("https://{}", server.addresses().unwrap()[0]);
        let (tell, told) = mpsc::channel(1);
        self.running = Some((tell, tokio::spawn(server.serve(told))));
    }

    /// Stops it and starts it again, on another port.
    pub async fn restart(&mut self) {
        let (tell, serving) = self.running.take().unwrap();
        tell.send(Told::Stop("the test")).await.unwrap();
        serving.await.unwrap();
        self.serve().await;
    }

    pub fn anybody(&self) -> Client {
        super::client(&self.url, &self.state, None)
    }

    pub fn operator(&self) -> Client {
        super::client(&self.url, &self.state, Some(&self.state.join("operator-ada.bundle")))
    }
}
