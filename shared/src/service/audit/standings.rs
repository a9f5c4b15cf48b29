//! Pages of where a service's aggregates stand, for comparing services with each other.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::db::Db;

crate::row! {
    /// Where one aggregate stands in a service.
    #[derive(Debug, Clone, Serialize, ToSchema)]
    pub(super) struct Standing {
        /// The id by which all services know the aggregate.
        id: Uuid,
        /// The aggregate's status in the service's words. There are several if the service keeps several things about it.
        states: Vec<String>,
        /// The money that it is about, in minor units.
        #[serde(skip_serializing_if = "Option::is_none")]
        amount: Option<i64>,
        /// The currency of that money.
        #[serde(skip_serializing_if = "Option::is_none")]
        currency: Option<String>,
        /// Its age in seconds, by the database's clock.
        #[serde(skip_serializing_if = "Option::is_none")]
        age: Option<i64>,
    }
}

/// A page of aggregates, ordered by id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Standings {
    standings: Vec<Standing>,
    /// The `after` of the next page; absent on the last page.
    next: Option<Uuid>,
}

/// Selects a page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StandingsQuery {
    /// The last id of the page before; the page begins behind it.
    after: Option<Uuid>,
    /// The size of the page, at most 5000; 1000 unless given.
    limit: Option<u16>,
}

/// Returns a page of aggregates. [`AuditFigures::STANDINGS`](super::AuditFigures::STANDINGS) says what `statement` selects.
pub(super) async fn list(
    db: &Db,
    statement: &'static str,
    query: &StandingsQuery,
) -> Result<Standings, sqlx::Error> {
    let limit = i64::from(query.limit.unwrap_or(1000).clamp(1, 5000));
    let after = query.after.unwrap_or(Uuid::nil());
    let mut db = db.survey().await?;
    // The index has the order already. If a table has grown since its last analysis, the planner takes it for small, and
    // would read and sort all of it for every page.
    let by_index = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off; \
                    set local enable_hashagg = off";
    sqlx::raw_sql(by_index).execute(&mut *db).await?;
    let standings: Vec<Standing> =
        sqlx::query_as(statement).bind(after).bind(limit).fetch_all(&mut *db).await?;
    db.end().await?;
    let full = standings.len() as i64 == limit;
    let next = standings.last().filter(|_| full).map(|last| last.id);
    Ok(Standings { standings, next })
}
