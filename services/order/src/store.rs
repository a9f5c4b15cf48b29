//! Every SQL statement of the order service. Functions take the caller's transaction.

pub mod audit;
mod cancellations;
mod customers;
mod idempotency;
mod lists;
mod orders;
mod products;
mod returns;
mod timeline;

use std::time::Duration;

pub use self::cancellations::{refuse_cancellations, request_cancellation};
pub use self::customers::{find_customer, put_customer};
pub use self::idempotency::{AnswerRow, delete_answers, find_answers, insert_answers};
pub use self::lists::{ListFilter, list};
pub use self::orders::{
    NewRow, OrderRow, SettledRow, cancel, confirm, count_pending, find, find_settled, find_status,
    insert_orders, reject, save_delivery,
};
pub use self::products::{ProductRow, find_product_versions, find_products, list_products, save_products};
pub use self::returns::{finish_returns, refuse_returns, request_return};
pub use self::timeline::{
    ProgressRow, TimelineRow, append_timeline, find_progress, find_timeline, tells_settlement,
};

/// How old a request that was not decided must be to be published again when it is repeated.
const REPEATED_AFTER: Duration = Duration::from_secs(30);
