//! The committed OpenAPI document is that of the program.

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("order-api");
}
