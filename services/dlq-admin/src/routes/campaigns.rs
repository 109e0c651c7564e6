//! Campaigns.

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use service_kit::db::detached;
use service_kit::http::actor;
use service_kit::{ApiJson, ApiPath, ApiQuery, Page, Problem, paging};
use uuid::Uuid;

use super::Api;
use crate::audit::Act;
use crate::campaign::start::{DryRun, Wanted, preview, start};
use crate::campaign::verbs::{Verb, act};
use crate::campaign::view::{CampaignView, LIST_CAMPAIGNS, show};

/// Which campaigns.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Items of a page: 1 to 500, 50 unless said.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Starts a campaign over all new letters that match, or with `dryRun` tells what it would do.
///
/// It sends in waves of 1, 2, 5, 20, 50, 100, 200 and then 500 messages, never more than `ratePerSecond`, the oldest
/// letters first; each wave must be processed before the next begins. It stops by itself when more than
/// `maxFailureShare` of what it sent failed again, or when its group gives no sign for too long, and ends when the last message is processed.
#[utoipa::path(post, path = "/api/dlq/replays", tag = "campaigns",
    params(("X-Actor" = Option<String>, Header, description = "Who acts")),
    request_body = Wanted,
    responses(
        (status = 200, description = "What it would do", body = DryRun),
        (status = 202, description = "It runs", body = CampaignView,
            headers(("Location" = String, description = "The campaign"))),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The orchestrator or the database does not answer", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn start_campaign(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Result<ApiJson<Wanted>, Problem>,
) -> Result<Response, Problem> {
    let actor = actor(&headers)?;
    let wanted = Act::on_many("campaign-start", &actor, json!({})).read(&api.pool, body).await?;
    let name = if wanted.dry_run { "campaign-preview" } else { "campaign-start" };
    let act = Act::on_many(name, &actor, wanted.arguments());
    let limits = match wanted.limits(&api.campaigns) {
        Ok(limits) => limits,
        Err(problem) => return Err(act.refused(&api.pool, problem).await),
    };
    if wanted.dry_run {
        let sagas = api.campaigns.dry_run_sagas;
        let told = preview(&api.pool, &api.replays, &wanted, &limits, sagas, &act).await?;
        return Ok(Json(told).into_response());
    }
    let pool = api.pool.clone();
    let campaign = detached(async move { start(&pool, &wanted, &limits, &actor).await }).await?;
    api.replays.wake.notify_waiters();
    let location = format!("/api/dlq/replays/{}", campaign.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(campaign)).into_response())
}

/// Lists campaigns, the newest first.
#[utoipa::path(get, path = "/api/dlq/replays", tag = "campaigns", params(ListQuery),
    responses(
        (status = 200, description = "One page", body = Page<CampaignView>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list_campaigns(
    State(api): State<Api>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<Page<CampaignView>>, Problem> {
    let limit = paging::limit(query.limit)?;
    let before: Option<(DateTime<Utc>, Uuid)> = paging::decode_cursor(query.cursor.as_deref())?;
    let (at, id) = before.unzip();
    let rows = sqlx::query_as(LIST_CAMPAIGNS).bind(at).bind(id).bind(i64::from(limit) + 1).fetch_all(&api.pool).await?;
    Ok(Json(Page::from_rows(rows, limit, |campaign: &CampaignView| (campaign.created_at, campaign.id))))
}

/// Shows a campaign with its progress.
#[utoipa::path(get, path = "/api/dlq/replays/{id}", tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The campaign", body = CampaignView),
        (status = 404, description = "There is no such campaign", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show_campaign(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
) -> Result<Json<CampaignView>, Problem> {
    show(&api.pool, id).await.map(Json)
}

/// Sends nothing more until it is resumed. What is on its way goes on.
#[utoipa::path(post, path = "/api/dlq/replays/{id}/pause", tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign"), ("X-Actor" = Option<String>, Header, description = "Who acts")),
    responses(
        (status = 200, description = "Done", body = CampaignView),
        (status = 404, description = "There is no such campaign", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It does not run", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn pause_campaign(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
) -> Result<Json<CampaignView>, Problem> {
    moved(api, id, Verb::Pause, &headers).await
}

/// Goes on where it was paused.
#[utoipa::path(post, path = "/api/dlq/replays/{id}/resume", tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign"), ("X-Actor" = Option<String>, Header, description = "Who acts")),
    responses(
        (status = 200, description = "Done", body = CampaignView),
        (status = 404, description = "There is no such campaign", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not paused", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn resume_campaign(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
) -> Result<Json<CampaignView>, Problem> {
    moved(api, id, Verb::Resume, &headers).await
}

/// Sends nothing more, ever. What is on its way goes on, and what was not sent stays as it is.
#[utoipa::path(post, path = "/api/dlq/replays/{id}/cancel", tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign"), ("X-Actor" = Option<String>, Header, description = "Who acts")),
    responses(
        (status = 200, description = "Done", body = CampaignView),
        (status = 404, description = "There is no such campaign", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has ended", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel_campaign(
    State(api): State<Api>,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
) -> Result<Json<CampaignView>, Problem> {
    moved(api, id, Verb::Cancel, &headers).await
}

async fn moved(api: Api, id: Uuid, verb: Verb, headers: &HeaderMap) -> Result<Json<CampaignView>, Problem> {
    let actor = actor(headers)?;
    let pool = api.pool.clone();
    let campaign = detached(async move { act(&pool, id, verb, &actor).await }).await?;
    api.replays.wake.notify_waiters();
    Ok(Json(campaign))
}
