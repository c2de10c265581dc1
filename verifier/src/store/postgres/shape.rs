//! What the text of a statement says. It is looked at once: all servers and requests say the same few.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio_postgres::types::Type;

/// A statement, without values.
pub struct Shape {
    /// Its text.
    pub sql: String,
    /// Types of its values.
    pub types: Vec<Type>,
    /// It begins as one that reads.
    pub reads: bool,
    /// The one that asks it for many values at once.
    pub together: OnceLock<Arc<Shape>>,
    words: HashSet<String>,
    /// Those of the words that stand where a table is named.
    tables: Vec<String>,
}

impl Shape {
    /// Looks at a text.
    pub fn new(sql: &str, types: Vec<Type>) -> Self {
        let tables = words(sql).zip(words(sql).skip(1));
        let tables = tables.filter(|(before, _)| matches!(*before, "FROM" | "INTO" | "UPDATE" | "JOIN"));
        let mut tables: Vec<_> = tables.map(|(_, table)| table.to_owned()).collect();
        tables.sort();
        tables.dedup();
        Self {
            reads: matches!(words(sql).next(), Some("SELECT" | "WITH")),
            words: words(sql).map(str::to_owned).collect(),
            together: OnceLock::new(),
            tables,
            types,
            sql: sql.to_owned(),
        }
    }

    /// Whether it is about a table that the other one changes or looks at, as far as their words say: rather once too often.
    pub fn is_touched_by(&self, other: &Self) -> bool {
        other.tables.iter().any(|table| self.words.contains(table))
    }
}

fn words(sql: &str) -> impl Iterator<Item = &str> {
    let separates = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    sql.split(separates).filter(|word| !word.is_empty())
}

/// Those that were said so far, whatever the connection: each is there once.
#[derive(Default)]
pub struct Shapes(RwLock<HashMap<String, Arc<Shape>>>);

impl Shapes {
    /// One, if it was said.
    pub fn known(&self, sql: &str) -> Option<Arc<Shape>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(sql).cloned()
    }

    /// One that a server has told the types of.
    pub fn learn(&self, sql: &str, types: &[Type]) -> Arc<Shape> {
        let mut shapes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let shape = shapes.entry(sql.to_owned()).or_insert_with(|| Arc::new(Shape::new(sql, types.to_vec())));
        shape.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_statement() {
        let sql = "INSERT INTO boots (node_id) VALUES ($1)";
        assert_eq!(words(sql).collect::<Vec<_>>(), ["INSERT", "INTO", "boots", "node_id", "VALUES", "1"]);
        let change = Shape::new(sql, vec![]);
        assert!(!change.reads);
        let touched = |sql| Shape::new(sql, vec![]).is_touched_by(&change);
        assert!(touched("SELECT ticket FROM boots") && touched("SELECT 1 FROM nodes JOIN boots"));
        assert!(!touched("SELECT node_id FROM nodes"));
    }
}
