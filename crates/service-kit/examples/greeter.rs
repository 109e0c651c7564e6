//! The smallest service: one section of its own, one route.
//!
//! `HTTP_PORT=8000 LOG_FORMAT=pretty cargo run -p service-kit --example greeter`

use std::process::ExitCode;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use service_kit::{ApiPath, App, BoxError, Common, OpenApiRouter, Service, ServiceConfig, routes};
use utoipa::ToSchema;

const SERVICE: Service = Service {
    name: "greeter",
    defaults: r#"
[greeting]
# What goes before the name.
word = "Hello"
"#,
};

#[derive(Serialize, Deserialize)]
struct Config {
    #[serde(flatten)]
    common: Common,
    greeting: GreetingSection,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GreetingSection {
    word: String,
}

impl ServiceConfig for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn validate(&self, errors: &mut Vec<String>) {
        if self.greeting.word.is_empty() {
            errors.push("greeting.word is empty".to_owned());
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Greeting {
    text: String,
}

#[utoipa::path(get, path = "/api/greetings/{name}", responses((status = 200, body = Greeting)))]
async fn greet(State(word): State<String>, ApiPath(name): ApiPath<String>) -> Json<Greeting> {
    Json(Greeting { text: format!("{word}, {name}!") })
}

async fn build(config: Config, mut app: App) -> Result<App, BoxError> {
    app.routes(OpenApiRouter::new().routes(routes!(greet)).with_state(config.greeting.word));
    Ok(app)
}

fn main() -> ExitCode {
    service_kit::run(SERVICE, build)
}
