//! A verifier that machines of a lab share: whoever has this can stop and start it.

use crate::error::Result;
use crate::test_env::TestEnv;
use crate::verifier::Verifier;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One of a lab's servers.
#[derive(Clone)]
pub struct Server(Arc<Mutex<Verifier>>);

impl Server {
    /// A new one, which runs.
    ///
    /// # Errors
    /// If it can't be made or does not start.
    pub fn new(env: &TestEnv) -> Result<Self> {
        let mut verifier = Verifier::init(&env.paths.programs, &env.place("verifier"))?;
        verifier.start()?;
        Ok(Self(Arc::new(Mutex::new(verifier))))
    }

    /// For what only a verifier can do.
    pub fn verifier(&self) -> MutexGuard<'_, Verifier> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, if it does not run.
    ///
    /// # Errors
    /// If it does not listen.
    pub fn start(&self) -> Result<()> {
        self.verifier().start()
    }

    /// Stops it as an administrator would, if it runs.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop(&self) -> Result<()> {
        self.verifier().stop().map(drop)
    }

    /// Where guests reach it.
    pub fn url(&self) -> String {
        self.verifier().url()
    }

    /// Where this host reaches it.
    pub fn local_url(&self) -> String {
        self.verifier().local_url()
    }

    /// The CA that nodes pin, PEM.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn ca(&self) -> Result<Vec<u8>> {
        self.verifier().ca()
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.verifier().state().to_path_buf()
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.verifier().log()
    }
}
