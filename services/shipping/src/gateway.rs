//! The carrier, behind a small trait. The carrier here is simulated. The address decides its answers, and a setting the pace
//! of its parcels.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use schemas::common::Address;
use schemas::country;
use schemas::shipping::BookRefused;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::domain::{Pace, Whereabouts};

/// The postal code to which the simulated carrier does not deliver.
const NOWHERE: &str = "00000";

/// The carrier gave no answer. A repetition with the same key finds out what it did.
#[derive(Debug, thiserror::Error)]
#[error("the carrier did not answer")]
pub struct NoAnswer;

/// The carrier's answer to a booking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Booked { tracking_number: String },
    Refused(BookRefused),
}

/// A parcel that is ready for the carrier, or with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    pub tracking_number: String,
    /// The time from which on the carrier may pick it up.
    pub released_at: OffsetDateTime,
}

/// What shipping needs of a carrier. If a call is repeated with its idempotency key, the carrier repeats its first answer,
/// and sends nothing twice.
///
/// The carrier reports where a parcel is when it is asked ([`Carrier::track`]). Shipping asks about released parcels only,
/// and the carrier picks up released parcels only.
pub trait Carrier: Send + Sync + 'static {
    /// Books a shipment.
    ///
    /// # Errors
    /// If there is no answer.
    fn book(&self, key: &str, address: &Address) -> impl Future<Output = Result<Verdict, NoAnswer>> + Send;

    /// Cancels a booking. The parcel has not left, and will not leave any more.
    ///
    /// # Errors
    /// If there is no answer.
    fn cancel(&self, key: &str, tracking_number: &str) -> impl Future<Output = Result<(), NoAnswer>> + Send;

    /// Takes back whatever was done under this key, which may be nothing, and refuses the key from now on. It is called when
    /// nobody waits for the call under the key any more.
    ///
    /// # Errors
    /// If there is no answer.
    fn withdraw(&self, key: &str) -> impl Future<Output = Result<(), NoAnswer>> + Send;

    /// Returns how long parcels usually take. Shipping asks about a parcel when its next change may have come.
    fn pace(&self) -> Pace;

    /// Returns where released parcels are, in the order of `parcels`. `now` is the present time by the database's clock, which
    /// all replicas share. The call changes nothing, so it needs no idempotency key and may be repeated.
    ///
    /// # Errors
    /// If there is no answer.
    fn track(
        &self,
        parcels: &[Parcel],
        now: OffsetDateTime,
    ) -> impl Future<Output = Result<Vec<Whereabouts>, NoAnswer>> + Send;
}

/// A simulated carrier that delivers everywhere but to the postal code `00000` of a country in which an address needs a
/// postal code. Elsewhere people type `00000` because a form wants something. The answer depends on the arguments alone, so
/// it is the same after a restart.
#[derive(Debug)]
pub struct Simulated {
    latency: Duration,
    pace: Pace,
    outage: Option<PathBuf>,
}

impl Simulated {
    pub fn new(latency: Duration, pace: Pace) -> Self {
        Self { latency, pace, outage: None }
    }

    /// While a file `outage` exists, the carrier answers no call.
    pub fn with_outage(self, outage: Option<PathBuf>) -> Self {
        Self { outage, ..self }
    }

    async fn take_time(&self) -> Result<(), NoAnswer> {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        match &self.outage {
            Some(outage) if outage.exists() => Err(NoAnswer),
            Some(_) | None => Ok(()),
        }
    }

    fn whereabouts(&self, parcel: &Parcel, now: OffsetDateTime) -> Whereabouts {
        let dispatched_at = self.pace.dispatch(parcel.released_at);
        let delivered_at = self.pace.delivery(dispatched_at);
        if now < dispatched_at {
            Whereabouts::AtHome
        } else if now < delivered_at {
            Whereabouts::InTransit { dispatched_at }
        } else {
            Whereabouts::Delivered { dispatched_at, delivered_at }
        }
    }
}

impl Carrier for Simulated {
    async fn book(&self, key: &str, address: &Address) -> Result<Verdict, NoAnswer> {
        self.take_time().await?;
        if address.postal_code == NOWHERE && country::needs_postal_code(&address.country) {
            return Ok(Verdict::Refused(BookRefused::UndeliverableAddress));
        }
        let digest = Sha256::digest(key.as_bytes());
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02X}")).collect();
        Ok(Verdict::Booked { tracking_number: format!("AM{name}") })
    }

    async fn cancel(&self, _key: &str, _tracking_number: &str) -> Result<(), NoAnswer> {
        self.take_time().await
    }

    async fn withdraw(&self, _key: &str) -> Result<(), NoAnswer> {
        self.take_time().await
    }

    fn pace(&self) -> Pace {
        self.pace
    }

    async fn track(&self, parcels: &[Parcel], now: OffsetDateTime) -> Result<Vec<Whereabouts>, NoAnswer> {
        self.take_time().await?;
        Ok(parcels.iter().map(|parcel| self.whereabouts(parcel, now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASED: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn seconds(after: i64) -> OffsetDateTime {
        RELEASED + time::Duration::seconds(after)
    }

    async fn track(now: OffsetDateTime) -> Whereabouts {
        let pace = Pace { dispatch_after: Duration::from_secs(60), deliver_after: Duration::from_secs(30) };
        let carrier = Simulated::new(Duration::ZERO, pace);
        let parcel = Parcel { tracking_number: "AM00".to_owned(), released_at: RELEASED };
        carrier.track(&[parcel], now).await.expect("an answer")[0]
    }

    #[tokio::test]
    async fn a_parcel_moves_at_the_pace_counted_from_its_release() {
        assert_eq!(track(RELEASED).await, Whereabouts::AtHome);
        assert_eq!(track(seconds(59)).await, Whereabouts::AtHome);
        let in_transit = Whereabouts::InTransit { dispatched_at: seconds(60) };
        assert_eq!(track(seconds(60)).await, in_transit);
        assert_eq!(track(seconds(89)).await, in_transit);
        let delivered = Whereabouts::Delivered { dispatched_at: seconds(60), delivered_at: seconds(90) };
        assert_eq!(track(seconds(90)).await, delivered);
        assert_eq!(track(seconds(9000)).await, delivered, "however late it is asked");
    }

    #[tokio::test]
    async fn a_booking_asked_for_again_has_its_first_tracking_number() {
        let pace = Pace { dispatch_after: Duration::ZERO, deliver_after: Duration::ZERO };
        let carrier = Simulated::new(Duration::ZERO, pace);
        let address = Address { postal_code: "89073".to_owned(), ..Address::default() };
        let first = carrier.book("saga:book_shipment:do", &address).await.expect("an answer");
        assert_eq!(carrier.book("saga:book_shipment:do", &address).await.expect("an answer"), first);
        assert_ne!(carrier.book("another:book_shipment:do", &address).await.expect("an answer"), first);
        let nowhere =
            Address { postal_code: NOWHERE.to_owned(), country: "DE".to_owned(), ..Address::default() };
        let refused = Verdict::Refused(BookRefused::UndeliverableAddress);
        assert_eq!(carrier.book("k", &nowhere).await.expect("an answer"), refused);
        let typed = Address { country: "AE".to_owned(), ..nowhere };
        assert_ne!(carrier.book("k", &typed).await.expect("an answer"), refused);
    }
}
