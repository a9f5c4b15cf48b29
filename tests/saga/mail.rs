//! Mails to customers, and failures of the mail server and of addresses.

use reqwest::{Method, StatusCode};
use schemas::common::Money;
use schemas::notification::{Notice, NotifyCustomer};
use serde_json::{Value, json};
use shared::envelope::{Direction, new_id};
use uuid::Uuid;

use crate::harness::parked::message;
use crate::harness::smtp::{MailServer, PASSWORD};
use crate::harness::steps::{Asked, ask};
use crate::harness::{Setup, Suite, order};

const ADDRESS: &str = "ada@example.com";
const URL: &str = "NOTIFICATION_SMTP_URL";

/// The usual suite with a mail server.
async fn suite(server: &MailServer) -> Suite {
    Suite::with(Setup { settings: vec![(URL, server.url())], ..Setup::default() }).await
}

/// Only the notification service.
async fn notification(server: &MailServer) -> Suite {
    let settings = vec![(URL, server.url())];
    Suite::with(Setup { only: Some("notification"), settings, ..Setup::default() }).await
}

fn notify(order: Uuid, email: Option<&str>) -> Asked {
    let command = NotifyCustomer {
        order_id: order,
        customer_id: "ada".to_owned(),
        email: email.map(str::to_owned),
        notice: Notice::OrderReturned { total: Money { amount: 9800, currency: "EUR".to_owned() } },
    };
    ask(order, "notify_customer", Direction::Do, &command)
}

/// Returns the notices about an order, as the service shows them.
async fn told(suite: &Suite, order: Uuid) -> Vec<Value> {
    let told = suite.get("notification", &format!("/notifications?orderId={order}")).await;
    told["notifications"].as_array().expect("a list").clone()
}

async fn answered(suite: &Suite, order: Uuid) {
    suite
        .until("the step to be answered", async |suite| {
            !suite.answers("notification", order).await.is_empty()
        })
        .await;
    let answers = suite.answers("notification", order).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0]["outcome"], "done");
}

async fn put(suite: &Suite, id: &str, body: &Value) -> (StatusCode, Value) {
    request(suite, Method::PUT, id, Some(body)).await
}

