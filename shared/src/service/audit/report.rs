//! `GET /audit` and `GET /audit/orders`: the routes that compare a service with itself and with others.

use std::borrow::Cow;
use std::future::Future;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::routing::get;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterIn, PathItem, Paths};
use utoipa::openapi::schema::{Array, Schema};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::standings::{Standing, Standings, StandingsQuery, list};
use super::statement::{Statement, StatementSpec, check};
use crate::db::Db;
use crate::service::http::Query;
use crate::service::problem::Problem;

/// A service's part of its audit: its figures, its consistency checks, and where its aggregates stand.
///
/// The figures are members of `GET /audit` beside `statements`, so their schema must be an object.
pub trait AuditFigures: Serialize + ToSchema + Send + Sized + 'static {
    /// The consistency checks.
    const STATEMENTS: &'static [StatementSpec];

    /// SQL for a page of where aggregates stand.
    ///
    /// It selects `id`, `states`, `amount`, `currency` and `age` of the aggregates whose id is greater than `$1`, ordered by
    /// id, at most `$2`. An index must have that order, or each page reads a whole table.
    const STANDINGS: &'static str;

    /// The summary of `GET /audit/orders` in the OpenAPI document.
    const STANDINGS_SUMMARY: &'static str;

    /// Reads the figures, in the snapshot of the checks.
    ///
    /// # Errors
    /// If the database does not answer.
    fn read(db: &mut PgConnection) -> impl Future<Output = Result<Self, sqlx::Error>> + Send;
}

/// The routes `GET /audit` and `GET /audit/orders` of a service, with their OpenAPI document.
pub fn router<F, S>() -> OpenApiRouter<S>
where
    F: AuditFigures,
    S: Clone + Send + Sync + 'static,
    Db: FromRef<S>,
{
    OpenApiRouter::new().routes(audit_route::<F, S>()).routes(orders_route::<F, S>())
}

/// A service's consistency checks with its figures.
#[derive(Serialize)]
struct Audit<F> {
    statements: Vec<Statement>,
    #[serde(flatten)]
    figures: F,
}

/// One flat object, as it is serialized. The derived schema would be a composition with a name for each type of figures.
impl<F: AuditFigures> PartialSchema for Audit<F> {
    fn schema() -> RefOr<Schema> {
        let mut schema = F::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            let statements = Array::new(Ref::from_schema_name(Statement::name()));
            object.properties.insert("statements".to_owned(), Schema::Array(statements).into());
            object.required.insert(0, "statements".to_owned());
        }
        schema
    }
}

impl<F: AuditFigures> ToSchema for Audit<F> {
    fn name() -> Cow<'static, str> {
        "Audit".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        register::<Statement>(schemas);
        F::schemas(schemas);
    }
}

async fn audit<F: AuditFigures>(State(db): State<Db>) -> Result<Json<Audit<F>>, Problem> {
    let mut db = db.survey().await?;
    let statements = check(&mut db, F::STATEMENTS).await?;
    let figures = F::read(&mut db).await?;
    db.end().await?;
    Ok(Json(Audit { statements, figures }))
}

fn audit_route<F, S>() -> UtoipaMethodRouter<S>
where
    F: AuditFigures,
    S: Clone + Send + Sync + 'static,
    Db: FromRef<S>,
{
    let mut schemas = Vec::new();
    register::<Audit<F>>(&mut schemas);
    let summary = "Runs the service's consistency checks, and returns their results with the service's figures. It reads \
                   whole tables, so call it seldom.";
    (schemas, path::<Audit<F>>("/audit", "audit", summary, Vec::new()), get(audit::<F>))
}

async fn orders<F: AuditFigures>(
    State(db): State<Db>,
    Query(query): Query<StandingsQuery>,
) -> Result<Json<Standings>, Problem> {
    Ok(Json(list(&db, F::STANDINGS, &query).await?))
}

fn orders_route<F, S>() -> UtoipaMethodRouter<S>
where
    F: AuditFigures,
    S: Clone + Send + Sync + 'static,
    Db: FromRef<S>,
{
    let mut schemas = Vec::new();
    register::<Standings>(&mut schemas);
    register::<Standing>(&mut schemas);
    let parameters = StandingsQuery::into_params(|| Some(ParameterIn::Query));
    let path = path::<Standings>("/audit/orders", "audit_orders", F::STANDINGS_SUMMARY, parameters);
    (schemas, path, get(orders::<F>))
}

/// Adds a type's schema, and those that it refers to. `utoipa::path` does so for handlers that are not generic.
fn register<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// The document of a route that returns a `T`.
fn path<T: ToSchema>(path: &str, id: &str, summary: &str, parameters: Vec<Parameter>) -> Paths {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
    let response = ResponseBuilder::new().content("application/json", content).build();
    let parameters = Some(parameters).filter(|parameters| !parameters.is_empty());
    let operation = OperationBuilder::new()
        .tag("audit")
        .operation_id(Some(id))
        .summary(Some(summary))
        .parameters(parameters)
        .response("200", response);
    let mut paths = Paths::new();
    paths.paths.insert(path.to_owned(), PathItem::new(HttpMethod::Get, operation));
    paths
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a service counts.
    #[derive(Serialize, ToSchema)]
    struct Counts {
        /// The number of lamps.
        lamps: i64,
        shelf: Shelf,
    }

    #[derive(Serialize, ToSchema)]
    struct Shelf {
        boards: i64,
    }

    impl AuditFigures for Counts {
        const STATEMENTS: &'static [StatementSpec] = &[];
        const STANDINGS: &'static str = "";
        const STANDINGS_SUMMARY: &'static str = "Returns the status of every lamp.";

        async fn read(_db: &mut PgConnection) -> Result<Self, sqlx::Error> {
            Ok(Self { lamps: 1, shelf: Shelf { boards: 2 } })
        }
    }

    fn document() -> Value {
        serde_json::to_value(router::<Counts, Db>().into_openapi()).expect("a document")
    }

    #[test]
    fn the_figures_are_members_beside_the_statements() {
        let audit =
            Audit { statements: Vec::new(), figures: Counts { lamps: 1, shelf: Shelf { boards: 2 } } };
        let expected = json!({"statements": [], "lamps": 1, "shelf": {"boards": 2}});
        assert_eq!(serde_json::to_value(audit).expect("JSON"), expected);
    }

    #[test]
    fn the_document_describes_statements_and_figures() {
        let document = document();
        let schemas = &document["components"]["schemas"];
        let audit = &schemas["Audit"];
        assert_eq!(audit["required"], json!(["statements", "lamps", "shelf"]));
        assert_eq!(audit["properties"]["lamps"]["description"], "The number of lamps.");
        assert_eq!(audit["properties"]["statements"]["items"]["$ref"], "#/components/schemas/Statement");
        for name in ["Statement", "Shelf", "Standings", "Standing"] {
            assert_eq!(schemas[name]["type"], "object", "{name}");
        }
        let parameters = document["paths"]["/audit/orders"]["get"]["parameters"].as_array();
        assert_eq!(parameters.map(Vec::len), Some(2));
        let answer = |path: &str| {
            document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].clone()
        };
        assert_eq!(answer("/audit"), "#/components/schemas/Audit");
        assert_eq!(answer("/audit/orders"), "#/components/schemas/Standings");
    }
}
