//! What a service's role may do in its database, where another role owns the tables. It needs no more: what takes an owner's
//! rights at run time, the inbox's days, is done by functions of the migrations.

use sqlx::{AssertSqlSafe, PgConnection};

/// Lets `role` use what the migrations have made in the current schema. The caller's connection is the owner's.
///
/// It may read and write rows, and empty the outbox's slots, which the relay does by truncation. It may not make, change or
/// drop anything, nor say that a migration was applied.
///
/// # Errors
/// If there is no such role, or the connection's role may not grant.
pub async fn grant(db: &mut PgConnection, role: &str) -> Result<(), sqlx::Error> {
    let (role, schema): (String, String) =
        sqlx::query_as("select quote_ident($1), quote_ident(current_schema())")
            .bind(role)
            .fetch_one(&mut *db)
            .await?;
    for statement in [
        format!("grant usage on schema {schema} to {role}"),
        format!("grant select, insert, update, delete on all tables in schema {schema} to {role}"),
        format!("revoke insert, update, delete on _sqlx_migrations from {role}"),
        format!("grant truncate on outbox_0, outbox_1, outbox_2 to {role}"),
        format!("grant usage, select on all sequences in schema {schema} to {role}"),
        format!("revoke execute on all functions in schema {schema} from public"),
        format!("grant execute on all functions in schema {schema} to {role}"),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *db).await?;
    }
    Ok(())
}
