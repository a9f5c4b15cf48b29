//! Plans that differ in one thing each, and what the engine and a running saga see of the difference.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Definition, Plan, Saga};
use crate::envelope::{Command, Direction, Event, Message, Never};
use crate::saga::engine::{Input, Refusal};
use crate::saga::registry::Registry;
use crate::saga::testing::given;

/// The commands of the plans.
macro_rules! commands {
    ($($command:ident $({ $($member:ident: $type:ty),* })? = $kind:literal, refused with $refusal:ty;)*) => {
        $(
            #[derive(Serialize, Deserialize)]
            struct $command { $($($member: $type),*)? }

            impl Message for $command {
                const TYPE: &'static str = $kind;
                const TOPIC: &'static str = "test.commands";
            }

            impl Command for $command {
                type Reply = Done;
                type Refusal = $refusal;
            }
        )*
    };
}

/// The event that answers every command.
#[derive(Serialize, Deserialize)]
struct Done {}

impl Message for Done {
    const TYPE: &'static str = "test.done.v1";
    const TOPIC: &'static str = "test.events";
}

impl Event for Done {}

/// The event that refuses a command.
#[derive(Serialize, Deserialize)]
struct Refused {
    code: String,
}

impl Message for Refused {
    const TYPE: &'static str = "test.refused.v1";
    const TOPIC: &'static str = "test.events";
}

impl Event for Refused {}

commands! {
    ReserveStock = "test.reserve_stock.v1", refused with Refused;
    ReleaseStock = "test.release_stock.v1", refused with Never;
    AuthorizePayment = "test.authorize_payment.v1", refused with Refused;
    VoidPayment = "test.void_payment.v1", refused with Never;
    CapturePayment = "test.capture_payment.v1", refused with Refused;
    CommitStock = "test.commit_stock.v1", refused with Never;
    ConfirmOrder = "test.confirm_order.v1", refused with Never;
    RejectOrder { reason: String } = "test.reject_order.v1", refused with Never;
}

/// A reply identifies its step by name.
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

/// A setting of a step behind the pivot applies to that step only, in a group too.
#[test]
fn a_step_behind_the_pivot_has_its_own_deadline_attempts_and_reply() {
    let plan = Toy::<WORDS>::plan();
    let (deadline, attempts) = (Duration::from_secs(11), 7);
    let told: Vec<_> = plan
        .steps
        .iter()
        .map(|step| (step.deadline == deadline, step.stuck_after == attempts, step.on_reply.is_some()))
        .collect();
    let (plain, all) = ((false, false, false), (true, true, true));
    assert_eq!(told, [plain, plain, all, plain, all, plain]);
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

/// A saga whose versions each differ from [`PLAIN`] in one thing.
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
                    .on_reply(|_, _| ()).deadline(Duration::from_secs(11)).stuck_after(7)
                .together(|group| {
                    group
                        .then(Self::commit)
                        .then(Self::release)
                            .on_reply(|_, _| ()).deadline(Duration::from_secs(11)).stuck_after(7)
                })
                .then(Self::void)
                .or_else(Self::reject),
            _ => after.or_else(Self::reject),
        }
    }
}

impl<const VERSION: i32> Toy<VERSION> {
    fn reserve(&self) -> ReserveStock {
        ReserveStock {}
    }

    fn release(&self) -> ReleaseStock {
        ReleaseStock {}
    }

    fn authorize(&self) -> AuthorizePayment {
        AuthorizePayment {}
    }

    fn void(&self) -> VoidPayment {
        VoidPayment {}
    }

    fn capture(&self) -> CapturePayment {
        CapturePayment {}
    }

    fn commit(&self) -> CommitStock {
        CommitStock {}
    }

    fn reject(&self, refusal: &Refusal) -> RejectOrder {
        RejectOrder { reason: refusal.code.clone() }
    }

    fn confirm(&self, _: &Refusal) -> ConfirmOrder {
        ConfirmOrder {}
    }
}
