//! The card provider, behind a small trait. The provider here is simulated. The card's token decides its behaviour, as with
//! the test tokens of real providers.

use std::collections::HashSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use schemas::common::Money;
use schemas::payment::{AuthorizeRefused, CaptureRefused};
use sha2::{Digest, Sha256};

/// The provider gave no answer, so it is unknown whether it did what it was asked. A repetition with the same key finds out.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("the card provider did not answer")]
    Timeout,
    #[error("the card provider is not available")]
    Unavailable,
}

/// The provider's answer to an authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Authorized { authorization_id: String },
    Refused(AuthorizeRefused),
}

/// What payment needs of a card provider. Every call has an idempotency key. If a call is repeated with its key, the provider
/// repeats its first answer, and moves no money twice.
pub trait CardProvider: Send + Sync + 'static {
    /// Holds the amount on the card.
    ///
    /// # Errors
    /// If there is no answer.
    fn authorize(
        &self,
        key: &str,
        token: &str,
        amount: &Money,
    ) -> impl Future<Output = Result<Verdict, NoAnswer>> + Send;

    /// Releases the hold.
    ///
    /// # Errors
    /// If there is no answer.
    fn void(&self, key: &str, authorization_id: &str) -> impl Future<Output = Result<(), NoAnswer>> + Send;

    /// Takes the held money. Returns the reason why the provider did not: the card may be closed by then, or the hold over.
    ///
    /// # Errors
    /// If there is no answer.
    fn capture(
        &self,
        key: &str,
        authorization_id: &str,
    ) -> impl Future<Output = Result<Option<CaptureRefused>, NoAnswer>> + Send;

    /// Gives captured money back to the card that it came from. Returns whether the provider did: the card may be closed by
    /// then.
    ///
    /// # Errors
    /// If there is no answer.
    fn refund(
        &self,
        key: &str,
        token: &str,
        authorization_id: &str,
    ) -> impl Future<Output = Result<bool, NoAnswer>> + Send;

    /// Takes back whatever was done under this key, which may be nothing, and refuses the key from now on. It is called when
    /// nobody waits for the call under the key any more.
    ///
    /// # Errors
    /// If there is no answer.
    fn withdraw(&self, key: &str) -> impl Future<Output = Result<(), NoAnswer>> + Send;
}

/// A simulated provider. The token decides its answer:
///
/// | Token | What happens |
/// |---|---|
/// | `tok_visa` | authorized |
/// | `tok_chargeDeclined` | declined |
/// | `tok_insufficientFunds` | declined for lack of funds |
/// | `tok_timeoutOnce` | authorized, but the first answer is lost |
/// | `tok_unavailable` | no answer, however often it is asked |
/// | `tok_captureDeclined` | authorized, but the capture is declined |
/// | `tok_authorizationExpired` | authorized, but the hold is over when it is captured |
/// | `tok_refundFail` | authorized and captured, but a refund is declined |
/// | any other | declined |
///
/// The answer depends on the arguments alone, so it is the same after a restart. Only `tok_timeoutOnce` has a memory.
#[derive(Debug, Default)]
pub struct Simulated {
    latency: Duration,
    outage: Option<PathBuf>,
    /// The keys whose first answer was lost already.
    lost: Mutex<HashSet<String>>,
}

impl Simulated {
    /// While a file `outage` exists, the provider answers no call.
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

    /// Whether this is the first call with the key.
    fn loses_answer(&self, key: &str) -> bool {
        self.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key.to_owned())
    }
}

impl CardProvider for Simulated {
    async fn authorize(&self, key: &str, token: &str, _amount: &Money) -> Result<Verdict, NoAnswer> {
        self.take_time().await?;
        match token {
            "tok_visa" | "tok_refundFail" => Ok(authorized(key, "")),
            "tok_captureDeclined" => Ok(authorized(key, DECLINES)),
            "tok_authorizationExpired" => Ok(authorized(key, EXPIRES)),
            "tok_timeoutOnce" if self.loses_answer(key) => Err(NoAnswer::Timeout),
            "tok_timeoutOnce" => Ok(authorized(key, "")),
            "tok_insufficientFunds" => Ok(Verdict::Refused(AuthorizeRefused::InsufficientFunds)),
            "tok_unavailable" => Err(NoAnswer::Unavailable),
            _ => Ok(Verdict::Refused(AuthorizeRefused::CardDeclined)),
        }
    }

    async fn void(&self, _key: &str, _authorization_id: &str) -> Result<(), NoAnswer> {
        self.take_time().await
    }

    async fn capture(&self, _key: &str, authorization_id: &str) -> Result<Option<CaptureRefused>, NoAnswer> {
        self.take_time().await?;
        let is = |what| authorization_id.starts_with(&format!("{AUTHORIZATION}{what}"));
        Ok(match () {
            () if is(DECLINES) => Some(CaptureRefused::CaptureDeclined),
            () if is(EXPIRES) => Some(CaptureRefused::AuthorizationExpired),
            () => None,
        })
    }

    async fn refund(&self, _key: &str, token: &str, _authorization_id: &str) -> Result<bool, NoAnswer> {
        self.take_time().await?;
        Ok(token != "tok_refundFail")
    }

    async fn withdraw(&self, _key: &str) -> Result<(), NoAnswer> {
        self.take_time().await
    }
}

/// What the ids of authorizations begin with.
const AUTHORIZATION: &str = "auth_";
/// The mark in the id of an authorization whose capture is declined.
const DECLINES: &str = "declines_";
/// The mark in the id of an authorization that is over when it is captured.
const EXPIRES: &str = "expires_";

fn authorized(key: &str, mark: &str) -> Verdict {
    let digest = Sha256::digest(key.as_bytes());
    let name: String = digest.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    Verdict::Authorized { authorization_id: format!("{AUTHORIZATION}{mark}{name}") }
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
    async fn a_capture_goes_as_the_token_of_its_authorization_says() {
        let provider = Simulated::default();
        for (token, refusal) in [
            ("tok_visa", None),
            ("tok_captureDeclined", Some(CaptureRefused::CaptureDeclined)),
            ("tok_authorizationExpired", Some(CaptureRefused::AuthorizationExpired)),
        ] {
            let verdict = provider.authorize("k", token, &one()).await.expect("an answer");
            let Verdict::Authorized { authorization_id } = verdict else {
                panic!("{token} is not authorized")
            };
            assert_eq!(provider.capture("c", &authorization_id).await.ok(), Some(refusal), "{token}");
        }
    }

    #[tokio::test]
    async fn tokens_say_what_happens() {
        let provider = Simulated::default();
        assert_eq!(
            provider.authorize("k", "tok_chargeDeclined", &one()).await.ok(),
            Some(Verdict::Refused(AuthorizeRefused::CardDeclined))
        );
        assert_eq!(
            provider.authorize("k", "tok_insufficientFunds", &one()).await.ok(),
            Some(Verdict::Refused(AuthorizeRefused::InsufficientFunds))
        );
        assert_eq!(
            provider.authorize("k", "nonsense", &one()).await.ok(),
            Some(Verdict::Refused(AuthorizeRefused::CardDeclined))
        );
        assert!(provider.authorize("k", "tok_unavailable", &one()).await.is_err());
    }
}
