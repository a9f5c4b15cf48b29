//! A service whose role owns nothing: the rights that `amends migrate --grant-to` grants are sufficient and necessary.

use std::process::Command;

use serde_json::json;
use shared::kafka::Kafka;
use sqlx::{Connection, PgConnection};

use crate::harness::servers::{self, Servers};
use crate::harness::sql::connect;
use crate::harness::{NUMBER, PATIENCE, Process, SERVICES};

async fn run(url: &str, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connect(url).await).await.map(drop)
}

/// Creates migrated databases. Another role owns them than the service's, whose name is the prefix and the service's name.
async fn prepare(servers: &dyn Servers, name: &str) {
    let admin = servers.admin_url();
    run(&admin, &format!("create role {name}_owner login")).await.expect("a role");
    for service in SERVICES {
        let database = format!("{name}_{service}");
        run(&admin, &format!("create role {database} login")).await.expect("a role");
        run(&admin, &format!("create database {database} owner {name}_owner")).await.expect("a database");
        run(&admin, &format!("revoke all on database {database} from public")).await.expect("revoked");
        run(&admin, &format!("grant connect on database {database} to {database}")).await.expect("granted");
    }
    let urls = servers.postgres_url(&format!("{name}_SERVICE"), &format!("{name}_owner"));
    // Twice, because every release runs it again.
    for _ in 0..2 {
        let migrated = Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(["migrate", "--database-urls", &urls.replace("SERVICE", "{service}")])
            .args(["--grant-to", &format!("{name}_{{service}}"), "--wait", "5s"])
            .output()
            .expect("it runs");
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_works_with_a_role_that_owns_nothing() {
    let name = format!("t{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let servers = servers::shared();
    prepare(&*servers, &name).await;
    let own = format!("{name}_inventory");
    let url = servers.postgres_url(&own, &own);
    let prefix = format!("{name}.");
    let kafka = Kafka { prefix: prefix.clone(), ..Kafka::new(servers.kafka_brokers()) };
    kafka.create_topics(&schemas::topics::all()).await.expect("topics");
    // A day that the housekeeper must drop at the start, and a day that it must create.
    let owner = servers.postgres_url(&own, &format!("{name}_owner"));
    let days = "select inbox_add_day(current_date - 20); select inbox_drop_day(current_date + 2)";
    run(&owner, days).await.expect("days");

    let log = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{own}-0.log"));
    let settings = [
        ("DATABASE_URL", url.clone()),
        ("KAFKA_BROKERS", servers.kafka_brokers()),
        ("TOPIC_PREFIX", prefix),
        ("INSTANCE", "0".to_owned()),
    ];
    let service = Process::start("inventory", None, &settings, &log);
    let client = crate::harness::client();
    let place = format!("http://127.0.0.1:{}/products/lamp", service.port);
    let deadline = std::time::Instant::now() + PATIENCE;
    let product = json!({"name": "lamp", "price": {"amount": 100, "currency": "EUR"}});
    while !client.put(&place).json(&product).send().await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(std::time::Instant::now() < deadline, "no product: {}", log.display());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for (what, sql) in [
        (
            "the product to be told",
            "select count(*) = 0 from outbox o, relay_checkpoint c
           where not pg_visible_in_snapshot(o.xid, c.acked_snapshot)",
        ),
        (
            "the day to come",
            "select to_regclass('inbox_' || to_char(current_date + 2, 'YYYYMMDD')) is not null",
        ),
        (
            "the old day to be gone",
            "select to_regclass('inbox_' || to_char(current_date - 20, 'YYYYMMDD')) is null",
        ),
    ] {
        let mut db = connect(&url).await;
        while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut db).await.expect("an answer") {
            assert!(std::time::Instant::now() < deadline, "waited for {what}: {}", log.display());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    // The relay does the same, but it takes minutes until it is this slot's turn.
    let truncate = "begin; lock table outbox_0 in access exclusive mode; truncate outbox_0; commit";
    run(&url, truncate).await.expect("the relay may empty a slot");

    for refused in [
        "create table mine (id int)",
        "create temporary table mine (id int)",
        "drop table product",
        "alter table product add column mine int",
        "truncate product",
        "truncate inbox",
        "delete from _sqlx_migrations",
        "delete from _core_migrations",
        "create function mine() returns int language sql return 1",
    ] {
        let error = run(&url, refused).await.expect_err(refused);
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
        assert_eq!(code, "42501", "{refused}: {error}");
    }
    let other = servers.postgres_url(&format!("{name}_payment"), &own);
    assert!(PgConnection::connect(&other).await.is_err(), "another service's database");
}
