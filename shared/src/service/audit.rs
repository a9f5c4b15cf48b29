//! What a service says of its own books: statements that must hold, each with what offends against it.

mod routes;

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

pub(crate) use self::routes::{document, router};
use crate::db::Db;

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

/// Where one aggregate stands in a service, for holding services against each other.
#[derive(Debug, Clone, Serialize, FromRow, ToSchema)]
pub struct Standing {
    /// The aggregate, by the id that all services know it by.
    pub id: Uuid,
    /// In the service's words; several where there are several things about it.
    pub states: Vec<String>,
    /// The money that it is about, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    /// Of that money.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// How many seconds ago it began, by the database's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
}

/// A page of aggregates, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub struct Standings {
    standings: Vec<Standing>,
    /// Where the next page begins, as `after`; none if this is the last one.
    next: Option<Uuid>,
}

/// Which page is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Part {
    /// Where the page before ended; only greater ids come.
    after: Option<Uuid>,
    /// How many, at most 5000; 1000 unless given.
    limit: Option<u16>,
}

/// A page of where aggregates stand. The statement selects `id`, `states`, `amount`, `currency` and `age` of those whose id is
/// greater than `$1`, in the order of the ids, at most `$2`; an index must have that order, or each page costs a whole table.
///
/// # Errors
/// If the database does not answer.
pub async fn list(db: &Db, statement: &'static str, part: &Part) -> Result<Standings, sqlx::Error> {
    let limit = i64::from(part.limit.unwrap_or(1000).clamp(1, 5000));
    let after = part.after.unwrap_or(Uuid::nil());
    let mut db = db.survey().await?;
    // The order is the index's. A planner that takes a table for small, because it has grown since it was looked at, would
    // read and sort all of it for every page.
    let by_index = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off; \
                    set local enable_hashagg = off";
    sqlx::raw_sql(by_index).execute(&mut *db).await?;
    let standings: Vec<Standing> =
        sqlx::query_as(statement).bind(after).bind(limit).fetch_all(&mut *db).await?;
    db.end().await?;
    let full = standings.len() as i64 == limit;
    let next = standings.last().filter(|_| full).map(|last| last.id);
    Ok(Standings { standings, next })
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
