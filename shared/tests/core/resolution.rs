//! Open calls that an operator resolves. The engraver, whom nobody can reach, notes every call with its key.

use serde_json::{Value, json};
use shared::envelope::{Direction, Message, new_id};
use uuid::Uuid;

use crate::harness::commands::{Asked, ask};
use crate::harness::toy::Toy;
use crate::loyalty::messages::{CupEngraved, CupMelted, EngraveCup, EngraveRefused, MeltCup};

const STEP: &str = "engrave_cup";
const STATUS: &str = "select direction || ' ' || status from step_outcome order by direction";
const OPEN: &str = "select count(*) from step_outcome where claimed_until is not null";

fn engrave(member: Uuid) -> Asked {
    ask(member, STEP, Direction::Do, &EngraveCup { member, text: "for the hundredth coffee".to_owned() })
}

fn melt(member: Uuid) -> Asked {
    ask(member, STEP, Direction::Undo, &MeltCup { member })
}

async fn engraver_answers(toy: &Toy, answers: &str) {
    toy.execute(&format!("update engraver set answers = '{answers}'")).await;
}

async fn calls(toy: &Toy) -> Vec<String> {
    toy.texts("select key from engraver_call order by id").await
}

/// A service with an open call, whose engraver fails or does not answer yet.
async fn open(answers: &str) -> (Toy, Uuid) {
    let (toy, member) = (Toy::start().await, new_id());
    engraver_answers(&toy, answers).await;
    toy.told(&[engrave(member)]).await;
    assert_eq!(toy.texts(STATUS).await, ["do pending"]);
    (toy, member)
}

