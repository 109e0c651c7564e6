//! Which letters: a closed set of conditions, all of which hold. No expressions come in from outside.

use serde::{Deserialize, Serialize};
use service_kit::{FieldError, Problem};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::letter::clean;

/// The states of a letter.
pub(crate) const STATES: [&str; 7] =
    ["NEW", "REPLAYING", "SENT", "UNCONFIRMED", "REPROCESSED", "FAILED_AGAIN", "DISCARDED"];

/// Conditions on `letter`, for the parameters $1 to $7 that [`Filter::bind`] binds.
macro_rules! matches_filter {
    () => {
        "($1::text IS NULL OR topic = $1) AND ($2::text IS NULL OR reason = $2) AND ($3::text IS NULL OR group_name = $3)
  AND ($4::text IS NULL OR key_text = $4) AND ($5::text IS NULL OR fingerprint = $5)
  AND ($6::boolean IS NULL OR (edit_number > 0) = $6) AND ($7::uuid[] IS NULL OR id = ANY($7))"
    };
}
pub(crate) use matches_filter;

/// Which letters are meant; what is absent is any.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Filter {
    /// Original topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    /// Reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Consumer group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// Key, as text: its first 500 characters, with U+FFFD for NUL and for what is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Group of errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// Edited ones only, or those only that were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) edited: Option<bool>,
    /// These only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<Vec<Uuid>>,
    /// For a campaign `NEW`, since no other can be sent; to discard, `NEW` or `UNCONFIRMED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
}

impl Filter {
    /// Whether anything but the state is said.
    pub(crate) fn has_conditions(&self) -> bool {
        let Filter { topic, reason, group, key, fingerprint, edited, ids, state: _ } = self;
        [topic, reason, group, key, fingerprint].iter().any(|text| text.is_some()) || edited.is_some() || ids.is_some()
    }

    /// Adds $1 to $7.
    pub(crate) fn bind<'q, O>(
        &self,
        query: QueryAs<'q, Postgres, O, PgArguments>,
    ) -> QueryAs<'q, Postgres, O, PgArguments> {
        let text = |value: &Option<String>| value.as_deref().map(|value| clean(value, 500));
        query
            .bind(text(&self.topic))
            .bind(text(&self.reason))
            .bind(text(&self.group))
            .bind(text(&self.key))
            .bind(text(&self.fingerprint))
            .bind(self.edited)
            .bind(self.ids.clone())
    }
}

/// A state of that name in a query.
pub(crate) fn state(name: Option<&str>) -> Result<Option<&'static str>, Problem> {
    let Some(name) = name else { return Ok(None) };
    STATES.into_iter().find(|state| *state == name).map(Some).ok_or_else(|| {
        let detail = format!("must be one of {}", STATES.join(", "));
        Problem::bad_request(format!("state {detail}")).errors(vec![FieldError::parameter("state", detail)])
    })
}
