//! Databases that are set back in time, as an operator does it: a dump into another cluster, and a copy of the data folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use futures::TryStreamExt;
use local::{Options, Ports, Postgres, Silent};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::servers::{backend, blocking, folder};
use super::sql::connect;
use super::{Migrate, Suite, visit};

/// The oldest `pg_dump` that can read the servers of the tests.
const PG_DUMP: u32 = 18;

/// A PostgreSQL beside those of the suite. It is deleted with its data when the next test takes its name.
pub struct Cluster {
    options: Options,
    server: Option<Postgres>,
}

impl Cluster {
    pub fn start(name: &str) -> Self {
        let ports = Ports::free().expect("free ports");
        let options = Options { ports, fresh: true, backend: backend(), ..Options::new(folder().join(name)) };
        let server = Some(launch(&options));
        Self { options: Options { fresh: false, ..options }, server }
    }

    pub fn url(&self, database: &str) -> String {
        self.server.as_ref().expect("it runs").url(database, "postgres", None)
    }

    pub async fn create(&self, database: &str) {
        let admin: PgConnectOptions = self.url("postgres").parse().expect("a URL");
        let mut db = PgConnection::connect_with(&admin).await.expect("PostgreSQL answers");
        let create = format!("create database {database}");
        sqlx::query(AssertSqlSafe(create)).execute(&mut db).await.expect("a new database");
    }

    /// Returns the data folder, if the server is no container.
    fn data(&self) -> Option<PathBuf> {
        self.options.state.join("postgres").canonicalize().ok()
    }

    /// Stops the server, and starts it again after `work`.
    fn stopped_for(&mut self, work: impl FnOnce(&Path)) {
        let data = self.data().expect("a data folder");
        let server = self.server.take();
        blocking(|| drop(server));
        work(&data);
        self.server = Some(launch(&self.options));
    }

    /// Makes a base backup.
    pub fn back_up(&mut self) -> PathBuf {
        let backup = self.data().expect("a data folder").with_extension("backup");
        self.stopped_for(|data| {
            let _ = std::fs::remove_dir_all(&backup);
            copy(data, &backup);
        });
        backup
    }

    /// Sets the cluster back to a base backup.
    pub fn set_back(&mut self, backup: &Path) {
        self.stopped_for(|data| {
            std::fs::remove_dir_all(data).expect("the data is gone");
            copy(backup, data);
        });
    }
}

fn launch(options: &Options) -> Postgres {
    blocking(|| Postgres::start(options, &Silent))
        .unwrap_or_else(|error| panic!("a PostgreSQL starts: {error}"))
}

/// Copies a folder with its owners.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(copied.success(), "{} is copied", from.display());
}

impl Suite {
    /// Returns what `pg_dump` writes for a service's database, if there is a `pg_dump` that understands the server.
    pub async fn dump(&self, service: &str) -> Dump {
        let url = self.database_url(service);
        if has_pg_dump() {
            let dumped = Command::new("pg_dump").arg(&url).output().expect("pg_dump");
            assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
            return Dump::Sql(dumped.stdout);
        }
        Dump::Tables(copy_out(&url).await)
    }

    /// Restores a dump into an empty database of another cluster, where the service's database is from now on.
    pub async fn restore(&mut self, service: &'static str, dump: &Dump, cluster: &Cluster) {
        let database = format!("{}_{service}", self.name);
        cluster.create(&database).await;
        let url = cluster.url(&database);
        self.databases.insert(service, url.clone());
        match dump {
            Dump::Sql(sql) => psql(&url, sql),
            Dump::Tables(tables) => {
                visit(service, Migrate(self)).expect("a service").await;
                copy_in(&url, tables).await;
            }
        }
    }

    /// Gives a service an empty database in another cluster.
    pub async fn move_to(&mut self, service: &'static str, cluster: &Cluster) {
        let database = format!("{}_{service}", self.name);
        cluster.create(&database).await;
        self.databases.insert(service, cluster.url(&database));
        visit(service, Migrate(self)).expect("a service").await;
    }
}

/// The content of a database.
pub enum Dump {
    Sql(Vec<u8>),
    /// The tables, each with its rows in the format of `COPY`, and the sequences with their values.
    Tables(Vec<(String, Content)>),
}

pub enum Content {
    Rows(Vec<u8>),
    Sequence(i64),
}

fn has_pg_dump() -> bool {
    let Ok(said) = Command::new("pg_dump").arg("--version").stderr(Stdio::null()).output() else {
        return false;
    };
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = said.rsplit(' ').next().and_then(|version| version.split('.').next()?.parse().ok());
    version.is_some_and(|version: u32| version >= PG_DUMP)
}

fn psql(url: &str, sql: &[u8]) {
    use std::io::Write as _;
    let mut psql = Command::new("psql")
        .args(["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("psql");
    psql.stdin.take().expect("a pipe").write_all(sql).expect("it reads");
    assert!(psql.wait().expect("an end").success(), "the dump is restored");
}

/// Does what `pg_dump` does with the rows, where there is none.
async fn copy_out(url: &str) -> Vec<(String, Content)> {
    let mut db = connect(url).await;
    #[expect(clippy::disallowed_methods, reason = "it only reads, as pg_dump does")]
    let mut tx = db.begin().await.expect("a transaction");
    sqlx::query("set transaction isolation level repeatable read")
        .execute(&mut *tx)
        .await
        .expect("a snapshot");
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('public', 'amends') and c.relkind in ('r', 'p') and not c.relispartition",
    )
    .fetch_all(&mut *tx)
    .await
    .expect("tables");
    let mut dump = Vec::new();
    for table in tables {
        let copy = format!("copy (select * from {table}) to stdout");
        let rows = tx.copy_out_raw(&copy).await.expect("rows");
        let rows: Vec<_> = rows.try_collect().await.expect("rows");
        dump.push((table, Content::Rows(rows.concat())));
    }
    let sequences: Vec<(String, i64)> = sqlx::query_as(
        "select format('%I.%I', schemaname, sequencename), last_value from pg_sequences
         where last_value is not null and schemaname in ('public', 'amends')",
    )
    .fetch_all(&mut *tx)
    .await
    .expect("sequences");
    dump.extend(sequences.into_iter().map(|(name, value)| (name, Content::Sequence(value))));
    dump
}

async fn copy_in(url: &str, dump: &[(String, Content)]) {
    let mut db = connect(url).await;
    // Tables come in any order, so references are not checked.
    sqlx::query("set session_replication_role = replica").execute(&mut db).await.expect("set");
    for (name, content) in dump {
        match content {
            Content::Rows(rows) => {
                let truncate = format!("truncate {name} cascade");
                sqlx::query(AssertSqlSafe(truncate)).execute(&mut db).await.expect("an empty table");
                let mut copy = db.copy_in_raw(&format!("copy {name} from stdin")).await.expect("a copy");
                copy.send(rows.as_slice()).await.expect("rows");
                copy.finish().await.expect("rows");
            }
            Content::Sequence(value) => {
                let set = format!("select setval('{name}', {value})");
                sqlx::query(AssertSqlSafe(set)).execute(&mut db).await.expect("a sequence");
            }
        }
    }
}
