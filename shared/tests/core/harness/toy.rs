//! The loyalty service, running.

use std::ops::Deref;

use shared::envelope::Message;
use shared::service::{self, App};

use super::place::Place;
use super::process::Process;
use crate::loyalty::Loyalty;
use crate::loyalty::messages::{EVENTS, GrantPoints, PurchaseMade};

const TOPICS: &[(&str, i32)] =
    &[(GrantPoints::TOPIC, 2), (PurchaseMade::TOPIC, 2), (EVENTS, 1), ("loyalty.parked", 1)];

/// The name of the first replica.
pub const INSTANCE: &str = "loyalty";
const SECOND: &str = "second";

/// The consumer group that reads the events. Nobody waits for their effect.
const BACKGROUND: &str = "loyalty-background";

/// The rows of the outbox that are not known to be on Kafka.
const UNSENT: &str = "select count(*) from outbox o left join relay_checkpoint c on c.shard = o.shard
    where c.shard is null or not (pg_visible_in_snapshot(o.xid, c.acked_snapshot)
          or (c.window_snapshot is not null and pg_visible_in_snapshot(o.xid, c.window_snapshot) and o.position <= c.position))";

/// The service with its surroundings. Dropped, its process is gone.
pub struct Toy {
    place: Place,
    pub process: Process,
}

impl Deref for Toy {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Toy {
    /// Starts it, and waits until it is ready.
    pub async fn start() -> Self {
        let place = Place::new(TOPICS).await;
        service::migrate::<Loyalty>(&mut place.connect().await).await.expect("migrations");
        let process = place.start::<Loyalty>(INSTANCE, None, &[]);
        let toy = Self { place, process };
        toy.ready().await;
        toy
    }

    /// Starts it again after it has ended, on the port that it had before.
    pub fn launch(&mut self) {
        let port = Some(self.process.port);
        self.process = self.place.start::<Loyalty>(INSTANCE, port, &[]);
    }

    /// Ends it as a crash would, and starts it again.
    pub fn crash(&mut self) {
        self.process.kill9();
        self.launch();
    }

    pub async fn ready(&self) {
        self.until("the service to be ready", async || {
            self.get(&self.process, "/readyz").await.is_some_and(|(ready, _)| ready)
        })
        .await;
    }

    /// The value of a metric of the service.
    pub async fn shown(&self, metric: &str) -> Option<f64> {
        self.metric(&self.process, metric).await
    }

    /// Starts a second replica of it, with these settings.
    pub fn second(&self, settings: &[(&'static str, String)]) -> Process {
        self.place.start::<Loyalty>(SECOND, None, settings)
    }

    /// Waits until the service has handled everything that is on its topic of commands.
    pub async fn commands_are_taken(&self) {
        let taken = async || self.has_caught_up(Loyalty::NAME, &[GrantPoints::TOPIC]);
        self.until("the commands to be taken", taken).await;
    }

    /// Waits until the service has handled everything that is on its topics.
    pub async fn caught_up(&self) {
        self.commands_are_taken().await;
        let told = async || self.has_caught_up(BACKGROUND, &[PurchaseMade::TOPIC]);
        self.until("the events to be taken", told).await;
    }

    /// Waits until everything is on Kafka that the service has committed, and every step has its outcome. Nothing is
    /// parked then.
    pub async fn comes_to_rest(&self) {
        let open = "select count(*) from step_outcome where status = 'pending'";
        self.until("every step to have its outcome", async || self.number(open).await == 0).await;
        self.until("everything to be sent", async || self.number(UNSENT).await == 0).await;
        self.nothing_is_parked().await;
    }

    pub async fn nothing_is_parked(&self) {
        let parked = "select reason from parked where status = 'parked'";
        assert_eq!(self.texts(parked).await, [""; 0]);
    }
}
