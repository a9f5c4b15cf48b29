//! Many parked messages, which an operator skips or retries at once.

use serde_json::{Value, json};
use shared::envelope::{Direction, new_id};
use uuid::Uuid;

use crate::harness::commands::{Asked, ask, outcomes};
use crate::harness::toy::Toy;
use crate::loyalty::messages::GrantPoints;

const COMMANDS: &str = "loyalty.commands";

fn grant(member: Uuid, points: i64) -> Asked {
    let command = GrantPoints { member, campaign: "spring".to_owned(), points };
    ask(member, "grant_points", Direction::Do, &command)
}

/// How many messages have each status.
async fn statuses(toy: &Toy) -> Vec<String> {
    toy.texts("select status || ' ' || count(*) from parked group by status order by 1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_asked_again_is_handled_after_the_parked_one_was_skipped() {
    let toy = Toy::start().await;
    let member = new_id();
    let key = member.to_string();
    toy.produce(COMMANDS, &key, b"this is not an envelope").await;
    toy.parked_messages(&key, 1).await;
    toy.told(&[grant(member, 1), grant(member, 1)]).await;
    toy.parked_messages(&key, 2).await;
    let (status, answer) = toy.in_bulk("skip", json!({"topic": COMMANDS})).await;
    assert_eq!((status, &answer["messages"]), (200, &json!(2)), "{answer}");
    assert_eq!(toy.answers(member).await, Vec::<Value>::new());
    toy.told(&[grant(member, 1)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    toy.comes_to_rest().await;
}

/// A stranger has written ten thousand records of rubbish. One order's command waits behind such a record.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_records_of_rubbish_are_skipped_by_their_cause_at_once() {
    const RUBBISH: i64 = 10_000;
    let toy = Toy::start().await;
    let member = new_id();
    let key = member.to_string();
    toy.produce(COMMANDS, &key, b"rubbish").await;
    toy.parked_messages(&key, 1).await;
    toy.told(&[grant(member, 1)]).await;
    toy.parked_messages(&key, 2).await;
    let rubbish = format!(
        "insert into parked (key, topic, partition, \"offset\", reason, body, parked_at)
         select 'rubbish ' || n, '{COMMANDS}', 0, 1000000 + n, 'the value is not an envelope: at line 1', 'x',
                now() - interval '2 hours' from generate_series(1, {RUBBISH}) as n"
    );
    toy.execute(&rubbish).await;

    // A dry run changes nothing.
    let cause = json!({"cause": "not an envelope", "topic": COMMANDS, "olderThan": "1h"});
    let mut dry = cause.clone();
    dry["dryRun"] = json!(true);
    let (status, answer) = toy.in_bulk("skip", dry).await;
    let selected = answer["selected"].as_array().expect("causes");
    assert_eq!((status, selected.len(), &answer["messages"]), (200, 1, &json!(0)), "{answer}");
    assert_eq!((&selected[0]["messages"], &selected[0]["keys"]), (&json!(RUBBISH), &json!(RUBBISH)));
    assert_eq!(statuses(&toy).await, [format!("parked {}", RUBBISH + 2)]);
    assert_eq!(toy.acts().await, Vec::<Value>::new());

    let (status, answer) = toy.in_bulk("skip", cause).await;
    assert_eq!(
        (status, &answer["messages"], &answer["next"]),
        (200, &json!(RUBBISH), &Value::Null),
        "{answer}"
    );
    assert_eq!(
        statuses(&toy).await,
        ["parked 2".to_owned(), format!("skipped {RUBBISH}")],
        "the others are younger"
    );
    let acts = toy.acts().await;
    assert_eq!(acts.len(), 1, "one act, not ten thousand");
    assert_eq!((&acts[0]["act"], &acts[0]["detail"]["messages"]), (&json!("skip_parked"), &json!(RUBBISH)));
    let named = "select count(*) from parked where resolved_by = 'ada' and skip_reason = 'rubbish of a test'";
    assert_eq!(toy.number(named).await, RUBBISH);

    // The key with the command is retried: its first message fails again, and then it goes.
    let (_, answer) = toy.in_bulk("retry", json!({"topic": COMMANDS})).await;
    assert_eq!(
        (&answer["messages"], &answer["failed"], &answer["next"]),
        (&json!(0), &json!(1), &Value::Null)
    );
    assert_eq!(toy.in_bulk("skip", json!({"cause": "not an envelope"})).await.1["messages"], json!(1));
    let (_, answer) =
        toy.in_bulk("retry", json!({"cause": "an earlier message", "type": "loyalty.grant_points.v1"})).await;
    assert_eq!((&answer["messages"], &answer["failed"]), (&json!(1), &json!(0)), "{answer}");
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);

    for (wrong, pointer) in
        [(json!({}), ""), (json!({"olderThan": "1"}), "/olderThan"), (json!({"cause": " "}), "/cause")]
    {
        let (status, problem) = toy.in_bulk("skip", wrong).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!(pointer)), "{problem}");
    }
    toy.comes_to_rest().await;
}
