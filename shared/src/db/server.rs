//! What is asked of the PostgreSQL server, and of whatever is between it and the service.

use std::time::{Duration, SystemTime};

use sqlx::{Executor, PgConnection, Row};
use time::OffsetDateTime;

use super::{NOW, from_micros};

/// The oldest release of PostgreSQL, as in `server_version_num`. Its `uuid_extract_timestamp` reads UUIDs of version 7.
const OLDEST: i32 = 180_000;

/// How far the clock of a process may be from that of its database. The process makes the ids of messages, and the
/// database judges their age by them.
pub const CLOCK_LIMIT: Duration = Duration::from_secs(60);

/// The errors of a server that a service can't work with.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The release is too old.
    #[error("the server is PostgreSQL {found}, and PostgreSQL 18 or a newer release is needed")]
    Version {
        /// The release of the server.
        found: String,
    },
    /// A pooler gives every transaction another session. Then locks, settings and read-only guards get lost.
    #[error(
        "there is a pooler in transaction mode in front of PostgreSQL, and sessions are needed; set its pool mode \
         to session, or connect to PostgreSQL directly"
    )]
    Pooler,
    /// The database did not answer, or refused the statement.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Checks the release of the server.
///
/// # Errors
/// Fails if it is too old, or if the database does not answer.
pub async fn check_version(db: &mut PgConnection) -> Result<(), ServerError> {
    let asked = "select current_setting('server_version_num')::int, current_setting('server_version')";
    let row = db.fetch_one(sqlx::raw_sql(asked)).await?;
    new_enough(row.try_get(0)?, row.try_get(1)?)
}

fn new_enough(number: i32, found: String) -> Result<(), ServerError> {
    if number < OLDEST { Err(ServerError::Version { found }) } else { Ok(()) }
}

/// Checks that two open connections are two sessions of the server.
///
/// # Errors
/// Fails if they share one, or if the database does not answer.
pub async fn check_sessions(one: &mut PgConnection, other: &mut PgConnection) -> Result<(), ServerError> {
    // In transaction mode two idle clients get the same session one after the other. A busy pooler may have several,
    // so one difference proves nothing.
    for _ in 0..3 {
        if session(one).await? != session(other).await? {
            return Ok(());
        }
    }
    Err(ServerError::Pooler)
}

async fn session(db: &mut PgConnection) -> Result<i32, sqlx::Error> {
    // Not a prepared statement, because another session would not know it.
    db.fetch_one(sqlx::raw_sql("select pg_backend_pid()")).await?.try_get(0)
}

/// Returns how far the clock of the database is from that of this process, at least: what the answer took is in favour
/// of the clocks.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn clock_difference(db: &mut PgConnection) -> Result<Duration, sqlx::Error> {
    let before = SystemTime::now();
    let row = db.fetch_one(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("select {NOW}")))).await?;
    Ok(outside(from_micros(row.try_get(0)?)?, before.into(), SystemTime::now().into()))
}

/// Returns how far a time is from the span between two others.
fn outside(time: OffsetDateTime, begin: OffsetDateTime, end: OffsetDateTime) -> Duration {
    let distance = if time < begin { begin - time } else { time - end };
    Duration::try_from(distance).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_release_before_18_is_refused_and_named() {
        assert!(new_enough(180_000, "18.0".into()).is_ok());
        assert!(new_enough(190_001, "19.1".into()).is_ok());
        let refused = new_enough(170_006, "17.6".into()).expect_err("too old").to_string();
        assert!(refused.contains("17.6") && refused.contains("18"), "{refused}");
    }

    #[test]
    fn what_the_answer_took_is_in_favour_of_the_clocks() {
        let (begin, end) = (datetime!(2026-01-01 10:00:00 UTC), datetime!(2026-01-01 10:02:00 UTC));
        assert_eq!(outside(datetime!(2026-01-01 10:01:00 UTC), begin, end), Duration::ZERO);
        assert_eq!(outside(datetime!(2026-01-01 09:59:00 UTC), begin, end), Duration::from_secs(60));
        assert_eq!(outside(datetime!(2026-01-01 10:03:00 UTC), begin, end), Duration::from_secs(60));
    }
}
