//! The yardstick: the same business by plain SQL over five databases, without saga, outbox and broker.
//!
//! It is what a user would write without Amends, and not crash-safe: a crash leaves orders half done. Machines differ by a
//! factor of three from day to day, so a figure of the suite says something only beside the yardstick's figure of the same
//! minutes.
//!
//! The program under test is a process of its own, so that its CPU time can be told apart from this process, which places
//! the orders. It uses the PostgreSQL of the running suite, in five databases of its own. They are created afresh for each
//! run, and dropped after it. This process learns the outcomes from the database, every 20 ms.

mod app;
mod figures;
mod ground;
mod orders;
mod parcels;
mod program;
mod run;
mod steps;
mod sums;
mod watch;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::app::serve;
pub use self::figures::Baseline;
use self::ground::Ground;
use super::plan::Parts;
use super::terminal;
use crate::run::Where;

/// The yardstick's clients beside a closed loop of the suite. With more of them, orders only wait longer for a connection.
pub const CLIENTS: u16 = 128;

/// The yardstick's databases, one for each service of the business.
const ORDERS: &str = "baseline_orders";
const INVENTORY: &str = "baseline_inventory";
const PAYMENT: &str = "baseline_payment";
const SHIPPING: &str = "baseline_shipping";
const NOTIFY: &str = "baseline_notify";
const DATABASES: [&str; 5] = [ORDERS, INVENTORY, PAYMENT, SHIPPING, NOTIFY];
/// The program's connections to each of its databases.
const CONNECTIONS: u32 = 16;

/// Measures the yardstick at the rates of the plan, or from this many clients. Ctrl-C ends the placing early.
///
/// # Errors
/// If no suite answers, if its PostgreSQL can't be used, or if the run was stopped at once. The databases are dropped then
/// too.
pub async fn measure(place: &Where, parts: &Parts, clients: Option<u16>) -> anyhow::Result<Baseline> {
    if !cfg!(feature = "suite") {
        bail!(
            "the yardstick is not part of this image; build amends from its sources, where `amends up` is part of it"
        );
    }
    let mut ground = Ground::lay(place).await?;
    let stop = CancellationToken::new();
    let measured = tokio::select! {
        measured = run::measure(place, &mut ground, parts, clients, &stop) => measured,
        () = terminal::told_to_end(stop.clone()) => Err(anyhow::anyhow!("stopped before the end")),
        () = terminated() => Err(anyhow::anyhow!("told to stop before the end")),
    };
    let cleared = ground.clear().await;
    let measured = measured?;
    cleared?;
    Ok(measured)
}

/// Returns at SIGTERM.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        Err(_) => std::future::pending().await,
    }
}
