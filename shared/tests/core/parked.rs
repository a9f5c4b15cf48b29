//! Messages that can't be handled: each has its path, its key waits in order, and an operator sets it going again.

use futures::future::join;
use serde_json::{Value, json};
use shared::envelope::{Direction, Message, new_id};
use uuid::Uuid;

use crate::harness::commands::{Asked, ask, message, outcomes, say};
use crate::harness::toy::Toy;
use crate::loyalty::messages::{GrantPoints, NoteVisit, PrintVoucher, PurchaseMade};

/// A version of the event that nobody here understands.
const NEWER_PURCHASE: &str = "shop.purchase_made.v9";

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn print(member: Uuid) -> Asked {
    let command = PrintVoucher { member, text: "a free coffee".to_owned() };
    ask(member, "print_voucher", Direction::Do, &command)
}

fn grant(member: Uuid) -> Asked {
    let command = GrantPoints { member, campaign: "spring".to_owned(), points: 1 };
    ask(member, "grant_points", Direction::Do, &command)
}

/// An event about a purchase of the member with this key.
fn purchase(kind: &str, key: &str) -> Value {
    message(kind, key, new_id(), json!({}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_key_is_mended_and_replayed_and_its_step_completes() {
    let toy = Toy::start().await;
    let (member, other) = (new_id(), new_id());
    let key = member.to_string();
    // A bad command comes before the real one.
    let mut command = message(PrintVoucher::TYPE, &key, member, json!({"member": member}));
    command["metadata"] = json!({"step": "print_voucher", "direction": "do"});
    toy.produce(PrintVoucher::TOPIC, &key, command.to_string().as_bytes()).await;
    toy.parked_messages(&key, 1).await;
    toy.told(&[print(member), print(other)]).await;
    let parked = toy.parked_messages(&key, 2).await;
    // Other keys flow on.
    toy.until("the other voucher", async || toy.answers(other).await.len() == 1).await;
    assert_eq!(outcomes(&toy.answers(other).await), [("do", "done")]);

    assert_eq!(parked[0]["body"], command.to_string());
    let reason = text(&parked[0]["reason"]);
    assert!(reason.starts_with("the data is not a loyalty.print_voucher.v1"), "{reason}");
    assert_eq!(parked[1]["reason"], "an earlier message of this key is parked");
    assert_eq!(parked[1]["type"], PrintVoucher::TYPE);
    let listed = toy.parked_keys().await;
    assert_eq!((&listed["keys"][0]["key"], &listed["keys"][0]["count"]), (&json!(key), &json!(2)));
    assert_eq!(listed["keys"][0]["reason"], reason);
    toy.until("both copies", async || toy.copies(&key).len() == 2).await;
    let copies = toy.copies(&key);
    assert_eq!(
        (&copies[0]["type"], &copies[0]["causationId"]),
        (&json!("messaging.parked.v1"), &command["id"])
    );
    let copy = &copies[0]["data"];
    assert_eq!((&copy["reason"], &copy["body"]), (&json!(reason), &json!(command.to_string())));
    assert_eq!((&copy["topic"], &copy["offset"]), (&json!(PrintVoucher::TOPIC), &parked[0]["offset"]));
    toy.until("the alarm", async || toy.shown("amends_parked_keys").await == Some(1.0)).await;
    assert_eq!(toy.answers(member).await, Vec::<Value>::new(), "nothing of the key is answered yet");

    let (status, problem) = toy.retry(&key).await;
    assert_eq!((status, &problem["type"]), (422, &json!("/problems/replay-failed")), "{problem}");
    let parked = toy.parked_messages(&key, 2).await;
    let attempts = (&parked[0]["attempts"], &parked[1]["attempts"]);
    assert_eq!(attempts, (&json!(1), &json!(0)), "it stops at the first");

    let id = &parked[0]["id"];
    let mut wrong = command.clone();
    (wrong["id"], wrong["subject"]) = (json!(Uuid::nil()), json!("another"));
    let (status, problem) = toy.edit(&key, id, &wrong.to_string()).await;
    let pointers = [&problem["errors"][0]["pointer"], &problem["errors"][1]["pointer"]];
    assert_eq!((status, pointers), (422, [&json!("/id"), &json!("/subject")]), "{problem}");
    assert_eq!(toy.edit(&key, id, "{}").await.0, 422, "that is no envelope");
    let mut mended = command.clone();
    mended["data"] = json!({"member": member, "text": "a free coffee"});
    let (status, answer) = toy.edit(&key, id, &mended.to_string()).await;
    assert_eq!((status, &answer["left"]), (200, &json!(2)), "{answer}");
    let before = "select convert_from(body, 'UTF8') from parked_edit where edited_by = 'ada'";
    assert_eq!(toy.texts(before).await, [command.to_string()], "the old body is on record");

    // Two operators at once: each message is replayed once, and one of them may find nothing left to do.
    let (one, other) = join(toy.retry(&key), toy.retry(&key)).await;
    let replayed = |(status, answer): &(u16, Value)| match status {
        200 => answer["replayed"].as_u64().expect("a number"),
        409 => 0,
        _ => panic!("{status}: {answer}"),
    };
    assert_eq!(replayed(&one) + replayed(&other), 2);
    toy.until("the step to be answered", async || !toy.answers(member).await.is_empty()).await;
    toy.comes_to_rest().await;
    let answers = toy.answers(member).await;
    assert!(outcomes(&answers).iter().all(|outcome| *outcome == ("do", "done")), "{answers:?}");
    let pages = format!("select count(*) from print_entry where member = '{member}'");
    assert_eq!(toy.number(&pages).await, 1);

    let (status, problem) = toy.retry(&key).await;
    assert_eq!((status, &problem["type"]), (409, &json!("/problems/not-parked")));
    assert_eq!(toy.skip(&key, id).await.0, 409);
    assert_eq!(toy.edit(&key, id, &mended.to_string()).await.0, 409);
    assert_eq!(toy.skip(&key, &json!(4711)).await.0, 404);
    assert_eq!(toy.retry("another").await.0, 404);
    toy.until("the alarm to end", async || toy.shown("amends_parked_keys").await == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_keeps_its_order_while_it_is_replayed_and_more_arrives() {
    let toy = Toy::start().await;
    let key = new_id().to_string();
    let mut sent = Vec::new();
    let mut event = async |kind: &str| {
        let event = purchase(kind, &key);
        toy.produce(PurchaseMade::TOPIC, &key, event.to_string().as_bytes()).await;
        sent.push(text(&event["id"]).to_owned());
    };
    event(NEWER_PURCHASE).await;
    for _ in 0..10 {
        event(PurchaseMade::TYPE).await;
    }
    let parked = toy.parked_messages(&key, 11).await;
    assert_eq!(toy.skip(&key, &parked[0]["id"]).await.0, 200);

    // The first message of the replay is held up in its handler, and with it the key's lock.
    let mut gate = toy.connect().await;
    let hold = "begin; lock table statement_line in access exclusive mode";
    sqlx::raw_sql(hold).execute(&mut gate).await.expect("locked");
    let meanwhile = async {
        toy.until("the replay to be under way", async || toy.waiting_for("relation").await == 1).await;
        for _ in 0..5 {
            event(PurchaseMade::TYPE).await;
        }
        toy.until("the consumer to wait for the key", async || toy.waiting_for("advisory").await == 1).await;
        sqlx::raw_sql("commit").execute(&mut gate).await.expect("released");
    };
    let ((status, answer), ()) = join(toy.retry(&key), meanwhile).await;
    assert_eq!((status, &answer["left"]), (200, &json!(0)), "{answer}");
    let told =
        format!("select message_id::text from statement_line where member = '{key}' order by position");
    toy.until("all to be told", async || toy.texts(&told).await.len() == 15).await;
    assert_eq!(toy.texts(&told).await, sent[1..], "all but the skipped one, in the order sent");
    toy.comes_to_rest().await;
}

/// The statement is its own inbox: its table tells a repetition, but not what an operator has decided.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_is_parked_once_and_stays_skipped() {
    let toy = Toy::start().await;
    let key = new_id().to_string();
    let send = async |event: &Value| {
        toy.produce(PurchaseMade::TOPIC, &key, event.to_string().as_bytes()).await;
    };
    let poison = purchase(NEWER_PURCHASE, &key);
    let behind = purchase(PurchaseMade::TYPE, &key);
    let last = purchase(PurchaseMade::TYPE, &key);
    for event in [&poison, &behind, &behind, &poison] {
        send(event).await;
    }
    toy.caught_up().await;
    let parked = toy.parked_messages(&key, 2).await;
    for message in &parked {
        assert_eq!(toy.skip(&key, &message["id"]).await.0, 200);
    }
    for event in [&behind, &last] {
        send(event).await;
    }
    let told = |event: &Value| {
        format!("select count(*) from statement_line where message_id = '{}'", text(&event["id"]))
    };
    toy.until("the last one to be told", async || toy.number(&told(&last)).await == 1).await;
    assert_eq!(toy.number(&told(&behind)).await, 0, "it was skipped");
}

/// A broker that was begun anew counts its offsets from zero, while the table remembers the records of the one before.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_at_the_place_of_another_one_is_parked_too() {
    let toy = Toy::start().await;
    let key = new_id().to_string();
    let first = purchase(NEWER_PURCHASE, &key).to_string();
    toy.produce(PurchaseMade::TOPIC, &key, first.as_bytes()).await;
    toy.parked_messages(&key, 1).await;
    toy.execute(
        r#"insert into parked (key, topic, partition, "offset", reason, body, status, digest)
           select 'of the broker before', topic, partition, "offset" + behind, 'unknown', '', 'skipped', sha256('')
           from parked, generate_series(1, 9) as behind"#,
    )
    .await;
    let last = purchase(PurchaseMade::TYPE, &key).to_string();
    for body in [&[0xff][..], last.as_bytes()] {
        toy.produce(PurchaseMade::TOPIC, &key, body).await;
    }
    let parked = toy.parked_messages(&key, 3).await;
    let bodies: Vec<&Value> = parked.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, [&json!(first), &json!("/w=="), &json!(last)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_parked_under_its_own_key_and_can_be_written_anew() {
    let toy = Toy::start().await;
    toy.produce(PurchaseMade::TOPIC, "", &[0xff, 0x00, 0x01]).await;
    // Others are handled meanwhile.
    let member = new_id();
    let visit = say(new_id(), member, &NoteVisit { shop: "the one at the station".to_owned() });
    toy.told(&[grant(member), visit.clone()]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    toy.until("it to be parked", async || toy.number("select count(*) from parked").await == 1).await;
    let listed = toy.parked_keys().await;
    let key = text(&listed["keys"][0]["key"]).to_owned();
    assert!(key.starts_with("shop.events/"), "{key}");
    let parked = toy.parked_messages(&key, 1).await;
    let reason = text(&parked[0]["reason"]);
    assert!(reason.starts_with("the value is not an envelope"), "{reason}");
    assert_eq!((&parked[0]["body"], &parked[0]["encoding"]), (&json!("/wAB"), &json!("base64")));
    toy.until("the copy", async || toy.copies(&key).len() == 1).await;
    assert_eq!(toy.copies(&key)[0]["data"]["body"], "/wAB");
    assert_eq!(toy.retry(&key).await.0, 422);

    // It had no key, so what it was about is for the operator to say; its id must be one that had no effect yet.
    let mut written = purchase(PurchaseMade::TYPE, &member.to_string());
    let new = std::mem::replace(&mut written["id"], json!(visit.id));
    let (status, problem) = toy.edit(&key, &parked[0]["id"], &written.to_string()).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/id")), "{problem}");
    written["id"] = new;
    assert_eq!(toy.edit(&key, &parked[0]["id"], &written.to_string()).await.0, 200);
    let (status, answer) = toy.retry(&key).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(1)), "{answer}");
    let told = format!("select member from statement_line where message_id = '{}'", text(&written["id"]));
    assert_eq!(toy.texts(&told).await, [member.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_type_an_unknown_version_and_a_large_record_are_parked() {
    let toy = Toy::start().await;
    let produce = async |topic: &str, key: &str, kind: &str, data: Value| {
        toy.produce(topic, key, message(kind, key, new_id(), data).to_string().as_bytes()).await;
    };
    let commands = GrantPoints::TOPIC;
    produce(commands, "unknown", "loyalty.frobnicate.v1", json!({})).await;
    produce(commands, "newer", "loyalty.void_voucher.v9", json!({})).await;
    let large = "x".repeat(100_000);
    produce(commands, "large", "loyalty.void_voucher.v1", json!({"note": large})).await;
    for (key, reason) in [
        ("unknown", "there is no handler for loyalty.frobnicate.v1 here"),
        ("newer", "version 9 of loyalty.void_voucher is not understood here; this release understands v1"),
    ] {
        let parked = toy.parked_messages(key, 1).await;
        assert_eq!(parked[0]["reason"], reason);
    }
    let parked = toy.parked_messages("large", 1).await;
    let reason = text(&parked[0]["reason"]);
    assert!(reason.contains("more than the 65536 that a message may have"), "{reason}");
    assert!(text(&parked[0]["body"]).contains(&large), "the table keeps it");
    toy.until("the copy", async || toy.copies("large").len() == 1).await;
    let copy = &toy.copies("large")[0]["data"];
    assert_eq!((&copy["bodyOmitted"], copy.get("body")), (&json!(true), None));

    // Of events only those are parked that this service would have listened to.
    produce(PurchaseMade::TOPIC, "event", "shop.frobnicated.v1", json!({})).await;
    produce(PurchaseMade::TOPIC, "event", NEWER_PURCHASE, json!({})).await;
    let parked = toy.parked_messages("event", 1).await;
    assert_eq!(
        parked[0]["reason"],
        "version 9 of shop.purchase_made is not understood here; this release understands v1"
    );
    let member = new_id();
    toy.told(&[grant(member)]).await;
    toy.caught_up().await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    let parked = |topic: &str| format!("select count(*) from parked where topic = '{topic}'");
    assert_eq!(toy.number(&parked(PurchaseMade::TOPIC)).await, 1);
    assert_eq!(toy.number(&parked(commands)).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_too_much_for_the_database_is_halved() {
    const MEMBERS: usize = 40;
    let mut toy = Toy::start().await;
    toy.process.kill9();
    let members: Vec<Uuid> = (0..MEMBERS).map(|_| new_id()).collect();
    let commands: Vec<Asked> = members.iter().map(|member| grant(*member)).collect();
    toy.send_together(&commands).await;
    let limit = "create function too_much() returns trigger language plpgsql as $$
                 begin
                     if (select count(*) from appended) > 3 then
                         raise exception 'out of memory' using errcode = '53200';
                     end if;
                     return null;
                 end $$;
                 create trigger too_much after insert on step_outcome referencing new table as appended
                     for each statement execute function too_much();";
    toy.execute(limit).await;
    toy.launch();
    toy.ready().await;
    let done = "select count(*) from step_outcome where status = 'done'";
    toy.until("every command to be carried out", async || toy.number(done).await == MEMBERS as i64).await;
    toy.comes_to_rest().await;
    for member in members {
        assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    }
    let retries = toy.shown("amends_consumer_retries_total").await;
    assert!(retries.is_some_and(|retries| retries > 0.0), "no batch was ever too large: {retries:?}");
    assert_eq!(toy.number("select count(*) from parked").await, 0, "it cost no message its place");
}

/// A right to write to the shop's topic is no right to give this service commands.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_on_a_topic_that_it_does_not_belong_to_is_parked_and_has_no_effect() {
    let toy = Toy::start().await;
    let (member, buyer) = (new_id(), new_id().to_string());
    let granted = GrantPoints { member, campaign: "spring".to_owned(), points: 1 };
    let mut command = message(GrantPoints::TYPE, &member.to_string(), member, json!(granted));
    command["metadata"] = json!({"step": "grant_points", "direction": "do"});
    let event = purchase(PurchaseMade::TYPE, &buyer);
    let cases = [
        (command, GrantPoints::TOPIC, PurchaseMade::TOPIC),
        (event, PurchaseMade::TOPIC, GrantPoints::TOPIC),
    ];
    for (message, own, wrong) in &cases {
        let (kind, key) = (text(&message["type"]), text(&message["subject"]));
        toy.produce(wrong, key, message.to_string().as_bytes()).await;
        let parked = toy.parked_messages(key, 1).await;
        assert_eq!((&parked[0]["type"], &parked[0]["topic"]), (&json!(kind), &json!(wrong)));
        let reason = text(&parked[0]["reason"]);
        assert!([kind, own, wrong].iter().all(|name| reason.contains(name)), "{reason}");
        // An operator can't have it handled either.
        let (status, problem) = toy.retry(key).await;
        assert_eq!((status, &problem["type"]), (422, &json!("/problems/replay-failed")), "{problem}");
        assert_eq!(toy.skip(key, &parked[0]["id"]).await.0, 200);
    }

    let effects = "select (select count(*) from points_grant) + (select count(*) from step_outcome)
                        + (select count(*) from statement_line)";
    assert_eq!(toy.number(effects).await, 0);
    assert_eq!(toy.answers(member).await, Vec::<Value>::new());
    // On their own topics the same command and another purchase are carried out.
    toy.told(&[grant(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    let event = purchase(PurchaseMade::TYPE, &buyer);
    toy.produce(PurchaseMade::TOPIC, &buyer, event.to_string().as_bytes()).await;
    let told = format!("select message_id::text from statement_line where member = '{buyer}'");
    toy.until("the purchase to be told", async || toy.texts(&told).await == [text(&event["id"])]).await;
}

/// PostgreSQL takes no text with such a character. The claim of a whole batch must not fail for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_name_has_a_nul_character_parks_its_command_and_holds_up_no_other() {
    let toy = Toy::start().await;
    let (odd, member) = (new_id(), new_id());
    let data = json!({"member": odd, "campaign": "spring", "points": 1});
    let mut command = message(GrantPoints::TYPE, &odd.to_string(), odd, data);
    command["metadata"] = json!({"step": "grant\u{0}points", "direction": "do"});
    toy.produce(GrantPoints::TOPIC, &odd.to_string(), command.to_string().as_bytes()).await;
    toy.told(&[grant(member)]).await;
    assert_eq!(outcomes(&toy.answers(member).await), [("do", "done")]);
    let parked = toy.parked_messages(&odd.to_string(), 1).await;
    let reason = text(&parked[0]["reason"]);
    assert!(reason.contains("NUL character"), "{reason}");
}
