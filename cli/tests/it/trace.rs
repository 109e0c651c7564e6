//! One trace for one order, from the POST through the database, Debezium, and every hop.

use std::time::Duration;

use testkit::{Env, OtlpReceiver, order, wait_for};

use crate::stand::SOON;

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

    // And every service has told the collector of its part in it.
    let everybody = ["order-api", "orchestrator", "payment-svc", "inventory-svc", "shipping-svc", "notification-svc"];
    let mut missing = Vec::new();
    let complete = wait_for(Duration::from_secs(60), async || {
        let spans = collector.spans();
        let in_trace = |service: &&str| {
            let of_service = |span: &&testkit::Span| span.service == *service;
            spans.iter().filter(of_service).any(|span| span.trace_id == trace || span.linked_traces.contains(&trace))
        };
        missing = everybody.into_iter().filter(|service| !in_trace(service)).collect();
        missing.is_empty().then_some(())
    });
    assert!(complete.await.is_some(), "no span of trace {trace} from {missing:?}");
    let spans = collector.spans();
    let posted =
        spans.iter().find(|span| span.service == "order-api" && span.trace_id == trace && span.name.contains("POST"));
    assert!(
        posted.is_some(),
        "no span of the POST in {trace}: {:?}",
        spans.iter().map(|span| &span.name).collect::<Vec<_>>()
    );
}
