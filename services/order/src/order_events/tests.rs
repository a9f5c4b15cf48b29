use super::*;
use crate::store::ProgressRow;

const ORDER: Uuid = Uuid::from_u128(2);
const OTHER: Uuid = Uuid::from_u128(1);
const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// Returns whether the watch was woken since the last wait.
async fn woken(watch: &OrderWatch) -> bool {
    tokio::time::timeout(Duration::ZERO, watch.changed()).await.is_ok()
}

#[tokio::test]
async fn a_change_between_reading_and_waiting_is_not_missed() {
    let notifier = OrderNotifier::default();
    let (first, second) = (notifier.watch(ORDER), notifier.watch(ORDER));
    notifier.notify_changed(&[OTHER, ORDER]);
    assert!(woken(&first).await && woken(&second).await);
    assert!(!woken(&first).await, "nothing more has happened");
}

#[tokio::test]
async fn a_watch_is_woken_only_by_what_it_has_not_seen() {
    let notifier = OrderNotifier::default();
    let (first, second) = (notifier.watch(ORDER), notifier.watch(ORDER));
    first.saw(Seen { version: 1, position: 7 });
    second.saw(Seen { version: 1, position: 5 });
    let show = |version, position| {
        let row = |id| ProgressRow { id, version, position };
        notifier.show(&[row(ORDER), row(OTHER)]);
    };
    show(1, 7);
    assert!(!woken(&first).await && woken(&second).await);
    second.saw(Seen { version: 1, position: 7 });
    show(1, 7);
    assert!(!woken(&first).await && !woken(&second).await);
    show(2, 7);
    assert!(woken(&first).await && woken(&second).await);
}

#[tokio::test]
async fn orders_that_nobody_waits_for_are_forgotten() {
    let notifier = OrderNotifier::default();
    let (first, second) = (notifier.watch(ORDER), notifier.watch(ORDER));
    assert!(notifier.wait_until_settled(ORDER, Duration::from_millis(1), false).await.is_none());
    drop(first);
    assert_eq!(notifier.lock().orders.len(), 1);
    drop(second);
    assert!(notifier.lock().orders.is_empty());
    assert!(notifier.wait_until_settled(ORDER, Duration::from_millis(1), false).await.is_none());
    assert!(notifier.lock().orders.is_empty());
}

#[tokio::test]
async fn only_orders_whose_settlement_is_awaited_are_looked_up_for_it() {
    let notifier = OrderNotifier::default();
    let _watch = notifier.watch(ORDER);
    notifier.notify_settled(&[ORDER], Status::Confirmed, AT);
    assert!(notifier.lock().due.is_empty());
    let turn = notifier.lock().take_turn(10);
    assert_eq!((turn.awaited, turn.watched), (vec![], vec![ORDER]));
    let (send, _settled) = oneshot::channel();
    notifier.lock().orders.entry(ORDER).or_default().settlement.push(send);
    notifier.notify_settled(&[OTHER, ORDER], Status::Confirmed, AT);
    assert_eq!(notifier.lock().due, [ORDER]);
    assert_eq!(notifier.lock().take_turn(10).awaited, [ORDER]);
}

#[tokio::test]
async fn each_order_has_its_turn_however_many_there_are() {
    let notifier = OrderNotifier::default();
    let orders: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
    let mut watches: Vec<OrderWatch> = orders.iter().map(|order| notifier.watch(*order)).collect();
    let turn = || notifier.lock().take_turn(2).watched;
    assert_eq!([turn(), turn(), turn()].concat(), [&orders[..], &orders[..1]].concat());
    watches.truncate(1);
    assert_eq!(turn(), orders[..1], "one order has one turn");
    watches.clear();
    assert!(turn().is_empty());
}

#[tokio::test]
async fn the_feed_has_every_settlement_from_the_subscription_on() {
    let notifier = OrderNotifier::default();
    notifier.notify_settled(&[ORDER], Status::Confirmed, AT);
    let mut feed = notifier.subscribe();
    notifier.notify_changed(&[ORDER]);
    notifier.notify_settled(&[ORDER], Status::Rejected, AT);
    let settlement = feed.recv().await.expect("a settlement");
    assert_eq!((&*settlement.orders, settlement.status), (&[ORDER][..], Status::Rejected));
    assert!(feed.try_recv().is_err());
}
