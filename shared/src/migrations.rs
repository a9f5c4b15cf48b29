//! The tables of the core and of the sagas, as migrations that any application can apply beside its own.
//!
//! The tables live in their own schema, by default [`crate::db::DEFAULT_SCHEMA`]. Their history is there too, in
//! `_core_migrations` and `_saga_migrations`. They therefore use no numbers and no table names of the application. An
//! application that runs the files itself finds them in [`Set::scripts`].

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Executor, PgConnection, SqlSafeStr};

use crate::db::server::{self, ServerError};
use crate::db::{Db, quote_ident};
use crate::owner::{self, OwnerError};

/// How long a migration tries to get its locks.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// How long others may use the table before the next try.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// The errors of applying migrations.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The server is too old. Nothing was changed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The tables belong to another service. Nothing was changed.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A migration failed, or has been changed since it was applied.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// Embeds migrations of the calling crate in its program: the folder, and the names of the files without `.sql`, in their
/// order. The value is a `LazyLock<Migrator>`.
///
/// It does what `sqlx::migrate!` does, and brings no second copy of sqlx for the compiler, see [`crate::row!`].
#[macro_export]
macro_rules! migrations {
    ($folder:literal: $($file:literal),+ $(,)?) => {
        ::std::sync::LazyLock::new(|| {
            $crate::migrations::embedded(&[$((
                $file,
                include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $folder, "/", $file, ".sql")),
            )),+])
        })
    };
}

