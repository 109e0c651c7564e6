//! One trace for one order, from the POST through the database, Debezium, and every hop.

use testkit::{Env, OtlpReceiver, order, wait_for};

use crate::stand::SOON;

/// From the request to the order's end: who, and how the name of the span begins.
const HOPS: &[(&str, &str)] = &[
    ("order-api", "POST /api/orders"),
    ("orchestrator", "process order.created"),
    ("payment-svc", "process payment.requested"),
    ("orchestrator", "process payment.successful"),
    ("inventory-svc", "process inventory.requested"),
    ("orchestrator", "process inventory.reserved"),
    ("shipping-svc", "process shipping.requested"),
    ("orchestrator", "process shipping.scheduled"),
    ("order-api", "process order.completed"),
    ("inventory-svc", "process order.completed"),
    ("notification-svc", "process order.completed"),
];

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_post_to_the_completed_order() {
    let collector = OtlpReceiver::start().await.expect("a collector");
    let env = Env::new("trace").await;
    let cluster = env.cluster().set_all("OTLP_ENDPOINT", collector.endpoint()).start().await;
    let id = cluster.place(&order()).await;
    assert_eq!(cluster.ended(id, SOON).await["status"], "COMPLETED");

    // The header that left the last hop names the trace.
    let end = env.await_message("order.completed", |record| record.key.as_deref() == Some(id.to_string().as_bytes()));
    let end = end.await;
    let traceparent = end.header("traceparent").expect("a traceparent on order.completed");
    let trace = traceparent.split('-').nth(1).expect("a trace id").to_owned();
    let created = env.await_message("order.created", |_| true).await;
    assert_eq!(created.header("traceparent").and_then(|text| text.split('-').nth(1)), Some(trace.as_str()));

    // And everybody has told the collector of each hop. Debezium makes no spans: it hands the context on.
    let mut missing = Vec::new();
    let complete = wait_for(SOON, async || {
        let mut spans = collector.spans();
        spans.retain(|span| span.trace_id == trace);
        let is_there = |(service, name): &&(&str, &str)| {
            spans.iter().any(|span| span.service == *service && span.name.starts_with(name))
        };
        missing = HOPS.iter().filter(|hop| !is_there(hop)).collect();
        missing.is_empty().then_some(spans)
    });
    let spans = complete.await;
    let spans = spans.unwrap_or_else(|| panic!("no span in trace {trace} of {missing:?}: {:#?}", collector.spans()));

    // It is one tree, and the POST is its root.
    for span in &spans {
        let is_root = span.parent_span_id.is_empty();
        assert_eq!(is_root, span.name.starts_with("POST"), "{span:?}");
        assert!(is_root || spans.iter().any(|parent| parent.span_id == span.parent_span_id), "{span:?} in {spans:#?}");
    }
}
