//! Payment's consistency checks, and the sums that are compared with other services.

use std::collections::BTreeMap;

use schemas::common::Money;
use serde::Serialize;
use shared::service::audit::{AuditFigures, StatementSpec};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// Payment's consistency checks and sums. Compare the sums with order's while no order is pending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// The number of payments in each status. A status without payments is left out.
    payments: BTreeMap<String, i64>,
    /// The captured money according to the ledger, in each currency.
    captured: Vec<Money>,
    /// The captured money that was refunded, in each currency.
    refunded: Vec<Money>,
}

impl AuditFigures for Figures {
    const STATEMENTS: &'static [StatementSpec] = STATEMENTS;
    const STANDINGS: &'static str = STANDINGS;
    const STANDINGS_SUMMARY: &'static str = "Returns the status of every order's payment, ordered by order id, for comparison with other services.";

    async fn read(db: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Ok(Self {
            payments: count_by_status(db).await?,
            captured: sum_moved(db, "capture").await?,
            refunded: sum_moved(db, "refund").await?,
        })
    }
}

const STATEMENTS: &[StatementSpec] = &[
    StatementSpec {
        invariant: 1,
        name: "the_ledger_tells_the_status",
        says: "A payment has exactly the ledger entries that its status needs, each with the payment's amount",
        sql: "select p.order_id::text from payment p left join ledger_entry e
             on e.order_id = p.order_id and e.amount = p.amount and e.currency = p.currency
         group by p.order_id, p.status
         having array_agg(e.kind order by e.kind) is distinct from case p.status
             when 'authorized' then array['authorize']
             when 'captured' then array['authorize', 'capture']
             when 'voided' then array['authorize', 'void']
             when 'refunded' then array['authorize', 'capture', 'refund']
             else array[null::text] end
         order by p.order_id limit 20",
    },
    StatementSpec {
        invariant: 1,
        name: "an_entry_has_its_payment",
        says: "Every ledger entry belongs to a payment, and has its amount",
        sql: "select e.order_id::text from ledger_entry e left join payment p
             on p.order_id = e.order_id and p.amount = e.amount and p.currency = e.currency
         where p.order_id is null order by e.order_id limit 20",
    },
    StatementSpec {
        invariant: 1,
        name: "captured_was_authorized",
        says: "All captured money was authorized, and none of it was voided",
        sql: "select c.order_id::text from ledger_entry c
         where c.kind = 'capture' and (
             not exists (select from ledger_entry a where a.order_id = c.order_id and a.kind = 'authorize')
             or exists (select from ledger_entry v where v.order_id = c.order_id and v.kind = 'void'))
         order by c.order_id limit 20",
    },
    StatementSpec {
        invariant: 1,
        name: "nothing_is_negative",
        says: "No order has more money refunded than captured, or more released than held",
        sql: "select order_id::text from ledger_entry group by order_id
         having sum(amount * case debit when 'holds' then 1 else 0 end - amount * case credit when 'holds' then 1 else 0 end) < 0
             or sum(amount * case kind when 'capture' then 1 when 'refund' then -1 else 0 end) < 0
         order by order_id limit 20",
    },
    StatementSpec {
        invariant: 1,
        name: "what_is_held_is_authorized",
        says: "The ledger's account of holds is the sum of the authorized payments, in every currency",
        sql: "with held as (
             select currency, sum(case when debit = 'holds' then amount when credit = 'holds' then -amount else 0 end) as amount
             from ledger_entry group by currency),
         authorized as (
             select currency, sum(amount) as amount from payment where status = 'authorized' group by currency)
         select currency from held full join authorized using (currency)
         where coalesce(held.amount, 0) <> coalesce(authorized.amount, 0) order by currency limit 20",
    },
    StatementSpec {
        invariant: 5,
        name: "an_entry_is_the_effect_of_a_step",
        says: "Money is authorized, voided and captured only by a step on record, and each such step that is done has its entry",
        // Older steps may be deleted. A step is kept for longer than a week.
        sql: "with done as (
             select saga_id as order_id, case when step = 'capture_payment' then 'capture'
                                              when direction = 'undo' then 'void' else 'authorize' end as kind
             from step_outcome where status = 'done' and step in ('authorize_payment', 'capture_payment')),
         entry as (
             select order_id, kind from ledger_entry
             where kind in ('authorize', 'void', 'capture') and at > now() - interval '7 days')
         select distinct coalesce(entry.order_id, done.order_id)::text
         from entry full join done using (order_id, kind)
         where done.order_id is null
            or (entry.order_id is null and kind <> 'void'
                and not exists (select from ledger_entry e where e.order_id = done.order_id and e.kind = done.kind))
         order by 1 limit 20",
    },
];

/// Selects payments, with their order's id.
const STANDINGS: &str =
    "select order_id as id, array[status] as states, amount, currency, null::bigint as age
     from payment where order_id > $1 order by order_id limit $2";

/// Returns the number of payments in each status. A status without payments is left out.
async fn count_by_status(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from payment group by status").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

/// What the ledger has of one kind of move, by currency.
async fn sum_moved(db: &mut PgConnection, kind: &str) -> Result<Vec<Money>, sqlx::Error> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "select sum(amount)::bigint, currency from ledger_entry where kind = $1 group by currency order by currency",
    )
    .bind(kind)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(amount, currency)| Money { amount, currency }).collect())
}
