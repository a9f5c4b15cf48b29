//! The rules that let a command come twice, late, or after its undo, at one participant. It grants points in its database,
//! and prints vouchers with the help of an external dependency.

use serde_json::{Value, json};
use shared::envelope::{Direction, Message, new_id};
use shared::saga::participant::StepAnswered;
use uuid::Uuid;

use crate::harness::commands::{Asked, ask, ask_as, made_days_ago, outcomes};
use crate::harness::toy::Toy;
use crate::loyalty::messages::{
    CupEngraved, EngraveCup, GrantPoints, PointsGranted, PrintVoucher, RevokePoints, VoidVoucher,
    VoucherPrinted,
};

/// A service whose printer does not answer yet, so that what comes meanwhile finds the call open.
async fn silent_printer() -> Toy {
    let toy = Toy::start().await;
    toy.execute("update printer set answers = false").await;
    toy
}

fn grant_of(member: Uuid, campaign: &str, points: i64) -> Asked {
    let command = GrantPoints { member, campaign: campaign.to_owned(), points };
    ask(member, "grant_points", Direction::Do, &command)
}

fn grant(member: Uuid) -> Asked {
    grant_of(member, "spring", 2)
}

fn revoke(member: Uuid) -> Asked {
    ask(member, "grant_points", Direction::Undo, &RevokePoints { member })
}

fn print(member: Uuid) -> Asked {
    let command = PrintVoucher { member, text: "a free coffee".to_owned() };
    ask(member, "print_voucher", Direction::Do, &command)
}

fn engrave(member: Uuid) -> Asked {
    let command = EngraveCup { member, text: "for the hundredth coffee".to_owned() };
    ask(member, "engrave_cup", Direction::Do, &command)
}

fn void(member: Uuid, page: &str) -> Asked {
    ask(member, "print_voucher", Direction::Undo, &VoidVoucher { member, page: page.to_owned() })
}

/// Points of a campaign: left and granted.
async fn points(toy: &Toy, campaign: &str) -> (i64, i64) {
    let of = async |column: &str| {
        toy.number(&format!("select {column} from campaign where name = '{campaign}'")).await
    };
    (of("points_left").await, of("points_granted").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sent_again_gets_its_recorded_answer() {
    let toy = Toy::start().await;
    let (granted, refused) = (new_id(), new_id());
    for _ in 0..2 {
        toy.told(&[grant(granted), grant_of(refused, "leap_day", 4)]).await;
    }
    let answers = toy.answers(granted).await;
    assert_eq!(outcomes(&answers), [("do", "done"), ("do", "done")]);
    let answers = toy.answers(refused).await;
    assert_eq!(outcomes(&answers), [("do", "refused"), ("do", "refused")]);
    assert_eq!(answers[0], answers[1], "the same refusal, word for word");
    assert_eq!(points(&toy, "spring").await, (998, 2));
    assert_eq!((toy.published_grants(granted).await, toy.published_grants(refused).await), (1, 0));
    toy.nothing_is_parked().await;
}

/// A lost offset brings the same record again. Its saga has the answer already, or will get it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_again_is_answered_once_and_a_new_message_of_its_step_is_answered_again() {
    let toy = Toy::start().await;
    for (step, answer) in [
        (grant as fn(Uuid) -> Asked, PointsGranted::TYPE),
        (print, VoucherPrinted::TYPE),
        (engrave, CupEngraved::TYPE),
        // It finds nothing to undo.
        (revoke, StepAnswered::TYPE),
    ] {
        let member = new_id();
        let record = step(member);
        toy.told(&[record.clone(), record.clone()]).await;
        toy.until("the step to be answered", async || !toy.answers(member).await.is_empty()).await;
        toy.told(std::slice::from_ref(&record)).await;
        assert_eq!(toy.published(member).await, [answer]);
        assert_eq!(toy.caused_by(record.id).await, 1);
        let new = step(member);
        toy.told(&[new.clone(), record]).await;
        assert_eq!(toy.published(member).await, [answer, StepAnswered::TYPE]);
        assert_eq!(toy.caused_by(new.id).await, 1);
        let answers = toy.answers(member).await;
        assert_eq!(answers[0], answers[1], "the same answer, word for word");
    }
    assert_eq!(points(&toy, "spring").await, (998, 2));
    let effects = "select (select count(*) from print_entry) + (select count(*) from engraving)";
    assert_eq!(toy.number(effects).await, 2);
    assert_eq!(toy.number("select count(*) from inbox").await, 0, "the record of the step is enough");
    toy.comes_to_rest().await;
}

/// The key waits, so the step is not on record yet, and a repetition can't be told by its record.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_again_behind_a_parked_message_is_parked_once_and_carried_out_once() {
    let toy = Toy::start().await;
    let member = new_id();
    let (key, command) = (member.to_string(), grant(member));
    toy.produce(GrantPoints::TOPIC, &key, b"this is not an envelope").await;
    let poison = toy.parked_messages(&key, 1).await;
    toy.told(&[command.clone(), command.clone()]).await;
    toy.told(std::slice::from_ref(&command)).await;
    let parked = toy.parked_messages(&key, 2).await;
    assert_eq!(parked[1]["messageId"], json!(command.id));
    assert_eq!(toy.skip(&key, &poison[0]["id"]).await.0, 200);
    let (status, answer) = toy.retry(&key).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(1)), "{answer}");
    toy.told(&[command]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    assert_eq!(points(&toy, "spring").await, (998, 2));
    toy.nothing_is_parked().await;
}

