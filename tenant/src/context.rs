//! What commands share: the operator's files, where results go, requests to the verifier.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::home::bundle::Bundle;
use crate::output::Out;
use crate::render::Style;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// What a command needs besides its own arguments.
pub struct Context {
    /// The operator's folder: bundle, tenant key, pins.
    pub home: Home,
    /// Standard output and error, in the form that was asked for.
    pub out: Out,
    timeout: Duration,
}

impl Context {
    /// From the options of every command.
    pub fn new(home: Home, out: Out, timeout: Duration) -> Self {
        Self { home, out, timeout }
    }

    /// A client for the bundle's servers.
    ///
    /// # Errors
    /// When the bundle can't be used.
    pub fn client(&self, bundle: &Bundle) -> Result<Client> {
        Client::new(bundle, self.timeout)
    }

    /// How tables look.
    pub fn style(&self) -> Style {
        *self.out.style()
    }

    /// A client for the imported bundle.
    ///
    /// # Errors
    /// When there is none, or it can't be used.
    pub fn logged_in(&self) -> Result<Client> {
        self.client(&self.home.bundle()?)
    }
}

/// Writes a new file.
///
/// # Errors
/// When it is there already, or can't be written.
pub fn create(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: io::Error| Error::failed(format!("can't write {}: {e}", path.display()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => failed(e).hint("give a file that does not exist"),
        _ => failed(e),
    })?;
    file.write_all(bytes).map_err(|e| {
        // Half a document must not be taken for one. That it can't be removed either changes nothing.
        let _ = fs::remove_file(path);
        failed(e)
    })
}
