//! Settings and certificates that are read again while a server serves. All that is read can be used, or nothing of it is used.

use crate::Failure;
use crate::config::{Config, StateDir};
use crate::current::Current;
use crate::http::app::App;
use crate::serve::note_expiry;
use crate::tls::Terms;
use std::sync::Arc;
use tracing::{error, info, warn};

/// The settings as they are now, with the flags of the command line.
pub type Read = Box<dyn Fn() -> Result<Config, Failure> + Send>;

/// What is read again, and for whom.
pub struct Reload {
    /// Where certificates and keys are.
    pub state: StateDir,
    /// The settings.
    pub read: Read,
    /// The server.
    pub app: Arc<App>,
    /// Its listeners, and whether each is for operators alone.
    pub doors: Vec<(bool, Arc<Current<Terms>>)>,
}

impl Reload {
    /// Reads all again. What can't be used leaves everything as it was.
    pub fn run(&self) {
        let done = self.attempt();
        self.app.metrics.reloaded(done.is_ok());
        if let Err(e) = done {
            error!(error = %e, "what was read again can't be used: settings and certificates stay as they were");
        }
    }

    fn attempt(&self) -> Result<(), Failure> {
        let (before, read) = (self.app.config(), (self.read)()?);
        let taken = before.taking(&read);
        taken.check()?;
        let terms =
            self.doors.iter().map(|(for_operators, _)| Terms::of(&self.state, &taken, *for_operators));
        let terms: Vec<_> = terms.collect::<Result<_, _>>()?;
        // From here on nothing fails.
        let (changed, mut left) = (before.differences(&taken), taken.differences(&read));
        for ((_, door), terms) in self.doors.iter().zip(terms) {
            door.set(terms);
        }
        self.app.take(taken);
        note_expiry(&self.state, &self.app);
        if self.app.verifier.as_ref().is_some_and(|verifier| !verifier.is_of(&self.state)) {
            left.push("ca.pem".to_owned());
        }
        info!(settings = changed.join(" "), "certificates and settings were read again");
        if !left.is_empty() {
            warn!(
                settings = left.join(" "),
                hint = "restart the server",
                "these are other ones now, and count from the next start on"
            );
        }
        Ok(())
    }
}
