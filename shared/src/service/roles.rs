//! The permissions of a service's role in its database, if another role owns the tables. The role needs no owner's
//! rights at run time: functions of the migrations create and drop the partitions of the inbox.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::db::quote_ident;

/// Grants `role` the permissions for the current schema and for `schema`, which has the core's tables. The connection must be the owner's.
///
/// The role may read and write rows, and truncate the slots of the outbox, as the relay does. It may not create,
/// change or drop anything, and it may not mark a migration as applied.
///
/// # Errors
/// Fails if the role does not exist, or if the connection's role may not grant.
pub async fn grant(db: &mut PgConnection, schema: &str, role: &str) -> Result<(), sqlx::Error> {
    let (role, own): (String, String) =
        sqlx::query_as("select quote_ident($1), quote_ident(current_schema())")
            .bind(role)
            .fetch_one(&mut *db)
            .await?;
    let core = quote_ident(schema);
    for schema in [&own, &core] {
        run(db, format!("grant usage on schema {schema} to {role}")).await?;
        run(db, format!("grant select, insert, update, delete on all tables in schema {schema} to {role}"))
            .await?;
        run(db, format!("grant usage, select on all sequences in schema {schema} to {role}")).await?;
        run(db, format!("revoke execute on all functions in schema {schema} from public")).await?;
        run(db, format!("grant execute on all functions in schema {schema} to {role}")).await?;
    }
    let histories: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where schemaname in (current_schema(), $1) and tablename ~ '^_.*_migrations$'",
    )
    .bind(schema)
    .fetch_all(&mut *db)
    .await?;
    for history in histories {
        run(db, format!("revoke insert, update, delete on {history} from {role}")).await?;
    }
    run(db, format!("grant truncate on {core}.outbox_0, {core}.outbox_1, {core}.outbox_2 to {role}")).await
}

async fn run(db: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(statement)).execute(db).await?;
    Ok(())
}
