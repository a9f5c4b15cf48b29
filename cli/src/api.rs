//! A client of the services' HTTP interfaces.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::join_all;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;
use shared::text::line;
use url::Url;

use crate::suite::{SERVICES, Suite};

/// How long [`Api::until`] waits for a fact.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest time without a byte from a service. A request waits for its order to settle for at most a minute, and an
/// event stream sends something four times a minute.
const SILENCE: Duration = Duration::from_secs(90);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a service may be silent before it is asked whether it lives.
const QUIET: Duration = Duration::from_secs(1);
/// How long a service may take to say that it lives. It needs neither its database nor the broker for that.
const SIGN_OF_LIFE: Duration = Duration::from_secs(4);
/// How often a service that lives is asked again during one request.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Returns an HTTP client that gives up after a long silence. It asks no proxy: the suite runs on this machine or in the
/// network of the caller, and a proxy of the company would not find it.
pub fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
    builder.read_timeout(SILENCE).build().unwrap_or_default()
}

/// A client of one suite.
pub struct Api {
    suite: Suite,
    client: reqwest::Client,
    /// The URLs of services that do not listen on the suite's ports.
    urls: BTreeMap<String, String>,
}

impl Api {
    pub fn new(suite: &Suite) -> Self {
        Self { suite: suite.clone(), client: client(), urls: BTreeMap::new() }
    }

    /// Returns the same client with other URLs for these services.
    pub fn with_urls(self, urls: BTreeMap<String, String>) -> Self {
        Self { urls, ..self }
    }

    pub fn url(&self, service: &str, path: &str) -> String {
        let base = self.urls.get(service).cloned().unwrap_or_else(|| self.suite.url(service));
        format!("{base}{path}")
    }

    pub async fn get(&self, service: &str, path: &str) -> anyhow::Result<Value> {
        self.json(self.client.get(self.url(service, path))).await
    }

    /// Gets the same from several services side by side. The answers, or errors, have the order of the services.
    pub async fn get_all<'s>(
        &self,
        services: &[&'s str],
        path: &str,
    ) -> Vec<(&'s str, anyhow::Result<Value>)> {
        join_all(services.iter().map(async |service| (*service, self.get(service, path).await))).await
    }

