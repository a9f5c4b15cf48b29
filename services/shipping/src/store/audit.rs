//! Shipping's consistency checks.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::service::audit::{AuditFigures, StatementSpec};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Shipping's consistency checks and counts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// The number of shipments in each status. A status without shipments is left out.
    shipments: BTreeMap<String, i64>,
}

impl AuditFigures for Figures {
    const STATEMENTS: &'static [StatementSpec] = STATEMENTS;
    const STANDINGS: &'static str = STANDINGS;
    const STANDINGS_SUMMARY: &'static str = "Returns the status of every order's shipment, ordered by order id, for comparison with other services. A booked one that waits for its order's confirmation is `unreleased`.";

    async fn read(db: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Ok(Self { shipments: count_by_status(db).await? })
    }
}

const STATEMENTS: &[StatementSpec] = &[
    StatementSpec {
        invariant: 3,
        name: "a_booked_shipment_has_a_number",
        says: "A shipment has a tracking number once the carrier has accepted it, and not before",
        sql: "select order_id::text from shipment
         where status <> 'cancelled' and (status in ('booking', 'refused')) <> (tracking_number is null)
         order by order_id limit 20",
    },
    StatementSpec {
        invariant: 3,
        name: "nothing_leaves_before_its_order_stands",
        says: "A shipment that has left was released by its order's confirmation, and left after it",
        sql: "select order_id::text from shipment
         where (status in ('dispatched', 'delivered') and (released_at is null or dispatched_at is null))
            or dispatched_at < released_at or delivered_at < dispatched_at
            or (status = 'delivered') <> (delivered_at is not null)
            or (status in ('booking', 'booked', 'refused', 'stopping') and dispatched_at is not null)
         order by order_id limit 20",
    },
    StatementSpec {
        invariant: 4,
        name: "a_released_shipment_is_asked_about",
        says: "The carrier is asked about every released shipment until it has arrived, and not long after it is due",
        sql: "select order_id::text from shipment
         where released_at is not null and status in ('booked', 'dispatched')
           and (due_at is null or due_at < now() - interval '5 minutes')
         order by order_id limit 20",
    },
    StatementSpec {
        invariant: 5,
        name: "a_shipment_is_the_effect_of_a_step",
        says: "Every shipment was booked by one step on record, whose outcome fits the shipment's status",
        // Older steps may be deleted. A step is kept for longer than a week.
        sql: "select h.order_id::text from shipment h left join step_outcome s
             on s.saga_id = h.order_id and s.step = 'book_shipment' and s.direction = 'do'
         where h.created_at > now() - interval '7 days'
           and s.status is distinct from case h.status when 'booking' then 'pending' when 'refused' then 'refused' else 'done' end
         order by h.order_id limit 20",
    },
];

/// Selects shipments, with their order's id.
/// A parcel that is at home and waits for its order's confirmation is `unreleased`, and as old as its last change.
const STANDINGS: &str = "select order_id as id, array[case when waits then 'unreleased' else status end] as states,
            null::bigint as amount, null::text as currency,
            case when waits then extract(epoch from now() - updated_at)::bigint end as age
     from (select order_id, status, updated_at, status = 'booked' and released_at is null as waits from shipment) as shipment where order_id > $1 order by order_id limit $2";

/// Returns the number of shipments in each status. A status without shipments is left out.
async fn count_by_status(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from shipment group by status").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}
