//! The reasons why no relay may read an outbox. They are in the database, so every replica, `/readyz` and an operator
//! find the same ones.

use std::sync::LazyLock;

use sqlx::PgConnection;

use crate::outbox::unsent::not_shown_by;

/// SQL that is true if a relay holds the shard of the checkpoint `c`: its lease has not expired, and its connection is
/// still there.
pub(super) const HELD: &str = "(c.lease_until >= clock_timestamp() and exists (
    select from pg_stat_activity where pid = c.owner_pid and datname = current_database()))";

/// The reason why the relays of a database send nothing. It holds for all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// A checkpoint was written in another database cluster, so its snapshots say nothing about this one.
    OtherCluster,
    /// The outbox has rows whose transaction ids this cluster has not used, or not completed. The rows are visible, so
    /// they come from elsewhere.
    ForeignRows,
    /// A replica with another number of shards relays.
    OtherShards {
        /// The number of that replica.
        theirs: i16,
        /// The number of this process.
        ours: i16,
    },
}

impl Blocked {
    /// Returns the name of the reason, for metrics and records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OtherCluster => "other_cluster",
            Self::ForeignRows => "foreign_rows",
            Self::OtherShards { .. } => "other_shards",
        }
    }

    /// Returns the problem and the way out. `service` is the name of the service.
    pub fn describe(&self, service: &str) -> String {
        let adopt = format!(
            "restore the database completely, then run `amends relay adopt --service {service}`; see docs/restore.md"
        );
        match self {
            Self::OtherCluster => format!(
                "nothing is sent: the relay's checkpoint was written in another database cluster, where transaction ids \
                 mean something else; {adopt}"
            ),
            Self::ForeignRows => format!(
                "nothing is sent: the outbox has rows with transaction ids that this database cluster has not completed, \
                 so they come from another one; {adopt}"
            ),
            Self::OtherShards { theirs, ours } => format!(
                "nothing is sent by this replica: another one relays with OUTBOX_SHARDS={theirs}, and this one has \
                 OUTBOX_SHARDS={ours}; stop all replicas, and start them with one number"
            ),
        }
    }
}

crate::row! {
    /// The state of the checkpoints and of the outbox, as far as it decides whether a relay may begin.
    #[derive(Debug)]
    pub(super) struct Standing {
        other_cluster: bool,
        foreign_rows: bool,
        other_shards: Option<i16>,
        /// Whether messages may be in other shards than their keys belong to now.
        pub misplaced: bool,
    }
}

impl Standing {
    /// Returns the reason why a relay with this number of shards must not begin.
    pub fn blocked(&self, ours: i16) -> Option<Blocked> {
        if self.other_cluster {
            Some(Blocked::OtherCluster)
        } else if self.foreign_rows {
            Some(Blocked::ForeignRows)
        } else {
            self.other_shards.map(|theirs| Blocked::OtherShards { theirs, ours })
        }
    }
}

/// Looks at the checkpoints and, by index, at the newest rows of the outbox.
///
/// A visible row was written by a completed transaction. If the snapshot of the same statement does not show the
/// transaction id in the row, the id is another cluster's.
pub(super) async fn standing(db: &mut PgConnection, shards: i16) -> Result<Standing, sqlx::Error> {
    static STANDING: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select exists (select from relay_checkpoint c, pg_control_system() s
                            where c.system_identifier is distinct from s.system_identifier) as other_cluster,
                    exists (select from {} as foreign_rows) as foreign_rows,
                    (select max(c.shards) from relay_checkpoint c where c.shards <> $1 and {HELD}) as other_shards,
                    exists (select from relay_checkpoint where shards <> $1 or shard >= $1) as misplaced",
            not_shown_by("pg_current_snapshot()", "shard", "1", "1")
        )
    });
    sqlx::query_as(STANDING.as_str()).bind(shards).fetch_one(db).await
}

/// Returns the reason why the relays of this database send nothing, if there is one. `shards` is the number of shards
/// of the outbox.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn blocked(db: &mut PgConnection, shards: i16) -> Result<Option<Blocked>, sqlx::Error> {
    Ok(standing(db, shards).await?.blocked(shards))
}

/// Returns whether the outbox has rows with another cluster's transaction ids.
pub(super) async fn has_foreign_rows(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    static FOREIGN: LazyLock<String> = LazyLock::new(|| {
        format!(
            "select exists (select from {} as foreign_rows)",
            not_shown_by("pg_current_snapshot()", "shard", "1", "1")
        )
    });
    sqlx::query_scalar(FOREIGN.as_str()).fetch_one(db).await
}
