//! Questions of several requests, asked as one: what they ask in the same words is a single statement for all of their values. Each
//! statement costs its own work here and at the server, many times that of its rows.

use super::row::Found;
use super::shape::{Shape, Shapes};
use super::statement::{Answer, Bound, Sent};
use super::tx::{Known, Rows};
use std::collections::HashMap;
use std::sync::Arc;

/// Questions, each with the statement that asks it.
pub struct Together {
    statements: Vec<Asks>,
    /// By request and question: which statement, and which of its values.
    places: Vec<Vec<(usize, usize)>>,
}

/// One statement, with the values that it is asked with: all different.
struct Asks {
    questions: Vec<Arc<Bound>>,
    merged: Option<Bound>,
}

impl Together {
    /// Of these requests.
    pub fn new(shapes: &Shapes, requests: Vec<Vec<Bound>>) -> Self {
        let mut statements: Vec<Asks> = Vec::new();
        let mut by_shape: HashMap<*const Shape, usize> = HashMap::new();
        let mut place = |asked: Bound| {
            let at = *by_shape.entry(Arc::as_ptr(asked.shape())).or_insert_with(|| {
                statements.push(Asks { questions: Vec::new(), merged: None });
                statements.len() - 1
            });
            let questions = &mut statements[at].questions;
            let known = questions.iter().position(|known| known.asks_as(&asked));
            let number = known.unwrap_or_else(|| {
                questions.push(Arc::new(asked));
                questions.len() - 1
            });
            (at, number)
        };
        let places = requests.into_iter().map(|asked| asked.into_iter().map(&mut place).collect()).collect();
        for asks in &mut statements {
            asks.merged = merged(shapes, &asks.questions);
        }
        Self { statements, places }
    }

    /// What is asked, in this order.
    pub fn statements(&self) -> impl Iterator<Item = &Bound> {
        self.statements
            .iter()
            .filter_map(|asks| asks.merged.as_ref().or_else(|| asks.questions.first().map(|asked| &**asked)))
    }

    /// Each request's questions in their order, with what the statements were answered. None if that are no such answers.
    pub fn answered(self, answers: Vec<Answer>) -> Option<Vec<Vec<Known>>> {
        if answers.len() != self.statements.len() {
            return None;
        }
        let mut rows = Vec::new();
        for (asks, answer) in self.statements.iter().zip(answers) {
            let Answer::Rows(found) = answer else { return None };
            let found = found.into_iter().map(Found);
            rows.push(match asks.merged {
                None => vec![found.collect::<Rows>()],
                Some(_) => {
                    let mut each: Vec<_> = asks.questions.iter().map(|_| Vec::new()).collect();
                    for row in found {
                        // Behind the columns that were asked for; from 1.
                        let number: usize =
                            row.get::<i64>(row.0.len().checked_sub(1)?).ok()?.try_into().ok()?;
                        each.get_mut(number.checked_sub(1)?)?.push(row);
                    }
                    each.into_iter().map(Rows::from).collect()
                }
            });
        }
        let answer = |(at, number): (usize, usize)| {
            let asked: &Asks = self.statements.get(at)?;
            Some(Known(asked.questions.get(number)?.clone(), rows.get(at)?.get(number)?.clone()))
        };
        self.places.into_iter().map(|places| places.into_iter().map(answer).collect()).collect()
    }
}

/// All of them as one; none of a single one.
fn merged(shapes: &Shapes, questions: &[Arc<Bound>]) -> Option<Bound> {
    let [first, _, ..] = questions else { return None };
    let shape = first.shape().together.get_or_init(|| shapes.learn(&sql(first.shape()), &[])).clone();
    let column =
        |(place, ty)| Sent::array(ty, questions.iter().filter_map(move |asked| asked.values().get(place)));
    let values = first.shape().types.iter().enumerate().map(column).collect();
    Some(Bound::of(shape, values))
}

/// Asked once for each of the values, which come as arrays. With `OFFSET` the server does it just so, by the indexes that the question
/// itself would use, and does not look for a way to join the tables as a whole.
fn sql(shape: &Shape) -> String {
    let numbers = 1..=shape.types.len();
    let each = |text: &dyn Fn(usize) -> String| numbers.clone().map(text).collect::<Vec<_>>().join(", ");
    let arrays = each(&|number| format!("${number}::{}[]", shape.types[number - 1].name()));
    let names = each(&|number| format!("v{number}"));
    let mut asked = String::new();
    let mut rest = shape.sql.as_str();
    while let Some(at) = rest.find('$') {
        asked.push_str(&rest[..at]);
        asked.push_str("v.v");
        rest = &rest[at + 1..];
    }
    asked.push_str(rest);
    format!(
        "SELECT q.*, v.n FROM unnest({arrays}) WITH ORDINALITY AS v({names}, n) CROSS JOIN LATERAL ({asked} OFFSET 0) AS q"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::types::Type;

    #[test]
    fn one_statement_for_all_values() {
        let asked = "SELECT a FROM t WHERE b = $1 AND c < $2 ORDER BY a LIMIT $2";
        let together = sql(&Shape::new(asked, vec![Type::TEXT, Type::INT8]));
        assert_eq!(
            together,
            "SELECT q.*, v.n FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY AS v(v1, v2, n) CROSS JOIN LATERAL \
             (SELECT a FROM t WHERE b = v.v1 AND c < v.v2 ORDER BY a LIMIT v.v2 OFFSET 0) AS q"
        );
    }
}
