//! Reads a customer from JSON, and reports every invalid member, not only the first.

use serde::Serialize;
use serde_json::Value;
use shared::service::problem::Invalid;
use utoipa::ToSchema;

use super::input::Reader;
use crate::domain::NewCustomer;

/// The wanted state of a customer.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomerInput {
    /// Without it the customer has no name.
    #[schema(max_length = 200)]
    name: Option<String>,
    /// The address for notices about orders without an address of their own.
    email: String,
}

/// Reads a customer, and returns it with its errors. The rules of the id are those of an order's `customerId`.
pub fn read_customer(id: &str, body: &Value) -> (NewCustomer, Vec<Invalid>) {
    let mut reader = Reader::default();
    let id = reader.text_of(Some(&Value::from(id)), "/id", 64);
    if matches!(id.as_str(), "." | "..") {
        reader.wrong("/id", "is neither `.` nor `..`");
    }
    if !body.is_object() {
        reader.wrong("", "is a JSON object");
        return (NewCustomer { id, name: None, email: String::new() }, reader.errors);
    }
    reader.only(body, "", &["name", "email"]);
    let name = body.get("name").filter(|name| !name.is_null());
    let name = name.map(|name| reader.text_of(Some(name), "/name", 200).trim().to_owned());
    let email = body.get("email").filter(|email| !email.is_null());
    if email.is_none() {
        reader.wrong("/email", "is missing");
    }
    let email = reader.email(email);
    (NewCustomer { id, name, email: email.unwrap_or_default() }, reader.errors)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointers(id: &str, body: &Value) -> Vec<String> {
        read_customer(id, body).1.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn a_customer_needs_no_name_but_an_address() {
        let (customer, errors) = read_customer("ada", &json!({"email": "ada@example.com"}));
        assert_eq!(errors, []);
        let expected = NewCustomer { id: "ada".to_owned(), name: None, email: "ada@example.com".to_owned() };
        assert_eq!(customer, expected);
        assert_eq!(pointers("ada", &json!({"name": "Ada"})), ["/email"]);
        assert_eq!(pointers("ada", &json!({"email": "ada@example.com", "vip": true})), ["/vip"]);
        assert_eq!(pointers("ada", &json!({"name": null, "email": null})), ["/email"]);
    }

    #[test]
    fn every_wrong_member_is_named() {
        let wrong = json!({"name": 7, "email": "nobody"});
        assert_eq!(pointers(&"x".repeat(65), &wrong), ["/id", "/name", "/email"]);
        assert_eq!(pointers("", &json!({"name": " ", "email": "a b@c"})), ["/id", "/name", "/email"]);
        assert_eq!(pointers("ada", &json!({"email": 7})), ["/email"]);
        assert_eq!(pointers("ada", &json!([])), [""]);
        for unusable_key in [".", ".."] {
            assert_eq!(pointers(unusable_key, &json!({"email": "ada@example.com"})), ["/id"]);
        }
    }

    #[test]
    fn nothing_of_a_customer_is_in_its_debug_text() {
        let (customer, _) = read_customer("7", &json!({"name": "Ada", "email": "ada@example.com"}));
        assert_eq!(format!("{customer:?}"), "NewCustomer(7)");
    }
}
