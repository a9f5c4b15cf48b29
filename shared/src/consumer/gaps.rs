//! Gaps: records that the broker deleted before a consumer group had read them. They are kept in a table, because the
//! client goes on behind a gap as if nothing had been there, and nobody else would notice what is missing.

use sqlx::PgConnection;

/// Why records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// They were deleted behind the offset up to which the group has read.
    Deleted,
    /// They were deleted before the group had read anything.
    Late,
    /// The partition ends before the offset up to which the group has read. It lost records, or was begun anew.
    Shortened,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Late => "late",
            Self::Shortened => "shortened",
        }
    }
}

/// A gap in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// The name of the topic without the installation's prefix.
    pub topic: String,
    pub partition: i32,
    pub first_missing: i64,
    /// Where the group goes on.
    pub first_present: i64,
    pub reason: Reason,
}

#[cfg(feature = "service")]
crate::row! {
    /// A gap that was noticed before.
    #[derive(Debug)]
    pub(crate) struct Noticed {
        consumer_group: String,
        topic: String,
        partition: i32,
        first_missing: i64,
        first_present: i64,
        reason: String,
        noticed_at: String,
    }
}

#[cfg(feature = "service")]
impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { consumer_group, topic, partition, first_missing, first_present, noticed_at, .. } = self;
        match self.reason.as_str() {
            "shortened" => write!(
                f,
                "{topic}/{partition} ended at offset {first_missing}, before the offset up to which the group \
                 {consumer_group} had read, and is read again from {first_present} (noticed at {noticed_at})"
            ),
            _ => write!(
                f,
                "{topic}/{partition}: the records from offset {first_missing} to {} were deleted before the group \
                 {consumer_group} read them (noticed at {noticed_at})",
                first_present - 1
            ),
        }
    }
}

/// Records a gap. Returns whether it is a new one: a topic that was begun anew can have one where there was one before.
pub(super) async fn record(db: &mut PgConnection, group: &str, gap: &Gap) -> Result<bool, sqlx::Error> {
    let new = sqlx::query(
        "insert into record_gap (consumer_group, topic, partition, first_missing, first_present, reason)
         values ($1, $2, $3, $4, $5, $6) on conflict on constraint record_gap_pkey do update
         set first_present = excluded.first_present, reason = excluded.reason, noticed_at = now()
         where (record_gap.first_present, record_gap.reason) is distinct from (excluded.first_present, excluded.reason)",
    )
    .bind(group)
    .bind(&gap.topic)
    .bind(gap.partition)
    .bind(gap.first_missing)
    .bind(gap.first_present)
    .bind(gap.reason.as_str())
    .execute(db)
    .await?;
    Ok(new.rows_affected() == 1)
}

/// Returns the gaps that were noticed last, at most twenty.
///
/// # Errors
/// Fails if the database does not answer.
#[cfg(feature = "service")]
pub(crate) async fn noticed(db: &mut PgConnection) -> Result<Vec<Noticed>, sqlx::Error> {
    sqlx::query_as(
        "select consumer_group, topic, partition, first_missing, first_present, reason,
                to_char(noticed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as noticed_at
         from record_gap order by noticed_at desc, topic, partition limit 20",
    )
    .fetch_all(db)
    .await
}