async fn request(suite: &Suite, method: Method, id: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let url = format!("{}/customers/{id}", suite.url("order"));
    let mut request = suite.client.request(method, url);
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

async fn contact(suite: &Suite, customer: &str) -> Vec<String> {
    let contact =
        format!("select version || ' ' || email from customer_contact where customer_id = '{customer}'");
    suite.texts("notification", &contact).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_an_address_gets_one_mail() {
    let server = MailServer::start().await;
    let suite = suite(&server).await;
    let mut body = order();
    body["email"] = json!(ADDRESS);
    let order = suite.confirmed(&body).await;
    suite.comes_to_rest().await;

    let mails = server.received();
    assert_eq!(mails.len(), 1, "{mails:?}");
    let mail = &mails[0];
    assert_eq!((mail.from.as_str(), mail.to.as_str()), ("orders@example.com", ADDRESS));
    assert_eq!(mail.header("From"), "Amends <orders@example.com>");
    assert_eq!(mail.header("To"), ADDRESS);
    assert_eq!(mail.header("Message-ID"), format!("<{}.notify_customer.do@example.com>", order.id));
    let told = told(&suite, order.id).await;
    assert_eq!((&told[0]["channel"], &told[0]["status"]), (&json!("smtp"), &json!("sent")));
    assert_eq!(told[0]["text"], mail.text());
    assert!(mail.text().contains("98.00 EUR is confirmed. Its tracking number is "), "{}", mail.text());

    // No log contains the password or the address.
    for service in crate::harness::SERVICES {
        let log = std::fs::read_to_string(suite.log(service, 0)).expect("a log");
        assert!(!log.contains(PASSWORD) && !log.contains(ADDRESS), "{service}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_an_address_is_told_to_its_customer_if_that_is_known() {
    let server = MailServer::start().await;
    let suite = suite(&server).await;
    let (status, _) = put(&suite, "ada", &json!({"name": "Ada", "email": ADDRESS})).await;
    assert_eq!(status, StatusCode::CREATED);
    suite
        .until("the address to be known", async |suite| {
            contact(suite, "ada").await == [format!("1 {ADDRESS}")]
        })
        .await;
    let known = suite.confirmed(&order()).await;
    let mut body = order();
    body["customerId"] = json!("nobody");
    let unknown = suite.confirmed(&body).await;
    suite.comes_to_rest().await;

    let mails = server.received();
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert_eq!(mails[0].to, ADDRESS);
    assert!(mails[0].header("Subject").contains(&known.id.to_string()));
    let kept = told(&suite, unknown.id).await;
    assert_eq!((&kept[0]["channel"], &kept[0]["status"]), (&json!("kept"), &json!("sent")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_refused_for_good_has_failed_and_the_order_stands() {
    let server = MailServer::start().await;
    server.refuse(ADDRESS);
    let suite = suite(&server).await;
    let mut body = order();
    body["email"] = json!(ADDRESS);
    let order = suite.confirmed(&body).await;
    suite.comes_to_rest().await;

    assert_eq!(server.received(), []);
    let told = told(&suite, order.id).await;
    assert_eq!((told.len(), &told[0]["status"]), (1, &json!("failed")));
    assert_eq!(told[0]["reason"], "550 5.1.1 there is no such mailbox");
    suite.caught_up("order").await;
    let story = suite.get("order", &format!("/orders/{}", order.id)).await;
    let story = story["timeline"].as_array().expect("a timeline");
    assert!(story.iter().any(|entry| entry["type"] == "notification.failed.v1"), "{story:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_may_pass_is_waited_for() {
    let mut server = MailServer::start().await;
    server.go_down();
    let suite = notification(&server).await;
    let order = new_id();
    suite.told("notification", &[notify(order, Some(ADDRESS))]).await;
    let asked =
        async |suite: &Suite| suite.number("notification", "select attempts::bigint from step_outcome").await;
    suite.until("the mail server to be missed", async |suite| asked(suite).await > 0).await;
    assert_eq!(told(&suite, order).await[0]["status"], "sending");
    // The server runs, but refuses every login for good. That is not a refusal of the mail.
    server.close(true);
    server.come_up().await;
    let before = asked(&suite).await;
    suite.until("it to be turned away", async |suite| asked(suite).await > before + 1).await;
    assert_eq!(told(&suite, order).await[0]["status"], "sending");
    server.be_busy_once();
    server.close(false);
    answered(&suite, order).await;
    assert_eq!(server.received().len(), 1);
    assert_eq!(told(&suite, order).await[0]["status"], "sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_asked_for_again_does_not_wait_for_its_turn() {
    let mut server = MailServer::start().await;
    server.go_down();
    let suite = notification(&server).await;
    let order = new_id();
    suite.told("notification", &[notify(order, Some(ADDRESS))]).await;
    let put_off = "with off as (update step_outcome set claimed_until = now() + interval '1 hour'
                                where attempts > 0 and claimed_by is null returning 1)
                   select count(*) from off";
    suite
        .until("its turn to be far away", async |suite| suite.number("notification", put_off).await == 1)
        .await;
    server.come_up().await;
    suite.told("notification", &[notify(order, Some(ADDRESS))]).await;
    answered(&suite, order).await;
    assert_eq!(server.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_answer_was_lost_comes_again_under_its_name() {
    let server = MailServer::start().await;
    server.break_off_once();
    let suite = notification(&server).await;
    let order = new_id();
    suite.told("notification", &[notify(order, Some(ADDRESS))]).await;
    answered(&suite, order).await;
    let mails = server.received();
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0], mails[1], "a repetition is the same mail");
}

#[tokio::test(flavor = "multi_thread")]
async fn notification_killed_while_it_sends() {
    let server = MailServer::start().await;
    server.hold_answers(true);
    let mut suite = notification(&server).await;
    let order = new_id();
    suite.send_together(&[notify(order, Some(ADDRESS))]).await;
    suite.until("the mail to be taken", async |_| server.received().len() == 1).await;
    suite.kill9("notification");
    server.hold_answers(false);
    suite.launch("notification");
    suite.ready("notification").await;
    answered(&suite, order).await;
    let mails = server.received();
    assert_eq!(mails.len(), 2, "nobody knew that it was sent");
    assert_eq!(mails[0].header("Message-ID"), mails[1].header("Message-ID"));
    let told = told(&suite, order).await;
    assert_eq!((told.len(), &told[0]["status"]), (1, &json!("sent")));
}

#[tokio::test(flavor = "multi_thread")]
async fn notification_told_to_stop_while_it_sends_waits_for_the_answer() {
    let server = MailServer::start().await;
    server.hold_answers(true);
    let mut suite = notification(&server).await;
    let order = new_id();
    suite.send_together(&[notify(order, Some(ADDRESS))]).await;
    suite.until("the mail to be taken", async |_| server.received().len() == 1).await;
    suite.process("notification").signal(local::Signal::TERM);
    let health = format!("{}/healthz", suite.url("notification"));
    suite
        .until("it to take in nothing any more", async |suite| {
            suite.client.get(&health).send().await.is_err()
        })
        .await;
    server.hold_answers(false);
    assert_eq!(suite.process("notification").end().await.code(), Some(0));
    suite.launch("notification");
    suite.ready("notification").await;
    answered(&suite, order).await;
    assert_eq!(server.received().len(), 1, "it was waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_kept_when_the_mail_server_is_taken_away() {
    let mut server = MailServer::start().await;
    server.go_down();
    let mut suite = notification(&server).await;
    let (begun, later) = (new_id(), new_id());
    suite.told("notification", &[notify(begun, Some(ADDRESS))]).await;
    suite.kill9("notification");
    suite.set(URL, None);
    suite.launch("notification");
    suite.ready("notification").await;
    suite.told("notification", &[notify(later, Some(ADDRESS))]).await;
    for order in [begun, later] {
        answered(&suite, order).await;
        let told = told(&suite, order).await;
        assert_eq!((&told[0]["channel"], &told[0]["status"]), (&json!("kept"), &json!("sent")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_mails_go_over_few_connections_and_each_is_sent_once() {
    let server = MailServer::start().await;
    server.hold_answers(true);
    let suite = notification(&server).await;
    let orders: Vec<Uuid> = (0..200).map(|_| new_id()).collect();
    let commands: Vec<Asked> = orders.iter().map(|order| notify(*order, Some(ADDRESS))).collect();
    suite.told("notification", &commands).await;
    suite.until("ten to be under way", async |_| server.received().len() == 10).await;
    let waiting = "select count(*) from step_outcome where status = 'pending' and claimed_by is null";
    assert!(suite.number("notification", waiting).await >= 180, "what waits is anybody's");
    assert_eq!(server.received().len(), 10, "no more at once");
    server.hold_answers(false);
    suite
        .until("all to be sent", async |suite| {
            suite.number("notification", "select count(*) from notification where status = 'sent'").await
                == 200
        })
        .await;
    let mut mails: Vec<String> =
        server.received().iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert_eq!(mails.len(), 200);
    mails.sort();
    mails.dedup();
    assert_eq!(mails.len(), 200, "each order has its own");
    assert!(server.connections() < 20, "{} connections", server.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_address_of_the_mail_server_ends_the_start() {
    let mut suite = Suite::with(Setup { only: Some("notification"), ..Setup::default() }).await;
    suite.kill9("notification");
    suite.set(URL, Some(format!("http://amends:{PASSWORD}@127.0.0.1")));
    let log = suite.log("notification", 0);
    let before = std::fs::read_to_string(&log).expect("a log").len();
    suite.launch("notification");
    let ended = suite.process("notification").end().await;
    assert!(!ended.success());
    let log = std::fs::read_to_string(&log).expect("a log").split_off(before);
    assert!(log.contains("NOTIFICATION_SMTP_URL can't be used"), "{log}");
    assert!(!log.contains(PASSWORD), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_over_http() {
    let suite = Suite::with(Setup { only: Some("order"), ..Setup::default() }).await;
    let (status, problem) = request(&suite, Method::GET, "ada", None).await;
    assert_eq!((status.as_u16(), &problem["type"]), (404, &json!("/problems/not-found")));

    let long = "x".repeat(65);
    let table: [(&str, Value, &[&str]); 6] = [
        ("ada", json!({}), &["/email"]),
        ("ada", json!({"email": null, "name": 7}), &["/email", "/name"]),
        ("ada", json!({"email": "nobody"}), &["/email"]),
        ("ada", json!({"email": ADDRESS, "name": "x".repeat(201)}), &["/name"]),
        (&long, json!({"email": 7}), &["/email", "/id"]),
        ("ada", json!([]), &[""]),
    ];
    for (id, body, pointers) in table {
        let (status, problem) = put(&suite, id, &body).await;
        assert_eq!(status.as_u16(), 422, "{body}: {problem}");
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, pointers, "{body}: {problem}");
    }
    let (status, problem) = put(&suite, "a%07da", &json!({"email": ADDRESS})).await;
    assert_eq!((status.as_u16(), &problem["type"]), (400, &json!("/problems/bad-request")));
    assert_eq!(suite.number("order", "select count(*) from customer").await, 0, "nothing of it was written");

    let body = json!({"name": "Ada", "email": ADDRESS});
    let (status, created) = put(&suite, "ada", &body).await;
    assert_eq!((status, &created["version"]), (StatusCode::CREATED, &json!(1)));
    assert_eq!((&created["id"], &created["name"]), (&json!("ada"), &json!("Ada")));
    let (status, repeated) = put(&suite, "ada", &body).await;
    assert_eq!((status, &repeated), (StatusCode::OK, &created), "the same once more changes nothing");
    let (status, changed) = put(&suite, "ada", &json!({"email": "ada@example.org"})).await;
    assert_eq!((status, &changed["version"]), (StatusCode::OK, &json!(2)));
    assert_eq!(changed.get("name"), None);
    assert_eq!(request(&suite, Method::GET, "ada", None).await, (StatusCode::OK, changed));

    let told = "select (convert_from(body, 'UTF8')::json ->> 'sequence') || ' ' ||
                       (convert_from(body, 'UTF8')::json -> 'data' ->> 'email')
                from outbox where topic = 'customer.events' and key = 'ada' order by position";
    assert_eq!(suite.texts("order", told).await, [format!("1 {ADDRESS}"), "2 ada@example.org".to_owned()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_change_one_customer_leave_one_story() {
    let suite = Suite::with(Setup { only: Some("order"), ..Setup::default() }).await;
    let changes = (0..20).map(|number| {
        let suite = &suite;
        async move { put(suite, "ada", &json!({"email": format!("ada{number}@example.com")})).await.0 }
    });
    let answers = futures::future::join_all(changes).await;
    assert_eq!(answers.iter().filter(|status| **status == StatusCode::CREATED).count(), 1);
    assert!(answers.iter().all(|status| status.is_success()), "{answers:?}");
    let told = "select convert_from(body, 'UTF8')::json ->> 'sequence' from outbox order by position";
    let expected: Vec<String> = (1..=20).map(|version| version.to_string()).collect();
    assert_eq!(suite.texts("order", told).await, expected, "versions are told in their order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_address_changes_nothing() {
    let suite = Suite::with(Setup { only: Some("notification"), ..Setup::default() }).await;
    let told = async |version: i64| {
        let email = format!("ada{version}@example.com");
        let mut event =
            message("customer.updated.v1", "ada", new_id(), json!({"customerId": "ada", "email": email}));
        event["sequence"] = json!(version);
        suite.produce("customer.events", "ada", event.to_string().as_bytes()).await;
        suite.caught_up("notification").await;
    };
    for (version, known) in [(2, 2), (1, 2), (2, 2), (5, 5), (4, 5)] {
        told(version).await;
        assert_eq!(contact(&suite, "ada").await, [format!("{known} ada{known}@example.com")]);
    }
    let parked = "select count(*) from parked";
    assert_eq!(suite.number("notification", parked).await, 0);
}
