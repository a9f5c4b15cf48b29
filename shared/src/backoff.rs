//! Waits between attempts.

use std::time::Duration;

use crate::envelope::new_id;

/// Returns `wait` with jitter: a random time between half of it and all of it. Clients that failed together then do
/// not retry together.
pub fn jittered(wait: Duration) -> Duration {
    // Ids are random in their low bits. A random generator would be one more dependency.
    let random = (new_id().as_u128() & 0xffff) as u32;
    wait / 2 + wait / 2 * random / 0xffff
}
