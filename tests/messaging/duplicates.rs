//! Every message may come twice.

use local::Signal;
use rdkafka::message::Message;

use crate::harness::kafka::header;
use crate::harness::{SERVICES, Suite, order};

/// Numbers that show the business effects in a service.
async fn effects(suite: &Suite) -> Vec<i64> {
    let counts = [
        ("order", "select count(*) from order_timeline"),
        ("order", "select sum(version)::bigint from orders"),
        ("payment", "select count(*) from ledger_entry"),
        ("inventory", "select count(*) from stock_entry"),
        ("inventory", "select sum(on_hand + 7 * reserved + 13 * shipped)::bigint from product"),
        ("shipping", "select count(*) from shipment"),
        ("notification", "select count(*) from notification"),
        ("orchestrator", "select count(*) from saga_log"),
        ("orchestrator", "select sum(sequence)::bigint from saga"),
    ];
    let mut numbers = Vec::new();
    for (service, sql) in counts {
        numbers.push(suite.number(service, sql).await);
    }
    numbers
}

async fn one_confirmed_and_one_undone(suite: &Suite) {
    suite.confirmed(&order()).await;
    let mut undone = order();
    undone["shippingAddress"]["postalCode"] = "00000".into();
    let undone = suite.place(&undone).await;
    assert_eq!(suite.settled(undone).await["status"], "rejected");
    suite.comes_to_rest().await;
    for service in SERVICES {
        suite.caught_up(service).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_delivered_twice_has_its_effect_once() {
    let suite = Suite::start().await;
    one_confirmed_and_one_undone(&suite).await;
    let before = effects(&suite).await;
    let records = suite.records();
    assert!(records.len() > 30, "only {} records", records.len());

    suite.send_again(&records).await;
    for service in SERVICES {
        suite.caught_up(service).await;
    }
    assert_eq!(effects(&suite).await, before);
    // All outboxes are empty, so no further message will come.
    suite.comes_to_rest().await;
    assert_eq!(suite.records().len(), 2 * records.len(), "a duplicate was answered with new messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_asked_again_gets_its_first_answer_again() {
    let suite = Suite::start().await;
    one_confirmed_and_one_undone(&suite).await;
    let before = effects(&suite).await;
    let records = suite.records();
    let replies = |records: &[rdkafka::message::OwnedMessage]| {
        records.iter().filter(|record| header(record, "ce_outcome").is_some()).count()
    };
    let commands: Vec<_> = records.iter().filter(|record| record.topic().ends_with(".commands")).collect();
    for command in &commands {
        // The same step in a new message, as an orchestrator sends it when it asks again.
        let id = header(command, "ce_id").expect("an id");
        let body = String::from_utf8(command.payload().unwrap_or_default().to_vec()).expect("UTF-8");
        let body = body.replace(&id, &shared::envelope::new_id().to_string());
        let headers = command.headers().cloned().unwrap_or_default();
        suite.send(command.topic(), command.key().unwrap_or_default(), body.as_bytes(), headers).await;
    }
    let expected = replies(&records) + commands.len();
    suite
        .until("every command to be answered again", async |suite| replies(&suite.records()) == expected)
        .await;
    suite.caught_up("orchestrator").await;
    assert_eq!(effects(&suite).await, before);
    suite.comes_to_rest().await;
}

/// This happens when a process is killed after its timer took the saga, and the orchestrator gets uncommitted messages again.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_again_while_a_timer_has_the_saga_is_not_logged_again() {
    let mut suite = Suite::start().await;
    suite.process("shipping").signal(Signal::STOP);
    let placed = suite.place(&order()).await;
    suite.step_is(placed, "book_shipment", "asked").await;
    suite.caught_up("orchestrator").await;
    suite.execute("orchestrator", "update saga set due_at = due_at + interval '1 hour'").await;
    let entries = "select count(*) from saga_log";
    let logged = suite.number("orchestrator", entries).await;
    let answers: Vec<_> =
        suite.records().into_iter().filter(|record| header(record, "ce_outcome").is_some()).collect();
    assert_eq!(answers.len(), 2, "stock and payment");

    suite.send_again(&answers).await;
    suite.caught_up("orchestrator").await;
    assert_eq!(suite.number("orchestrator", entries).await, logged);
    suite.processes_go_on("shipping");
    assert_eq!(suite.settled(placed).await["status"], "confirmed");
    suite.comes_to_rest().await;
}
