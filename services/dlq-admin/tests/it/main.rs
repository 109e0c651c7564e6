//! dlq-admin on real servers, as the program that is shipped.

mod acts;
mod campaigns;
mod crashes;
mod indexing;
mod many;
mod plans;
mod sagas;
mod support;
mod unconfirmed;

use testkit::Env;

#[tokio::test]
async fn every_statement_prepares_with_the_rights_of_the_service() {
    let env = Env::bare("dlq-admin");
    env.create_database("dlq_admin").await;
    testkit::assert_statements_prepare(&env.role_pool("dlq_admin"), dlq_admin::STATEMENTS).await;
}

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("dlq-admin");
}
