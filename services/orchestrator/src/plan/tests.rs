//! The plans as documents show them, and what their hashes depend on.

use std::collections::HashSet;
use std::time::Duration;

use schemas::inventory::{CommitStock, ReleaseStock, ReserveStock};
use schemas::order::{ConfirmOrder, RejectOrder};
use schemas::payment::{AuthorizePayment, CapturePayment, VoidPayment};
use serde::{Deserialize, Serialize};
use shared::envelope::Direction;

use super::{Definition, Plan, Saga};
use crate::engine::{Input, Kind, Refusal};
use crate::sagas::{PlaceOrder, PlaceOrder1, Registry, ReturnOrder, all};
use crate::testing::{ORDER, given, two_lamps};

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

/// Sagas in flight have this hash in their rows. Whoever changes it changes what they follow: count
/// the saga's version up and keep the old definition as long as one of them is open.
#[test]
fn the_hashes_are_pinned() {
    assert_eq!((PlaceOrder1::VERSION, PlaceOrder::VERSION, ReturnOrder::VERSION), (1, 2, 1));
    insta::assert_snapshot!(hash::<PlaceOrder1>(&all(None)), @"f18b1e6b49781121");
    insta::assert_snapshot!(hash::<PlaceOrder>(&all(None)), @"a2256fd064b3046b");
    insta::assert_snapshot!(hash::<ReturnOrder>(&all(None)), @"47e5cbb7bdee2ed7");
}

/// A reply says by the name which step it answers.
#[test]
#[should_panic(
    expected = "the plan of toy@8 has two steps `commit_stock`, number 4 and number 5; give one of them"
)]
fn a_plan_with_two_steps_of_one_name_is_not_taken() {
    let _ = Registry::default().with::<Toy<ONE_NAME_TWICE>>();
}

#[test]
#[should_panic(
    expected = "the plan of toy@9 has two steps `commit_stock`, number 4 and number 5; give one of them"
)]
fn a_step_with_the_name_of_what_closes_the_saga_is_not_taken() {
    let _ = Registry::default().with::<Toy<CLOSING_TWICE>>();
}

/// What is said of a step behind the pivot is said of that one, in a group too.
#[test]
fn a_step_behind_the_pivot_has_its_own_deadline_attempts_and_reply() {
    let plan = Toy::<WORDS>::plan();
    let (deadline, attempts) = (Duration::from_secs(11), 7);
    let told: Vec<_> = plan
        .steps
        .iter()
        .map(|step| (step.deadline == deadline, step.stuck_after == attempts, step.keep.is_some()))
        .collect();
    let (plain, all) = ((false, false, false), (true, true, true));
    assert_eq!(told, [plain, plain, all, plain, all, plain]);
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

#[test]
fn a_step_with_nothing_to_undo_is_passed_over() {
    let done = |step: &str| Input::Done { step: step.to_owned(), direction: Direction::Do };
    let refusal = Refusal { code: "no".to_owned(), detail: None };
    let mut run = given(Toy::<NO_UNDO>);
    run.take(&done("reserve_stock"), None);
    run.take(&done("authorize_payment"), None);
    let step = "capture_payment".to_owned();
    run.take(&Input::Refused { step, refusal }, None);
    assert_eq!(run.open(), [("reserve_stock".to_owned(), Direction::Undo)]);
}

#[test]
fn the_hash_changes_when_the_plan_does() {
    let registry = Registry::default()
        .with::<Toy<PLAIN>>()
        .with::<Toy<OTHER_ORDER>>()
        .with::<Toy<SIDE_BY_SIDE>>()
        .with::<Toy<NO_UNDO>>()
        .with::<Toy<OTHER_UNDO>>()
        .with::<Toy<SLOWER>>()
        .with::<Toy<ONE_MORE>>()
        .with::<Toy<OTHER_CLOSING>>()
        .with::<Toy<WORDS>>();
    let hashes = [
        hash::<Toy<PLAIN>>(&registry),
        hash::<Toy<OTHER_ORDER>>(&registry),
        hash::<Toy<SIDE_BY_SIDE>>(&registry),
        hash::<Toy<NO_UNDO>>(&registry),
        hash::<Toy<OTHER_UNDO>>(&registry),
        hash::<Toy<SLOWER>>(&registry),
        hash::<Toy<ONE_MORE>>(&registry),
        hash::<Toy<OTHER_CLOSING>>(&registry),
        hash::<Toy<WORDS>>(&registry),
    ];
    let distinct: HashSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len(), "{hashes:?}");
}