/// Returns the migrator of files with these names and contents. [`crate::migrations!`] calls it.
///
/// # Panics
/// Panics if a name does not begin with a number and an underscore.
pub fn embedded(files: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(file, sql): &(&'static str, &'static str)| {
        let name = file.split_once('_').and_then(|(number, name)| Some((number.parse().ok()?, name)));
        let Some((version, name)) = name else { panic!("`{file}` is not a number and a name") };
        let no_transaction = sql.starts_with("-- no-transaction");
        Migration::new(
            version,
            name.replace('_', " ").into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            no_transaction,
        )
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// A set of migrations with its own history.
#[derive(Debug)]
pub struct Set {
    /// The name of the set. The name of its history table contains it.
    pub name: &'static str,
    migrator: &'static LazyLock<Migrator>,
}

/// The tables of every service: inbox, outbox, the relay's checkpoint, step outcomes and parked messages.
pub static CORE: Set = Set { name: "core", migrator: &CORE_MIGRATOR };
static CORE_MIGRATOR: LazyLock<Migrator> = crate::migrations!(
    "migrations": "0001_messaging", "0002_retention", "0003_parked", "0004_relay", "0005_claims", "0006_outbox_receipts",
    "0007_days_by_function", "0008_claim_batch", "0009_parked_identity", "0010_owner", "0011_relay_adoption",
    "0012_record_gap", "0013_operator_act", "0014_idempotency_answer",
);

/// The tables of a saga coordinator beside [`CORE`]: sagas and their log.
#[cfg(feature = "saga")]
pub static SAGA: Set = Set { name: "saga", migrator: &SAGA_MIGRATOR };
#[cfg(feature = "saga")]
static SAGA_MIGRATOR: LazyLock<Migrator> = crate::migrations!(
    "migrations/saga": "0001_sagas", "0002_reply", "0003_optimistic_lock", "0004_readable_log",
);

/// Applies [`CORE`] to the database, unless that was done before. The connection's role must own the schema or be
/// allowed to create it.
///
/// # Errors
/// Fails if the database does not answer or refuses a statement, belongs to another service, or is too old a release,
/// or if an applied migration has been changed since.
pub async fn apply(db: &Db) -> Result<(), ApplyError> {
    apply_for(db.source(), &mut db.connect().await?, db.schema(), &[&CORE]).await
}

/// Applies [`CORE`] and [`SAGA`]: the tables of a service that coordinates sagas.
///
/// # Errors
/// Fails as [`apply`] does.
#[cfg(feature = "saga")]
pub async fn apply_with_sagas(db: &Db) -> Result<(), ApplyError> {
    apply_for(db.source(), &mut db.connect().await?, db.schema(), &[&CORE, &SAGA]).await
}

/// Applies sets of migrations as [`apply_sets`] does, and takes the tables for this service.
pub(crate) async fn apply_for(
    service: &str,
    db: &mut PgConnection,
    schema: &str,
    sets: &[&Set],
) -> Result<(), ApplyError> {
    owner::check(&mut *db, schema, service).await?;
    apply_sets(&mut *db, schema, sets).await?;
    owner::claim(db, schema, service).await?;
    Ok(())
}

/// Applies sets of migrations over this connection, in this schema. Replicas that start together wait for each other.
/// Afterwards the connection has its default search path and statement timeout.
///
/// # Errors
/// Fails as [`apply`] does, but does not ask whose tables they are.
pub async fn apply_sets(db: &mut PgConnection, schema: &str, sets: &[&Set]) -> Result<(), ApplyError> {
    server::check_version(&mut *db).await?;
    alone(db, async |db| apply_alone(db, schema, sets).await).await
}

/// Applies the migrations of a service's own tables, with the same care.
#[cfg(feature = "service")]
pub(crate) async fn apply_own(own: &Migrator, db: &mut PgConnection) -> Result<(), ApplyError> {
    let mut own = Migrator::with_migrations(own.iter().cloned().collect());
    own.set_ignore_missing(true);
    // Its own lock would be waited for with the time limit for locks.
    own.set_locking(false);
    alone(db, async |db| run(&own, db).await).await
}

/// Runs `work` on a connection with the settings of migrations, one process after the other.
async fn alone(
    db: &mut PgConnection,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<(), ApplyError>,
) -> Result<(), ApplyError> {
    // A migration, and the wait for another replica's, may take longer than the statements of a service.
    db.execute(sqlx::raw_sql(
        "set statement_timeout = 0; select pg_advisory_lock(hashtext('shared::migrations')); set lock_timeout = '2s'",
    ))
    .await?;
    let applied = work(&mut *db).await;
    let released = db
        .execute(sqlx::raw_sql(
            "select pg_advisory_unlock(hashtext('shared::migrations')); reset search_path; reset statement_timeout; \
             reset lock_timeout",
        ))
        .await;
    applied?;
    released?;
    Ok(())
}

/// Runs migrations. A lock that is not free soon is given up and asked for again: whoever needs the table meanwhile would
/// have to wait behind the migration.
async fn run(migrator: &Migrator, db: &mut PgConnection) -> Result<(), ApplyError> {
    let began = Instant::now();
    loop {
        let ended = migrator.run_direct(None, &mut *db, false).await;
        let Err(error) = &ended else { return Ok(()) };
        if !is_locked(error) || began.elapsed() > LOCK_PATIENCE {
            return Ok(ended?);
        }
        tracing::warn!(%error, "a table is in use; the migration tries again");
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Returns whether a migration failed because it did not get a lock in time.
fn is_locked(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "55P03")
}

async fn apply_alone(db: &mut PgConnection, schema: &str, sets: &[&Set]) -> Result<(), ApplyError> {
    let known: bool = sqlx::query_scalar("select to_regnamespace($1) is not null")
        .bind(quote_ident(schema))
        .fetch_one(&mut *db)
        .await?;
    let schema = quote_ident(schema);
    // `create schema if not exists` needs the right to create schemas even if the schema exists.
    let create = if known { "" } else { &format!("create schema if not exists {schema};") };
    let prepare = format!("{create} set search_path = {schema}");
    db.execute(sqlx::raw_sql(AssertSqlSafe(prepare))).await?;
    for set in sets {
        run(&set.migrator(&schema), db).await?;
    }
    Ok(())
}

impl Set {
    /// Returns the files in their order: the number, the name and the SQL. They create everything in the first schema
    /// of the search path.
    pub fn scripts(&self) -> impl Iterator<Item = (i64, &str, &str)> {
        self.migrator.iter().map(|one| (one.version, &*one.description, one.sql.as_str()))
    }

    /// Returns the numbers of the migrations that the database lacks. All of them are missing if the database has no
    /// history or does not answer.
    pub async fn missing(&self, db: &mut PgConnection, schema: &str) -> Vec<i64> {
        missing(db, &self.history(&quote_ident(schema)), self.migrator.iter().map(|one| one.version)).await
    }

    /// Returns the migrations with a history table in this quoted schema.
    pub(crate) fn migrator(&self, schema: &str) -> Migrator {
        let mut migrator = Migrator::with_migrations(self.migrator.iter().cloned().collect());
        migrator.dangerous_set_table_name(self.history(schema));
        // `apply_sets` locks, and unlocks after a failure too.
        migrator.set_locking(false);
        // A release that is rolled back finds what the newer one has applied, and works with it.
        migrator.set_ignore_missing(true);
        migrator
    }

    fn history(&self, schema: &str) -> String {
        format!("{schema}._{}_migrations", self.name)
    }
}

/// Returns the versions that are not in a history. The newest version alone proves nothing, because an earlier one may
/// have been left out.
pub(crate) async fn missing(
    db: &mut PgConnection,
    history: &str,
    versions: impl Iterator<Item = i64>,
) -> Vec<i64> {
    let applied = format!("select version from {history} where success");
    let applied: Vec<i64> =
        sqlx::query_scalar(AssertSqlSafe(applied)).fetch_all(db).await.unwrap_or_default();
    versions.filter(|version| !applied.contains(version)).collect()
}