/// The final answers to a member's saga.
async fn outcome(toy: &Toy, member: Uuid) -> Vec<(Value, Value)> {
    let answers = toy.answers(member).await.into_iter();
    answers.map(|answer| (answer["outcome"].clone(), answer["result"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_stated_done_answers_its_saga_and_a_late_answer_changes_nothing() {
    let (toy, member) = open("not yet").await;
    let (status, answer) =
        toy.resolve(member, STEP, json!({"outcome": "done", "reply": {"mark": "seen by ada"}})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["steps"][0]["status"], "done");
    let done = (json!("done"), json!({"mark": "seen by ada"}));
    assert_eq!(outcome(&toy, member).await, std::slice::from_ref(&done));
    assert_eq!(toy.published(member).await, [CupEngraved::TYPE]);
    // The call is still under way, and is answered now.
    let dropped = "select count(*) from engraver_call";
    assert_eq!(toy.number(dropped).await, 1);
    engraver_answers(&toy, "yes").await;
    // The undo goes through the same worker, behind the late answer or before it.
    toy.told(&[melt(member)]).await;
    toy.until("the undo", async || toy.answers(member).await.len() == 2).await;
    toy.comes_to_rest().await;
    assert_eq!(outcome(&toy, member).await[0], done);
    assert_eq!(toy.published(member).await, [CupEngraved::TYPE, CupMelted::TYPE]);
    assert_eq!(toy.texts("select mark from engraving").await, ["seen by ada"]);
    assert_eq!(toy.texts(STATUS).await, ["do done", "undo done"]);
    assert_eq!(calls(&toy).await, [format!("{member}:{STEP}:do"), format!("{member}:{STEP}:undo")]);
    let acts = toy.acts().await;
    assert_eq!(acts.len(), 1);
    assert_eq!((&acts[0]["act"], &acts[0]["by"]), (&json!("resolve_step"), &json!("ada")));
    assert_eq!(acts[0]["detail"]["resolution"], json!({"outcome": "done", "reply": {"mark": "seen by ada"}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_stated_refused_is_withdrawn_until_the_provider_has_heard_it() {
    let (toy, member) = open("with an error").await;
    let (status, answer) =
        toy.resolve(member, STEP, json!({"outcome": "refused", "code": "too_small"})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["steps"][0]["status"], &answer["steps"][0]["withdrawing"]),
        (&json!("refused"), &json!(true))
    );
    let refused = [(json!("refused"), json!({"code": "too_small"}))];
    assert_eq!(outcome(&toy, member).await, refused);
    // The engraver is told, in vain at first, and again after a crash.
    let withdrawal = format!("withdraw {member}:{STEP}:do");
    let told = async |toy: &Toy| calls(toy).await.iter().filter(|key| **key == withdrawal).count();
    toy.until("the engraver to be told twice", async || told(&toy).await >= 2).await;
    let mut toy = toy;
    toy.crash();
    toy.ready().await;
    assert_eq!(toy.number(OPEN).await, 1, "it is not forgotten");
    engraver_answers(&toy, "yes").await;
    toy.until("the withdrawal to end", async || toy.number(OPEN).await == 0).await;
    let calls = calls(&toy).await;
    assert_eq!(calls.last(), Some(&withdrawal));
    let withdrawn = calls.iter().position(|key| *key == withdrawal).expect("it was told");
    assert!(
        calls[withdrawn..].iter().all(|key| *key == withdrawal),
        "it is not engraved behind it: {calls:?}"
    );
    // Who asks again gets the same answer, and an undo finds nothing to undo.
    toy.told(&[engrave(member), melt(member)]).await;
    toy.comes_to_rest().await;
    let answers = outcome(&toy, member).await;
    assert_eq!(answers[..2], [refused[0].clone(), refused[0].clone()]);
    assert_eq!(answers[2], (json!("done"), json!({})));
    assert_eq!(toy.published(member).await.iter().filter(|kind| *kind == EngraveRefused::TYPE).count(), 1);
    assert_eq!(toy.texts("select status from cup").await, ["refused"]);
    assert_eq!(toy.texts(STATUS).await, ["do refused", "undo done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_behind_a_stated_refusal_changes_nothing() {
    let (toy, member) = open("not yet").await;
    let stated = json!({"outcome": "refused", "code": "too_small"});
    assert_eq!(toy.resolve(member, STEP, stated.clone()).await.0, 200);
    engraver_answers(&toy, "yes").await;
    // The withdrawal waits for the end of the claim under which the call runs.
    toy.execute("update step_outcome set claimed_until = now() where status = 'refused'").await;
    toy.until("the withdrawal", async || toy.number(OPEN).await == 0).await;
    toy.comes_to_rest().await;
    assert_eq!(outcome(&toy, member).await, [(json!("refused"), json!({"code": "too_small"}))]);
    assert_eq!(toy.texts("select status from cup").await, ["refused"]);
    assert_eq!(toy.number("select count(*) from engraving").await, 0);
    assert_eq!(toy.resolve(member, STEP, stated).await.0, 409, "it is resolved once");
}

/// The undo of a cup cannot be refused, so it is called for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_never_answered_is_given_up_at_its_deadline_and_an_undo_is_not() {
    let (toy, engraved, late) = (Toy::start().await, new_id(), new_id());
    toy.told(&[engrave(engraved)]).await;
    engraver_answers(&toy, "with an error").await;
    toy.told(&[melt(engraved)]).await;
    toy.told(&[engrave(late)]).await;
    assert_eq!(outcome(&toy, late).await, []);
    // The first replica has a deadline of a day. Whoever passes it gives the call up, whoever has its claim.
    let _second = toy.second(&[("CALL_DEADLINE", "1s".to_owned())]);
    toy.until("an answer", async || !toy.answers(late).await.is_empty()).await;
    assert_eq!(outcome(&toy, late).await, [(json!("refused"), json!({"code": "timed_out"}))]);
    let overdue = "select count(*) from step_outcome
                   where direction = 'undo' and status = 'pending' and recorded_at < now() - interval '1 second'";
    assert_eq!(toy.number(overdue).await, 1, "the undo is called on");
    assert_eq!(toy.number(OPEN).await, 2, "and the engraver is to withdraw the other one");
    engraver_answers(&toy, "yes").await;
    toy.until("both", async || toy.number(OPEN).await == 0).await;
    toy.comes_to_rest().await;
    assert_eq!(toy.published(engraved).await.last().map(String::as_str), Some(CupMelted::TYPE));
    assert_eq!(outcome(&toy, late).await.len(), 1);
    assert!(calls(&toy).await.contains(&format!("withdraw {late}:{STEP}:do")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_resolves_nothing_and_says_why() {
    let (toy, member) = open("with an error").await;
    let refused = async |step: &str, stated: Value| {
        let (status, problem) = toy.resolve(member, step, stated).await;
        (status, problem["errors"][0]["pointer"].as_str().unwrap_or_default().to_owned())
    };
    let because = |pointer: &str| (422, pointer.to_owned());
    assert_eq!(refused(STEP, json!({"outcome": "done"})).await, because("/reply"), "the mark is needed");
    assert_eq!(
        refused(STEP, json!({"outcome": "done", "reply": {"mark": "m\u{0}"}})).await,
        because("/reply/mark")
    );
    assert_eq!(refused(STEP, json!({"outcome": "refused"})).await, because("/code"));
    assert_eq!(refused(STEP, json!({"outcome": "refused", "code": "bad_mood"})).await, because("/code"));
    assert_eq!(refused(STEP, json!({"outcome": "perhaps"})).await, because("/outcome"));
    assert_eq!(
        refused(STEP, json!({"outcome": "refused", "code": "too_small", "by": " "})).await,
        because("/by")
    );
    let undo = json!({"outcome": "done", "direction": "undo"});
    assert_eq!(refused(STEP, undo).await.0, 404, "its undo was not asked");
    assert_eq!(refused("polish_cup", json!({"outcome": "done"})).await.0, 404);
    assert_eq!(toy.texts(STATUS).await, ["do pending"]);
    assert_eq!(outcome(&toy, member).await, []);
    assert_eq!(toy.acts().await, Vec::<Value>::new());
}
