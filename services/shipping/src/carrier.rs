//! The carrier, behind a small trait. The one here is simulated and behaves by the address.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use schemas::common::Address;
use sha2::{Digest, Sha256};

/// The carrier gave no answer. Asking again under the same key tells what it did.
#[derive(Debug, thiserror::Error)]
#[error("the carrier did not answer")]
pub struct NoAnswer;

/// What the carrier says to a booking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Booked { tracking_number: String },
    Undeliverable,
}

/// What shipping needs of a carrier. Asked again under the same idempotency key, it gives its first answer and sends
/// nothing twice.
pub trait Carrier: Send + Sync + 'static {
    /// Books a shipment.
    ///
    /// # Errors
    /// If there is no answer.
    fn book(&self, key: &str, address: &Address) -> impl Future<Output = Result<Verdict, NoAnswer>> + Send;

    /// Takes a booking back.
    ///
    /// # Errors
    /// If there is no answer.
    fn cancel(&self, key: &str, tracking_number: &str) -> impl Future<Output = Result<(), NoAnswer>> + Send;
}

/// A carrier that delivers everywhere but to the postal code `00000`. It answers from the key alone, so it gives the
/// same answer after a restart.
#[derive(Debug)]
pub struct Simulated {
    latency: Duration,
    outage: Option<PathBuf>,
}

impl Simulated {
    pub fn new(latency: Duration) -> Self {
        Self { latency, outage: None }
    }

    /// While there is a file `outage`, it answers nobody.
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
}

impl Carrier for Simulated {
    async fn book(&self, key: &str, address: &Address) -> Result<Verdict, NoAnswer> {
        self.take_time().await?;
        if address.postal_code == "00000" {
            return Ok(Verdict::Undeliverable);
        }
        let digest = Sha256::digest(key.as_bytes());
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02X}")).collect();
        Ok(Verdict::Booked { tracking_number: format!("AM{name}") })
    }

    async fn cancel(&self, _key: &str, _tracking_number: &str) -> Result<(), NoAnswer> {
        self.take_time().await
    }
}