/// What was skipped by an operator has no record either.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_an_operator_has_skipped_is_not_carried_out_when_it_comes_again() {
    let toy = Toy::start().await;
    for step in [grant as fn(Uuid) -> Asked, print] {
        let member = new_id();
        let (key, command) = (member.to_string(), step(member));
        toy.produce(GrantPoints::TOPIC, &key, b"this is not an envelope").await;
        toy.parked_messages(&key, 1).await;
        toy.told(std::slice::from_ref(&command)).await;
        for message in toy.parked_messages(&key, 2).await {
            assert_eq!(toy.skip(&key, &message["id"]).await.0, 200);
        }
        toy.told(&[command]).await;
        assert_eq!(toy.answers(member).await, Vec::<Value>::new());
    }
    assert_eq!(toy.number("select count(*) from step_outcome").await, 0);
    assert_eq!(points(&toy, "spring").await, (1000, 0));
    assert_eq!(calls(&toy).await, [""; 0]);
}

/// The inbox has forgotten messages of that age. The record of the step is kept as long as its saga is young.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_older_than_the_inbox_remembers_is_carried_out_once_if_its_saga_is_young() {
    let toy = Toy::start().await;
    let member = new_id();
    let command = GrantPoints { member, campaign: "spring".to_owned(), points: 2 };
    let old = ask_as(made_days_ago(15), member, "grant_points", Direction::Do, &command);
    for _ in 0..2 {
        toy.told(std::slice::from_ref(&old)).await;
        assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    }
    assert_eq!(points(&toy, "spring").await, (998, 2));
    assert_eq!(toy.number("select count(*) from inbox").await, 0);
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_may_have_been_forgotten_is_parked_and_one_that_is_on_record_is_answered_again() {
    let toy = Toy::start().await;
    for step in [grant as fn(Uuid) -> Asked, revoke, print, engrave] {
        let member = made_days_ago(15);
        toy.told(&[step(member)]).await;
        let parked = toy.parked_messages(&member.to_string(), 1).await;
        let reason = parked[0]["reason"].as_str().expect("a reason");
        assert!(reason.starts_with("stale: the saga began"), "{reason}");
        assert_eq!(toy.answers(member).await, Vec::<Value>::new(), "not even an undo is answered as done");
    }
    assert_eq!(toy.number("select count(*) from step_outcome").await, 0);
    assert_eq!(calls(&toy).await, [""; 0]);
    assert_eq!(toy.texts("select key from engraver_call").await, [""; 0]);

    let member = made_days_ago(15);
    toy.execute(&format!(
        "insert into step_outcome (saga_id, step, direction, type, message_id, status, outcome)
         values ('{member}', 'grant_points', 'do', 'loyalty.grant_points.v1', '{}', 'done', '{{}}')",
        new_id()
    ))
    .await;
    toy.told(&[grant(member)]).await;
    assert_eq!(toy.published(member).await, [StepAnswered::TYPE]);
    assert_eq!(points(&toy, "spring").await, (1000, 0));
}

