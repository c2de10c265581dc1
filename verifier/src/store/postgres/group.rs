//! Group commit. A request needs the server three times, each time by a change of threads here and there, and by statements of which
//! each costs many times what its row does. So requests of different nodes that come at the same time share a transaction: their nodes
//! are held and their questions are asked at once, one after the other they do their work with the answers, and what they change goes
//! with the commit.
//!
//! Nobody waits in order to fill a group: while one is at the server, the next one gathers.
//!
//! Whoever does its work in a group must not ask anything more: that would have to be waited for. Nor has it said anything to the server
//! before it is done, so one that can't go on, or fails, takes nothing back and no other with it. It asks once more, alone. The same do
//! all of a group whose commit the server refuses, as one of them was the reason, and who finds its node held by another: a group
//! waits for no node.

use super::commit::{End, commit, undecided};
use super::queue::{Lead, Queue};
use super::session::{ANSWER, Held, Session, Sessions, discard};
use super::shape::Shapes;
use super::statement::{Answer, Bound, Say, said};
use super::together::Together;
use super::trail::{END, end};
use super::tx::{Begun, NUMBERS, Noted, PgTx, TrailEnd, key, rows_of};
use crate::store::{Changes, Durable, NextTurn, Result, StoreError, Then, Turn, Tx};
use halfkey_protocol::NodeId;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::types::Type;

/// Requests of one transaction.
const MOST: usize = 64;

/// Requests that wait for a group.
pub struct Groups {
    shared: Arc<Shared>,
    queue: Arc<Queue<Waiting>>,
    runtime: Handle,
}

struct Shared {
    sessions: Arc<Sessions>,
    shapes: Arc<Shapes>,
    /// How a transaction begins that changes rows.
    begin: String,
}

/// A request, and where its turn is sent. Dropped, it has none.
struct Waiting {
    node: NodeId,
    noted: Noted,
    go: oneshot::Sender<Share>,
}

impl Groups {
    /// On these connections, by threads of this runtime.
    pub fn new(sessions: Arc<Sessions>, shapes: Arc<Shapes>, begin: String, runtime: Handle) -> Self {
        Self { shared: Arc::new(Shared { sessions, shapes, begin }), queue: Arc::default(), runtime }
    }

    /// The next turn of a request about one node that will ask what `first` asks. None if the server was never told some of that: it is
    /// for who may wait.
    pub fn turn(&self, first: &dyn Fn(&PgTx<'_>)) -> Option<NextTurn> {
        let noted = PgTx::note(&self.shared.shapes, Some(Changes::Rows), first)?;
        let [node] = noted.held[..] else { return None };
        let (go, turn) = oneshot::channel();
        if let Some(lead) = self.queue.join(Waiting { node, noted, go }) {
            self.runtime.spawn(lead_groups(lead, self.shared.clone()));
        }
        Some(Box::pin(async move {
            let turn: Box<dyn Turn> = match turn.await {
                Ok(share) => Box::new(share),
                Err(_) => Box::new(Share::default()),
            };
            turn
        }))
    }
}

async fn lead_groups(mut lead: Lead<Waiting>, shared: Arc<Shared>) {
    let other = |group: &[Waiting], one: &Waiting| group.iter().all(|before| before.node != one.node);
    while let Some(group) = lead.next(MOST, other) {
        // Who is dropped on the way is left to itself.
        if let Some(session) = shared.sessions.get().await {
            shared.serve(session, group).await;
        }
    }
}

impl Shared {
    async fn serve(&self, session: Session, group: Vec<Waiting>) {
        let (ended, end) = oneshot::channel();
        let Ok(Some(begun)) = timeout(ANSWER, self.begun(&session, group, ended)).await else {
            return discard(session);
        };
        Group::go_on(begun);
        let Ok(Ok(Ended { changes, fates })) = timeout(ANSWER, end).await else { return discard(session) };
        let fate = match changes.is_empty() {
            true => timeout(ANSWER, session.batch_execute("ROLLBACK")).await.map(|rolled| match rolled {
                Ok(()) => End::Committed,
                Err(e) => End::Undone(super::session::failure(&e)),
            }),
            false => timeout(ANSWER, commit(&session, Changes::Rows, changes.iter())).await,
        };
        let fate = match fate.unwrap_or_else(|_| End::Unknown(super::session::Failure::late())) {
            End::Committed => Ok(()),
            End::Undone(failed) => Err(failed.error),
            End::Unknown(failed) => Err(undecided(&failed)),
        };
        let fate = fate.map_err(|e| self.sessions.named(e));
        match fate.is_ok() {
            true => drop(session),
            false => discard(session),
        }
        for waits in fates {
            let _ = waits.send(fate.clone());
        }
    }

