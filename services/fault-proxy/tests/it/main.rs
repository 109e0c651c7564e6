//! The fault proxy over real sockets.

mod api;
mod flow;
mod many;
mod support;
mod toxics;

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("fault-proxy");
}
