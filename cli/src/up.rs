//! `amends up`: starts PostgreSQL, Kafka and the services on this machine, watches over them, and takes them down.

mod back;
mod children;
mod detach;
mod found;
mod logs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use local::{Backend, Options, Progress, Servers, Step, Terminal, ensure_free};

use self::children::Children;
use self::logs::Logs;
use crate::api::Api;
use crate::output::{complain, say};
use crate::run::{Run, Where, ready};
use crate::setup;
use crate::suite::{SERVICES, Suite};

/// How to stop a suite that runs in a terminal.
const CTRL_C: &str = "Ctrl-C stops everything.";
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts the whole suite.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "The environment variable AMENDS_SERVERS says how PostgreSQL and Kafka are run: `local` as processes of \
                  this machine, `docker` in containers, `auto` (the default) as processes if Java and Maven are \
                  installed, else in containers.\n\n\
                  The services get the environment, so their settings can be given as variables (`amends serve payment \
                  --help`). For example, while the file named by PAYMENT_PROVIDER_OUTAGE or SHIPPING_CARRIER_OUTAGE \
                  exists, the card provider or the carrier does not answer."
)]
pub struct Up {
    /// Delete the data of earlier runs, and begin with empty databases and topics.
    #[arg(long)]
    fresh: bool,
    /// Return when the suite is ready, and leave it running; `amends down` stops it.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    place: Where,
}

impl Up {
    pub fn run(self) -> anyhow::Result<()> {
        if self.place.suite.urls.is_some() {
            bail!(
                "--urls (AMENDS_URLS) is for suites that run elsewhere, but `amends up` starts one on this machine"
            );
        }
        let state = self.place.state();
        if let Some(run) = Run::find(&state) {
            bail!(
                "a suite runs already on {} (process {}, ports from {}); `amends status` shows it, `amends down` \
                 stops it, and another `--ports-from` starts a second one",
                state.display(),
                run.pid,
                run.ports_from
            );
        }
        let signals = on_signal()?;
        if self.detach {
            return detach::start(&self.place, &state, self.fresh, &signals);
        }
        self.start(&state, &signals)
    }

    fn start(&self, state: &Path, signals: &Signals) -> anyhow::Result<()> {
        let began = Instant::now();
        let suite = &self.place.suite;
        for service in SERVICES {
            ensure_free(suite.port(service), &format!("the {service} service"))?;
        }
        let progress = Terminal::new();
        let options = Options {
            ports: suite.server_ports(),
            fresh: self.fresh,
            backend: Backend::from_env()?,
            ..Options::new(state)
        };
        std::fs::create_dir_all(state).with_context(|| format!("can't create {}", state.display()))?;
        if let Some(found) = found::tell(state, self.fresh) {
            complain!("{found}");
        }
        let mut run = Run::this(suite);
        run.note(state)?;
        let servers = Servers::start(&options, &progress).inspect_err(|_| Run::forget(state))?;
        signals.stop_in_order.store(true, Ordering::Release);
        let ended = self.serve(&servers, state, &mut run, &progress, began, &signals.told_to_stop);
        let stopping = Instant::now();
        servers.stop();
        Run::forget(state);
        if ended.is_ok() {
            complain!("stopped; the servers took {:.1} s", stopping.elapsed().as_secs_f64());
        }
        ended
    }

    fn serve(
        &self,
        servers: &Servers,
        state: &Path,
        run: &mut Run,
        progress: &dyn Progress,
        began: Instant,
        told_to_stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let suite = &self.place.suite;
        let step = Step::begin(progress, "databases, topics and migrations");
        crate::runtime::block_on(prepare(servers))?;
        step.done(&format!("{} databases and {} topics", SERVICES.len(), schemas::topics::all().len()));
        if told_to_stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let step = Step::begin(progress, "services");
        let mut children = Children::start(suite, servers, state)?;
        let ended = (|| {
            wait_until_ready(suite, &mut children, told_to_stop)?;
            step.done("ready");
            let step = Step::begin(progress, "catalogue");
            let products = crate::runtime::block_on(setup::seed(suite, told_to_stop))?;
            step.done(&format!("{products} products"));
            run.services = children.running();
            run.ready = true;
            run.note(state)?;
            welcome(suite, state, began.elapsed());
            servers.speed_up_later_starts();
            watch_over(servers, &mut children, run, state, told_to_stop)
        })();
        children.stop();
        if told_to_stop.load(Ordering::Acquire) { Ok(()) } else { ended }
    }
}

