//! order-api as the program that is shipped, on a real database and a real broker.

mod applying_ends;
mod backlog;
mod batching;
mod contract;
mod idempotency;
mod outages;
mod partitions;
mod plans;
mod reading;
mod reconciling;
mod support;
mod validation;

use testkit::Env;

#[tokio::test]
async fn every_statement_prepares_with_the_rights_of_the_service() {
    let env = Env::bare("orders");
    env.create_database("orders").await;
    testkit::assert_statements_prepare(&env.role_pool("orders"), order_api::STATEMENTS).await;
}
