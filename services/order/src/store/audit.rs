//! Order's consistency checks, and the sums that are compared with other services.

use std::collections::BTreeMap;

use schemas::common::Money;
use serde::Serialize;
use shared::service::audit::{AuditFigures, StatementSpec};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Order's consistency checks and sums. Compare the sums with payment's and inventory's while no order is pending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// The number of orders in each status that the sagas give: pending, confirmed, rejected, cancelled and returned. A status
    /// without orders is left out.
    orders: BTreeMap<String, i64>,
    /// The total of all confirmed orders, in each currency. Payment must have captured as much.
    confirmed: Vec<Money>,
    /// The pieces in confirmed orders, by sku. Inventory must have shipped as many.
    sold: BTreeMap<String, i64>,
}

impl AuditFigures for Figures {
    const STATEMENTS: &'static [StatementSpec] = STATEMENTS;
    const STANDINGS: &'static str = STANDINGS;
    const STANDINGS_SUMMARY: &'static str =
        "Returns the status of every order, ordered by id, for comparison with other services.";

    async fn read(db: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Ok(Self {
            orders: count_by_status(db).await?,
            confirmed: sum_confirmed(db).await?,
            sold: sum_sold(db).await?,
        })
    }
}

const STATEMENTS: &[StatementSpec] = &[
    StatementSpec {
        invariant: 1,
        name: "total_is_the_sum_of_the_lines",
        says: "An order's total is the sum of its lines, in their currency",
        sql: "select id::text from orders o, lateral (
             select sum((line->>'quantity')::bigint * (line->'unitPrice'->>'amount')::bigint) as amount,
                    bool_and(line->'unitPrice'->>'currency' = o.currency) as in_currency
             from json_array_elements(o.items) as line) as lines
         where o.total_amount is distinct from lines.amount or lines.in_currency is distinct from true
         order by id limit 20",
    },
    StatementSpec {
        invariant: 3,
        name: "an_outcome_is_told_once",
        says: "The timeline has the outcome of a settled order once, and no outcome of a pending order",
        sql: "select o.id::text from orders o left join order_timeline t
             on t.order_id = o.id
             and t.type in ('order.confirmed.v1', 'order.rejected.v1', 'order.cancelled.v1', 'order.returned.v1')
         group by o.id, o.status
         having array_agg(t.type order by t.type) is distinct from case o.status
             when 'confirmed' then array['order.confirmed.v1']
             when 'rejected' then array['order.rejected.v1']
             when 'cancelled' then array['order.cancelled.v1']
             when 'returned' then array['order.confirmed.v1', 'order.returned.v1']
             else array[null::text] end
         order by o.id limit 20",
    },
    StatementSpec {
        invariant: 3,
        name: "a_rejection_has_a_reason",
        says: "A rejected order has a reason, and no other order has one",
        sql: "select id::text from orders where (status = 'rejected') <> (reason is not null) order by id limit 20",
    },
    StatementSpec {
        invariant: 8,
        name: "an_answer_has_its_order",
        says: "Every answer on record under an Idempotency-Key is that of an existing order",
        sql: "select k.order_id::text from idempotency_key k left join orders o on o.id = k.order_id
         where o.id is null or k.answer::json ->> 'id' is distinct from k.order_id::text
         order by k.order_id limit 20",
    },
    StatementSpec {
        invariant: 8,
        name: "an_order_has_one_key",
        says: "No order was placed under two Idempotency-Keys",
        sql: "select order_id::text from idempotency_key group by order_id having count(*) > 1 order by order_id limit 20",
    },
    StatementSpec {
        invariant: 6,
        name: "a_timeline_is_in_order",
        says: "An order's timeline has the events of one service in the order in which they were written, by their messages' ids",
        sql: "select distinct order_id::text
         from (select order_id, message_id,
                      lag(message_id) over (partition by order_id, service order by position) as before
               from order_timeline) as entry
         where uuid_extract_timestamp(message_id) < uuid_extract_timestamp(before)
         order by 1 limit 20",
    },
];

/// Selects orders.
const STANDINGS: &str = "select id, array[status] as states, total_amount as amount, currency,
            extract(epoch from now() - created_at)::bigint as age
     from orders where id > $1 order by id limit $2";

/// Returns the number of orders in each status. A status without orders is left out.
async fn count_by_status(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from orders group by status").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

/// What confirmed orders cost together, by currency.
async fn sum_confirmed(db: &mut PgConnection) -> Result<Vec<Money>, sqlx::Error> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "select sum(total_amount)::bigint, currency from orders where status = 'confirmed'
         group by currency order by currency",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(amount, currency)| Money { amount, currency }).collect())
}

/// How many pieces of each product confirmed orders have, by sku.
async fn sum_sold(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select line->>'sku', sum((line->>'quantity')::bigint)::bigint
         from orders, json_array_elements(items) as line where status = 'confirmed' group by 1",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}