/// Another process must find the same hash for the same plan.
#[test]
fn the_hash_stays_when_the_plan_does() {
    assert_eq!(hash::<PlaceOrder>(&all(None)), hash::<PlaceOrder>(&Registry::default().with::<PlaceOrder>()));
}

fn hash<S: Saga>(registry: &Registry) -> String {
    registry.find(S::NAME, S::VERSION).expect("a definition").hash().to_owned()
}

const PLAIN: i32 = 0;
const OTHER_ORDER: i32 = 1;
const SIDE_BY_SIDE: i32 = 2;
const NO_UNDO: i32 = 3;
const OTHER_UNDO: i32 = 4;
const SLOWER: i32 = 5;
const ONE_MORE: i32 = 6;
const OTHER_CLOSING: i32 = 7;
const ONE_NAME_TWICE: i32 = 8;
const CLOSING_TWICE: i32 = 9;
const WORDS: i32 = 10;

/// A saga of which each version differs from [`PLAIN`] in one thing.
#[derive(Serialize, Deserialize)]
struct Toy<const VERSION: i32>;

impl<const VERSION: i32> Saga for Toy<VERSION> {
    const NAME: &'static str = "toy";
    const VERSION: i32 = VERSION;

    #[rustfmt::skip] // A line a step.
    fn plan() -> Definition<Self> {
        let begin = Plan::begin;
        let before = match VERSION {
            OTHER_ORDER => begin()
                .step(Self::authorize).undo(Self::void)
                .step(Self::reserve).undo(Self::release),
            SIDE_BY_SIDE => begin()
                .together(|group| group.step(Self::reserve).undo(Self::release).step(Self::authorize).undo(Self::void)),
            NO_UNDO => begin()
                .step(Self::reserve).undo(Self::release)
                .step(Self::authorize).nothing_to_undo("it lapses by itself"),
            OTHER_UNDO => begin()
                .step(Self::reserve).undo(Self::void)
                .step(Self::authorize).undo(Self::void),
            SLOWER => begin()
                .step(Self::reserve).deadline(Duration::from_secs(11)).undo(Self::release)
                .step(Self::authorize).undo(Self::void),
            _ => begin()
                .step(Self::reserve).undo(Self::release)
                .step(Self::authorize).undo(Self::void),
        };
        let after = before.pivot(Self::capture);
        match VERSION {
            ONE_MORE => after.then(Self::commit).or_else(Self::reject),
            OTHER_CLOSING => after.or_else(Self::confirm),
            ONE_NAME_TWICE => after.then(Self::commit).then(Self::commit).or_else(Self::reject),
            CLOSING_TWICE => after.then(Self::commit).or_else(|saga, _| saga.commit()),
            WORDS => after
                    .keep(|_, _| ()).deadline(Duration::from_secs(11)).stuck_after(7)
                .together(|group| {
                    group
                        .then(Self::commit)
                        .then(Self::release)
                            .keep(|_, _| ()).deadline(Duration::from_secs(11)).stuck_after(7)
                })
                .then(Self::void)
                .or_else(Self::reject),
            _ => after.or_else(Self::reject),
        }
    }
}

impl<const VERSION: i32> Toy<VERSION> {
    fn reserve(&self) -> ReserveStock {
        ReserveStock { order_id: ORDER, items: Vec::new() }
    }

    fn release(&self) -> ReleaseStock {
        ReleaseStock { order_id: ORDER }
    }

    fn authorize(&self) -> AuthorizePayment {
        AuthorizePayment { order_id: ORDER, amount: two_lamps().total, token: String::new() }
    }

    fn void(&self) -> VoidPayment {
        VoidPayment { order_id: ORDER, authorization_id: String::new() }
    }

    fn capture(&self) -> CapturePayment {
        CapturePayment { order_id: ORDER, authorization_id: String::new() }
    }

    fn commit(&self) -> CommitStock {
        CommitStock { order_id: ORDER }
    }

    fn reject(&self, refusal: &Refusal) -> RejectOrder {
        RejectOrder { order_id: ORDER, reason: refusal.code.clone(), detail: None }
    }

    fn confirm(&self, _: &Refusal) -> ConfirmOrder {
        ConfirmOrder { order_id: ORDER }
    }
}
