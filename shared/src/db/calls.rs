//! Until when a process may begin external calls. A process that was frozen must not begin one when it comes back, because
//! another process may have taken its place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The moment until which external calls may begin; `None` if nothing limits that.
#[derive(Debug, Clone, Default)]
pub struct CallLimit(Arc<Mutex<Option<Instant>>>);

impl CallLimit {
    /// Lets external calls begin until this moment, and no longer.
    pub fn set(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Returns whether an external call may begin.
    pub fn allows(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn calls_may_begin_until_the_limit() {
        let limit = CallLimit::default();
        assert!(limit.allows(), "there is none");
        limit.set(Instant::now());
        assert!(!limit.allows());
        limit.clone().set(Instant::now() + Duration::from_secs(3600));
        assert!(limit.allows());
    }
}
