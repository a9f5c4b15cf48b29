//! Reads an order from JSON, and reports every invalid member, not only the first. Texts with control characters were refused
//! before.

use schemas::common::{Address, Line};
use schemas::country;
use serde::Serialize;
use serde_json::Value;
use shared::service::problem::{Invalid, member_pointer};
use utoipa::ToSchema;

use crate::domain::{AskedLine, NewOrder};

const MOST_LINES: usize = 100;
const MOST_PIECES: i64 = 10_000;
/// At most so many unknown members of an object are named.
const MOST_UNKNOWN: usize = 10;

/// An order as a customer asks for it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderInput {
    #[schema(min_length = 1, max_length = 64)]
    customer_id: String,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<Line>,
    /// The card, as the provider's token. `tok_visa` is good. `tok_chargeDeclined` and `tok_insufficientFunds` are declined.
    payment_token: String,
    shipping_address: Address,
    /// The address for the confirmation.
    email: Option<String>,
}

/// Reads an order, and returns it with its errors. If there are errors, the order has only the valid members.
pub fn read(body: &Value) -> (NewOrder, Vec<Invalid>) {
    let mut reader = Reader::default();
    if !body.is_object() {
        return (NewOrder::default(), vec![Invalid::new("", "is a JSON object")]);
    }
    reader.only(body, "", &["customerId", "items", "paymentToken", "shippingAddress", "email"]);
    let address = body.get("shippingAddress");
    if !address.is_some_and(Value::is_object) {
        reader.wrong("/shippingAddress", "is an object with name, line1, city, postalCode and country");
    }
    let address = address.filter(|address| address.is_object());
    if let Some(address) = address {
        reader.only(address, "/shippingAddress", &["name", "line1", "city", "postalCode", "country"]);
    }
    let mut part = |name: &str, most| {
        address.map(|address| reader.text(address, "/shippingAddress", name, most)).unwrap_or_default()
    };
    let shipping_address = Address {
        name: part("name", 200),
        line1: part("line1", 200),
        city: part("city", 200),
        postal_code: String::new(),
        country: part("country", 2),
    };
    let shipping_address = match address {
        Some(address) => Address {
            postal_code: reader.postal_code(address, &shipping_address.country),
            ..shipping_address
        },
        None => shipping_address,
    };
    if !shipping_address.country.is_empty() && !country::exists(&shipping_address.country) {
        reader.wrong("/shippingAddress/country", "is a country's two-letter code (ISO 3166-1), such as DE");
    }
    let order = NewOrder {
        customer_id: reader.text(body, "", "customerId", 64),
        items: reader.items(body.get("items")),
        payment_token: reader.token(body),
        shipping_address,
        email: reader.email(body.get("email")),
    };
    (order, reader.errors)
}

/// Reads members, and collects their errors.
#[derive(Default)]
pub(super) struct Reader {
    pub errors: Vec<Invalid>,
}

impl Reader {
    /// Refuses members that nobody would read. Their sender means something by them.
    pub fn only(&mut self, object: &Value, parent: &str, known: &[&str]) {
        let members = object.as_object().into_iter().flat_map(|members| members.keys());
        for name in members.filter(|name| !known.contains(&name.as_str())).take(MOST_UNKNOWN) {
            self.wrong(member_pointer(parent, name), format!("is not known; there are {}", known.join(", ")));
        }
    }

    pub fn wrong(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.errors.push(Invalid::new(pointer, detail));
    }

    fn text(&mut self, object: &Value, parent: &str, name: &str, most: usize) -> String {
        self.text_of(object.get(name), &format!("{parent}/{name}"), most)
    }

    pub fn text_of(&mut self, value: Option<&Value>, pointer: &str, most: usize) -> String {
        match value.map(|value| (value, value.as_str())) {
            None | Some((Value::Null, _)) => self.wrong(pointer, "is missing"),
            Some((_, None)) => self.wrong(pointer, "is a string"),
            Some((_, Some(text))) if text.trim().is_empty() => self.wrong(pointer, "is not empty"),
            Some((_, Some(text))) if text.chars().count() > most => {
                self.wrong(pointer, format!("has at most {most} characters"));
            }
            Some((_, Some(text))) => return text.to_owned(),
        }
        String::new()
    }

    /// Reads the postal code of an address in this country. It may be missing or empty where an address needs none.
    fn postal_code(&mut self, address: &Value, country: &str) -> String {
        let given =
            address.get("postalCode").filter(|code| code.as_str().is_none_or(|code| !code.trim().is_empty()));
        match given.filter(|code| !code.is_null()) {
            None if country::needs_postal_code(country) => {
                self.wrong("/shippingAddress/postalCode", format!("is needed in {country}"));
                String::new()
            }
            None => String::new(),
            given => self.text_of(given, "/shippingAddress/postalCode", 20),
        }
    }

    fn token(&mut self, body: &Value) -> String {
        let token = self.text(body, "", "paymentToken", 128);
        let digits = token.chars().filter(char::is_ascii_digit).count();
        if digits >= 12 && token.chars().all(|c| c.is_ascii_digit() || c == ' ' || c == '-') {
            self.wrong(
                "/paymentToken",
                "is the card provider's token, such as tok_visa, never a card number",
            );
        }
        token
    }