    /// Begins a transaction that holds the nodes which nobody else does, then the end of the trail, and has everything answered.
    async fn begun(
        &self,
        session: &Session,
        group: Vec<Waiting>,
        ended: oneshot::Sender<Ended>,
    ) -> Option<Box<Group>> {
        // Waits for none of them.
        const HOLD: &str = "SELECT pg_try_advisory_xact_lock(v) FROM unnest($1::BIGINT[]) AS v";
        let plain = |sql: &str| Bound::new(self.shapes.learn(sql, &[]), &[], false).ok();
        let keys: Vec<i64> = group.iter().map(|waits| key(waits.node)).collect();
        let hold = Bound::new(self.shapes.learn(HOLD, &[Type::INT8_ARRAY]), &[&keys], false).ok()?;
        let trail = plain(&format!("SELECT {}", Held::Trail.exclusive()))?;
        let count = i64::try_from(group.iter().filter(|waits| waits.noted.expects_number).count()).ok()?;
        let numbers = Bound::new(self.shapes.learn(NUMBERS, &[Type::INT8]), &[&count], false).ok()?;
        let asks_end = plain(END)?;
        let before = [Say::Text(&self.begin)].into_iter();
        let before = before.chain([&hold, &trail, &numbers, &asks_end].map(Say::Bound));
        let (mut waiting, mut asked) = (Vec::new(), Vec::new());
        for Waiting { node, noted, go } in group {
            asked.push(noted.asked);
            waiting.push((node, noted.expects_number, go));
        }
        let together = Together::new(&self.shapes, asked);
        let say = before.chain(together.statements().map(Say::Bound)).collect();
        let answers = said(session, say).await.ok()?;
        let answers: std::result::Result<Vec<Answer>, _> = answers.into_iter().collect();
        let mut answers = answers.ok()?.into_iter().skip(1);
        let held = rows_of(answers.next()?);
        answers.next()?;
        let numbers = rows_of(answers.next()?);
        let mut numbers = numbers.iter().map(|row| row.u64(0).ok());
        let end = rows_of(answers.next()?).first().map(end).transpose().ok()?;
        let known = together.answered(answers.collect())?;
        let mut members = VecDeque::new();
        for (((node, expects_number, go), known), held) in waiting.into_iter().zip(known).zip(held.iter()) {
            let number = if expects_number { Some(numbers.next()??) } else { None };
            if held.get(0).ok()? {
                members.push_back((Begun::new(vec![node], known, number), go));
            }
        }
        let (shapes, changes, fates) = (self.shapes.clone(), Vec::new(), Vec::new());
        Some(Box::new(Group { shapes, end, changes, fates, members, ended }))
    }
}

/// A transaction that is shared. Whoever has it, has its turn.
struct Group {
    shapes: Arc<Shapes>,
    end: TrailEnd,
    /// Said with the commit.
    changes: Vec<Bound>,
    fates: Vec<oneshot::Sender<Result<()>>>,
    /// Those whose turn comes.
    members: VecDeque<(Begun, oneshot::Sender<Share>)>,
    ended: oneshot::Sender<Ended>,
}

/// What all have done.
struct Ended {
    changes: Vec<Bound>,
    fates: Vec<oneshot::Sender<Result<()>>>,
}

impl Group {
    /// The next one's turn; after the last one it is over.
    fn go_on(mut group: Box<Self>) {
        while let Some((begun, go)) = group.members.pop_front() {
            match go.send(Share { group: Some(group), begun }) {
                Ok(()) => return,
                // It went away.
                Err(mut gone) => match gone.group.take() {
                    Some(back) => group = back,
                    None => return,
                },
            }
        }
        let Self { changes, fates, ended, .. } = *group;
        let _ = ended.send(Ended { changes, fates });
    }
}

/// A turn; without a group it is none.
#[derive(Default)]
struct Share {
    group: Option<Box<Group>>,
    begun: Begun,
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            Group::go_on(group);
        }
    }
}

impl Turn for Share {
    fn run(mut self: Box<Self>, work: &mut dyn FnMut(&dyn Tx) -> Then) -> Option<Result<Durable>> {
        let begun = std::mem::take(&mut self.begun);
        let group = self.group.as_mut()?;
        let tx = PgTx::shared(&group.shapes, Some(Changes::Rows), begun, Some(group.end));
        let then = catch_unwind(AssertUnwindSafe(|| work(&tx)));
        let end = tx.trail_end();
        let (failed, later) = tx.over();
        let done = match (&then, failed) {
            (_, Some(failed)) => Err(failed.error),
            (Ok(Then::CommitNow), None) => {
                Err(StoreError::Unavailable("our bug: a document in a group".to_owned()))
            }
            (Ok(Then::RollBack) | Err(_), None) => Ok(()),
            (Ok(Then::Commit), None) => {
                group.changes.extend(later);
                group.end = end.unwrap_or(group.end);
                Ok(())
            }
        };
        let (waits, fate) = oneshot::channel();
        if done.is_ok() {
            group.fates.push(waits);
        }
        drop(self);
        match then {
            Err(panic) => resume_unwind(panic),
            Ok(_) => Some(done.map(|()| -> Durable {
                let lost = || Err(StoreError::Unavailable("the group was left".to_owned()));
                Box::pin(async move { fate.await.unwrap_or_else(|_| lost()) })
            })),
        }
    }
}
