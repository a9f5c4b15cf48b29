//! A client of the services' HTTP interfaces.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::Value;
use shared::text::line;

use crate::suite::Suite;

/// How long [`Api::until`] waits for a fact.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest time without a byte from a service. A request waits for its order to settle for at most a minute, and an
/// event stream sends something four times a minute.
const SILENCE: Duration = Duration::from_secs(90);

/// Returns an HTTP client that gives up after a long silence.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().read_timeout(SILENCE).build().unwrap_or_default()
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

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let from = self.suite.ports_from;
        request.send().await.map_err(|error| {
            if let Some(urls) = &self.suite.urls {
                anyhow::Error::new(error).context(format!("the suite at {urls} did not answer"))
            } else if error.is_connect() {
                anyhow::anyhow!("no suite answers on the ports from {from}; start one with `amends up --ports-from {from}`")
            } else {
                anyhow::Error::new(error).context(format!("the suite on the ports from {from} did not answer"))
            }
        })
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
