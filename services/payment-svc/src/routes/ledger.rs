//! `GET /api/payments/ledger`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use service_kit::{ApiQuery, NoQuery, Problem};
use sqlx::PgPool;
use utoipa::ToSchema;

/// Every account's debits less its credits, from one snapshot.
pub const BALANCES: &str = "
    SELECT account, currency, SUM(amount)::bigint AS balance
    FROM (
        SELECT debit_account AS account, currency, amount FROM ledger_entries
        UNION ALL
        SELECT credit_account, currency, -amount FROM ledger_entries
    ) AS sides
    GROUP BY account, currency ORDER BY currency, account";

/// The general ledger, by account.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ledger {
    /// Every account that was ever posted to. The balances of a currency sum to zero.
    pub accounts: Vec<AccountBalance>,
}

/// What an account holds in a currency.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct AccountBalance {
    /// `receivable` (what customers owe) or `revenue`.
    pub account: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Debits less credits, in minor units.
    pub balance: i64,
}

/// The balances of all accounts.
#[utoipa::path(
    get, path = "/api/payments/ledger", tag = "payments",
    responses(
        (status = 200, body = Ledger),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "A parameter: there are none"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_ledger(
    State(pool): State<PgPool>,
    ApiQuery(NoQuery {}): ApiQuery<NoQuery>,
) -> Result<Json<Ledger>, Problem> {
    let accounts = sqlx::query_as(BALANCES).fetch_all(&pool).await?;
    Ok(Json(Ledger { accounts }))
}
