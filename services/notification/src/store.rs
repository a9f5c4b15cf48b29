//! Every SQL statement of the notification service. Functions take the caller's transaction.

pub mod audit;

use std::collections::HashMap;

use schemas::notification::NotifyCustomer;
use schemas::order::CustomerUpdated;
use shared::envelope::new_id;
use shared::read_model::{Heard, Known};
use shared::unit_of_work::UnitOfWork;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{self, Channel, Status};

/// A new notice to a customer.
pub struct NewNotification<'n> {
    pub id: Uuid,
    pub order_id: Uuid,
    customer_id: &'n str,
    kind: &'static str,
    email: Option<&'n str>,
    text: String,
}

impl<'n> NewNotification<'n> {
    /// The notice that a command asks for.
    pub fn of(command: &'n NotifyCustomer) -> Self {
        let NotifyCustomer { order_id, customer_id, email, notice } = command;
        Self {
            id: new_id(),
            order_id: *order_id,
            customer_id,
            kind: domain::kind(notice),
            email: email.as_deref(),
            text: domain::text(*order_id, notice),
        }
    }
}

shared::row! {
    /// A notice that is to be sent.
    pub struct SendingRow {
        pub id: Uuid,
        pub email: Option<String>,
        pub text: String,
        pub created_at: OffsetDateTime,
    }
}

/// The outcome of a notice.
pub struct EndedRow<'e> {
    pub id: Uuid,
    pub channel: Channel,
    pub status: Status,
    pub reason: Option<&'e str>,
}

shared::row! {
    /// A notice to a customer, as the routes show it.
    pub struct NotificationRow {
        pub id: Uuid,
        pub order_id: Uuid,
        pub customer_id: String,
        pub kind: String,
        pub text: String,
        pub channel: String,
        pub status: String,
        pub reason: Option<String>,
        pub created_at: OffsetDateTime,
    }
}

/// Inserts notices. A notice without an address gets the customer's own, if that is known.
pub fn insert(uow: &mut UnitOfWork, rows: &[NewNotification<'_>], channel: Channel, status: Status) {
    uow.defer(
        "insert into notification (id, order_id, customer_id, kind, email, text, channel, status)
         select id, order_id, customer_id, kind, coalesce(row.email, contact.email), text, $7, $8
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[])
              as row (id, order_id, customer_id, kind, email, text)
         left join customer_contact contact using (customer_id)",
        |parameters| {
            parameters
                .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.order_id).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.customer_id).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.kind).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.email).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>())
                .bind(channel.as_str())
                .bind(status.as_str());
        },
    );
}

/// Returns the notice of this kind about an order, if it is to be sent.
pub async fn find_sending(
    db: &mut PgConnection,
    order: Uuid,
    kind: &str,
) -> Result<Option<SendingRow>, sqlx::Error> {
    sqlx::query_as(
        "select id, email, text, created_at from notification
         where order_id = $1 and kind = $2 and status = 'sending'",
    )
    .bind(order)
    .bind(kind)
    .fetch_optional(db)
    .await
}

/// Writes the outcomes of notices that were to be sent. Returns the number of rows written.
pub async fn end(db: &mut PgConnection, rows: &[EndedRow<'_>]) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query(
        "update notification n set channel = row.channel, status = row.status, reason = row.reason
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as row (id, channel, status, reason)
         where n.id = row.id and n.status = 'sending'",
    )
    .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.channel.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.status.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.reason).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(ended.rows_affected())
}

/// Returns what the copies of these customers' addresses are from, by customer.
pub async fn find_contact_versions(
    db: &mut PgConnection,
    customers: &[&str],
) -> Result<HashMap<String, Known>, sqlx::Error> {
    let rows: Vec<(String, i64, Option<Uuid>, OffsetDateTime)> = sqlx::query_as(
        "select customer_id, version, message_id, message_at from customer_contact where customer_id = any($1)",
    )
    .bind(customers)
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(customer, version, message_id, at)| (customer, Known { version, message_id, at }))
        .collect())
}

/// Writes customers' addresses. No customer comes twice.
pub fn save_contacts(uow: &mut UnitOfWork, contacts: &[Heard<CustomerUpdated>]) {
    uow.defer(
        "insert into customer_contact (customer_id, email, version, message_id, message_at)
         select * from unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::timestamptz[])
         on conflict (customer_id) do update
         set email = excluded.email, version = excluded.version, message_id = excluded.message_id,
             message_at = excluded.message_at, updated_at = now()",
        |parameters| {
            parameters
                .bind(contacts.iter().map(|heard| heard.data.customer_id.as_str()).collect::<Vec<_>>())
                .bind(contacts.iter().map(|heard| heard.data.email.as_str()).collect::<Vec<_>>())
                .bind(contacts.iter().map(|heard| heard.version).collect::<Vec<_>>())
                .bind(contacts.iter().map(|heard| heard.message_id).collect::<Vec<_>>())
                .bind(contacts.iter().map(|heard| heard.at).collect::<Vec<_>>());
        },
    );
}

const NOTIFICATION: &str = "id, order_id, customer_id, kind, text, channel, status, reason, created_at";

/// Returns a page of the notices to customers, the newest first: those older than `before`, and only those about `order` if it
/// is set.
pub async fn list(
    db: &mut PgConnection,
    order: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<NotificationRow>, sqlx::Error> {
    let before = before.unwrap_or(Uuid::max());
    let Some(order) = order else {
        let list = format!("select {NOTIFICATION} from notification where id < $1 order by id desc limit $2");
        return sqlx::query_as(sqlx::AssertSqlSafe(list)).bind(before).bind(limit).fetch_all(db).await;
    };
    // An order has few notices. They are all selected first. Otherwise the planner may read all notices in the wanted order,
    // in the hope to find those of the order soon.
    let list = format!(
        "with told as materialized (select {NOTIFICATION} from notification where order_id = $1)
         select {NOTIFICATION} from told where id < $2 order by id desc limit $3"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(list)).bind(order).bind(before).bind(limit).fetch_all(db).await
}
