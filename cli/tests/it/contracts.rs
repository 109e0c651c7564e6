//! What the services promise over HTTP is what is committed.

#[test]
fn the_committed_openapi_document_of_every_service_is_that_of_its_routes() {
    for (service, _) in testkit::SERVICES {
        testkit::assert_openapi_is_committed(service);
    }
}
