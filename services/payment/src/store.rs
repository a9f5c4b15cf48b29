//! Every SQL statement of the payment service. Functions take the caller's transaction.

pub mod audit;

use std::collections::HashMap;

use schemas::common::Money;
use schemas::payment::AuthorizePayment;
use shared::unit_of_work::UnitOfWork;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Move, Status};

/// A payment's row.
#[derive(Debug)]
pub struct PaymentRow {
    pub order_id: Uuid,
    pub amount: i64,
    pub currency: String,
    pub status: Status,
    pub authorization_id: Option<String>,
    pub reason: Option<String>,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

impl FromRow<'_, PgRow> for PaymentRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let status: String = row.try_get("status")?;
        Ok(Self {
            order_id: row.try_get("order_id")?,
            amount: row.try_get("amount")?,
            currency: row.try_get("currency")?,
            status: status.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            authorization_id: row.try_get("authorization_id")?,
            reason: row.try_get("reason")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

impl PaymentRow {
    pub fn money(&self) -> Money {
        Money { amount: self.amount, currency: self.currency.clone() }
    }
}

shared::row! {
    /// An entry of the ledger.
    #[derive(Debug)]
    pub struct EntryRow {
        pub kind: String,
        pub debit: String,
        pub credit: String,
        pub amount: i64,
        pub currency: String,
        pub at: OffsetDateTime,
    }
}

/// The provider's answer to an authorization.
#[derive(Debug)]
pub struct VerdictRow<'v> {
    pub order_id: Uuid,
    pub status: Status,
    pub authorization_id: Option<&'v str>,
    pub reason: Option<&'static str>,
}

/// Inserts payments before the provider is asked for their authorization.
pub async fn insert_authorizing(
    db: &mut PgConnection,
    payments: &[&AuthorizePayment],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into payment (order_id, token, amount, currency, status)
         select order_id, token, amount, currency, $5
         from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) as row (order_id, token, amount, currency)",
    )
    .bind(payments.iter().map(|payment| payment.order_id).collect::<Vec<_>>())
    .bind(payments.iter().map(|payment| payment.token.as_str()).collect::<Vec<_>>())
    .bind(payments.iter().map(|payment| payment.amount.amount).collect::<Vec<_>>())
    .bind(payments.iter().map(|payment| payment.amount.currency.as_str()).collect::<Vec<_>>())
    .bind(Status::Authorizing.as_str())
    .execute(db)
    .await?;
    Ok(())
}

/// Inserts payments together with the provider's answers.
pub fn insert_decided(uow: &mut UnitOfWork, payments: &[&AuthorizePayment], verdicts: &[VerdictRow<'_>]) {
    uow.defer(
        "insert into payment (order_id, token, amount, currency, status, authorization_id, reason)
         select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[])",
        |parameters| {
            parameters
                .bind(payments.iter().map(|payment| payment.order_id).collect::<Vec<_>>())
                .bind(payments.iter().map(|payment| payment.token.as_str()).collect::<Vec<_>>())
                .bind(payments.iter().map(|payment| payment.amount.amount).collect::<Vec<_>>())
                .bind(payments.iter().map(|payment| payment.amount.currency.as_str()).collect::<Vec<_>>())
                .bind(verdicts.iter().map(|verdict| verdict.status.as_str()).collect::<Vec<_>>())
                .bind(verdicts.iter().map(|verdict| verdict.authorization_id).collect::<Vec<_>>())
                .bind(verdicts.iter().map(|verdict| verdict.reason).collect::<Vec<_>>());
        },
    );
}

/// Writes the provider's answers to payments that wait for one. Returns the number of rows written.
pub async fn save_verdicts(db: &mut PgConnection, verdicts: &[VerdictRow<'_>]) -> Result<u64, sqlx::Error> {
    let saved = sqlx::query(
        "update payment p
         set status = row.status, authorization_id = row.authorization_id, reason = row.reason, updated_at = now()
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
              as row (order_id, status, authorization_id, reason)
         where p.order_id = row.order_id and p.status = $5",
    )
    .bind(verdicts.iter().map(|verdict| verdict.order_id).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|verdict| verdict.status.as_str()).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|verdict| verdict.authorization_id).collect::<Vec<_>>())
    .bind(verdicts.iter().map(|verdict| verdict.reason).collect::<Vec<_>>())
    .bind(Status::Authorizing.as_str())
    .execute(db)
    .await?;
    Ok(saved.rows_affected())
}

/// Makes a move of those payments that have the right status for it, and returns their amounts.
pub async fn save_move(
    db: &mut PgConnection,
    orders: &[Uuid],
    step: Move,
) -> Result<HashMap<Uuid, Money>, sqlx::Error> {
    let (from, to) = step.transition();
    let rows: Vec<(Uuid, i64, String)> = sqlx::query_as(
        "update payment set status = $3, updated_at = now() where order_id = any($1) and status = $2
         returning order_id, amount, currency",
    )
    .bind(orders)
    .bind(from.as_str())
    .bind(to.as_str())
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|(order, amount, currency)| (order, Money { amount, currency })).collect())
}

/// Appends a move of several orders to the ledger.
pub fn append_ledger(uow: &mut UnitOfWork, step: Move, moved: &[(Uuid, &Money)]) {
    if moved.is_empty() {
        return;
    }
    let (debit, credit) = step.accounts();
    uow.defer(
        "insert into ledger_entry (order_id, kind, debit, credit, amount, currency)
         select order_id, $1, $2, $3, amount, currency
         from unnest($4::uuid[], $5::bigint[], $6::text[]) as row (order_id, amount, currency)",
        |parameters| {
            parameters
                .bind(step.kind())
                .bind(debit)
                .bind(credit)
                .bind(moved.iter().map(|(order, _)| *order).collect::<Vec<_>>())
                .bind(moved.iter().map(|(_, money)| money.amount).collect::<Vec<_>>())
                .bind(moved.iter().map(|(_, money)| money.currency.as_str()).collect::<Vec<_>>());
        },
    );
}

const PAYMENT: &str = "order_id, amount, currency, status, authorization_id, reason, created_at, updated_at";

/// Returns the payment of an order.
pub async fn find(db: &mut PgConnection, order: Uuid) -> Result<Option<PaymentRow>, sqlx::Error> {
    let find = format!("select {PAYMENT} from payment where order_id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(order).fetch_optional(db).await
}

/// Returns the card and the authorization with which an order's money was taken.
pub async fn find_card(db: &mut PgConnection, order: Uuid) -> Result<Option<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "select token, authorization_id from payment
         where order_id = $1 and status in ($2, $3) and authorization_id is not null",
    )
    .bind(order)
    .bind(Status::Captured.as_str())
    .bind(Status::Refunded.as_str())
    .fetch_optional(db)
    .await
}

/// Returns the ledger's entries of an order.
pub async fn find_entries(db: &mut PgConnection, order: Uuid) -> Result<Vec<EntryRow>, sqlx::Error> {
    sqlx::query_as(
        "select kind, debit, credit, amount, currency, at from ledger_entry where order_id = $1 order by id",
    )
    .bind(order)
    .fetch_all(db)
    .await
}
