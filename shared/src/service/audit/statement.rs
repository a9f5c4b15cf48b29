//! A service's consistency checks.

use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Most ids that one check names. More would bury the reader, and the first ones show the pattern.
const MAX_VIOLATIONS: usize = 20;

/// A consistency check as a service declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementSpec {
    /// The number, from 1 to 9, of the system-wide invariant that this check belongs to.
    pub invariant: u8,
    /// A stable name, for programs.
    pub name: &'static str,
    /// What must be true, in a sentence.
    pub says: &'static str,
    /// Selects the ids that violate it, at most 20.
    pub sql: &'static str,
}

/// A consistency check of a service's tables, and its result.
///
/// Each check runs as one SQL statement, and so in one snapshot. It must hold at any moment, also while orders are under
/// way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Statement {
    /// The number, from 1 to 9, of the system-wide invariant that this check belongs to.
    invariant: u8,
    /// Stable, for programs.
    name: &'static str,
    /// What must be true, in a sentence.
    says: &'static str,
    /// Whether nothing violates it.
    holds: bool,
    /// The ids that violate it, at most 20.
    violations: Vec<String>,
    /// The reason why the check could not run. It does not hold then, because nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Statement {
    /// The result of a check. It holds if nothing violates it; violations beyond [`MAX_VIOLATIONS`] are cut off.
    fn new(spec: &StatementSpec, mut violations: Vec<String>) -> Self {
        violations.truncate(MAX_VIOLATIONS);
        let StatementSpec { invariant, name, says, .. } = *spec;
        Self { invariant, name, says, holds: violations.is_empty(), violations, error: None }
    }

    /// The result of a check that could not run.
    fn failed(spec: &StatementSpec, error: &sqlx::Error) -> Self {
        let error = Some(format!("a row can't be read: {error}"));
        Self { holds: false, error, ..Self::new(spec, Vec::new()) }
    }
}

/// Runs the checks. A row that can't be read fails the checks that read it, and no other.
pub(super) async fn check(
    db: &mut PgConnection,
    specs: &'static [StatementSpec],
) -> Result<Vec<Statement>, sqlx::Error> {
    let mut statements = Vec::with_capacity(specs.len());
    for spec in specs {
        // Without it, a failure would end the transaction, and with it the other checks.
        sqlx::query("savepoint one_check").execute(&mut *db).await?;
        let found = sqlx::query_scalar(spec.sql).fetch_all(&mut *db).await;
        statements.push(match found {
            Ok(violations) => Statement::new(spec, violations),
            Err(error) if is_about_data(&error) => {
                sqlx::query("rollback to savepoint one_check").execute(&mut *db).await?;
                Statement::failed(spec, &error)
            }
            Err(error) => return Err(error),
        });
    }
    Ok(statements)
}

/// Returns whether the server could not read a value (SQLSTATE class 22, "data exception").
fn is_about_data(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("22"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_holds_without_violations_and_names_twenty_at_most() {
        let spec = StatementSpec { invariant: 3, name: "some", says: "", sql: "" };
        assert!(Statement::new(&spec, vec![]).holds);
        let many = Statement::new(&spec, (0..50).map(|id| id.to_string()).collect());
        assert!(!many.holds);
        assert_eq!(many.violations.len(), 20);
        assert_eq!(many.invariant, 3);
    }
}
