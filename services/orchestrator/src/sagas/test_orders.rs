//! Orders for tests.

use schemas::common::{Address, Money, PricedLine};
use schemas::order::OrderCreated;
use uuid::Uuid;

/// The id of the order.
pub(crate) const ORDER: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);

/// An order of two lamps.
pub(crate) fn two_lamps() -> OrderCreated {
    let euros = |amount| Money { amount, currency: "EUR".to_owned() };
    OrderCreated {
        order_id: ORDER,
        customer_id: "customer-7".to_owned(),
        items: vec![PricedLine { sku: "lamp".to_owned(), quantity: 2, unit_price: euros(2_495) }],
        total: euros(4_990),
        payment_token: "tok_visa".to_owned(),
        shipping_address: Address {
            name: "Ada Example".to_owned(),
            line1: "Lampengasse 1".to_owned(),
            city: "Berlin".to_owned(),
            postal_code: "10115".to_owned(),
            country: "DE".to_owned(),
        },
        email: Some("ada@example.com".to_owned()),
    }
}
