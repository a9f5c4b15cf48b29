//! What must be true of notices to customers.

use std::collections::BTreeMap;

use sqlx::PgConnection;

/// What must be true at any moment: name, meaning, and the statement that finds what offends. Each finds at most 20.
pub const STATEMENTS: &[(&str, &str, &str)] = &[
    (
        "a_customer_is_told_once",
        "Of each kind there is one notice about an order",
        "select order_id::text from notification group by order_id, kind having count(*) > 1 order by order_id limit 20",
    ),
    (
        "a_failure_has_a_reason",
        "A notice that failed says why, and no other does",
        "select order_id::text from notification
         where (status = 'failed') <> (reason is not null) order by order_id limit 20",
    ),
    (
        "a_notice_is_the_effect_of_a_step",
        "That an order was confirmed is told by one step on record, which is open as long as the notice is under way",
        // What is older may have been forgotten: a step is kept for longer than a week.
        "select n.order_id::text from notification n left join step_outcome s
             on s.saga_id = n.order_id and s.step = 'notify_customer' and s.direction = 'do'
         where n.kind = 'order_confirmed' and n.created_at > now() - interval '7 days'
           and s.status is distinct from case n.status when 'sending' then 'pending' else 'done' end
         order by n.order_id limit 20",
    ),
];

/// What was told about orders, behind an order's id, in the order of ids. See [`shared::service::audit::list`].
pub const STANDINGS: &str =
    "select order_id as id, array_agg(kind || '=' || status order by kind) as states, null::bigint as amount,
            null::text as currency, null::bigint as age
     from notification where order_id > $1 group by order_id order by order_id limit $2";

/// How many notices there are in each status. A status without notices is left out.
pub async fn count_by_status(db: &mut PgConnection) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from notification group by status").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}
