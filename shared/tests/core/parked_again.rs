//! A saga that asks again for a step whose command is parked.

use serde_json::json;
use shared::envelope::{Direction, new_id};
use uuid::Uuid;

use crate::harness::commands::{Asked, ask, outcomes};
use crate::harness::toy::Toy;
use crate::loyalty::messages::{GrantPoints, RevokePoints};

const COMMANDS: &str = "loyalty.commands";

fn grant(member: Uuid, points: i64) -> Asked {
    let command = GrantPoints { member, campaign: "spring".to_owned(), points };
    ask(member, "grant_points", Direction::Do, &command)
}

fn revoke(member: Uuid) -> Asked {
    ask(member, "grant_points", Direction::Undo, &RevokePoints { member })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_asked_again_does_not_add_to_its_parked_key() {
    let toy = Toy::start().await;
    let member = new_id();
    let key = member.to_string();
    toy.produce(COMMANDS, &key, b"this is not an envelope").await;
    toy.parked_messages(&key, 1).await;
    let inbox = "select count(*) from inbox";
    toy.told(&[grant(member, 1)]).await;
    let claimed = toy.number(inbox).await;
    for _ in 0..3 {
        toy.told(&[grant(member, 1), grant(member, 1)]).await;
    }
    let parked = toy.parked_messages(&key, 2).await;
    assert_eq!(toy.number(inbox).await, claimed, "the inbox does not grow either");
    toy.until("the copies", async || toy.copies(&key).len() == 2).await;
    // Another command of the step, and its undo, are something else.
    toy.told(&[grant(member, 2), revoke(member), revoke(member)]).await;
    toy.parked_messages(&key, 4).await;

    assert_eq!(toy.skip(&key, &parked[0]["id"]).await.0, 200);
    let (status, answer) = toy.retry(&key).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(3)), "{answer}");
    // The first grant took effect once. The second one was answered with the first one's outcome.
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done"), ("do", "done"), ("undo", "done")]);
    // Nothing is parked, so whoever asks again gets the answer again.
    toy.told(&[grant(member, 1)]).await;
    assert_eq!(toy.answers(member).await.len(), 4);
    toy.comes_to_rest().await;
}
