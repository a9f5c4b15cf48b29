//! Notification's consistency checks.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::service::audit::{AuditFigures, StatementSpec};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Notification's consistency checks and counts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// The number of notices in each status. A status without notices is left out.
    notifications: BTreeMap<String, i64>,
}

impl AuditFigures for Figures {
    const STATEMENTS: &'static [StatementSpec] = STATEMENTS;
    const STANDINGS: &'static str = STANDINGS;
    const STANDINGS_SUMMARY: &'static str = "Returns the notices about every order as `kind=status`, ordered by order id, for comparison with other services.";

    async fn read(db: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Ok(Self { notifications: count_by_status(db).await? })
    }
}

const STATEMENTS: &[StatementSpec] = &[
    StatementSpec {
        invariant: 5,
        name: "a_customer_is_told_once",
        says: "An order has at most one notice of each kind",
        sql: "select order_id::text from notification group by order_id, kind having count(*) > 1 order by order_id limit 20",
    },
    StatementSpec {
        invariant: 3,
        name: "a_failure_has_a_reason",
        says: "A failed notice has a reason, and no other notice has one",
        sql: "select order_id::text from notification
         where (status = 'failed') <> (reason is not null) order by order_id limit 20",
    },
    StatementSpec {
        invariant: 5,
        name: "a_notice_is_the_effect_of_a_step",
        says: "Every notice of a confirmation belongs to one step on record, which is open as long as the notice is being sent",
        // Older steps may be deleted. A step is kept for longer than a week.
        sql: "select n.order_id::text from notification n left join step_outcome s
             on s.saga_id = n.order_id and s.step = 'notify_customer' and s.direction = 'do'
         where n.kind = 'order_confirmed' and n.created_at > now() - interval '7 days'
           and s.status is distinct from case n.status when 'sending' then 'pending' else 'done' end
         order by n.order_id limit 20",
    },
];

/// Selects each order's notices as `kind=status`, with the order's id.
const STANDINGS: &str =
    "select order_id as id, array_agg(kind || '=' || status order by kind) as states, null::bigint as amount,
            null::text as currency, null::bigint as age
     from notification where order_id > $1 group by order_id order by order_id limit $2";

/// Returns the number of notices in each status. A status without notices is left out.
async fn count_by_status(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from notification group by status").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}
