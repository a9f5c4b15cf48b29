//! Calls before the transaction. The dependency is an engraver, who notes every call with its key and answers as a test
//! says. He may be called several times under a key; the service must record one outcome and give one answer.

use serde_json::{Value, json};
use shared::db::DbOptions;
use shared::envelope::{Direction, Message, new_id};
use shared::saga::participant::{StepAnswered, StepFailing};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::harness::commands::{Asked, ask, outcomes};
use crate::harness::process::Process;
use crate::harness::toy::{INSTANCE, Toy};
use crate::loyalty::messages::{CupEngraved, CupMelted, EngraveCup, MeltCup};

/// The name of the step in the plan of its saga.
const STEP: &str = "engrave_cup";

const PENDING: &str = "select count(*) from step_outcome where status = 'pending'";

fn engrave(member: Uuid) -> Asked {
    let command = EngraveCup { member, text: "for the hundredth coffee".to_owned() };
    ask(member, STEP, Direction::Do, &command)
}

fn melt(member: Uuid) -> Asked {
    ask(member, STEP, Direction::Undo, &MeltCup { member })
}

/// A service whose engraver does not answer yet.
async fn silent_engraver() -> Toy {
    let toy = Toy::start().await;
    engraver_answers(&toy, "not yet").await;
    toy
}

async fn engraver_answers(toy: &Toy, answers: &str) {
    toy.execute(&format!("update engraver set answers = '{answers}'")).await;
}

/// What the engraver was called for.
async fn calls(toy: &Toy) -> Vec<String> {
    toy.texts("select key from engraver_call order by id").await
}

async fn until_called(toy: &Toy, times: usize) {
    toy.until(&format!("{times} calls"), async || calls(toy).await.len() == times).await;
}

/// The key of the call for a member's cup.
fn key(member: Uuid) -> String {
    format!("{member}:{STEP}:do")
}

async fn until_answered(toy: &Toy, member: Uuid, times: usize) {
    let what = format!("{times} answers about {member}");
    toy.until(&what, async || toy.answers(member).await.len() == times).await;
}

/// Everything that a member's engraving has left: one cup, one outcome, one event. The rest has come to rest.
async fn is_engraved_once(toy: &Toy, member: Uuid) {
    toy.comes_to_rest().await;
    assert_eq!(toy.published(member).await, [CupEngraved::TYPE]);
    let answers = toy.answers(member).await;
    let mark = format!("mark {}", key(member));
    assert_eq!(
        answers,
        [json!({"step": STEP, "direction": "do", "outcome": "done", "result": {"mark": mark.as_str()}})]
    );
    let cups = format!("select status || ', ' || mark from cup where member = '{member}'");
    assert_eq!(toy.texts(&cups).await, [format!("engraved, {mark}")]);
    let engravings = format!("select mark from engraving where member = '{member}'");
    assert_eq!(toy.texts(&engravings).await, [mark]);
    let steps = format!("select direction || ' ' || status from step_outcome where saga_id = '{member}'");
    assert_eq!(toy.texts(&steps).await, ["do done"]);
}

