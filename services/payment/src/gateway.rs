//! The card provider, behind a small trait. The one here is simulated and behaves by the card's token, as the test
//! tokens of real providers do.

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use schemas::common::Money;
use sha2::{Digest, Sha256};

/// The provider gave no answer. Whether it did what it was asked is not known; asking again under the same key tells.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("the card provider did not answer")]
    Timeout,
    #[error("the card provider is not available")]
    Unavailable,
}

/// What the provider says to an authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Authorized { authorization_id: String },
    CardDeclined,
    InsufficientFunds,
}

/// What payment needs of a card provider. Every call carries an idempotency key: asked again under the same key, the
/// provider gives its first answer and moves no money twice.
pub trait CardProvider: Send + Sync + 'static {
    /// Sets the amount aside.
    ///
    /// # Errors
    /// If there is no answer.
    fn authorize(
        &self,
        key: &str,
        token: &str,
        amount: &Money,
    ) -> impl Future<Output = Result<Verdict, NoAnswer>> + Send;

    /// Gives the amount free.
    ///
    /// # Errors
    /// If there is no answer.
    fn void(&self, key: &str, authorization_id: &str) -> impl Future<Output = Result<(), NoAnswer>> + Send;

    /// Takes the money.
    ///
    /// # Errors
    /// If there is no answer.
    fn capture(&self, key: &str, authorization_id: &str)
    -> impl Future<Output = Result<(), NoAnswer>> + Send;

    /// Gives captured money back to the card that it came from. Whether the provider does: a card may be closed by then.
    ///
    /// # Errors
    /// If there is no answer.
    fn refund(
        &self,
        key: &str,
        token: &str,
        authorization_id: &str,
    ) -> impl Future<Output = Result<bool, NoAnswer>> + Send;
}

/// A provider that is simulated by tokens:
///
/// | Token | What happens |
/// |---|---|
/// | `tok_visa` | authorized |
/// | `tok_chargeDeclined` | declined |
/// | `tok_insufficientFunds` | declined for lack of funds |
/// | `tok_timeoutOnce` | authorized, but the first answer is lost |
/// | `tok_unavailable` | no answer, however often it is asked |
/// | `tok_refundFail` | authorized and captured, but a refund is declined |
/// | any other | declined |
///
/// It answers from the key alone, so it gives the same answer after a restart.
#[derive(Debug, Default)]
pub struct Simulated {
    latency: Duration,
    outage: Option<PathBuf>,
    /// Keys whose first answer was lost already.
    lost: Mutex<HashSet<String>>,
}

impl Simulated {
    /// While there is a file `outage`, it answers nobody.
    pub fn new(latency: Duration, outage: Option<PathBuf>) -> Self {
        Self { latency, outage, lost: Mutex::default() }
    }

    async fn take_time(&self) -> Result<(), NoAnswer> {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        match &self.outage {
            Some(outage) if outage.exists() => Err(NoAnswer::Unavailable),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this is the first time that the key is asked about.
    fn loses_answer(&self, key: &str) -> bool {
        self.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key.to_owned())
    }
}

impl CardProvider for Simulated {
    async fn authorize(&self, key: &str, token: &str, _amount: &Money) -> Result<Verdict, NoAnswer> {
        self.take_time().await?;
        match token {
            "tok_visa" | "tok_refundFail" => Ok(authorized(key)),
            "tok_timeoutOnce" if self.loses_answer(key) => Err(NoAnswer::Timeout),
            "tok_timeoutOnce" => Ok(authorized(key)),
            "tok_insufficientFunds" => Ok(Verdict::InsufficientFunds),
            "tok_unavailable" => Err(NoAnswer::Unavailable),
            _ => Ok(Verdict::CardDeclined),
        }
    }

    async fn void(&self, _key: &str, _authorization_id: &str) -> Result<(), NoAnswer> {
        self.take_time().await
    }

    async fn capture(&self, _key: &str, _authorization_id: &str) -> Result<(), NoAnswer> {
        self.take_time().await
    }

    async fn refund(&self, _key: &str, token: &str, _authorization_id: &str) -> Result<bool, NoAnswer> {
        self.take_time().await?;
        Ok(token != "tok_refundFail")
    }
}

fn authorized(key: &str) -> Verdict {
    let digest = Sha256::digest(key.as_bytes());
    let name: String = digest.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    Verdict::Authorized { authorization_id: format!("auth_{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Money {
        Money { amount: 100, currency: "EUR".to_owned() }
    }

    #[tokio::test]
    async fn a_lost_answer_is_given_when_asked_again_under_the_same_key() {
        let provider = Simulated::default();
        assert!(provider.authorize("k", "tok_timeoutOnce", &one()).await.is_err());
        let second = provider.authorize("k", "tok_timeoutOnce", &one()).await.expect("an answer");
        assert_eq!(second, provider.authorize("k", "tok_visa", &one()).await.expect("an answer"));
    }

    #[tokio::test]
    async fn tokens_say_what_happens() {
        let provider = Simulated::default();
        assert_eq!(
            provider.authorize("k", "tok_chargeDeclined", &one()).await.ok(),
            Some(Verdict::CardDeclined)
        );
        assert_eq!(
            provider.authorize("k", "tok_insufficientFunds", &one()).await.ok(),
            Some(Verdict::InsufficientFunds)
        );
        assert_eq!(provider.authorize("k", "nonsense", &one()).await.ok(), Some(Verdict::CardDeclined));
        assert!(provider.authorize("k", "tok_unavailable", &one()).await.is_err());
    }
}
