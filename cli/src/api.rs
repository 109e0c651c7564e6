//! The HTTP interfaces of a running stack.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::Value;

/// A component that was started again so often, and is ready for less than [`YOUNG`], does not stay up.
const RESTLESS: u32 = 3;
const YOUNG: TimeDelta = TimeDelta::minutes(10);

/// Reaches the services of the stack whose state file is given. The file is read again for every request: a
/// stack that was restarted meanwhile may be on other ports.
#[derive(Clone, Debug)]
pub struct Api {
    state_file: PathBuf,
    client: Client,
}

#[derive(Deserialize)]
struct State {
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    since: Option<DateTime<Utc>>,
    #[serde(default)]
    restarts: u32,
}

impl Api {
    /// For the stack with this `state.json`. Touches nothing yet.
    pub fn new(state_file: PathBuf) -> anyhow::Result<Self> {
        // No timeout over the whole answer: an event stream lasts as long as its order.
        let client = Client::builder().connect_timeout(Duration::from_secs(5)).build()?;
        Ok(Self { state_file, client })
    }

    /// The URL of `component` as the state file says, without a slash at the end.
    pub fn url(&self, component: &str) -> anyhow::Result<String> {
        let found = self.state()?.components.into_iter().find(|found| found.name == component && found.url.is_some());
        let url =
            found.and_then(|found| found.url).ok_or_else(|| anyhow!("{component} is not running: symphony up"))?;
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// The names of the services; one that has several instances is named for each.
    pub fn services(&self) -> anyhow::Result<Vec<String>> {
        let speaks_http = |component: &Component| component.url.as_ref().is_some_and(|url| url.starts_with("http"));
        let services =
            self.state()?.components.into_iter().filter(|found| found.name != "connect" && speaks_http(found));
        Ok(services.map(|service| service.name).collect())
    }

    fn state(&self) -> anyhow::Result<State> {
        let missing = || format!("no stack runs here ({}): symphony up", self.state_file.display());
        let text = std::fs::read_to_string(&self.state_file).with_context(missing)?;
        serde_json::from_str(&text).with_context(|| self.state_file.display().to_string())
    }

    /// Since when an instance of each of `components` has been ready: now, if one of them has none that is. Nothing if
    /// the state file does not say it.
    pub fn ready_since(&self, components: &[&str]) -> anyhow::Result<Option<DateTime<Utc>>> {
        let state = self.state()?;
        let mut since = None;
        for name in components {
            let instances: Vec<&Component> = state.components.iter().filter(|found| found.name == *name).collect();
            if instances.iter().any(|instance| instance.state.is_none()) {
                return Ok(None);
            }
            since = since.max(Some(first_ready(&instances).unwrap_or_else(Utc::now)));
        }
        Ok(since)
    }

    /// A sentence for each of `components` that dies again and again: whoever asks how long it has been ready learns
    /// nothing about what it does.
    pub fn restless(&self, components: &[&str]) -> anyhow::Result<Vec<String>> {
        let state = self.state()?;
        let told = components.iter().filter_map(|name| {
            let instances: Vec<&Component> = state.components.iter().filter(|found| found.name == *name).collect();
            let restarts: u32 = instances.iter().map(|instance| instance.restarts).sum();
            let is_young = first_ready(&instances).is_none_or(|since| Utc::now() - since < YOUNG);
            (restarts >= RESTLESS && is_young).then(|| {
                format!("{name} was started again {restarts} times and does not stay up: what waits for it is not late")
            })
        });
        Ok(told.collect())
    }

    /// A `host:port` for clients that speak no HTTP.
    pub fn address(&self, component: &str) -> anyhow::Result<String> {
        let url = self.url(component)?;
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let rest = rest.split('/').next().unwrap_or(rest);
        Ok(rest.rsplit('@').next().unwrap_or(rest).to_owned())
    }

    /// A request to `path` of `service`.
    pub fn request(&self, method: Method, service: &str, path: &str) -> anyhow::Result<RequestBuilder> {
        let mut request = self.client.request(method, format!("{}{path}", self.url(service)?));
        // Services that ask for a token find it where `up` has put it.
        if let Ok(token) = std::fs::read_to_string(self.state_file.with_file_name("token")) {
            request = request.bearer_auth(token.trim());
        }
        Ok(request)
    }

    /// GET of `path` at `service`; an answer that is no success is an error with its problem in it.
    pub async fn get(&self, service: &str, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let request = self.request(Method::GET, service, path)?.timeout(Duration::from_secs(30));
        let response = request.query(query).send().await.with_context(|| format!("{service} does not answer"))?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            return Err(anyhow!("{service} answered {status}: {}", problem(&body)));
        }
        serde_json::from_str(&body).with_context(|| format!("{service} answered {body:?}"))
    }
}

