//! Creates what the services need: databases and roles, tables, topics, and products.

mod catalogue;
mod topics;

use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::BoxFuture;
use shared::service::database_url::database_url;
use shared::service::secret::Secret;
use shared::service::{self, App};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

pub use self::catalogue::{PLENTIFUL, SOLD_OUT, seed};
pub use self::topics::Topics;
use crate::output::{complain, say};
use crate::serve::{Visit, visit};
use crate::suite::{SERVICES, Suite};

/// How long connecting to a database may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Applies every service's migrations.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// The URL of a service's database; {service} stands for the service's name.
    ///
    /// For example `postgres://{service}:secret@db:5432/{service}`. DATABASE_URLS_FILE may name a file with the URL instead.
    #[arg(long, env = "DATABASE_URLS", hide_env_values = true)]
    database_urls: Option<Secret>,
    /// A role that gets the right to read and write rows, but not to change tables; {service} stands for the service's
    /// name here too.
    #[arg(long)]
    grant_to: Option<String>,
    /// How long to wait for a database that does not answer yet, for example 60s.
    #[arg(long, default_value = "0s", value_parser = shared::service::config::duration)]
    wait: Duration,
}

impl Migrate {
    pub fn run(self) -> anyhow::Result<()> {
        // All URLs are checked before anything is changed.
        let checked = |text: &str| {
            let mut urls = SERVICES.iter().map(|service| text.replace("{service}", service));
            urls.try_for_each(|url| database_url(&url).map(|_| ())).map(|()| text.to_owned())
        };
        let urls = Secret::require(self.database_urls.as_ref(), "DATABASE_URLS", checked)?;
        crate::runtime::block_on(async {
            for service in SERVICES {
                let named = |text: &str| text.replace("{service}", service);
                let url = named(&urls);
                // A migration that fails is not repeated. Only the connection is waited for.
                patiently(self.wait, async || Ok(connect(service, &url).await?.close().await?)).await?;
                migrate(service, &url).await?;
                if let Some(role) = &self.grant_to {
                    let (db, role) = (connect(service, &url).await?, named(role));
                    visit(service, Grant(db, role)).with_context(|| format!("no service {service}"))?.await?;
                }
                say!("{}: up to date", service);
            }
            Ok(())
        })
    }
}

struct Migration(PgConnection);

impl Visit for Migration {
    type Output = BoxFuture<'static, anyhow::Result<()>>;

    fn visit<A: App>(mut self) -> Self::Output {
        Box::pin(async move {
            service::migrate::<A>(&mut self.0).await.with_context(|| format!("migrating {}", A::NAME))?;
            Ok(self.0.close().await?)
        })
    }
}

struct Grant(PgConnection, String);

impl Visit for Grant {
    type Output = BoxFuture<'static, anyhow::Result<()>>;

    fn visit<A: App>(self) -> Self::Output {
        let Self(mut db, role) = self;
        Box::pin(async move {
            let granted = service::roles::grant(&mut db, A::SCHEMA, &role).await;
            granted.with_context(|| format!("granting {role} the use of the {} database", A::NAME))?;
            Ok(db.close().await?)
        })
    }
}

/// Brings a service's database up to date.
pub async fn migrate(service: &str, url: &str) -> anyhow::Result<()> {
    let db = connect(service, url).await?;
    visit(service, Migration(db)).with_context(|| format!("no service {service}"))?.await
}

async fn connect(service: &str, url: &str) -> anyhow::Result<PgConnection> {
    let options = database_url(url).context("the database's URL can't be read")?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await;
    let connected = connected.map_err(|_| anyhow::anyhow!("no answer within {CONNECT_TIMEOUT:?}"));
    connected.and_then(|it| Ok(it?)).with_context(|| format!("the database of {service} can't be used"))
}

/// Repeats an action until it succeeds or the patience is over, because a server may not answer yet. It prints once why it
/// waits.
async fn patiently<T>(patience: Duration, what: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    const TRY_EVERY: Duration = Duration::from_millis(250);
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        let ended = what().await;
        let Err(error) = &ended else { return ended };
        if Instant::now() >= deadline {
            return ended;
        }
        if !std::mem::replace(&mut told, true) {
            complain!("{error:#}; trying again for up to {patience:?}");
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Adds the demo products that are missing.
#[derive(Debug, clap::Args)]
pub struct Seed {
    #[command(flatten)]
    suite: Suite,
}

impl Seed {
    pub fn run(self) -> anyhow::Result<()> {
        let products = crate::runtime::block_on(seed(&self.suite, &AtomicBool::new(false)))?;
        say!("{products} products exist");
        Ok(())
    }
}

/// Creates the databases and roles of the services that are missing. A role can use only its own database.
pub async fn databases(admin_url: &str) -> anyhow::Result<()> {
    let options = PgConnectOptions::from_str(admin_url)?;
    let mut db = PgConnection::connect_with(&options).await.context("PostgreSQL does not answer")?;
    sqlx::query("revoke all on database postgres, template1 from public").execute(&mut db).await?;
    for name in SERVICES {
        let known: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(&mut db)
            .await?;
        if known {
            continue;
        }
        // The names are our own constants. An interrupted start may have left a role without a database.
        let role: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
            .bind(name)
            .fetch_one(&mut db)
            .await?;
        let mut statements = Vec::new();
        if !role {
            statements.push(format!(r#"create role "{name}" login"#));
        }
        statements.push(format!(r#"create database "{name}" owner "{name}""#));
        statements.push(format!(r#"revoke all on database "{name}" from public"#));
        for statement in statements {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut db).await?;
        }
    }
    db.close().await?;
    Ok(())
}
