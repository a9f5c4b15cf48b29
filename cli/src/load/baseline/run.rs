//! One run of the yardstick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::board::Board;
use super::super::counters::Database;
use super::super::meter::{Marks, Meter, mark};
use super::super::per_order::{PerOrder, Reading};
use super::super::place::Placing;
use super::super::plan::{self, Parts};
use super::super::processes::{Processes, milliseconds};
use super::super::tally::rounded;
use super::super::terminal;
use super::figures::Baseline;
use super::ground::Ground;
use super::orders::Numbered;
use super::parcels;
use super::program::Program;
use super::sums::Sums;
use super::watch::watch;
use super::{DATABASES, ORDERS};
use crate::api;
use crate::run::Where;

/// How long the last orders may take to end.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Creates the databases, starts the program, measures it, and checks the sums. The program is killed at the end.
pub async fn measure(
    place: &Where,
    ground: &mut Ground,
    parts: &Parts,
    clients: Option<u16>,
    stop: &CancellationToken,
) -> anyhow::Result<Baseline> {
    parcels::until_at_rest(ground, parts.end(), stop).await?;
    ground.prepare().await.context("the yardstick's databases can't be created")?;
    let folder = place.state().join("bench");
    let program = tokio::task::block_in_place(|| Program::start(&folder, &ground.url))?;
    let board = Arc::new(Board::new(parts.bounds.len())?);
    let watcher = ground.connect(ORDERS).await?;
    let database = Database::of(ground.connect(ORDERS).await?, &DATABASES);
    let processes = Processes::with_program(place, program.pid(), &ground.others().await?);
    let meter = Meter { api: None, board: Arc::clone(&board), processes, database };
    let placing = Placing::new(api::client(), program.url.clone(), Numbered, &board, stop);
    let over = CancellationToken::new();
    // It ends all tasks when this function ends, or when its future is dropped.
    let mut observers = JoinSet::new();
    observers.spawn(terminal::show_progress(Arc::clone(&board), over.clone()));
    let suite = Beside::begin(place);
    let placed = place_orders(Arc::new(placing), meter, parts, clients, stop);
    let (marks, last) = tokio::select! {
        placed = placed => placed?,
        watched = watch(watcher, &board) => {
            watched?;
            bail!("the orders are no longer watched");
        }
    };
    over.cancel();
    while let Some(ended) = observers.join_next().await {
        ended?;
    }
    let suite_cores = suite.cores();
    let sums = Sums::settled(ground).await.context("the sums can't be checked")?;
    let per_order = PerOrder::between(&marks.first, &last);
    let ended_early = stop.is_cancelled();
    let mut figures = Baseline::new(parts, clients, ended_early, &board, &marks, per_order, sums)?;
    figures.suite_cores = suite_cores;
    figures.complaints = program.complaints();
    Ok(figures)
}

/// What the suite does meanwhile, which should be nothing.
struct Beside {
    processes: Processes,
    began: Instant,
    before: Option<u64>,
}

impl Beside {
    fn begin(place: &Where) -> Self {
        let processes = Processes::find(place);
        let before = Self::ticks(&processes);
        Self { processes, began: Instant::now(), before }
    }

    fn ticks(processes: &Processes) -> Option<u64> {
        let used = tokio::task::block_in_place(|| processes.ticks());
        Some(used.services? + used.kafka?)
    }

    /// Returns how many processors its services and Kafka have used on average.
    fn cores(&self) -> Option<f64> {
        let used = milliseconds(Self::ticks(&self.processes)?.checked_sub(self.before?)?);
        Some(rounded(used / 1000.0 / self.began.elapsed().as_secs_f64()))
    }
}

/// Places the orders and waits until they have ended. Returns the readings of the measured time, and the last one.
async fn place_orders(
    placing: Arc<Placing<Numbered>>,
    meter: Meter,
    parts: &Parts,
    clients: Option<u16>,
    stop: &CancellationToken,
) -> anyhow::Result<(Marks, Reading)> {
    let board = Arc::clone(&meter.board);
    let began = Instant::now();
    let (measured, end) = (began + parts.warmup(), began + parts.end());
    let mut marking = JoinSet::new();
    marking.spawn(mark(meter, measured, end, stop.clone()));
    match clients {
        Some(clients) => placing.closed_loop(usize::from(clients), measured, end).await?,
        None => placing.open_loop(began, plan::schedule(&parts.rates, &parts.bounds)).await?,
    }
    let mut marks = marking.join_next().await.context("the readings were not taken")??;
    let deadline = Instant::now() + PATIENCE;
    while board.standing().pending > 0 && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let last = marks.meter.read().await;
    Ok((marks, last))
}
