//! Networks that are slow, cut connections, or swallow everything.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::Injected;
use crate::soak::kinds::{Link, Toxic};
use crate::soak::stand::Stand;

/// Longer than consumers may be silent.
const HELD: Duration = Duration::from_secs(8);
/// As long as connections are reset.
const RESET: Duration = Duration::from_secs(3);

/// Spoils `link` for a while. The proxy counts what it has done.
pub(super) async fn spoil(stand: &Stand, link: Link, toxic: Toxic, draw: u64) -> anyhow::Result<Injected> {
    let (kind, streams, attributes, metric, unit, held) = match toxic {
        Toxic::Latency => {
            let attributes = json!({ "latency": 100, "jitter": 50 });
            (
                "latency",
                &["upstream", "downstream"][..],
                attributes,
                "fault_proxy_toxic_bytes_total",
                "bytes delayed",
                HELD,
            )
        }
        Toxic::Reset => {
            let metric = "fault_proxy_toxic_connections_total";
            ("reset_peer", &["downstream"][..], json!({ "timeout": 0 }), metric, "connections reset", RESET)
        }
        Toxic::BlackHole => {
            let metric = "fault_proxy_toxic_dropped_bytes_total";
            ("timeout", &["upstream", "downstream"][..], json!({ "timeout": 0 }), metric, "bytes swallowed", HELD)
        }
    };
    let names: Vec<String> = streams.iter().map(|stream| format!("{kind}-{stream}-{draw:x}")).collect();
    for (name, stream) in names.iter().zip(streams) {
        stand
            .proxy
            .add(link, &json!({ "name": name, "type": kind, "stream": stream, "attributes": attributes }))
            .await?;
    }
    tokio::time::sleep(held).await;
    let mut hits = 0.0;
    for name in &names {
        hits += stand.proxy.hits(metric, link, name).await?;
    }
    for name in &names {
        stand.proxy.remove(link, name).await?;
    }
    ensure!(hits > 0.0, "{kind} on {} hit nothing in {} s", link.name(), held.as_secs());
    Ok(Injected {
        target: link.name().into(),
        proof: format!("{hits} {unit} in {} s", held.as_secs()),
        from: Instant::now(),
    })
}
