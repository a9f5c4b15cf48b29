//! Two processes of a service with one name.

use std::collections::HashSet;

use futures::future::join_all;
use local::Signal;
use serde_json::json;

use crate::harness::smtp::MailServer;
use crate::harness::{Setup, Suite, order};

const ORDERS: usize = 20;
const ADDRESS: &str = "ada@example.com";

/// The usual suite with a mail server. Further processes of the notification service get the name of the first.
async fn suite(server: &MailServer) -> Suite {
    let settings = vec![("NOTIFICATION_SMTP_URL", server.url())];
    let mut suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    suite.set("INSTANCE", Some("0".to_owned()));
    suite
}

/// Places orders whose mails the server takes without an answer, and waits until all mails were asked for.
async fn with_slow_mail(suite: &Suite, server: &MailServer) -> Vec<crate::harness::Order> {
    server.hold_answers(true);
    let mut body = order();
    body["email"] = json!(ADDRESS);
    let orders = join_all((0..ORDERS).map(|_| suite.place(&body))).await;
    suite
        .until("all mails to be asked for", async |suite| {
            suite.number("notification", "select count(*) from notification").await == ORDERS as i64
                && server.received().len() == 10
        })
        .await;
    orders
}

fn ids(server: &MailServer) -> Vec<String> {
    server.received().iter().map(|mail| mail.header("Message-ID").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_processes_with_one_name_ends_and_no_mail_is_sent_twice() {
    let server = MailServer::start().await;
    let mut suite = suite(&server).await;
    let orders = with_slow_mail(&suite, &server).await;
    suite.launch_replica("notification", 1);
    let ended = suite.replica("notification", 1).end().await;
    assert_eq!(ended.code(), Some(64));
    let log = std::fs::read_to_string(suite.log("notification", 1)).expect("a log");
    assert!(log.contains("INSTANCE=0 is in use by another running process of notification"), "{log}");
    assert!(!log.contains("partitions assigned") && !log.contains("holds the shard"), "{log}");
    suite.ready("notification").await;

    server.hold_answers(false);
    for order in orders {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
    assert_eq!(server.received().len(), ORDERS);
    // One that is restarted has its name at once.
    suite.crash("notification");
    suite.ready("notification").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_process_loses_its_name_and_makes_no_call_when_it_comes_back() {
    let server = MailServer::start().await;
    let mut suite = suite(&server).await;
    let orders = with_slow_mail(&suite, &server).await;
    let begun: HashSet<String> = ids(&server).into_iter().collect();
    suite.process("notification").signal(Signal::STOP);
    server.hold_answers(false);
    suite.launch_replica("notification", 1);
    suite.replica_ready("notification", 1).await;
    suite
        .until("all mails to be sent", async |suite| {
            suite.number("notification", "select count(*) from notification where status = 'sent'").await
                == ORDERS as i64
        })
        .await;
    suite.process("notification").signal(Signal::CONT);
    assert_eq!(suite.process("notification").end().await.code(), Some(64));
    let log = std::fs::read_to_string(suite.log("notification", 0)).expect("a log");
    assert!(log.contains("INSTANCE=0 is in use by another running process of notification"), "{log}");

    for order in orders {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    let sent = ids(&server);
    assert_eq!(sent.iter().collect::<HashSet<_>>().len(), ORDERS);
    // The server's answers to the first ones were never read, so these were sent again.
    let once = sent.iter().filter(|id| !begun.contains(*id)).count();
    assert_eq!(once, ORDERS - begun.len(), "{sent:?}");
    suite.replica_ready("notification", 1).await;
}

/// The session that holds the name is lost, as when PostgreSQL is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_session_was_lost_takes_its_name_again() {
    let mut suite = Suite::with(Setup { only: Some("notification"), ..Setup::default() }).await;
    let holder = "select pid::text || backend_start from pg_stat_activity where pid in (
                      select pid from pg_locks where locktype = 'advisory' and objsubid = 2 and granted
                      and classid = (hashtext('shared::instance')::bigint & 4294967295)::oid
                      and database = (select oid from pg_database where datname = current_database()))";
    let before = suite.texts("notification", holder).await;
    assert_eq!(before.len(), 1, "{before:?}");
    let end = holder.replacen("pid::text || backend_start", "pg_terminate_backend(pid)::text", 1);
    suite.texts("notification", &end).await;
    suite
        .until("the name to be held again", async |suite| {
            let now = suite.texts("notification", holder).await;
            now.len() == 1 && now != before
        })
        .await;
    suite.ready("notification").await;
    assert!(suite.process("notification").ended().is_none());
}
