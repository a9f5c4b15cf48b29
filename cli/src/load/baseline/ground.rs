//! The yardstick's databases on the suite's PostgreSQL.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};

use super::{CONNECTIONS, DATABASES, INVENTORY, NOTIFY, ORDERS, PAYMENT, SHIPPING};
use crate::api::Api;
use crate::run::{Where, ready};
use crate::suite::SERVICES;

/// How long PostgreSQL may take to accept a connection.
const ANSWER: Duration = Duration::from_secs(5);
/// The lock of the one yardstick that may run on a server: the databases have fixed names, so that those that a killed run
/// has left behind are found and replaced.
const LOCK: i64 = 0x6261_7365_6c69_6e65;
/// The connections of the program, and those that this process opens beside it.
const NEEDED: i64 = CONNECTIONS as i64 * DATABASES.len() as i64 + 4;

/// Each database's own tables, beside the rows that say which steps are done.
const TABLES: [(&str, &str); 5] = [
    (
        ORDERS,
        "create table orders(id text primary key, sku int not null, qty int not null, account int not null,
             amount bigint not null, status text not null, created_at timestamptz not null,
             finished_at timestamptz);",
    ),
    (
        INVENTORY,
        "create table inventory(sku int primary key, initial bigint not null,
             qty bigint not null check (qty >= 0));
         create table reservations(order_id text primary key, sku int not null, qty int not null,
             status text not null);
         insert into inventory select i, 1000000, 1000000 from generate_series(0, 999) i;",
    ),
    // The accounts 0, 20, 40 and so on have no credit: every order on them is declined, which is 5 %.
    (
        PAYMENT,
        "create table accounts(id int primary key, initial bigint not null,
             credit bigint not null check (credit >= 0));
         create table payments(order_id text primary key, account int not null, amount bigint not null,
             status text not null);
         insert into accounts select i, c, c from
             (select i, case when i % 20 = 0 then 0 else 1000000000 end c from generate_series(0, 999) i) x;",
    ),
    (
        SHIPPING,
        "create table shipments(order_id text primary key, sku int not null, qty int not null,
             created_at timestamptz not null default now());",
    ),
    (
        NOTIFY,
        "create table notifications(order_id text primary key, kind text not null,
             created_at timestamptz not null default now());",
    ),
];
const STEPS: &str = "create table steps(step text not null, order_id text not null,
    at timestamptz not null default now(), primary key(order_id, step));";

/// The suite's PostgreSQL, with the lock of the yardstick.
pub struct Ground {
    /// The superuser's URL, which the program gets too.
    pub url: String,
    options: PgConnectOptions,
    /// It holds the lock.
    admin: PgConnection,
}

