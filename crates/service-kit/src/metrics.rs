//! Prometheus metrics of the process. Names and labels follow OpenTelemetry's semantic conventions in
//! Prometheus spelling; everything registers in the default registry, where `messaging` has its own.

use std::sync::LazyLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntGauge, Opts, TextEncoder, register_histogram_vec,
    register_int_gauge,
};

/// The content type of the text exposition.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

static REQUEST_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let options = HistogramOpts::new(
        "http_server_request_duration_seconds",
        "Duration of HTTP requests, to the head of the response.",
    )
    .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0]);
    let labels = ["http_request_method", "http_route", "http_response_status_code"];
    register_histogram_vec!(options, &labels).expect("the metric is registered once, with valid labels")
});

static ACTIVE_REQUESTS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("http_server_active_requests", "HTTP requests in progress.")
        .expect("the metric is registered once")
});

static OPEN_CONNECTIONS: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("http_server_open_connections", "Open HTTP connections.")
        .expect("the metric is registered once")
});

/// Registers `build_info{service,version}`, whose value is always 1.
pub(crate) fn register_build_info(service: &str) {
    let options = Opts::new("build_info", "The running build; the value is always 1.")
        .const_label("service", service)
        .const_label("version", crate::VERSION);
    let gauge = Gauge::with_opts(options).expect("the labels are valid");
    gauge.set(1.0);
    // Started twice in one process, as tests do, the first registration stays.
    drop(prometheus::register(Box::new(gauge)));
}

/// Records one request. `route` is the template, never the path, so that labels stay few.
pub(crate) fn observe_request(method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
    let method = match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "_OTHER",
    };
    REQUEST_DURATION
        .with_label_values(&[method, route.unwrap_or("unmatched"), status.as_str()])
        .observe(took.as_secs_f64());
}

/// Counts something in progress until it is dropped.
pub(crate) struct InProgress(&'static IntGauge);

impl InProgress {
    pub(crate) fn request() -> Self {
        Self::of(&ACTIVE_REQUESTS)
    }

    pub(crate) fn connection() -> Self {
        Self::of(&OPEN_CONNECTIONS)
    }

    fn of(gauge: &'static IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Every metric of the process in the text format.
pub(crate) fn render() -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&prometheus::gather(), &mut text)?;
    Ok(text)
}
