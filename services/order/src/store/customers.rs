//! Statements about customers.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::domain::{Customer, NewCustomer};

shared::row! {
    /// A customer's row.
    pub struct CustomerRow {
        id: String,
        name: Option<String>,
        email: String,
        created_at: OffsetDateTime,
        updated_at: OffsetDateTime,
        version: i64,
    }
}

impl From<CustomerRow> for Customer {
    fn from(row: CustomerRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            email: row.email,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

const CUSTOMER: &str = "id, name, email, created_at, updated_at, version";

/// Creates or changes a customer. Returns its new state; `None` if nothing is different. The row is locked in either case.
pub async fn put_customer(
    db: &mut PgConnection,
    customer: &NewCustomer,
) -> Result<Option<Customer>, sqlx::Error> {
    let put = format!(
        "insert into customer (id, name, email) values ($1, $2, $3)
         on conflict (id) do update
         set name = excluded.name, email = excluded.email, version = customer.version + 1, updated_at = now()
         where (customer.name, customer.email) is distinct from (excluded.name, excluded.email)
         returning {CUSTOMER}"
    );
    let row: Option<CustomerRow> = sqlx::query_as(sqlx::AssertSqlSafe(put))
        .bind(&customer.id)
        .bind(&customer.name)
        .bind(&customer.email)
        .fetch_optional(db)
        .await?;
    Ok(row.map(Customer::from))
}

/// Returns a customer.
pub async fn find_customer(db: &mut PgConnection, id: &str) -> Result<Option<Customer>, sqlx::Error> {
    let find = format!("select {CUSTOMER} from customer where id = $1");
    let row: Option<CustomerRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(find)).bind(id).fetch_optional(db).await?;
    Ok(row.map(Customer::from))
}
