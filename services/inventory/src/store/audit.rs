//! Inventory's consistency checks, and the figures that are compared with other services.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::service::audit::{AuditFigures, StatementSpec};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::{ProductRow, all_products};

/// Inventory's consistency checks and figures. Compare the figures with order's while no order is pending.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// The number of reservations in each status. A status without reservations is left out.
    reservations: BTreeMap<String, i64>,
    /// The stock of every product, by sku.
    products: BTreeMap<String, StockFigures>,
}

impl AuditFigures for Figures {
    const STATEMENTS: &'static [StatementSpec] = STATEMENTS;
    const STANDINGS: &'static str = STANDINGS;
    const STANDINGS_SUMMARY: &'static str = "Returns the status of every order's reservation, ordered by order id, for comparison with other services.";

    async fn read(db: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let stock = |row: ProductRow| {
            let ProductRow { sku, on_hand, reserved, shipped, received, .. } = row;
            (sku, StockFigures { on_hand, reserved, shipped, received })
        };
        Ok(Self {
            reservations: count_by_status(db).await?,
            products: all_products(db).await?.into_iter().map(stock).collect(),
        })
    }
}

/// Where the pieces of a product are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StockFigures {
    on_hand: i64,
    reserved: i64,
    shipped: i64,
    received: i64,
}

const STATEMENTS: &[StatementSpec] = &[
    StatementSpec {
        invariant: 2,
        name: "stock_adds_up",
        says: "The on-hand, reserved and shipped pieces of every product add up to the received pieces",
        sql: "select sku from product where on_hand + reserved + shipped <> received order by sku limit 20",
    },
    StatementSpec {
        invariant: 2,
        name: "nothing_is_negative",
        says: "No product has a negative number of on-hand, reserved, shipped or received pieces",
        sql: "select sku from product where least(on_hand, reserved, shipped, received) < 0 order by sku limit 20",
    },
    StatementSpec {
        invariant: 2,
        name: "reserved_is_what_orders_hold",
        says: "The reserved pieces of a product are those of its held reservations",
        sql: "with held as (
             select line->>'sku' as sku, sum((line->>'quantity')::bigint) as quantity
             from reservation, json_array_elements(items) as line where status = 'held' group by 1)
         select coalesce(p.sku, held.sku) from product p full join held using (sku)
         where coalesce(p.reserved, 0) <> coalesce(held.quantity, 0) order by 1 limit 20",
    },
    StatementSpec {
        invariant: 2,
        name: "shipped_is_what_orders_took",
        says: "The shipped pieces of a product are those of its committed reservations",
        sql: "with taken as (
             select line->>'sku' as sku, sum((line->>'quantity')::bigint) as quantity
             from reservation, json_array_elements(items) as line where status = 'committed' group by 1)
         select coalesce(p.sku, taken.sku) from product p full join taken using (sku)
         where coalesce(p.shipped, 0) <> coalesce(taken.quantity, 0) order by 1 limit 20",
    },
    StatementSpec {
        invariant: 2,
        name: "the_ledger_tells_the_stock",
        says: "The ledger's moves of a product add up to its stock",
        sql: "with moved as (
             select sku, coalesce(sum(quantity) filter (where kind = 'received'), 0) as received,
                    coalesce(sum(quantity) filter (where kind = 'reserved'), 0) as reserved,
                    coalesce(sum(quantity) filter (where kind = 'released'), 0) as released,
                    coalesce(sum(quantity) filter (where kind = 'committed'), 0) as committed,
                    coalesce(sum(quantity) filter (where kind = 'restocked'), 0) as restocked
             from stock_entry group by sku)
         select coalesce(p.sku, moved.sku) from product p full join moved using (sku)
         where (p.received, p.on_hand, p.reserved, p.shipped) is distinct from
               (coalesce(moved.received, 0), coalesce(moved.received - moved.reserved + moved.released + moved.restocked, 0),
                coalesce(moved.reserved - moved.released - moved.committed, 0), coalesce(moved.committed - moved.restocked, 0))
         order by 1 limit 20",
    },
    StatementSpec {
        invariant: 2,
        name: "the_ledger_tells_the_reservation",
        says: "Every reservation has the ledger entries that its status needs",
        sql: "select r.order_id::text from reservation r left join stock_entry e on e.order_id = r.order_id
         group by r.order_id, r.status
         having array_agg(distinct e.kind order by e.kind) is distinct from case r.status
             when 'held' then array['reserved']
             when 'released' then array['released', 'reserved']
             when 'restocked' then array['committed', 'reserved', 'restocked']
             else array['committed', 'reserved'] end
         order by r.order_id limit 20",
    },
    StatementSpec {
        invariant: 5,
        name: "an_entry_is_the_effect_of_a_step",
        says: "Stock is reserved, released and committed only by a step on record",
        // Older steps may be deleted. A step is kept for longer than a week.
        sql: "select distinct e.order_id::text from stock_entry e
         where e.kind in ('reserved', 'released', 'committed') and e.at > now() - interval '7 days' and not exists (
             select from step_outcome s
             where s.saga_id = e.order_id and s.status = 'done'
               and s.step = case when e.kind = 'committed' then 'commit_stock' else 'reserve_stock' end
               and s.direction = case when e.kind = 'released' then 'undo' else 'do' end)
         order by 1 limit 20",
    },
];

/// Selects reservations, with their order's id.
const STANDINGS: &str = "select order_id as id, array[status] as states, null::bigint as amount, null::text as currency, null::bigint as age
     from reservation where order_id > $1 order by order_id limit $2";

/// Returns the number of reservations in each status. A status without reservations is left out.
async fn count_by_status(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from reservation group by status").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}