impl Ground {
    /// Connects to the PostgreSQL of the running suite and takes the lock.
    ///
    /// # Errors
    /// If no suite runs, or if its PostgreSQL can't be used. Nothing has been created then.
    pub async fn lay(place: &Where) -> anyhow::Result<Self> {
        let suite = &place.suite;
        if suite.urls.is_some() {
            bail!(
                "--urls (AMENDS_URLS) names a suite on other machines, but the yardstick uses the PostgreSQL of a suite \
                 on this machine; run it there, without --urls"
            );
        }
        let (from, api) = (suite.ports_from, Api::new(suite));
        for service in SERVICES {
            if let Err(said) = ready(&api, service).await {
                bail!(
                    "the yardstick needs a running suite, but on the ports from {from} {service} {said}; start one with \
                     `amends up --detach{}`, or choose another one with --ports-from",
                    place.flags()
                );
            }
        }
        let port = suite.server_ports().postgres;
        let url = local::url_beside(&place.state().join("postgres"), port);
        let options: PgConnectOptions = url.parse()?;
        let connected = tokio::time::timeout(ANSWER, PgConnection::connect_with(&options)).await;
        let connected =
            connected.unwrap_or_else(|_| Err(sqlx::Error::Protocol(format!("no answer in {ANSWER:?}"))));
        let mut admin = connected.map_err(|error| unreachable(port, error))?;
        may_create(&mut admin).await?;
        has_room(&mut admin).await?;
        let locked: bool =
            sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut admin).await?;
        if !locked {
            bail!(
                "another yardstick runs on this suite already, and both would only measure each other; wait until it ends"
            );
        }
        Ok(Self { url, options, admin })
    }

    /// Creates the databases and their tables. What an earlier run has left behind is deleted.
    pub async fn prepare(&mut self) -> anyhow::Result<()> {
        self.drop_databases().await?;
        for (database, tables) in TABLES {
            self.administer(&format!("create database {database}")).await?;
            let mut db = self.connect(database).await?;
            sqlx::raw_sql(STEPS).execute(&mut db).await?;
            sqlx::raw_sql(tables).execute(&mut db).await?;
            db.close().await?;
        }
        // Otherwise it would fall into the measured time.
        self.administer("checkpoint").await
    }

    /// Opens a connection to one of the databases.
    pub async fn connect(&self, database: &str) -> anyhow::Result<PgConnection> {
        let options = self.options.clone().database(database);
        PgConnection::connect_with(&options).await.with_context(|| format!("can't connect to {database}"))
    }

    /// Returns PostgreSQL's processes that serve other databases: those of the suite, which works a little even at rest.
    pub async fn others(&mut self) -> anyhow::Result<Vec<u32>> {
        let others: Vec<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where backend_type = 'client backend' and datname <> all($1)",
        )
        .bind(DATABASES)
        .fetch_all(&mut self.admin)
        .await?;
        Ok(others.into_iter().map(i32::cast_unsigned).collect())
    }

    /// Drops the databases.
    pub async fn clear(mut self) -> anyhow::Result<()> {
        self.drop_databases().await.with_context(|| {
            format!("the databases {} could not be dropped; the next run drops them", DATABASES.join(", "))
        })
    }

    async fn drop_databases(&mut self) -> anyhow::Result<()> {
        for database in DATABASES {
            self.administer(&format!("drop database if exists {database} with (force)")).await?;
        }
        Ok(())
    }

    async fn administer(&mut self, statement: &str) -> anyhow::Result<()> {
        // The names are our own constants.
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.admin).await?;
        Ok(())
    }
}

/// Says why PostgreSQL can't be used, and what to do.
fn unreachable(port: u16, error: sqlx::Error) -> anyhow::Error {
    let refused = error.as_database_error().is_some();
    let advice = if refused {
        "The yardstick creates databases as the superuser `postgres`, which needs no password with `amends up`; for a \
         suite in containers set PGPASSWORD to its POSTGRES_PASSWORD"
    } else {
        "The yardstick uses the PostgreSQL of the suite; with `amends up` and with docker-compose.yml it listens on the \
         tenth port after the suite's first one, on this machine"
    };
    let says = if refused { "refuses the connection" } else { "does not answer" };
    anyhow!("PostgreSQL on 127.0.0.1:{port} {says}: {error}. {advice}")
}

async fn may_create(admin: &mut PgConnection) -> anyhow::Result<()> {
    let (user, may): (String, bool) =
        sqlx::query_as("select rolname::text, rolsuper from pg_roles where rolname = current_user")
            .fetch_one(admin)
            .await?;
    if !may {
        bail!(
            "the role {user} is no superuser on the suite's PostgreSQL, so it may not create the yardstick's databases; \
             measure on the PostgreSQL of `amends up`"
        );
    }
    Ok(())
}

/// Without enough connections the program would fail in the middle of orders.
async fn has_room(admin: &mut PgConnection) -> anyhow::Result<()> {
    let free: i64 = sqlx::query_scalar(
        "select current_setting('max_connections')::bigint - count(*)
         from pg_stat_activity where backend_type = 'client backend'",
    )
    .fetch_one(admin)
    .await?;
    if free < NEEDED {
        bail!(
            "PostgreSQL has room for {free} more connections, and the yardstick needs {NEEDED}; raise its max_connections, \
             or measure on the PostgreSQL of `amends up`"
        );
    }
    Ok(())
}
