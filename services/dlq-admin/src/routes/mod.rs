//! The HTTP API, one file a resource.

use std::sync::Arc;

use service_kit::{OpenApiRouter, routes};
use sqlx::PgPool;

use crate::config::CampaignConfig;
use crate::replay::Replays;

pub(crate) mod audit;
pub(crate) mod bytes;
pub(crate) mod campaigns;
pub(crate) mod discards;
pub(crate) mod groups;
pub(crate) mod list;
pub(crate) mod messages;
pub(crate) mod show;

/// What every route needs.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) pool: PgPool,
    pub(crate) replays: Arc<Replays>,
    pub(crate) campaigns: CampaignConfig,
}

/// Every route of this service.
pub(crate) fn router(api: Api) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list::list_messages))
        .routes(routes!(show::show_message, messages::edit_message))
        .routes(routes!(bytes::message_bytes))
        .routes(routes!(messages::replay_message))
        .routes(routes!(messages::discard_message))
        .routes(routes!(discards::discard_messages))
        .routes(routes!(groups::list_groups))
        .routes(routes!(campaigns::start_campaign, campaigns::list_campaigns))
        .routes(routes!(campaigns::show_campaign))
        .routes(routes!(campaigns::pause_campaign))
        .routes(routes!(campaigns::resume_campaign))
        .routes(routes!(campaigns::cancel_campaign))
        .routes(routes!(audit::list_audit))
        .with_state(api)
}
