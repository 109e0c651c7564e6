use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;

use toml::{Table, Value};

use super::{COMMON_DEFAULTS, ServiceConfig, mask};
use crate::Service;

/// Other names a variable is known by; ours wins when both are set.
const ALIASES: &[(&str, &str)] = &[("OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")];

/// Everything that is wrong with a configuration, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} configuration error{}", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))?;
        write!(f, "\nsection.key is set by SECTION_KEY; --help lists all of them with their defaults")
    }
}

impl std::error::Error for ConfigErrors {}

/// An effective configuration.
#[derive(Debug)]
pub struct Loaded<C> {
    /// The typed values.
    pub config: C,
    /// The same values by section and key.
    pub(super) table: Table,
    /// For each key that the environment set, the variable's name.
    pub(super) from_environment: BTreeMap<String, String>,
}

/// Reads the configuration of `service` from its compiled-in defaults and the given environment.
///
/// # Errors
/// All errors at once: values of a wrong type, values that cannot work, defaults that no field reads.
pub fn load<C: ServiceConfig>(
    service: &Service,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded<C>, ConfigErrors> {
    let (config, defaults) = read_defaults::<C>(service).map_err(ConfigErrors)?;
    let environment: BTreeMap<String, OsString> =
        environment.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();

    let mut errors = Vec::new();
    let mut table = defaults.clone();
    let mut from_environment = BTreeMap::new();
    for path in leaves(&defaults) {
        let Some((name, value)) = find(&environment, &path) else {
            continue;
        };
        // Each variable is tried alone on the defaults: one wrong value hides no other, and the error
        // names the variable.
        match parse(value, get(&defaults, &path)).and_then(|value| try_alone::<C>(&defaults, &path, value)) {
            Ok(value) => {
                set(&mut table, &path, value);
                from_environment.insert(path.join("."), name.to_owned());
            }
            Err(problem) => {
                let shown = mask(&value.to_string_lossy());
                errors.push(format!("{name}={shown}: {problem}"));
            }
        }
    }

    let config = match Value::Table(table.clone()).try_into::<C>() {
        Ok(config) => config,
        Err(error) => {
            errors.push(error.message().to_owned());
            config
        }
    };
    config.common().validate(&mut errors);
    config.validate(&mut errors);
    if errors.is_empty() { Ok(Loaded { config, table, from_environment }) } else { Err(ConfigErrors(errors)) }
}

/// The defaults as typed values and as a table. The table is made from the typed values, so that a key
/// with a default in code only can be set by the environment too.
fn read_defaults<C: ServiceConfig>(service: &Service) -> Result<(C, Table), Vec<String>> {
    let file = format!("config.default.toml of {}", service.name);
    let parse = |name: &str, text: &str| text.parse::<Table>().map_err(|error| vec![format!("{name}: {error}")]);
    let mut documented = parse("common.default.toml", COMMON_DEFAULTS)?;
    merge(&mut documented, parse(&file, service.defaults)?);

    let config: C = Value::Table(documented.clone())
        .try_into()
        .map_err(|error: toml::de::Error| vec![format!("{file}: {}", error.message())])?;
    let table = Table::try_from(&config).map_err(|error| vec![format!("{file}: {error}")])?;

    let known: BTreeSet<_> = leaves(&table).into_iter().collect();
    let unknown: Vec<_> = leaves(&documented)
        .into_iter()
        .filter(|path| !known.contains(path))
        .map(|path| format!("{file}: no such key: {}", path.join(".")))
        .collect();
    if unknown.is_empty() { Ok((config, table)) } else { Err(unknown) }
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// The path of every value that is no table.
fn leaves(table: &Table) -> Vec<Vec<String>> {
    fn walk(table: &Table, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        for (key, value) in table {
            path.push(key.clone());
            match value {
                Value::Table(inner) => walk(inner, path, found),
                _ => found.push(path.clone()),
            }
            path.pop();
        }
    }
    let mut found = Vec::new();
    walk(table, &mut Vec::new(), &mut found);
    found
}

fn get<'t>(table: &'t Table, path: &[String]) -> Option<&'t Value> {
    let (last, parents) = path.split_last()?;
    let table = parents.iter().try_fold(table, |table, key| table.get(key)?.as_table())?;
    table.get(last)
}

fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            if let Some(Value::Table(inner)) = table.get_mut(key) {
                set(inner, rest, value);
            }
        }
    }
}

fn find<'e>(environment: &'e BTreeMap<String, OsString>, path: &[String]) -> Option<(&'e str, &'e OsString)> {
    let name = path.join("_").to_uppercase();
    let alias = ALIASES.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs);
    [Some(name.as_str()), alias]
        .into_iter()
        .flatten()
        .find_map(|name| environment.get_key_value(name))
        .map(|(name, value)| (name.as_str(), value))
}