    /// Does the same as [`Api::get`], and returns `None` if the answer is 404.
    pub async fn find(&self, service: &str, path: &str) -> anyhow::Result<Option<Value>> {
        let response = self.send(self.client.get(self.url(service, path))).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(accepted(response).await?.json().await?))
    }

    pub async fn put(&self, service: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.client.put(self.url(service, path)).json(body)).await
    }

    pub async fn post(&self, service: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(self.client.post(self.url(service, path)).json(body)).await
    }

    /// Sends a request that the caller builds.
    pub async fn request(
        &self,
        build: impl FnOnce(&reqwest::Client) -> RequestBuilder,
    ) -> anyhow::Result<Response> {
        accepted(self.send(build(&self.client)).await?).await
    }

    async fn json(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        Ok(accepted(self.send(request).await?).await?.json().await?)
    }

    /// Sends a request. While the answer takes long, the service is asked whether it lives, so that a frozen process is
    /// noticed within seconds, and a long answer of a busy one is waited for.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = request.build().context("the request can't be sent")?;
        let service = self.service_of(request.url().as_str());
        let mut answer = pin!(self.client.execute(request));
        let mut quiet = QUIET;
        loop {
            let ended = tokio::select! {
                biased;
                ended = &mut answer => Some(ended),
                lives = async { tokio::time::sleep(quiet).await; self.lives(service).await } => {
                    if !lives {
                        bail!("{}", self.silent(service));
                    }
                    None
                }
            };
            match ended {
                Some(Err(error)) if error.is_connect() => return Err(self.absent(service, error)),
                Some(ended) => {
                    return ended.with_context(|| format!("{service} did not answer{}", self.place()));
                }
                None => quiet = ASK_AGAIN,
            }
        }
    }

    /// Returns the service that has this URL.
    fn service_of(&self, url: &str) -> &'static str {
        let base = |service: &str| {
            let mut base = Url::parse(&self.url(service, "/")).ok()?;
            // The client takes the credentials out of a request's URL.
            base.set_username("").ok()?;
            base.set_password(None).ok()?;
            Some(base)
        };
        let is_base = |service: &&str| base(service).is_some_and(|base| url.starts_with(base.as_str()));
        let mut of = SERVICES.into_iter().filter(is_base);
        // URLs without a place for the name are the same for all services.
        match (of.next(), of.next()) {
            (Some(service), None) => service,
            _ => "the service",
        }
    }

    /// Returns whether the service's process answers at all.
    async fn lives(&self, service: &str) -> bool {
        let asked = self.client.get(self.url(service, "/healthz")).timeout(SIGN_OF_LIFE).send().await;
        asked.is_ok()
    }

    /// Returns whether a service is ready. The answer may be that it is not.
    ///
    /// # Errors
    /// Fails within seconds if the service does not answer. The error says so in a few words.
    pub async fn readiness(&self, service: &str) -> Result<Value, &'static str> {
        let asked = self.client.get(self.url(service, "/readyz")).timeout(SIGN_OF_LIFE).send();
        let answer = asked.await.map_err(|error| {
            if error.is_connect() { "is not there: nothing listens" } else { "does not answer" }
        })?;
        answer.json().await.map_err(|_| "does not answer")
    }

    /// Says that nothing listens where a service should.
    fn absent(&self, service: &str, error: reqwest::Error) -> anyhow::Error {
        if self.suite.urls.is_some() || self.urls.contains_key(service) {
            return anyhow::Error::new(error).context(format!("{service} can't be reached{}", self.place()));
        }
        let (from, port) = (self.suite.ports_from, self.suite.port(service));
        anyhow::anyhow!(
            "{service} does not listen on port {port}; `amends status --ports-from {from}` says what runs, and `amends up \
             --ports-from {from}` starts a suite"
        )
    }

    /// Says that a service accepts connections, and nothing more.
    fn silent(&self, service: &str) -> String {
        format!(
            "{service} does not answer{}, not even that it lives; its process may be frozen (`kill -CONT` lets it go on) or \
             the machine overloaded",
            self.place()
        )
    }

    /// Says where the suite is.
    fn place(&self) -> String {
        match self.suite.shown_urls() {
            Some(urls) => format!(" at {urls}"),
            None => format!(" on the ports from {}", self.suite.ports_from),
        }
    }

    /// Waits until `fact` holds.
    pub async fn until(
        &self,
        what: &str,
        fact: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = match fact().await {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(error) => Some(error),
            };
            if Instant::now() > deadline {
                let waited = format!("waited {PATIENCE:?} for {what}");
                return Err(last.unwrap_or_else(|| anyhow::anyhow!("it did not happen")).context(waited));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Returns a successful answer, or an error with the text of the problem document.
async fn accepted(response: Response) -> anyhow::Result<Response> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let problem: Value = response.json().await.unwrap_or_default();
    let mut text = line(problem["title"].as_str().unwrap_or("the service refused")).into_owned();
    if let Some(detail) = problem["detail"].as_str() {
        text = format!("{text}: {}", line(detail));
    }
    for error in problem["errors"].as_array().into_iter().flatten() {
        let part = |name: &str| line(error[name].as_str().unwrap_or_default());
        text = format!("{text}\n  {} {}", part("pointer"), part("detail"));
    }
    bail!("{text} (HTTP {})", status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_of_a_request_is_known_by_its_url() {
        let api = |urls: Option<&str>| Api::new(&Suite { urls: urls.map(str::to_owned), ..Suite::default() });
        assert_eq!(api(None).service_of("http://127.0.0.1:8082/audit?x=1"), "payment");
        let named = api(Some("http://ada:S3cr3t@{service}.example.com"));
        assert_eq!(named.service_of("http://shipping.example.com/parked"), "shipping");
        assert_eq!(api(Some("http://example.com")).service_of("http://example.com/orders"), "the service");
    }
}
