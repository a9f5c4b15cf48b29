//! A value that one task computes when somebody asks for it. However many ask, it is computed once at a time.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Where the value is asked for.
#[derive(Clone)]
pub(super) struct OnDemand<T> {
    asked: Arc<Notify>,
    latest: watch::Sender<Option<(Instant, T)>>,
    max_age: Duration,
}

impl<T: Clone> OnDemand<T> {
    /// `max_age` is how old a value may be.
    pub fn new(max_age: Duration) -> Self {
        Self { asked: Arc::default(), latest: watch::Sender::new(None), max_age }
    }

    /// Returns a value that is not too old; `None` if the task has ended, or does not answer within `longest`.
    pub async fn get(&self, longest: Duration) -> Option<T> {
        let oldest = Instant::now().checked_sub(self.max_age);
        let fresh = |latest: &Option<(Instant, T)>| {
            latest.as_ref().is_some_and(|(at, _)| oldest.is_none_or(|oldest| *at >= oldest))
        };
        let mut latest = self.latest.subscribe();
        if !fresh(&latest.borrow()) {
            self.asked.notify_one();
        }
        let found = tokio::time::timeout(longest, latest.wait_for(fresh)).await.ok()?.ok()?;
        found.as_ref().map(|(_, value)| value.clone())
    }

    /// Computes the value whenever somebody asks for it, until `stop`.
    pub async fn run<F: Future<Output = T>>(self, compute: impl Fn() -> F, stop: CancellationToken) {
        while stop.run_until_cancelled(self.asked.notified()).await.is_some() {
            let began = Instant::now();
            let Some(value) = stop.run_until_cancelled(compute()).await else { return };
            self.latest.send_replace(Some((began, value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::{join, join_all};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Asks a hundred times at once, and then once more. Returns the first answers and the last one.
    async fn asked(max_age: Duration) -> (Vec<Option<u32>>, Option<u32>) {
        let (value, stop) = (OnDemand::new(max_age), CancellationToken::new());
        let computed = AtomicU32::new(0);
        let compute = async || {
            tokio::task::yield_now().await;
            computed.fetch_add(1, Ordering::Relaxed) + 1
        };
        let ask = async {
            let first = join_all((0..100).map(|_| value.get(LONG))).await;
            let last = value.get(LONG).await;
            stop.cancel();
            (first, last)
        };
        join(ask, value.clone().run(compute, stop.clone())).await.0
    }

    #[tokio::test]
    async fn many_who_ask_get_the_value_of_one_computation() {
        let (first, last) = asked(LONG).await;
        assert_eq!((first, last), (vec![Some(1); 100], Some(1)));
    }

    #[tokio::test]
    async fn a_value_that_is_too_old_is_computed_again() {
        let (first, last) = asked(Duration::ZERO).await;
        assert!(first.iter().all(|one| *one < last), "{first:?}, {last:?}");
    }

    #[tokio::test]
    async fn nobody_waits_for_long_when_nobody_computes() {
        let value = OnDemand::<u32>::new(LONG);
        assert_eq!(value.get(Duration::from_millis(1)).await, None);
    }
}
