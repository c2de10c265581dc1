//! What happened, told to systems of the operator's own: `[[webhooks]]` in the settings, in the form of Standard Webhooks
//! (<https://www.standardwebhooks.com>). What is to be told is in the database, written with what it tells of
//! ([`crate::domain::notice`]); any server of it delivers, at least once.
//!
//! | module | what |
//! | --- | --- |
//! | [`settings`] | what the settings file says of an endpoint |
//! | [`secret`] | what messages are signed with |
//! | [`endpoint`] | one message to one endpoint: URL, TLS, deadline |
//! | [`deliver`] | what is due, again and again |

pub mod deliver;
pub mod endpoint;
pub mod secret;
pub mod settings;

use crate::config::{Config, StateDir};
use crate::domain::{Subscription, notice};
use crate::{Failure, counted, unix_now};
use endpoint::Endpoint;
use std::sync::Arc;

/// The endpoints of the settings, ready to be told something.
///
/// # Errors
/// When a secret, a URL or certificates of one can't be used.
pub fn open(config: &Config) -> Result<Vec<Arc<Endpoint>>, Failure> {
    config.webhooks.iter().map(|settings| Endpoint::open(settings).map(Arc::new)).collect()
}

/// What they want to know.
pub fn subscriptions(config: &Config) -> Vec<Subscription> {
    let each = config.webhooks.iter();
    each.map(|settings| Subscription { endpoint: settings.name.clone(), kinds: settings.events.clone() })
        .collect()
}

/// The name of an endpoint, and why it did not take a message if it did not.
pub type Tried = (String, Result<(), String>);

/// Tells each endpoint, or the one of this name, that this is a test; gives what came of it, by name.
///
/// # Errors
/// When there is none, or one can't be used.
pub fn test(state: &StateDir, name: Option<&str>) -> Result<Vec<Tried>, Failure> {
    let config = Config::load(state)?;
    config.check()?;
    let mut endpoints = open(&config)?;
    endpoints.retain(|endpoint| name.is_none_or(|name| name == endpoint.name()));
    if endpoints.is_empty() {
        let there = counted(config.webhooks.len(), "other");
        return Err(match name {
            Some(name) => {
                Failure::new(format!("expected a webhook named {name} in the settings, found {there}"))
            }
            None => Failure::new("expected [[webhooks]] in the settings, found none")
                .hint("docs/service.md, \"Webhooks\""),
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(format!("runtime: {e}")))?;
    let failed = |e: crate::domain::Error| Failure::new(e.to_string());
    let body = notice::body("test", unix_now(), serde_json::Map::new()).map_err(failed)?;
    endpoints
        .into_iter()
        .map(|endpoint| {
            let message = notice::new_message().map_err(failed)?;
            let told = runtime.block_on(endpoint.tell(&message, unix_now(), &body));
            Ok((endpoint.name().to_owned(), told))
        })
        .collect()
}
