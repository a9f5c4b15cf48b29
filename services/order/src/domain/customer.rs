//! A customer and its rules.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// The wanted state of a customer. It is valid in itself.
#[derive(Clone, PartialEq, Eq)]
pub struct NewCustomer {
    pub id: String,
    pub name: Option<String>,
    pub email: String,
}

impl std::fmt::Debug for NewCustomer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewCustomer({})", self.id)
    }
}

/// A customer.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Customer {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub email: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Counts up with every change of the customer.
    pub version: i64,
}

impl std::fmt::Debug for Customer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Customer({})", self.id)
    }
}
