//! Requests that read together: what all of them ask is asked in one transaction, at once. Each then works with what it was answered,
//! and must not ask anything more.

use super::queue::{Lead, Queue};
use super::session::{ANSWER, Session, Sessions, discard};
use super::shape::Shapes;
use super::statement::{Answer, Say, said};
use super::together::Together;
use super::tx::{Begun, Noted, PgTx};
use crate::store::{NextRead, Reads, Result, Tx};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Requests of one transaction.
const MOST: usize = 64;

/// Requests that wait to read.
pub struct Readings {
    sessions: Arc<Sessions>,
    shapes: Arc<Shapes>,
    queue: Arc<Queue<Waiting>>,
    runtime: Handle,
}

/// What a request asks, and where the answers are sent. Dropped, it has none.
struct Waiting {
    noted: Noted,
    go: oneshot::Sender<Begun>,
}

impl Readings {
    /// On these connections, by threads of this runtime.
    pub fn new(sessions: Arc<Sessions>, shapes: Arc<Shapes>, runtime: Handle) -> Self {
        Self { sessions, shapes, queue: Arc::default(), runtime }
    }

    /// As [`crate::store::Store::read_together`].
    pub fn read(&self, first: &dyn Fn(&PgTx<'_>)) -> Option<NextRead> {
        let noted = PgTx::note(&self.shapes, None, first)?;
        let (go, answers) = oneshot::channel();
        if let Some(lead) = self.queue.join(Waiting { noted, go }) {
            self.runtime.spawn(lead_readings(lead, self.sessions.clone(), self.shapes.clone()));
        }
        let shapes = self.shapes.clone();
        Some(Box::pin(async move {
            let answered: Box<dyn Reads> = Box::new(Answered { shapes, begun: answers.await.ok() });
            answered
        }))
    }
}

async fn lead_readings(mut lead: Lead<Waiting>, sessions: Arc<Sessions>, shapes: Arc<Shapes>) {
    while let Some(group) = lead.next(MOST, |_, _| true) {
        // Who is dropped on the way is left to itself.
        let Some(session) = sessions.get().await else { continue };
        if timeout(ANSWER, answer(&session, &shapes, group)).await.ok().flatten().is_none() {
            discard(session);
        }
    }
}

async fn answer(session: &Session, shapes: &Shapes, group: Vec<Waiting>) -> Option<()> {
    let (asked, go): (Vec<_>, Vec<_>) = group.into_iter().map(|waits| (waits.noted.asked, waits.go)).unzip();
    let together = Together::new(shapes, asked);
    let say = [Say::Text(super::BEGIN_TO_READ)].into_iter();
    let say = say.chain(together.statements().map(Say::Bound)).chain([Say::Text("ROLLBACK")]).collect();
    let answers: std::result::Result<Vec<Answer>, _> = said(session, say).await.ok()?.into_iter().collect();
    let mut answers = answers.ok()?;
    answers.pop();
    let known = together.answered(answers.into_iter().skip(1).collect())?;
    for (known, go) in known.into_iter().zip(go) {
        let _ = go.send(Begun::new(vec![], known, None));
    }
    Some(())
}

/// What a request was answered; none if it has to ask itself.
struct Answered {
    shapes: Arc<Shapes>,
    begun: Option<Begun>,
}

impl Reads for Answered {
    fn run(self: Box<Self>, work: &mut dyn FnMut(&dyn Tx)) -> Option<Result<()>> {
        let tx = PgTx::shared(&self.shapes, None, self.begun?, None);
        work(&tx);
        let (failed, _) = tx.over();
        failed.is_none().then_some(Ok(()))
    }
}