/// Whether the transaction that recorded the intent has given the answer too. The step was never pending then.
async fn took_one_transaction(toy: &Toy, member: Uuid) -> bool {
    let same = format!(
        "select count(*) from outbox join cup on ordered_in = xid where member = '{member}' and key = '{member}'"
    );
    toy.number(&same).await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_time_costs_one_call_and_one_transaction() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[engrave(member)]).await;
    is_engraved_once(&toy, member).await;
    assert_eq!(calls(&toy).await, [key(member)]);
    assert!(took_one_transaction(&toy, member).await, "the intent and the outcome are recorded together");
    let untouched = "select count(*) from step_outcome where attempts = 0 and claimed_by is null and claimed_until is null";
    assert_eq!(toy.number(untouched).await, 1);
    // An undo is called ahead too.
    toy.told(&[melt(member)]).await;
    assert_eq!(toy.published(member).await, [CupEngraved::TYPE, CupMelted::TYPE]);
    assert_eq!(toy.texts("select status from cup").await, ["melted"]);
    assert_eq!(calls(&toy).await, [key(member), format!("{member}:{STEP}:undo")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_called_for_together_and_recorded_together() {
    const MEMBERS: usize = 10;
    let mut toy = Toy::start().await;
    toy.process.kill9();
    let members: Vec<Uuid> = (0..MEMBERS).map(|_| new_id()).collect();
    let mut commands: Vec<Asked> = members.iter().copied().map(engrave).collect();
    // The effect of a key's second message depends on the first one, so it is not called for ahead.
    commands.push(melt(members[0]));
    toy.send_together(&commands).await;
    toy.launch();
    toy.commands_are_taken().await;
    until_answered(&toy, members[0], 2).await;
    toy.comes_to_rest().await;
    assert_eq!(outcomes(&toy.answers(members[0]).await), [("do", "done"), ("undo", "done")]);
    for member in &members[1..] {
        is_engraved_once(&toy, *member).await;
    }
    let transactions = "select count(distinct ordered_in) from cup";
    assert_eq!(toy.number(transactions).await, 1);
    let mut expected: Vec<String> = members.iter().copied().map(key).collect();
    expected.push(format!("{}:{STEP}:undo", members[0]));
    let mut called = calls(&toy).await;
    assert_eq!(called.last(), expected.last(), "the undo comes last");
    called.sort_unstable();
    expected.sort_unstable();
    assert_eq!(called, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_call_and_the_commit_costs_a_second_call_under_the_same_key() {
    let mut toy = Toy::start().await;
    let member = new_id();
    // The transaction has the answer and waits for the table of cups.
    let mut gate = toy.connect().await;
    sqlx::raw_sql("begin; lock table cup in access exclusive mode").execute(&mut gate).await.expect("locked");
    toy.send_together(&[engrave(member)]).await;
    toy.until("the transaction to wait", async || toy.waiting_for("relation").await == 1).await;
    assert_eq!(calls(&toy).await, [key(member)]);
    toy.process.kill9();
    sqlx::raw_sql("rollback").execute(&mut gate).await.expect("released");
    assert_eq!(toy.number("select count(*) from step_outcome").await, 0, "nothing says that it was called");
    toy.launch();
    toy.commands_are_taken().await;
    is_engraved_once(&toy, member).await;
    assert_eq!(calls(&toy).await, [key(member), key(member)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_the_call_is_under_way_costs_a_second_call_under_the_same_key() {
    let mut toy = silent_engraver().await;
    let member = new_id();
    toy.send_together(&[engrave(member)]).await;
    until_called(&toy, 1).await;
    toy.process.kill9();
    toy.launch();
    until_called(&toy, 2).await;
    engraver_answers(&toy, "yes").await;
    toy.commands_are_taken().await;
    is_engraved_once(&toy, member).await;
    assert_eq!(calls(&toy).await, [key(member), key(member)]);
}

/// How many messages a replica has found to be repetitions.
async fn repetitions(toy: &Toy, replica: &Process) -> f64 {
    toy.metric(replica, "amends_inbox_duplicates_total").await.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_freezes_during_its_call_and_loses_its_partition_drops_its_answer() {
    let toy = silent_engraver().await;
    let member = new_id();
    toy.send_together(&[engrave(member)]).await;
    until_called(&toy, 1).await;
    toy.process.freeze();
    assert_eq!(toy.number("select count(*) from step_outcome").await, 0, "it froze before its transaction");
    let _second = toy.second(&[]);
    until_called(&toy, 2).await;
    engraver_answers(&toy, "yes").await;
    until_answered(&toy, member, 1).await;
    toy.process.thaw();
    // It goes on where it was, and finds the record of the other one.
    toy.until("the frozen replica to find the record", async || repetitions(&toy, &toy.process).await >= 1.0)
        .await;
    toy.commands_are_taken().await;
    is_engraved_once(&toy, member).await;
    assert_eq!(calls(&toy).await, [key(member), key(member)]);
}

/// The lock that a service takes for a key. A batch takes its locks in the order of these numbers.
async fn lock_of(toy: &Toy, member: Uuid) -> i64 {
    let options: PgConnectOptions = toy.database_url().parse().expect("a URL");
    let db = DbOptions::new("test").connect(options);
    let mut uow = db.write(&[member.to_string()]).await.expect("a lock");
    let held = "select (classid::bigint << 32) | objid::bigint from pg_locks
                where pid = pg_backend_pid() and locktype = 'advisory' and objsubid = 1";
    let lock = sqlx::query_scalar(held).fetch_one(uow.db()).await.expect("it is held");
    uow.abandon().await.expect("released");
    lock
}

/// Two members, and a connection that holds the lock of the first. A batch with both takes the first lock first, so it
/// waits there without the second lock.
async fn two_members(toy: &Toy) -> ([Uuid; 2], PgConnection) {
    let mut members = [(0, new_id()), (0, new_id())];
    for (lock, member) in &mut members {
        *lock = lock_of(toy, *member).await;
    }
    members.sort_unstable();
    let [(lock, first), (_, second)] = members;
    let mut gate = toy.connect().await;
    sqlx::raw_sql("begin").execute(&mut gate).await.expect("begun");
    sqlx::query("select pg_advisory_xact_lock($1)").bind(lock).execute(&mut gate).await.expect("locked");
    ([first, second], gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_freezes_with_its_answers_in_hand_drops_those_that_another_has_recorded() {
    let toy = Toy::start().await;
    let ([held, free], mut gate) = two_members(&toy).await;
    toy.send_together(&[engrave(free), engrave(held)]).await;
    toy.until("the first replica to wait", async || toy.waiting_for("advisory").await == 1).await;
    assert_eq!(calls(&toy).await.len(), 2, "it has both answers");
    toy.process.freeze();
    // The other one takes the messages one by one. It records one outcome, and waits with the second answer.
    let second = toy.second(&[("CONSUMER_BATCH", "1".to_owned())]);
    until_answered(&toy, free, 1).await;
    toy.until("the second replica to wait", async || toy.waiting_for("advisory").await == 2).await;
    toy.process.thaw();
    sqlx::raw_sql("rollback").execute(&mut gate).await.expect("released");
    // The first one finds the record of the one, and whoever comes second finds that of the other.
    toy.until("two records to be found", async || {
        repetitions(&toy, &toy.process).await + repetitions(&toy, &second).await >= 2.0
    })
    .await;
    toy.commands_are_taken().await;
    for member in [held, free] {
        is_engraved_once(&toy, member).await;
    }
    // What a dropped answer could do is break the transaction of the others. One by one they would succeed.
    assert!(
        !toy.said(INSTANCE).contains("the batch failed"),
        "the other message of the batch is not affected"
    );
    let mut called = calls(&toy).await;
    called.sort_unstable();
    let mut expected = [key(held), key(held), key(free), key(free)];
    expected.sort_unstable();
    assert_eq!(called, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_on_record_is_not_called_again() {
    let toy = Toy::start().await;
    let member = new_id();
    let record = engrave(member);
    toy.told(&[record.clone(), record.clone()]).await;
    toy.told(std::slice::from_ref(&record)).await;
    is_engraved_once(&toy, member).await;
    toy.told(&[engrave(member), record, engrave(member)]).await;
    let types = [CupEngraved::TYPE, StepAnswered::TYPE, StepAnswered::TYPE];
    assert_eq!(toy.published(member).await, types, "each new message asks for the answer");
    let answers = toy.answers(member).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(toy.number("select count(*) from engraving").await, 1);
    assert_eq!(calls(&toy).await, [key(member)]);
    toy.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_comes_after_its_undo_is_not_called() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[melt(member)]).await;
    toy.told(&[engrave(member)]).await;
    // And both together.
    let other = new_id();
    toy.told(&[melt(other), engrave(other)]).await;
    for member in [member, other] {
        assert_eq!(outcomes(&toy.answers(member).await), [("undo", "done")]);
    }
    let tombstones = "select count(*) from step_outcome where status = 'tombstoned' and direction = 'do'";
    assert_eq!(toy.number(tombstones).await, 2);
    assert_eq!(toy.number("select count(*) from cup").await, 0);
    assert_eq!(calls(&toy).await, [""; 0]);
    toy.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_whose_action_is_under_way_waits_for_the_next_asking() {
    let toy = silent_engraver().await;
    let member = new_id();
    toy.told(&[engrave(member)]).await;
    let steps = "select direction || ' ' || status from step_outcome order by direction";
    assert_eq!(toy.texts(steps).await, ["do pending"], "the answer was not in time");
    toy.told(&[melt(member)]).await;
    assert_eq!(toy.answers(member).await, Vec::<Value>::new(), "neither is answered yet");
    assert_eq!(toy.texts(steps).await, ["do pending"]);
    assert_eq!(calls(&toy).await, [key(member)]);
    engraver_answers(&toy, "yes").await;
    until_answered(&toy, member, 1).await;
    is_engraved_once(&toy, member).await;
    toy.told(&[melt(member)]).await;
    until_answered(&toy, member, 2).await;
    assert_eq!(toy.published(member).await, [CupEngraved::TYPE, CupMelted::TYPE]);
    assert_eq!(toy.texts(steps).await, ["do done", "undo done"]);
    assert_eq!(toy.texts("select status from cup").await, ["melted"]);
    assert_eq!(calls(&toy).await, [key(member), format!("{member}:{STEP}:undo")]);
    toy.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_longer_is_handed_over_and_not_repeated() {
    let toy = silent_engraver().await;
    let (member, later) = (new_id(), new_id());
    toy.told(&[engrave(member)]).await;
    let claimed = "select count(*) from step_outcome
                   where status = 'pending' and attempts = 0 and claimed_by is not null and claimed_until > now()";
    assert_eq!(toy.number(claimed).await, 1, "the intent is on record");
    assert_eq!(toy.texts("select status from cup").await, ["ordered"]);
    // After that, a batch does not wait for its answers. Its intent is recorded first.
    toy.told(&[engrave(later)]).await;
    assert_eq!(toy.number(PENDING).await, 2);
    until_called(&toy, 2).await;
    engraver_answers(&toy, "yes").await;
    for member in [member, later] {
        until_answered(&toy, member, 1).await;
        is_engraved_once(&toy, member).await;
        assert!(!took_one_transaction(&toy, member).await);
    }
    assert_eq!(calls(&toy).await, [key(member), key(later)]);
    let untouched = "select count(*) from step_outcome where attempts = 0 and claimed_by is null";
    assert_eq!(toy.number(untouched).await, 2);
    // The pause was one batch long.
    let fast = new_id();
    toy.told(&[engrave(fast)]).await;
    is_engraved_once(&toy, fast).await;
    assert!(took_one_transaction(&toy, fast).await, "it is called ahead again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_time_is_an_attempt_and_the_step_is_called_again() {
    let toy = Toy::start().await;
    let member = new_id();
    engraver_answers(&toy, "with an error").await;
    toy.told(&[engrave(member)]).await;
    toy.until("its saga to hear of it", async || !toy.published(member).await.is_empty()).await;
    let first = format!(
        "select convert_from(body, 'UTF8') from outbox where key = '{member}' order by position limit 1"
    );
    let event: Value = serde_json::from_str(&toy.text(&first).await.expect("an event")).expect("JSON");
    assert_eq!(
        (&event["type"], &event["data"]),
        (&json!(StepFailing::TYPE), &json!({"error": "the needle is broken", "attempts": 1}))
    );
    assert_eq!(event["metadata"]["outcome"], "failing");
    assert_eq!(toy.number(PENDING).await, 1, "the step is open");
    assert_eq!(toy.answers(member).await, Vec::<Value>::new());
    engraver_answers(&toy, "yes").await;
    until_answered(&toy, member, 1).await;
    toy.comes_to_rest().await;
    assert_eq!(toy.published(member).await.last().map(String::as_str), Some(CupEngraved::TYPE));
    assert_eq!(toy.texts("select status from cup").await, ["engraved"]);
    assert_eq!(toy.number("select count(*) from engraving").await, 1);
    let attempts = toy.number("select attempts::bigint from step_outcome").await;
    let calls = calls(&toy).await;
    assert_eq!(calls.len() as i64, attempts + 1, "each call but the last was an attempt");
    assert!(attempts >= 1 && calls.iter().all(|call| *call == key(member)), "{calls:?}");
}

/// Neither the inbox nor a step is on record for it, only the decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_an_operator_has_skipped_is_not_called_when_it_comes_again() {
    let toy = Toy::start().await;
    let member = new_id();
    let command = engrave(member);
    toy.produce(EngraveCup::TOPIC, &member.to_string(), b"this is not an envelope").await;
    toy.parked_messages(&member.to_string(), 1).await;
    toy.told(std::slice::from_ref(&command)).await;
    let parked = toy.parked_messages(&member.to_string(), 2).await;
    assert_eq!(calls(&toy).await, [""; 0], "the key is parked");
    for message in parked {
        assert_eq!(toy.skip(&member.to_string(), &message["id"]).await.0, 200);
    }
    toy.told(&[command]).await;
    assert_eq!(toy.number("select count(*) from step_outcome").await, 0);
    assert_eq!(toy.answers(member).await, Vec::<Value>::new());
    assert_eq!(calls(&toy).await, [""; 0], "nobody wants it engraved any more");
}

/// Its transaction does not hold the lock of the subject, so it may not be able to answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_under_another_key_than_its_subject_is_not_called_for_nothing() {
    let toy = Toy::start().await;
    let member = new_id();
    toy.told(&[engrave(member).under("another")]).await;
    let reasons = toy.texts("select reason from parked").await;
    if reasons.is_empty() {
        until_answered(&toy, member, 1).await;
        is_engraved_once(&toy, member).await;
    } else {
        assert_eq!(calls(&toy).await, [""; 0], "{reasons:?}");
    }
}

/// Two replicas with a partition each. The engraver does not answer the first one yet.
async fn two_replicas() -> (Toy, Process) {
    let toy = silent_engraver().await;
    let second = toy.second(&[]);
    let partitions = "amends_consumer_partitions{service=\"loyalty\",group=\"loyalty\"}";
    toy.until("each replica to have a partition", async || {
        toy.metric(&toy.process, partitions).await == Some(1.0)
            && toy.metric(&second, partitions).await == Some(1.0)
    })
    .await;
    (toy, second)
}

/// One replica calls the engraver, and the other one bars the step meanwhile.
async fn call_and_bar(toy: &Toy, member: Uuid) {
    toy.send_to(0, &[engrave(member)]).await;
    until_called(toy, 1).await;
    toy.send_to(1, &[melt(member)]).await;
    until_answered(toy, member, 1).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("undo", "done")]);
}

/// The engraver was called for a step that its saga takes for undone. A person has to find out what he did.
async fn is_reported(toy: &Toy, member: Uuid) {
    toy.commands_are_taken().await;
    let reasons = toy.texts("select reason from parked").await;
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].contains(EngraveCup::TYPE) && reasons[0].contains(&key(member)), "{reasons:?}");
    assert_eq!(outcomes(&toy.answers(member).await), [("undo", "done")]);
    assert_eq!(toy.number("select count(*) from cup").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_barred_while_it_was_called_is_reported() {
    let (toy, _second) = two_replicas().await;
    let member = new_id();
    call_and_bar(&toy, member).await;
    engraver_answers(&toy, "yes").await;
    is_reported(&toy, member).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_was_barred_while_it_was_called_is_reported_even_if_the_answer_is_late() {
    let (toy, _second) = two_replicas().await;
    let member = new_id();
    call_and_bar(&toy, member).await;
    is_reported(&toy, member).await;
}