/// Since when the first of `instances` that is ready has been so.
fn first_ready(instances: &[&Component]) -> Option<DateTime<Utc>> {
    let ready = instances.iter().filter(|instance| instance.state.as_deref() == Some("ready"));
    ready.filter_map(|instance| instance.since).min()
}

/// The readable part of an RFC 9457 problem, or the text as it is.
pub fn problem(body: &str) -> String {
    let Ok(problem) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    let text = |name: &str| problem.get(name).and_then(Value::as_str);
    let mut lines = vec![text("detail").or(text("title")).unwrap_or(body).to_owned()];
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| error.get(name).and_then(Value::as_str);
        // A field of the body, or a parameter or header of the request.
        let place = match (part("pointer"), part("parameter")) {
            (Some(""), _) => "the body",
            (Some(place), _) | (None, Some(place)) => place,
            (None, None) => "the request",
        };
        lines.push(format!("  {place}: {}", part("detail").unwrap_or("is wrong")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_every_bad_field() {
        let body = r#"{"title":"Invalid","detail":"two fields are wrong","errors":[
            {"pointer":"/currency","detail":"unknown"},{"pointer":"/items","detail":"empty"}]}"#;
        assert_eq!(problem(body), "two fields are wrong\n  /currency: unknown\n  /items: empty");
        let body = r#"{"detail":"limit must be from 1 to 500","errors":[
            {"parameter":"limit","detail":"must be from 1 to 500"},{"pointer":"","detail":"must be an object"}]}"#;
        let told = "limit must be from 1 to 500\n  limit: must be from 1 to 500\n  the body: must be an object";
        assert_eq!(problem(body), told);
        assert_eq!(problem("Bad Gateway"), "Bad Gateway");
    }

    #[test]
    fn everything_is_ready_since_the_last_of_its_components_is() {
        let folder = tempfile::tempdir().unwrap();
        let state_file = folder.path().join("state.json");
        let api = Api::new(state_file.clone()).unwrap();
        let since = |components: &str| {
            std::fs::write(&state_file, format!(r#"{{"components":[{components}]}}"#)).unwrap();
            api.ready_since(&["a", "b"]).unwrap()
        };
        let component = |name: &str, state: &str, minute: u32| {
            format!(r#"{{"name":"{name}","state":"{state}","since":"2026-01-01T00:{minute:02}:00Z"}}"#)
        };
        let at = |minute: i64| DateTime::from_timestamp(1_767_225_600 + 60 * minute, 0);
        let (a, b, again) = (component("a", "ready", 1), component("b", "ready", 3), component("b", "ready", 5));
        assert_eq!(since(&format!("{a},{b}")), at(3));
        assert_eq!(since(&format!("{a},{b},{again}")), at(3), "one instance is enough");
        let before = Utc::now();
        assert!(since(&format!("{a},{}", component("b", "stopped", 3))) >= Some(before));
        assert!(since(&a) >= Some(before), "there is none");
        assert_eq!(since(&format!(r#"{a},{{"name":"b"}}"#)), None, "nobody knows");
    }

    #[test]
    fn a_component_that_dies_again_and_again_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state_file = folder.path().join("state.json");
        let api = Api::new(state_file.clone()).unwrap();
        let restless = |restarts: u32, state: &str, since: DateTime<Utc>| {
            let component =
                format!(r#"{{"name":"a","state":"{state}","since":"{}","restarts":{restarts}}}"#, since.to_rfc3339());
            std::fs::write(&state_file, format!(r#"{{"components":[{component},{{"name":"b"}}]}}"#)).unwrap();
            api.restless(&["a", "b"]).unwrap()
        };
        let (now, before) = (Utc::now(), Utc::now() - YOUNG);
        assert_eq!(restless(2, "ready", now), Vec::<String>::new());
        assert_eq!(restless(3, "ready", before), Vec::<String>::new(), "it stays up by now");
        for told in [restless(3, "ready", now), restless(37, "failed", before)] {
            assert!(told.len() == 1 && told[0].starts_with("a was started again 3"), "{told:?}");
        }
    }

    #[test]
    fn an_address_is_what_is_left_of_a_url() {
        let folder = tempfile::tempdir().unwrap();
        let state_file = folder.path().join("state.json");
        let state = r#"{"components":[{"name":"postgres","url":"postgres://postgres@127.0.0.1:5/postgres"}]}"#;
        std::fs::write(&state_file, state).unwrap();
        let api = Api::new(state_file).unwrap();
        assert_eq!(api.address("postgres").unwrap(), "127.0.0.1:5");
        assert!(api.url("kafka").unwrap_err().to_string().contains("symphony up"));
    }
}
