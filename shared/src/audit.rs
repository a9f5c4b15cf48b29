//! What a service says of its own books: statements that must hold, each with what offends against it.

use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Most offenders that a statement names. More would bury the reader; the first ones show the pattern.
pub const MOST_NAMED: usize = 20;

/// Something that must be true of a service's tables, and whether it is.
///
/// A statement is looked up in one SQL statement, and so in one snapshot: it must hold at any moment, also while orders
/// are under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Statement {
    /// Stable, for programs.
    pub name: &'static str,
    /// What must be true, in a sentence.
    pub says: &'static str,
    /// Whether nothing offends against it.
    pub holds: bool,
    /// The ids of what offends against it, at most 20.
    pub offending: Vec<String>,
}

impl Statement {
    /// A statement with its offenders; it holds if there are none. Beyond [`MOST_NAMED`] they are cut off.
    pub fn new(name: &'static str, says: &'static str, mut offending: Vec<String>) -> Self {
        offending.truncate(MOST_NAMED);
        Self { name, says, holds: offending.is_empty(), offending }
    }
}

/// Looks the statements up: each has its name, what must be true, and SQL that selects the ids of what offends against it.
///
/// # Errors
/// If the database does not answer.
pub async fn look_up(
    db: &mut PgConnection,
    statements: &[(&'static str, &'static str, &'static str)],
) -> Result<Vec<Statement>, sqlx::Error> {
    let mut looked_up = Vec::with_capacity(statements.len());
    for &(name, says, offending) in statements {
        looked_up.push(Statement::new(name, says, sqlx::query_scalar(offending).fetch_all(&mut *db).await?));
    }
    Ok(looked_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_holds_if_nothing_offends_and_names_twenty_at_most() {
        assert!(Statement::new("none", "", vec![]).holds);
        let many = Statement::new("many", "", (0..50).map(|id| id.to_string()).collect());
        assert!(!many.holds);
        assert_eq!(many.offending.len(), 20);
    }
}