/// Reads a variable as the type its default has.
fn parse(text: &OsString, default: Option<&Value>) -> Result<Value, String> {
    let text = text.to_str().ok_or("it is not UTF-8")?;
    let wrong = |expected: &str| format!("expected {expected}");
    match default {
        Some(Value::Integer(_)) => text.trim().parse().map(Value::Integer).map_err(|_| wrong("an integer")),
        Some(Value::Float(_)) => text.trim().parse().map(Value::Float).map_err(|_| wrong("a number")),
        Some(Value::Boolean(_)) => text.trim().parse().map(Value::Boolean).map_err(|_| wrong("true or false")),
        Some(Value::Array(_)) => Ok(Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
        )),
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn try_alone<C: ServiceConfig>(defaults: &Table, path: &[String], value: Value) -> Result<Value, String> {
    let mut table = defaults.clone();
    set(&mut table, path, value.clone());
    match Value::Table(table).try_into::<C>() {
        Ok(_) => Ok(value),
        Err(error) => Err(error.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use messaging::KafkaConfig;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::config::{Common, LogFormat, to_toml};

    #[derive(Debug, Serialize, Deserialize)]
    struct Config {
        #[serde(flatten)]
        common: Common,
        greeting: Greeting,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Greeting {
        words: Vec<String>,
        polite: bool,
        times: u8,
        #[serde(default)]
        undocumented: u32,
    }

    impl ServiceConfig for Config {
        fn common(&self) -> &Common {
            &self.common
        }

        fn validate(&self, errors: &mut Vec<String>) {
            if self.greeting.times == 0 {
                errors.push("greeting.times is 0: it must be at least 1".to_owned());
            }
        }
    }

    const DEFAULTS: &str = "[http]\nport = 8081\n[greeting]\nwords = [\"hello\"]\npolite = true\ntimes = 1\n";
    const SERVICE: Service = Service { name: "greeter", defaults: DEFAULTS };

    fn load_with(variables: &[(&str, &str)]) -> Result<Loaded<Config>, ConfigErrors> {
        load(&SERVICE, variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn errors(variables: &[(&str, &str)]) -> Vec<String> {
        load_with(variables).unwrap_err().0
    }

    #[test]
    fn a_services_defaults_lie_over_the_common_ones() {
        let config = load_with(&[]).unwrap().config;
        assert_eq!(config.common.http.port, 8081);
        assert_eq!(config.common.http.body_limit_bytes, 64 * 1024);
        assert_eq!(config.common.log.format, LogFormat::Json);
    }

    #[test]
    fn kafkas_documented_defaults_are_those_of_its_type() {
        let documented = load_with(&[]).unwrap().config.common.kafka;
        assert_eq!(Table::try_from(documented).unwrap(), Table::try_from(KafkaConfig::default()).unwrap());
    }

    #[test]
    fn the_environment_lies_over_the_defaults() {
        let config = load_with(&[
            ("HTTP_PORT", "0"),
            ("KAFKA_TOPIC_PREFIX", "t1."),
            ("LOG_FORMAT", "pretty"),
            ("GREETING_WORDS", "good, day"),
            ("GREETING_POLITE", "false"),
            ("GREETING_UNDOCUMENTED", "7"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
            ("UNRELATED", "x"),
        ])
        .unwrap()
        .config;
        assert_eq!(config.common.http.port, 0);
        assert_eq!(config.common.kafka.topic_prefix, "t1.");
        assert_eq!(config.common.log.format, LogFormat::Pretty);
        assert_eq!(config.greeting.words, ["good", "day"]);
        assert!(!config.greeting.polite);
        assert_eq!(config.greeting.undocumented, 7);
        assert_eq!(config.common.otlp.endpoint, "http://127.0.0.1:4317");
    }

    #[test]
    fn our_name_wins_over_an_alias() {
        let both = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://theirs:1"), ("OTLP_ENDPOINT", "http://ours:1")];
        assert_eq!(load_with(&both).unwrap().config.common.otlp.endpoint, "http://ours:1");
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let errors = errors(&[
            ("HTTP_PORT", "70000"),
            ("HTTP_REQUEST_TIMEOUT_MS", "soon"),
            ("GREETING_POLITE", "yes"),
            ("GREETING_TIMES", "0"),
            ("KAFKA_MAX_BATCH", "0"),
            ("LOG_FORMAT", "xml"),
            ("LOG_LEVEL", "verbose"),
            ("OTLP_SAMPLE_RATIO", "2"),
            ("DATABASE_URL", "mysql://root:hunter2@db/orders"),
        ]);
        for part in [
            "HTTP_PORT=70000",
            "HTTP_REQUEST_TIMEOUT_MS=soon: expected an integer",
            "GREETING_POLITE=yes: expected true or false",
            "greeting.times is 0",
            "kafka.max_batch is 0",
            "LOG_FORMAT=xml",
            "log.level",
            "otlp.sample_ratio is 2",
            "database.url",
        ] {
            assert_eq!(errors.iter().filter(|error| error.contains(part)).count(), 1, "{part} in {errors:#?}");
        }
        assert_eq!(errors.len(), 9, "{errors:#?}");
        assert!(!errors.join("").contains("hunter2"), "a password is shown");
    }

    #[test]
    fn a_default_that_nothing_reads_is_an_error() {
        let defaults = DEFAULTS.to_owned() + "[htpp]\nport = 1\n";
        let service = Service { name: "greeter", defaults: Box::leak(defaults.into_boxed_str()) };
        let errors = load::<Config>(&service, []).unwrap_err().0;
        assert_eq!(errors, ["config.default.toml of greeter: no such key: htpp.port"]);

        let defaults = DEFAULTS.to_owned() + "tims = 1\n";
        let service = Service { name: "greeter", defaults: Box::leak(defaults.into_boxed_str()) };
        let errors = load::<Config>(&service, []).unwrap_err().0;
        assert!(errors[0].contains("tims"), "{errors:?}");
    }

    #[test]
    fn the_printed_configuration_can_be_read_again_and_holds_no_password() {
        let loaded =
            load_with(&[("DATABASE_URL", "postgres://orders:hunter2@db:5432/orders"), ("HTTP_PORT", "9")]).unwrap();
        let text = to_toml(&loaded);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("url = \"postgres://orders:***@db:5432/orders\" # DATABASE_URL"), "{text}");
        assert!(text.contains("port = 9 # HTTP_PORT"), "{text}");
        let config: Config = toml::from_str(&text).unwrap();
        assert_eq!(config.common.http.port, 9);
    }
}