    pub fn email(&mut self, email: Option<&Value>) -> Option<String> {
        let email = email.filter(|email| !email.is_null())?;
        let parts = email.as_str().and_then(|text| text.split_once('@'));
        let good = |text: &str| text.len() <= 254 && !text.chars().any(char::is_whitespace);
        let good = email.as_str().is_some_and(good)
            && parts.is_some_and(|(local, domain)| {
                !local.is_empty() && !domain.is_empty() && !domain.contains('@')
            });
        if !good {
            self.wrong("/email", "is an e-mail address, such as ada@example.com");
        }
        email.as_str().map(str::to_owned)
    }

    fn items(&mut self, items: Option<&Value>) -> Vec<AskedLine> {
        let Some(items) = items.and_then(Value::as_array) else {
            self.wrong("/items", "is a list of {sku, quantity}");
            return Vec::new();
        };
        if items.is_empty() || items.len() > MOST_LINES {
            self.wrong("/items", format!("has 1 to {MOST_LINES} lines"));
            return Vec::new();
        }
        items.iter().enumerate().map(|(index, item)| self.line(index, item)).collect()
    }

    fn line(&mut self, index: usize, item: &Value) -> AskedLine {
        let pointer = format!("/items/{index}");
        if !item.is_object() {
            self.wrong(pointer, "is an object with sku and quantity");
            return AskedLine { sku: String::new(), quantity: 0 };
        }
        self.only(item, &pointer, &["sku", "quantity"]);
        let sku = self.text(item, &pointer, "sku", 64);
        let quantity = item.get("quantity").and_then(Value::as_i64).unwrap_or(0);
        if !(1..=MOST_PIECES).contains(&quantity) {
            self.wrong(format!("{pointer}/quantity"), format!("is a whole number from 1 to {MOST_PIECES}"));
        }
        AskedLine { sku, quantity }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "customerId": "ada", "items": [{"sku": "lamp", "quantity": 2}], "paymentToken": "tok_visa",
            "shippingAddress": {"name": "Ada", "line1": "Way 1", "city": "Ulm", "postalCode": "89073", "country": "DE"},
        })
    }

    fn pointers(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut body = good();
        change(&mut body);
        read(&body).1.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn a_good_order_is_read() {
        let (order, errors) = read(&good());
        assert_eq!(errors, []);
        assert_eq!(order.items, [AskedLine { sku: "lamp".to_owned(), quantity: 2 }]);
        assert_eq!(order.email, None);
    }

    #[test]
    fn every_wrong_member_is_named() {
        let (_, found) = read(&json!({"items": [{"sku": 7, "quantity": 0}, "x"], "email": "nobody"}));
        let mut found: Vec<_> = found.into_iter().map(|error| error.pointer).collect();
        found.sort();
        let expected = [
            "/customerId",
            "/email",
            "/items/0/quantity",
            "/items/0/sku",
            "/items/1",
            "/paymentToken",
            "/shippingAddress",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_member_that_nobody_would_read_is_refused_at_every_depth() {
        assert_eq!(pointers(|body| body["couponCode"] = json!("x")), ["/couponCode"]);
        assert_eq!(pointers(|body| body["e-mail"] = json!("ada@example.com")), ["/e-mail"]);
        assert_eq!(
            pointers(|body| body["shippingAddress"]["line2"] = json!("Flat 4b")),
            ["/shippingAddress/line2"]
        );
        assert_eq!(pointers(|body| body["items"][0]["a/b"] = json!(1)), ["/items/0/a~1b"]);
    }

    #[test]
    fn quantities_have_limits() {
        for quantity in [json!(0), json!(-1), json!(10_001), json!(1.5), json!("2"), json!(null)] {
            assert_eq!(pointers(|body| body["items"][0]["quantity"] = quantity), ["/items/0/quantity"]);
        }
        assert!(pointers(|body| body["items"][0]["quantity"] = json!(10_000)).is_empty());
    }

    #[test]
    fn a_country_must_exist() {
        for country in ["XX", "de", "DEU"] {
            assert_eq!(
                pointers(|body| body["shippingAddress"]["country"] = json!(country)),
                ["/shippingAddress/country"]
            );
        }
    }

    #[test]
    fn a_postal_code_is_needed_only_where_everybody_has_one() {
        let wrong = |country: &str, code: Option<Value>| {
            pointers(|body| {
                body["shippingAddress"]["country"] = json!(country);
                match code {
                    Some(code) => body["shippingAddress"]["postalCode"] = code,
                    None => {
                        drop(body["shippingAddress"].as_object_mut().expect("an object").remove("postalCode"))
                    }
                }
            })
        };
        let missing = [None, Some(json!("")), Some(json!("  ")), Some(json!(null))];
        for country in ["HK", "QA", "AE", "XK", "IE"] {
            for code in &missing {
                assert!(wrong(country, code.clone()).is_empty(), "{country} {code:?}");
            }
            assert!(wrong(country, Some(json!("00000"))).is_empty(), "{country}");
            assert_eq!(wrong(country, Some(json!(7))), ["/shippingAddress/postalCode"]);
        }
        for code in missing {
            assert_eq!(wrong("DE", code), ["/shippingAddress/postalCode"]);
        }
    }

    #[test]
    fn a_card_number_is_refused() {
        assert_eq!(pointers(|body| body["paymentToken"] = json!("4242 4242 4242 4242")), ["/paymentToken"]);
    }
}
