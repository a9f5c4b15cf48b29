//! Whose tables these are. Each service has its own, and so has each installation.
//!
//! Two services on the same tables would share an inbox and an outbox. Each would take the other's messages for
//! repetitions of its own, and would answer an undo of a step that it never did with "done". So the first service that
//! comes takes the tables, and [`claim`] refuses every other one.

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::db::quote_ident;

/// The error of a service that was given the tables of another one.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The tables belong to another service.
    #[error(
        "the database `{database}` belongs to the service {owner}, and {service} needs one of its own; correct \
         DATABASE_URL"
    )]
    Foreign {
        /// The name of the database.
        database: String,
        /// The service that owns the tables.
        owner: String,
        /// The service that was refused.
        service: String,
    },
    /// The database did not answer, or refused the statement.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Takes the core's tables in `schema` for this service, and returns the id of the tables. It changes nothing if the
/// service has them already. The connection must be allowed to write.
///
/// # Errors
/// Fails if another service has them, or if the database does not answer.
pub async fn claim(db: &mut PgConnection, schema: &str, service: &str) -> Result<Uuid, OwnerError> {
    let owner = format!("{}.owner", quote_ident(schema));
    let take = format!("insert into {owner} (service) values ($1) on conflict do nothing");
    sqlx::query(AssertSqlSafe(take)).bind(service).execute(&mut *db).await?;
    // The row of a process that came at the same moment is visible now, because the insert has waited for it.
    let read = format!("select service, database_id, current_database()::text from {owner}");
    let (known, id, database): (String, Uuid, String) =
        sqlx::query_as(AssertSqlSafe(read)).fetch_one(db).await?;
    if known == service {
        return Ok(id);
    }
    Err(OwnerError::Foreign { database, owner: known, service: service.to_owned() })
}

/// Checks that no other service has taken the core's tables in `schema`. The tables need not exist. Migrations ask
/// this before they change anything.
///
/// # Errors
/// Fails as [`claim`] does.
pub async fn check(db: &mut PgConnection, schema: &str, service: &str) -> Result<(), OwnerError> {
    let table = format!("{}.owner", quote_ident(schema));
    let exists: bool =
        sqlx::query_scalar("select to_regclass($1) is not null").bind(&table).fetch_one(&mut *db).await?;
    if !exists {
        return Ok(());
    }
    let read = format!("select service, current_database()::text from {table}");
    let known: Option<(String, String)> = sqlx::query_as(AssertSqlSafe(read)).fetch_optional(db).await?;
    match known {
        Some((owner, database)) if owner != service => {
            Err(OwnerError::Foreign { database, owner, service: service.to_owned() })
        }
        _ => Ok(()),
    }
}
