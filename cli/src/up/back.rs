//! Says when a service that has died is ready again, beside the loop that watches over all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::output::complain;
use crate::run::ready;
use crate::suite::Suite;

/// How often a service is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a service is asked. After that `amends status` says more.
const PATIENCE: Duration = Duration::from_secs(300);

/// The services that have been started again, each with the number of its starts.
#[derive(Clone, Default)]
pub(super) struct Returning(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Returning {
    /// Waits beside this thread until the service is ready, and says so. A later start of the service takes over.
    pub(super) fn expect(&self, suite: &Suite, service: &'static str) {
        let start = self.count(service, 1);
        let (returning, suite, died) = (self.clone(), suite.clone(), Instant::now());
        // Without the thread nobody says that the service is back, which is no reason to fail.
        let _ = std::thread::Builder::new().name(format!("{service} is back")).spawn(move || {
            while returning.count(service, 0) == start && died.elapsed() < PATIENCE {
                let said = crate::runtime::block_on(async { Ok(ready(&Api::new(&suite), service).await) });
                if matches!(said, Ok(Ok(()))) && returning.count(service, 0) == start {
                    complain!("{service} is back after {:.1} s", died.elapsed().as_secs_f64());
                    return;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
    }

    /// Adds to the number of the service's starts, and returns it.
    fn count(&self, service: &'static str, more: u64) -> u64 {
        let mut starts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let starts = starts.entry(service).or_default();
        *starts += more;
        *starts
    }
}
