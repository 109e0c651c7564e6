use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use service_kit::{ApiPath, ApiQuery, NoQuery, Page, Problem};
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;

use super::Api;

/// There are as many rows as texts a file ever had: few.
pub(crate) const LIST_DEFINITIONS: &str = "
SELECT digest, name, version, body, created_at FROM definition
WHERE $1::text IS NULL OR name = $1
ORDER BY name, id DESC
";

/// A definition that starts sagas, or did.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DefinitionSummary {
    /// Name of the saga.
    #[schema(example = "order")]
    name: String,
    /// The version its author gave it.
    version: i32,
    /// SHA-256 of its canonical JSON, to which sagas are pinned.
    digest: String,
    /// Whether it is the one that new sagas start with at this replica.
    current: bool,
    /// When a replica first had it.
    created_at: DateTime<Utc>,
}

/// A definition with its body.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DefinitionDetail {
    #[serde(flatten)]
    summary: DefinitionSummary,
    /// The whole definition, with all defaults filled in.
    definition: Value,
    /// Every text that the definition of this name ever had, the newest first.
    history: Vec<DefinitionSummary>,
}

impl DefinitionSummary {
    fn from_row(api: &Api, row: &PgRow) -> Result<Self, sqlx::Error> {
        let digest: String = row.try_get("digest")?;
        Ok(DefinitionSummary {
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            current: api.definitions.files().iter().any(|file| file.digest() == digest),
            digest,
            created_at: row.try_get("created_at")?,
        })
    }
}

/// Lists the saga definitions, also former ones that sagas may still be pinned to.
#[utoipa::path(get, path = "/api/definitions", tag = "definitions",
    responses(
        (status = 200, description = "All of them, on one page", body = Page<DefinitionSummary>),
        (status = 400, description = "A parameter: there are none", body = Problem),
    ))]
pub(crate) async fn list_definitions(
    State(api): State<Api>,
    ApiQuery(NoQuery {}): ApiQuery<NoQuery>,
) -> Result<Json<Page<DefinitionSummary>>, Problem> {
    let rows = sqlx::query(LIST_DEFINITIONS).bind(None::<String>).fetch_all(&api.pool).await?;
    let items = rows.iter().map(|row| DefinitionSummary::from_row(&api, row)).collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next_cursor: None }))
}

/// Shows a definition: the current one of that name, or the last one it had.
#[utoipa::path(get, path = "/api/definitions/{name}", tag = "definitions",
    params(("name" = String, Path, description = "Name of the saga")),
    responses(
        (status = 200, description = "The definition", body = DefinitionDetail),
        (status = 400, description = "No name of a saga", body = Problem),
        (status = 404, description = "There is no such definition", body = Problem),
    ))]
pub(crate) async fn show_definition(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
) -> Result<Json<DefinitionDetail>, Problem> {
    let rows = sqlx::query(LIST_DEFINITIONS).bind(&name).fetch_all(&api.pool).await?;
    let history = rows.iter().map(|row| DefinitionSummary::from_row(&api, row)).collect::<Result<Vec<_>, _>>()?;
    let shown = history.iter().position(|summary| summary.current).unwrap_or(0);
    let summary = history
        .get(shown)
        .cloned()
        .ok_or_else(|| Problem::not_found(format!("there is no saga definition {name:?}")))?;
    let body: String = rows[shown].try_get("body")?;
    let definition = serde_json::from_str(&body).map_err(Problem::internal)?;
    Ok(Json(DefinitionDetail { summary, definition, history }))
}
