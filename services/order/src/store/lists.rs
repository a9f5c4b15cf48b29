//! Pages of orders. A page is read from a range of one index, and from a bounded number of orders, so that it costs the same
//! however many orders there are.

use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::orders::{ORDER, OrderRow};
use crate::domain::{Order, Status};

/// The most orders that are looked at for a page with a filter that no index has.
const MOST_LOOKED_AT: i64 = 2000;

/// Which orders to list.
#[derive(Debug)]
pub struct ListFilter<'f> {
    pub status: Option<Status>,
    pub customer_id: Option<&'f str>,
    /// Only orders that are older than this one.
    pub before: Option<Uuid>,
    pub limit: i64,
}

/// Returns a page of orders, the newest first, and the `before` of the next page.
pub async fn list(
    db: &mut PgConnection,
    filter: &ListFilter<'_>,
) -> Result<(Vec<Order>, Option<Uuid>), sqlx::Error> {
    let range = Range::of(filter);
    let floor = if range.others.is_empty() { None } else { find_floor(db, &range, filter).await? };
    let Range { within, order, others } = range;
    let list = format!("select {ORDER} from orders where {within}{others} order by {order} limit $3");
    let list = sqlx::query_as(AssertSqlSafe(list))
        .bind(floor.unwrap_or(Uuid::nil()))
        .bind(filter.before.unwrap_or(Uuid::max()))
        .bind(filter.limit);
    let list = if let Some(customer) = filter.customer_id { list.bind(customer) } else { list };
    let rows: Vec<OrderRow> = list.fetch_all(db).await?;
    let orders: Vec<Order> = rows.into_iter().map(Order::from).collect();
    let last = orders.last().filter(|_| orders.len() as i64 == filter.limit).map(|order| order.id);
    let next = last.or(floor);
    Ok((orders, next))
}

/// Returns the last order that is looked at for a page, if older ones are left.
async fn find_floor(
    db: &mut PgConnection,
    range: &Range,
    filter: &ListFilter<'_>,
) -> Result<Option<Uuid>, sqlx::Error> {
    let Range { within, order, .. } = range;
    let floor = format!("select id from orders where {within} order by {order} offset $3 limit 1");
    let floor = sqlx::query_scalar(AssertSqlSafe(floor))
        .bind(Uuid::nil())
        .bind(filter.before.unwrap_or(Uuid::max()))
        .bind(MOST_LOOKED_AT - 1);
    let floor = if let Some(customer) = filter.customer_id { floor.bind(customer) } else { floor };
    floor.fetch_optional(db).await
}

/// A range of the index that has most of a filter.
///
/// Rows are compared with `(column, id)` instead of an equality, because then only this index has their order. With an
/// equality, a planner that takes the value for frequent would read all orders, in the hope to find those with the value soon.
struct Range {
    /// The condition that the index has. `$1` is the oldest order, `$2` is newer than the newest, `$4` is the customer.
    within: String,
    order: &'static str,
    /// The conditions that the index does not have.
    others: String,
}

impl Range {
    fn of(filter: &ListFilter<'_>) -> Self {
        let (status, delivery) = filter.status.map_or((None, ""), columns);
        match (filter.customer_id, status) {
            (Some(_), status) => Self {
                within: "(customer_id, id) >= ($4, $1) and (customer_id, id) < ($4, $2)".to_owned(),
                order: "customer_id desc, id desc",
                others: status.map_or(String::new(), |status| format!(" and status = '{status}'{delivery}")),
            },
            (None, Some(status)) => Self {
                within: format!("(status, id) >= ('{status}', $1) and (status, id) < ('{status}', $2)"),
                order: "status desc, id desc",
                others: delivery.to_owned(),
            },
            (None, None) => {
                Self { within: "id >= $1 and id < $2".to_owned(), order: "id desc", others: String::new() }
            }
        }
    }
}

/// Returns the text of a status by the sagas, and the condition for the delivery of an order that stands.
fn columns(status: Status) -> (Option<&'static str>, &'static str) {
    match status {
        Status::Confirmed => (Some("confirmed"), " and delivery is null"),
        Status::Shipped => (Some("confirmed"), " and delivery = 'shipped'"),
        Status::Delivered => (Some("confirmed"), " and delivery = 'delivered'"),
        Status::Pending | Status::Rejected | Status::Cancelled | Status::Returned => {
            (Some(status.as_str()), "")
        }
    }
}
