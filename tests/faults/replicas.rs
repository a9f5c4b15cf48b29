//! Two processes of every service: they share the work, and one takes over when the other dies.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use local::Signal;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, SERVICES, Setup, Suite, order};

const ORDERS: usize = 300;
const CLIENTS: usize = 12;
const KILLS: usize = 9;
/// The longest time that the design allows for the takeover of a relay. Its lease is three seconds.
const RELAY_TAKEOVER: Duration = Duration::from_secs(5);

async fn twins() -> Suite {
    Suite::with(Setup { twins: 1, ..Setup::default() }).await
}

/// A generator of pseudo-random numbers, which are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    /// Uses the seed in the variable `SEED`, or a new one for each run.
    fn new() -> Self {
        let fresh = || shared::envelope::new_id().as_u128() as u64;
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(fresh);
        eprintln!("SEED={seed} repeats this run");
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// A client that uses the other replica when one does not answer. It counts answers with a server error.
struct Client<'c> {
    suite: &'c Suite,
    urls: &'c [String],
    failures: &'c AtomicUsize,
}

impl Client<'_> {
    /// Repeats an order with the same key until it is accepted, and waits until it has settled.
    async fn order(&self, number: usize) {
        let mut body = order();
        match number % 10 {
            0 => body["paymentToken"] = json!("tok_chargeDeclined"),
            5 => body["shippingAddress"]["postalCode"] = json!("00000"),
            // Neighbouring orders list the products in different sequences. Locks must not be taken in that sequence.
            n if n % 2 == 0 => {
                body["items"] = json!([{"sku": "mug", "quantity": 1}, {"sku": "lamp", "quantity": 1}])
            }
            _ => body["items"] = json!([{"sku": "lamp", "quantity": 1}, {"sku": "mug", "quantity": 1}]),
        }
        let key = format!("order-{number}");
        let placed = self
            .answer(number, |url| {
                self.suite.client.post(format!("{url}/orders")).header("Idempotency-Key", &key).json(&body)
            })
            .await;
        let path = format!("/orders/{}", placed["id"].as_str().expect("an id"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.answer(number, |url| self.suite.client.get(format!("{url}{path}"))).await;
            if found["status"] != "pending" {
                return;
            }
            assert!(Instant::now() < deadline, "order {number} does not settle: {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the first successful answer of either replica.
    async fn answer(&self, first: usize, request: impl Fn(&str) -> reqwest::RequestBuilder) -> Value {
        let deadline = Instant::now() + PATIENCE;
        for turn in first.. {
            let url = &self.urls[turn % self.urls.len()];
            let answer = request(url).timeout(Duration::from_secs(10)).send().await;
            if let Ok(answer) = answer {
                if answer.status().is_success() {
                    if let Ok(body) = answer.json().await {
                        return body;
                    }
                } else {
                    assert!(answer.status().is_server_error(), "refused: {}", answer.status());
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
            }
            assert!(Instant::now() < deadline, "no replica answers");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("numbers don't end")
    }
}

async fn count(suite: &Suite, sql: &str) -> i64 {
    suite.number("order", &format!("select count(*) from orders where {sql}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_one_of_twelve_is_killed_again_and_again() {
    let mut random = Random::new();
    let mut suite = twins().await;
    let urls = [suite.replica_url("order", 0), suite.replica_url("order", 1)];
    let (settled, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let side = suite.client_side();
    let work = join_all((0..CLIENTS).map(|client| {
        let (suite, urls, settled, failures) = (&side, &urls, &settled, &failures);
        async move {
            for number in (client..ORDERS).step_by(CLIENTS) {
                Client { suite, urls, failures }.order(number).await;
                settled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    let faults = async {
        let mut down = None;
        for kill in 1..=KILLS {
            let due = ORDERS * kill / (KILLS + 1);
            side.until("orders to settle", async |_| settled.load(Ordering::Relaxed) >= due).await;
            if let Some((service, replica)) = down.take() {
                suite.launch_replica(service, replica);
            }
            let all = suite.replicas();
            let (service, replica) = all[random.below(all.len())];
            suite.replica(service, replica).kill9();
            // Every third process stays down until the next one is killed, so its twin must do its work.
            if random.below(3) == 0 {
                down = Some((service, replica));
            } else {
                suite.launch_replica(service, replica);
            }
        }
        if let Some((service, replica)) = down {
            suite.launch_replica(service, replica);
        }
    };
    join(work, faults).await;
    for (service, replica) in suite.replicas() {
        suite.replica_ready(service, replica).await;
    }
    suite.comes_to_rest().await;
    for service in crate::harness::SERVICES {
        suite.caught_up(service).await;
    }
    suite.every_key_kept_its_order().await;
    let tenth = (ORDERS / 10) as i64;
    assert_eq!(count(&suite, "status = 'confirmed'").await, 8 * tenth);
    assert_eq!(count(&suite, "reason = 'card_declined'").await, tenth);
    assert_eq!(count(&suite, "reason = 'undeliverable_address'").await, tenth);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_is_restarted_in_turn_under_load_and_no_client_notices() {
    let mut suite = twins().await;
    let urls = [suite.replica_url("order", 0), suite.replica_url("order", 1)];
    let (next, over, failures) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    let side = suite.client_side();
    let work = join_all((0..4).map(|_| {
        let (suite, urls, next, over, failures) = (&side, &urls, &next, &over, &failures);
        async move {
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                Client { suite, urls, failures }.order(number).await;
            }
        }
    }));
    let restarts = async {
        for (service, replica) in suite.replicas() {
            let ended = suite.replica(service, replica).stop().await;
            assert_eq!(ended.code(), Some(0), "{service}-{replica}");
            suite.launch_replica(service, replica);
            suite.replica_ready(service, replica).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    join(work, restarts).await;
    assert_eq!(failures.load(Ordering::Relaxed), 0, "a client was told that the server failed");
    suite.comes_to_rest().await;
    let placed = next.load(Ordering::Relaxed) as i64;
    assert_eq!(count(&suite, "true").await, placed, "each order is there once");
    suite.every_key_kept_its_order().await;
}

/// Kills the replica of `service` that holds the relay's lease. Returns the number of the other one.
async fn relay_killed(suite: &mut Suite, service: &'static str) -> usize {
    let owner = suite.texts(service, "select owner from relay_checkpoint").await;
    let killed = usize::from(owner[0].ends_with("-1"));
    suite.replica(service, killed).kill9();
    1 - killed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_of_a_killed_replica_is_taken_over() {
    let mut suite = twins().await;
    let left = relay_killed(&mut suite, "order").await;
    let began = Instant::now();
    let url = format!("{}/orders", suite.replica_url("order", left));
    let placed = suite.client.post(url).json(&order()).send().await.expect("an answer");
    assert_eq!(placed.status(), 202);
    suite
        .until("the order to reach the orchestrator", async |suite| {
            suite.number("orchestrator", "select count(*) from saga").await == 1
        })
        .await;
    let took = began.elapsed();
    eprintln!("the relay was taken over within {took:?}");
    assert!(took < RELAY_TAKEOVER, "it took {took:?}");
    suite.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_work_of_a_killed_replica_is_taken_over() {
    let mut suite = twins().await;
    // One replica of each service is killed and not restarted, so its twin must take over all partitions and relays.
    for service in SERVICES.into_iter().filter(|service| *service != "order") {
        relay_killed(&mut suite, service).await;
    }
    let began = Instant::now();
    let urls = [suite.replica_url("order", 0), suite.replica_url("order", 1)];
    let failures = AtomicUsize::new(0);
    let client = Client { suite: &suite, urls: &urls, failures: &failures };
    join_all((0..30).map(|number| client.order(number))).await;
    eprintln!("30 orders settled within {:?} of the kills", began.elapsed());
    suite.comes_to_rest().await;
}

/// Stops a transaction that wakes the saga in the table `held`.
const HOLD: &str = "
    create table held (saga_id uuid not null);
    create function hold() returns trigger language plpgsql as $$
    begin
        if new.input ->> 'input' = 'due' and exists (select from held where held.saga_id = new.saga_id) then
            perform pg_sleep(3600);
        end if;
        return null;
    end $$;
    create trigger hold after insert on saga_log for each row execute function hold();";

const ASKED_AGAIN: &str = "select count(distinct saga_id) from saga_log
    where input ->> 'input' = 'due' and decisions::text like '%authorize_payment%'";

const SLEEPING: &str = "from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";

/// An orchestrator is stopped, and then killed, while it wakes a saga. Its twin does not wait for it: it takes all other
/// sagas that are due, and that saga when its lease has expired.
#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_shared_and_those_of_a_killed_orchestrator_come_to_its_twin() {
    const LATER: usize = 20;
    let settings = vec![("ORCHESTRATOR_STEP_DEADLINE", "1s".to_owned())];
    let mut suite = Suite::with(Setup { settings, ..Setup::default() }).await;
    suite.execute("orchestrator", HOLD).await;
    suite.process("payment").signal(Signal::STOP);
    let first = suite.place(&order()).await;
    // From now on only the deadline may wake the saga.
    suite.step_is(first, "reserve_stock", "done").await;
    // Otherwise the twin would get the reply again, and wait for the lock.
    suite.caught_up("orchestrator").await;
    suite.execute("orchestrator", &format!("insert into held values ('{}')", first.id)).await;
    let sleeping = format!("select count(*) {SLEEPING}");
    suite
        .until("the orchestrator to be held up", async |suite| {
            suite.number("orchestrator", &sleeping).await == 1
        })
        .await;

    let before = suite.number("orchestrator", ASKED_AGAIN).await;
    suite.launch_replica("orchestrator", 1);
    suite.replica_ready("orchestrator", 1).await;
    let mut orders = vec![first];
    for _ in 0..LATER {
        orders.push(suite.place(&order()).await);
    }
    suite
        .until("the others to be asked again", async |suite| {
            suite.number("orchestrator", ASKED_AGAIN).await == before + LATER as i64
        })
        .await;
    // A process that takes a saga sends each open step once, because it does not know that it was sent a moment ago.
    let in_vain =
        "select count(*) from saga_log where input ->> 'input' = 'due' and json_array_length(decisions) = 0";
    assert_eq!(suite.number("orchestrator", in_vain).await, 0, "a saga was woken twice");
    assert_eq!(
        suite.number("orchestrator", &sleeping).await,
        1,
        "the twin has waited, or taken what was taken"
    );
    let taken = format!("select count(*) from saga where saga_id = '{}' and due_at > now()", first.id);
    assert_eq!(suite.number("orchestrator", &taken).await, 1, "it is taken for a while");

    suite.kill9("orchestrator");
    // Its session sleeps in the database, so it does not notice that the client has gone.
    suite.execute("orchestrator", "delete from held").await;
    suite.texts("orchestrator", &format!("select pg_terminate_backend(pid)::text {SLEEPING}")).await;
    let entries =
        format!("select count(*) from saga_log where input ->> 'input' = 'due' and saga_id = '{}'", first.id);
    let before = suite.number("orchestrator", &entries).await;
    let passes = "update saga set due_at = due_at - interval '30 seconds'";
    suite.execute("orchestrator", &format!("{passes} where saga_id = '{}'", first.id)).await;
    suite
        .until("the twin to wake it", async |suite| suite.number("orchestrator", &entries).await > before)
        .await;
    suite.launch("orchestrator");
    suite.ready("orchestrator").await;
    suite.process("payment").signal(Signal::CONT);
    for order in orders {
        assert_eq!(suite.settled(order).await["status"], "confirmed");
    }
    suite.comes_to_rest().await;
}
