//! Members of the services' JSON answers. A missing member counts as empty.

use schemas::common::Money;
use serde_json::Value;

/// The elements of an array.
pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A member that is a string.
pub fn text_of<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// A number; 0 if it is none.
pub fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// An amount of money, from `{amount, currency}`.
pub fn money(value: &Value) -> Money {
    Money { amount: number(&value["amount"]), currency: text_of(value, "currency").to_owned() }
}
