//! What belongs into which room of a service, and of the saga engine.

use crate::{code, read, root, sources};

/// What the business knows nothing of.
const TECHNICAL: [&str; 4] = ["sqlx", "axum", "rdkafka", "tokio"];

/// The files that are the business: each service's domain, and the saga's engine and plan.
#[test]
fn the_business_knows_neither_database_nor_wire() {
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for path in sources("services")
        .into_iter()
        .chain(sources("shared/src/saga"))
        .chain(sources("services/orchestrator/src/sagas"))
    {
        let relative = path.strip_prefix(root()).expect("in the project").to_string_lossy().into_owned();
        let is_business = relative.contains("/src/domain")
            || relative.contains("saga/engine")
            || relative.contains("saga/plan")
            || relative.contains("orchestrator/src/sagas");
        if !is_business {
            continue;
        }
        looked_at += 1;
        let text = code(&read(&path));
        let uses = |krate: &&&str| text.contains(&format!("{krate}::"));
        wrong.extend(TECHNICAL.iter().filter(uses).map(|krate| format!("{relative} uses {krate}")));
    }
    assert!(looked_at >= 15, "only {looked_at} files were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_sql_of_a_service_is_in_its_store() {
    let mut wrong = Vec::new();
    for path in sources("services") {
        let relative = path.strip_prefix(root()).expect("in the project").to_string_lossy().into_owned();
        let in_store = relative.contains("/src/store/") || relative.ends_with("/src/store.rs");
        let text = code(&read(&path));
        if !in_store && ["sqlx::query", "sqlx::raw_sql", "QueryBuilder"].iter().any(|sql| text.contains(sql))
        {
            wrong.push(relative);
        }
    }
    assert!(wrong.is_empty(), "SQL outside of a store: {}", wrong.join(", "));
}