/// What is refused once stays refused, whatever has come in meanwhile: the saga may have acted on the first answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_stands_when_it_is_asked_again_under_better_conditions() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[grant_of(member, "leap_day", 4)]).await;
    toy.execute("update campaign set points_left = points_left + 10 where name = 'leap_day'").await;
    toy.told(&[grant_of(member, "leap_day", 4)]).await;
    let answers = toy.answers(member).await;
    assert_eq!(outcomes(&answers), [("do", "refused"), ("do", "refused")]);
    assert_eq!(points(&toy, "leap_day").await, (13, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_a_command_in_one_batch_are_carried_out_and_answered_once() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[grant(member), grant(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    assert_eq!(points(&toy, "spring").await, (998, 2));
    assert_eq!(toy.published_grants(member).await, 1);
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_without_its_action_is_answered_as_done_and_tombstones_it() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[revoke(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("undo", "done")]);
    // The action, which had been on its way all the time, and once more.
    toy.told(&[grant(member)]).await;
    toy.told(&[grant(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("undo", "done")], "a zombie is not answered");
    assert_eq!(points(&toy, "spring").await, (1000, 0));
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_and_its_late_action_in_one_batch_change_nothing() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[revoke(member), grant(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("undo", "done")]);
    assert_eq!(points(&toy, "spring").await, (1000, 0));
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_and_its_undo_in_one_batch_are_both_answered() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[grant(member), revoke(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done"), ("undo", "done")]);
    assert_eq!(points(&toy, "spring").await, (1000, 0));
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_of_a_refused_action_is_answered_as_done() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[grant_of(member, "leap_day", 4)]).await;
    toy.told(&[revoke(member)]).await;
    toy.told(&[revoke(member)]).await;
    let answers = toy.answers(member).await;
    assert_eq!(outcomes(&answers), [("do", "refused"), ("undo", "done"), ("undo", "done")]);
    assert_eq!(points(&toy, "leap_day").await, (3, 0));
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_that_is_asked_for_again_is_answered_once() {
    let toy = silent_printer().await;
    let member = new_id();
    toy.told(&[print(member), print(member)]).await;
    toy.told(&[print(member)]).await;
    assert_eq!(toy.answers(member).await, Vec::<Value>::new(), "the printer has not answered yet");
    printed(&toy, member).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    assert_eq!(toy.number("select count(*) from print_entry").await, 1);
    assert_eq!(calls(&toy).await, [format!("{member}:print_voucher:do")]);
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_comes_while_its_action_is_under_way_waits_for_the_next_asking() {
    let toy = silent_printer().await;
    let member = new_id();
    toy.told(&[print(member)]).await;
    toy.told(&[void(member, "unknown")]).await;
    assert_eq!(toy.answers(member).await, Vec::<Value>::new(), "neither is answered yet");
    let page = printed(&toy, member).await;
    toy.told(&[void(member, &page)]).await;
    toy.until("the undo to be answered", async || toy.answers(member).await.len() == 2).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done"), ("undo", "done")]);
    assert_eq!(toy.texts("select status from voucher").await, ["voided"]);
    let keys = [format!("{member}:print_voucher:do"), format!("{member}:print_voucher:undo")];
    assert_eq!(calls(&toy).await, keys);
    toy.nothing_is_parked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_after_its_undo_is_never_made() {
    let toy = silent_printer().await;
    let member = new_id();
    toy.told(&[void(member, "unknown")]).await;
    toy.told(&[print(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("undo", "done")]);
    let tombstones = "select count(*) from step_outcome where status = 'tombstoned'";
    assert_eq!(toy.number(tombstones).await, 1);
    assert_eq!(toy.number("select count(*) from voucher").await, 0, "no intent, so no call");
    assert_eq!(calls(&toy).await, [""; 0]);
    toy.nothing_is_parked().await;
}

/// What the printer was called for.
async fn calls(toy: &Toy) -> Vec<String> {
    toy.texts("select key from printer_call order by id").await
}

/// Lets the printer answer, and returns the page.
async fn printed(toy: &Toy, member: Uuid) -> String {
    toy.execute("update printer set answers = true").await;
    toy.until("the printer to answer", async || !toy.answers(member).await.is_empty()).await;
    let answers = toy.answers(member).await;
    let page = answers[0]["result"]["page"].as_str();
    page.unwrap_or_else(|| panic!("no page in {}", json!(answers))).to_owned()
}