/// Creates the databases, tables and topics.
async fn prepare(servers: &Servers) -> anyhow::Result<()> {
    setup::databases(&servers.admin_url()).await?;
    for service in SERVICES {
        setup::migrate(service, &servers.postgres_url(service, service, None)).await?;
    }
    let kafka = shared::kafka::Kafka::new(servers.kafka_brokers());
    // The services are started with the variables of this process.
    let partitions = std::env::var("TOPIC_PARTITIONS").ok().and_then(|number| number.parse().ok());
    Ok(kafka.create_topics(&schemas::topics::with_partitions(partitions)).await?)
}

fn wait_until_ready(suite: &Suite, children: &mut Children, told_to_stop: &AtomicBool) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let deadline = Instant::now() + PATIENCE;
    for service in SERVICES {
        loop {
            // Connections do not outlive their runtime, so the client is new each time.
            let said = crate::runtime::block_on(async { Ok(ready(&Api::new(suite), service).await) })?;
            let Err(said) = said else { break };
            if told_to_stop.load(Ordering::Acquire) {
                bail!("stopped while starting");
            }
            children.fail_early()?;
            if Instant::now() > deadline {
                bail!(
                    "{service} is not ready after {PATIENCE:?}: {said}; its log is {}",
                    children.log(service).display()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    Ok(())
}

/// Restarts services and servers that die, until the suite is told to stop.
fn watch_over(
    servers: &Servers,
    children: &mut Children,
    run: &mut Run,
    state: &Path,
    told_to_stop: &AtomicBool,
) -> anyhow::Result<()> {
    let folder = state.join("logs");
    let mut logs = Logs::new([state, &folder]);
    while !told_to_stop.load(Ordering::Acquire) {
        logs.bound();
        if children.revive()? {
            run.services = children.running();
            run.note(state)?;
        }
        if servers.postgres().pid().is_none() {
            complain!("postgres has died; it is started again");
            let died = Instant::now();
            servers.postgres().restart().context("PostgreSQL could not be started again")?;
            complain!("postgres is back after {:.1} s", died.elapsed().as_secs_f64());
        }
        if servers.kafka().pid().is_none() {
            complain!("kafka has died; it is started again");
            let died = Instant::now();
            servers.kafka().restart().context("Kafka could not be started again")?;
            complain!("kafka is back after {:.1} s", died.elapsed().as_secs_f64());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn welcome(suite: &Suite, state: &Path, took: Duration) {
    let (took, logs) = (took.as_secs_f64(), state.join("logs"));
    say!("");
    say!("Amends is ready, {took:.1} s after the start. Logs are in {}.", logs.display());
    say!("");
    for service in SERVICES {
        say!("  {service:<13} {}", suite.url(service));
    }
    let ports = suite.server_ports();
    say!("  {:<13} postgres://postgres@127.0.0.1:{}", "postgres", ports.postgres);
    say!("  {:<13} 127.0.0.1:{}", "kafka", ports.kafka);
    say!("");
    say!("Place an order and wait for it to settle:");
    say!("");
    for line in curl(suite).lines() {
        say!("{line}");
    }
    say!("");
    say!("{CTRL_C}");
}

/// Returns a command that places an order.
pub fn curl(suite: &Suite) -> String {
    let url = suite.url("order");
    [
        format!("  curl -s {url}/orders -H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '"),
        r#"{"customerId":"ada","items":[{"sku":"lamp","quantity":2}],"paymentToken":"tok_visa","#.to_owned(),
        r#""shippingAddress":{"name":"Ada","line1":"Main St 1","city":"Ulm","postalCode":"89073","country":"DE"}}'"#
            .to_owned(),
    ]
    .concat()
}

/// What signals from the terminal, or from `amends down`, have asked for.
#[derive(Default)]
struct Signals {
    told_to_stop: AtomicBool,
    /// Set once the servers run. Before that, a signal ends the process at once. Its child processes end with it, and an
    /// interrupted download or start does no harm to a later one.
    stop_in_order: AtomicBool,
}

/// Listens for signals. A second signal ends the process at once, and its children with it.
fn on_signal() -> anyhow::Result<Arc<Signals>> {
    let signals = Arc::new(Signals::default());
    let heard = Arc::clone(&signals);
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let ended = crate::runtime::block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            let _ = ready.send(());
            for first in [true, false] {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up.recv() => {} }
                if first && heard.stop_in_order.load(Ordering::Acquire) {
                    complain!("stopping (again to stop at once)");
                    heard.told_to_stop.store(true, Ordering::Release);
                } else {
                    break;
                }
            }
            Ok(())
        });
        if ended.is_ok() {
            std::process::exit(130);
        }
    })?;
    wait.recv().context("signals can't be received")?;
    Ok(signals)
}

/// The file with the output of a suite that runs in the background.
fn up_log(state: &Path) -> PathBuf {
    state.join("up.log")
}
