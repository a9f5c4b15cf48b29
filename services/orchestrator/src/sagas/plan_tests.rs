//! The plans as the documents show them, and the inputs of their hashes.

use shared::saga::engine::Kind;
use shared::saga::plan::Saga;
use shared::saga::registry::Registry;

use super::{PlaceOrder, PlaceOrder1, ReturnOrder, all};

#[test]
fn the_plans_as_tables() {
    insta::assert_snapshot!("place_order_as_a_table", PlaceOrder::plan().as_table());
    insta::assert_snapshot!("return_order_as_a_table", ReturnOrder::plan().as_table());
}

#[test]
fn the_plans_as_diagrams() {
    insta::assert_snapshot!("place_order_as_a_diagram", PlaceOrder::plan().as_mermaid());
    insta::assert_snapshot!("return_order_as_a_diagram", ReturnOrder::plan().as_mermaid());
}

/// Sagas in flight have this hash in their rows. If it changes, they would follow another plan. Count the saga's version
/// up instead, and keep the old definition as long as one of them is open.
#[test]
fn the_hashes_are_pinned() {
    assert_eq!((PlaceOrder1::VERSION, PlaceOrder::VERSION, ReturnOrder::VERSION), (1, 2, 1));
    insta::assert_snapshot!(hash::<PlaceOrder1>(&all(None)), @"f18b1e6b49781121");
    insta::assert_snapshot!(hash::<PlaceOrder>(&all(None)), @"a2256fd064b3046b");
    insta::assert_snapshot!(hash::<ReturnOrder>(&all(None)), @"47e5cbb7bdee2ed7");
}

#[test]
fn one_pivot_parts_what_can_be_undone_from_what_cannot() {
    for shape in [PlaceOrder::plan().shape(), PlaceOrder1::plan().shape(), ReturnOrder::plan().shape()] {
        let kinds: Vec<Kind> = shape.steps.iter().map(|step| step.kind).collect();
        let pivot = kinds.iter().position(|kind| *kind == Kind::Pivot).expect("a pivot");
        let closing = kinds.iter().position(|kind| *kind == Kind::Closing).expect("a closing step");
        assert!(kinds[..pivot].iter().all(|kind| *kind == Kind::Compensatable), "{kinds:?}");
        assert!(kinds[pivot + 1..closing].iter().all(|kind| *kind == Kind::Forward), "{kinds:?}");
        assert!(kinds[closing + 1..].iter().all(|kind| *kind == Kind::Cancelling), "{kinds:?}");
        assert!(shape.steps[pivot..].iter().all(|step| !step.undo));
    }
}

/// Another process must find the same hash for the same plan.
#[test]
fn the_hash_stays_when_the_plan_does() {
    assert_eq!(hash::<PlaceOrder>(&all(None)), hash::<PlaceOrder>(&Registry::default().with::<PlaceOrder>()));
}

fn hash<S: Saga>(registry: &Registry) -> String {
    registry.find(S::NAME, S::VERSION).expect("a definition").hash().to_owned()
}
