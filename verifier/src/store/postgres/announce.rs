//! What servers over one database tell each other at once, by NOTIFY and LISTEN, on a connection of its own that comes back when it is
//! lost.
//!
//! A transaction with a NOTIFY keeps all others that have one waiting until its commit is over. So none is in the transaction of a
//! request, and this connection waits for no flush, neither of the disk nor of a standby: nothing is lost with what it says, as
//! everybody looks for themselves before long.

use super::address::Address;
use super::block::Background;
use super::session::ANSWER;
use crate::failure::with_causes;
use crate::store::{Heard, Tells};
use std::future::poll_fn;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::AsyncMessage;
use tracing::{info, warn};

/// What is listened to, in this database.
const CHANNEL: &str = "halfkey";
/// What waits to be told, at most: more is not.
const QUEUE: usize = 256;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// How long nothing is said before the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(10);

/// Begins to listen, until [`Background`] ends or what this gives is dropped. That never blocks: what can't be told is forgotten.
pub fn join(background: &Background, address: &Address, heard: Heard) -> Tells {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut address = address.clone();
    // Who looks at the server's connections sees which one this is.
    let name = address.config.get_application_name().unwrap_or_default().to_owned();
    address.config.application_name(format!("{name} listens"));
    background.spawn(listen(address, receiver, heard));
    Box::new(move |text| drop(sender.try_send(text)))
}

async fn listen(address: Address, mut queue: mpsc::Receiver<String>, heard: Heard) {
    let mut said = false;
    while let Err(why) = once(&address, &mut queue, &heard, &mut said).await {
        if !std::mem::replace(&mut said, true) {
            let database = address.name();
            warn!(error = %why, %database, "what other servers are told is not heard at once, but within a second");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the connection is lost, which it says why, or nobody has anything to say any more.
async fn once(
    address: &Address,
    queue: &mut mpsc::Receiver<String>,
    heard: &Heard,
    said: &mut bool,
) -> Result<(), String> {
    let late = || format!("no answer within {} s", ANSWER.as_secs());
    let connecting = timeout(ANSWER, address.config.connect(address.tls.clone())).await;
    let (client, mut connection) = connecting.map_err(|_| late())?.map_err(|e| with_causes(&e))?;
    // Of the process that serves this connection: what it was told here it tells here as well.
    let own = AtomicI32::new(0);
    let hears = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    let ours = notification.process_id() == own.load(Ordering::Relaxed);
                    if !ours && notification.channel() == CHANNEL {
                        heard(notification.payload());
                    }
                }
                // Notices.
                Some(Ok(_)) => {}
                Some(Err(e)) => return with_causes(&e),
                None => return "the connection was closed".to_owned(),
            }
        }
    };
    let talks = async {
        let begin = async {
            let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
            own.store(row.try_get(0)?, Ordering::Relaxed);
            client.batch_execute(&format!("SET synchronous_commit = off; LISTEN {CHANNEL}")).await
        };
        timeout(ANSWER, begin).await.map_err(|_| late())?.map_err(|e| with_causes(&e))?;
        info!(database = address.name(), "hears at once what other servers are told");
        *said = false;
        const TELL: &str = "SELECT pg_notify($1, text) FROM unnest($2::TEXT[]) AS text";
        let mut texts = Vec::new();
        loop {
            texts.clear();
            if let Ok(0) = timeout(SILENCE, queue.recv_many(&mut texts, QUEUE)).await {
                return Ok(());
            }
            // After a silence nothing is told, and the server answers or does not.
            let told = timeout(ANSWER, client.query(TELL, &[&CHANNEL, &texts])).await;
            told.map_err(|_| late())?.map_err(|e| with_causes(&e))?;
        }
    };
    tokio::select! {
        why = hears => Err(why),
        done = talks => done,
    }
}
