//! What is due is taken from the database for as long as an attempt may last, by one server of those that look, and tried. Who takes
//! it and is gone leaves it to be taken again: so a receiver gets each message at least once, and knows it by its id.

use super::endpoint::Endpoint;
use crate::domain::Result;
use crate::http::app::App;
use crate::store::NoticeRow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// How often it is looked whether something is due that nobody said.
const LOOK: Duration = Duration::from_secs(1);
/// Messages that are tried at the same time.
const TOGETHER: u64 = 8;
/// Longest pause of an endpoint that takes nothing, in seconds.
const LONGEST_PAUSE: u64 = 30;
/// Longest time until a message is tried again that was not taken, in seconds.
const LONGEST_WAIT: u64 = 300;
/// How often it is said that something is wrong and stays so.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Delivers to all endpoints, until this is dropped.
pub async fn deliver(app: Arc<App>) {
    let mut each = JoinSet::new();
    for endpoint in &app.webhooks {
        let (app, endpoint) = (app.clone(), endpoint.clone());
        each.spawn(async move { deliver_to(&app, &endpoint).await });
    }
    while each.join_next().await.is_some() {}
}

/// What came of a look.
enum Looked {
    /// Nothing was due.
    Idle,
    /// Some of it was taken by the endpoint.
    Delivered,
    /// Nothing of it was, and why the last was not.
    Failed(String),
}

async fn deliver_to(app: &App, endpoint: &Arc<Endpoint>) {
    let name = endpoint.name();
    let (mut failures, mut said): (u64, Option<Instant>) = (0, None);
    let may_say = |said: &mut Option<Instant>| {
        let may = said.is_none_or(|at| at.elapsed() >= SAY_AGAIN);
        if may {
            *said = Some(Instant::now());
        }
        may
    };
    loop {
        match look(app, endpoint).await {
            Ok(Looked::Idle) => {}
            Ok(Looked::Delivered) => {
                if failures > 0 {
                    info!(webhook = name, "the endpoint takes messages again");
                }
                (failures, said) = (0, None);
                continue;
            }
            Ok(Looked::Failed(why)) => {
                failures += 1;
                if may_say(&mut said) {
                    warn!(
                        webhook = name,
                        failures, why, "the endpoint does not take messages: they are kept and tried again"
                    );
                }
            }
            Err(e) => {
                if may_say(&mut said) {
                    error!(webhook = name, error = %e, "what the endpoint is to be told can't be read or written");
                }
            }
        }
        let committed = app.db.records().subscriptions().committed.notified();
        match failures {
            0 => tokio::select! {
                () = committed => {}
                () = tokio::time::sleep(LOOK) => {}
            },
            // What comes meanwhile does not make it better.
            _ => tokio::time::sleep(Duration::from_secs(doubled(failures, LONGEST_PAUSE))).await,
        }
    }
}

/// Seconds after so many failures: 1, 2, 4, and so on.
fn doubled(failures: u64, most: u64) -> u64 {
    1_u64
        .checked_shl(u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX))
        .map_or(most, |wait| wait.min(most))
}

async fn look(app: &App, endpoint: &Arc<Endpoint>) -> Result<Looked> {
    let (name, now) = (endpoint.name().to_owned(), app.clock.now());
    let (waiting, due) = app.db.run(move |records| records.notices(&name, now)).await?;
    app.metrics.webhooks_waiting(endpoint.name(), waiting);
    if due == 0 {
        return Ok(Looked::Idle);
    }
    // Twice as long as an attempt may last: the database takes its time, too.
    let until = now + 2 * endpoint.deadline().as_secs();
    let (name, keep) = (endpoint.name().to_owned(), endpoint.queue());
    let taking =
        move |records: &crate::domain::Records| records.take_notices(&name, now, until, TOGETHER, keep);
    let (taken, dropped) = app.db.run(taking).await?;
    if dropped > 0 {
        app.metrics.webhooks(endpoint.name(), "dropped", dropped);
        error!(
            webhook = endpoint.name(),
            dropped, "the endpoint took nothing for so long that the oldest messages are dropped"
        );
    }
    if taken.is_empty() {
        // Another server was first.
        return Ok(Looked::Idle);
    }
    attempt(app, endpoint, taken).await
}

/// Tries what was taken, and writes down what came of it.
async fn attempt(app: &App, endpoint: &Arc<Endpoint>, taken: Vec<NoticeRow>) -> Result<Looked> {
    let mut attempts = JoinSet::new();
    for row in taken {
        let (endpoint, now) = (endpoint.clone(), app.clock.now());
        attempts.spawn(async move {
            let told = endpoint.tell(&row.message, now, &row.body).await;
            (row, told)
        });
    }
    let (mut delivered, mut put_off, mut why) = (Vec::new(), Vec::new(), None);
    while let Some(done) = attempts.join_next().await {
        // One that panicked is tried again as one whose server is gone.
        let Ok((row, told)) = done else { continue };
        match told {
            Ok(()) => delivered.push(row.id),
            Err(e) => {
                put_off.push((row.id, app.clock.now() + doubled(row.attempts, LONGEST_WAIT)));
                why = Some(e);
            }
        }
    }
    app.metrics.webhooks(endpoint.name(), "delivered", delivered.len() as u64);
    app.metrics.webhooks(endpoint.name(), "failed", put_off.len() as u64);
    let looked = match why {
        Some(why) if delivered.is_empty() => Looked::Failed(why),
        Some(_) | None => Looked::Delivered,
    };
    app.db.run(move |records| records.settle_notices(&delivered, &put_off)).await?;
    Ok(looked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_most() {
        let waits: Vec<_> = (0..8).map(|failures| doubled(failures, 30)).collect();
        assert_eq!(waits, [1, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!((doubled(64, 300), doubled(u64::MAX, 300)), (300, 300));
    }
}
