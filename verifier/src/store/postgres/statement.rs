//! Statements that are sent together. Each costs its own work, and all of them one way to the server and back.

use super::session::Session;
use super::shape::Shape;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Row, Statement};

/// Values of a statement.
pub type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement with its values, as they are sent.
pub struct Bound {
    shape: Arc<Shape>,
    values: Vec<Sent>,
    /// What is wanted to know is how many rows it has changed.
    counts: bool,
}

impl Bound {
    /// With these values.
    ///
    /// # Errors
    /// When a value is of another type than the statement's, or none that a server has.
    pub fn new(shape: Arc<Shape>, values: Values<'_>, counts: bool) -> Result<Self, String> {
        let types = &shape.types;
        if types.len() != values.len() {
            return Err(format!("our bug: expected {} values, found {}", types.len(), values.len()));
        }
        let encode = |(value, ty): (&&(dyn ToSql + Sync), &Type)| {
            let mut bytes = BytesMut::new();
            match value.to_sql_checked(ty, &mut bytes).map_err(|e| format!("our bug: {e}"))? {
                IsNull::Yes => Ok(Sent(None)),
                // Found here it is the fault of one request, and not of all that are committed with it.
                IsNull::No if *ty == Type::TEXT && bytes.contains(&0) => {
                    Err("expected a text, found a NUL in it".to_owned())
                }
                IsNull::No => Ok(Sent(Some(bytes))),
            }
        };
        let values = values.iter().zip(types).map(encode).collect::<Result<_, String>>()?;
        Ok(Self { shape, values, counts })
    }

    /// Of values that are encoded; it reads.
    pub fn of(shape: Arc<Shape>, values: Vec<Sent>) -> Self {
        Self { shape, values, counts: false }
    }

    /// What it says, without its values.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// Its values.
    pub fn values(&self) -> &[Sent] {
        &self.values
    }

    /// Whether it is the same question.
    pub fn asks_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shape, &other.shape) && self.values == other.values
    }

    /// Whether it reads only.
    pub fn reads(&self) -> bool {
        !self.counts && self.shape.reads
    }

    /// As [`Shape::is_touched_by`].
    pub fn is_touched_by(&self, other: &Self) -> bool {
        self.shape.is_touched_by(&other.shape)
    }
}

/// A value, encoded for its type. None is NULL.
#[derive(PartialEq, Eq)]
pub struct Sent(Option<BytesMut>);

impl Sent {
    /// An array of one dimension, of values of this type.
    pub fn array<'a>(of: &Type, each: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let length = |len: usize| i32::try_from(len).unwrap_or(i32::MAX).to_be_bytes();
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&length(1));
        bytes.extend_from_slice(&i32::from(each.clone().any(|value| value.0.is_none())).to_be_bytes());
        bytes.extend_from_slice(&of.oid().to_be_bytes());
        bytes.extend_from_slice(&length(each.clone().count()));
        // Where it begins.
        bytes.extend_from_slice(&length(1));
        for Self(value) in each {
            match value {
                Some(value) => {
                    bytes.extend_from_slice(&length(value.len()));
                    bytes.extend_from_slice(value);
                }
                None => bytes.extend_from_slice(&(-1i32).to_be_bytes()),
            }
        }
        Self(Some(bytes))
    }
}

/// [`ToSql`] wants it. What is in a row is nobody's who reads a log.
impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.as_ref().map_or(0, |bytes| bytes.len()))
    }
}

impl ToSql for Sent {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        Ok(match &self.0 {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// What is sent.
#[derive(Clone, Copy)]
pub enum Say<'a> {
    /// SQL without values, of one or more statements.
    Text(&'a str),
    /// A statement.
    Bound(&'a Bound),
}

/// What comes back.
pub enum Answer {
    /// Rows that were found.
    Rows(Vec<Row>),
    /// How many were changed.
    Count(u64),
}

/// Sends all of it at once, in this order, and waits for each answer. After an error in a transaction those that follow are errors,
/// too.
///
/// # Errors
/// When one of them can't be prepared: nothing was sent.
pub async fn said(session: &Session, each: Vec<Say<'_>>) -> Result<Vec<Result<Answer, Error>>, Error> {
    let mut prepared = Vec::with_capacity(each.len());
    for say in each {
        prepared.push(match say {
            Say::Text(sql) => Prepared::Text(sql),
            Say::Bound(bound) => Prepared::Bound(session.prepare_cached(&bound.shape.sql).await?, bound),
        });
    }
    Ok(sent(session, prepared).await)
}

/// A statement that the connection knows.
enum Prepared<'a> {
    Text(&'a str),
    Bound(Statement, &'a Bound),
}

async fn sent(client: &Client, each: Vec<Prepared<'_>>) -> Vec<Result<Answer, Error>> {
    let mut each: Vec<_> = each.into_iter().map(|say| Box::pin(one(client, say))).collect();
    let mut answers: Vec<_> = each.iter().map(|_| None).collect();
    let (mut sent, mut next) = (false, 0);
    poll_fn(move |context| {
        if !sent {
            // What is polled first is sent.
            for (work, answer) in each.iter_mut().zip(&mut answers) {
                *answer = ready(work.as_mut().poll(context));
            }
            sent = true;
        }
        // They are answered in this order.
        for (work, answer) in each.iter_mut().zip(&mut answers).skip(next) {
            if answer.is_none() {
                *answer = ready(work.as_mut().poll(context));
            }
            if answer.is_none() {
                return Poll::Pending;
            }
            next += 1;
        }
        Poll::Ready(answers.drain(..).flatten().collect())
    })
    .await
}

fn ready<T>(polled: Poll<T>) -> Option<T> {
    match polled {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

async fn one(client: &Client, say: Prepared<'_>) -> Result<Answer, Error> {
    match say {
        Prepared::Text(sql) => client.batch_execute(sql).await.map(|()| Answer::Count(0)),
        Prepared::Bound(statement, bound) => {
            let values: Vec<_> = bound.values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
            match bound.counts {
                true => client.execute(&statement, &values).await.map(Answer::Count),
                false => client.query(&statement, &values).await.map(Answer::Rows),
            }
        }
    }
}

/// Has it sent, and waits for nothing: its answer comes before that of what is sent next.
pub fn send_only(work: impl Future) {
    let _ = pin!(work).poll(&mut Context::from_waker(Waker::noop()));
}
