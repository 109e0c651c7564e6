//! The orchestrator on real servers, with the participants played by hand. Each rule of the protocol has a test
//! that names it.

mod crashes;
mod definitions;
mod duplicates;
mod flow;
mod gate;
mod operators;
mod plans;
mod poison;
mod replicas;
mod timers;
mod trip;

#[test]
fn the_committed_openapi_document_is_that_of_the_routes() {
    testkit::assert_openapi_is_committed("orchestrator");
}
