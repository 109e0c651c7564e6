//! Parameters of the query and the path. What PostgreSQL cannot store is refused, and so is a query parameter that the
//! route does not know: a misspelt filter would otherwise list everything.

use axum::extract::{Query, RawPathParams};
use axum::http::Uri;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::problem::{FieldError, Problem};

/// The query of a route that has no parameters.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct NoQuery {}

/// The query as `T`.
///
/// # Errors
/// 400 naming every parameter that `T` does not have or that holds U+0000; 400 when a value does not fit.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let Query(pairs) =
        Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| Problem::bad_request(error.body_text()))?;
    let known = fields::<T>();
    let unknown = |name: &str| {
        let known = known.filter(|known| !known.contains(&name))?;
        Some(match known {
            [] => "is no parameter of this request, which has none".to_owned(),
            known => format!("is no parameter of this request, which has {}", known.join(", ")),
        })
    };
    let wrong = |(name, value): &(String, String)| {
        let detail = unknown(name).or_else(|| nul(name)).or_else(|| nul(value))?;
        Some(FieldError::parameter(name, detail))
    };
    refuse(pairs.iter().filter_map(wrong).collect())?;
    let Query(value) = Query::try_from_uri(uri).map_err(|error| Problem::bad_request(error.body_text()))?;
    Ok(value)
}

/// Checks the parameters of the path.
///
/// # Errors
/// 400 naming every one that holds U+0000.
pub(super) fn path(parameters: &RawPathParams) -> Result<(), Problem> {
    refuse(parameters.iter().filter_map(|(name, value)| Some(FieldError::parameter(name, nul(value)?))).collect())
}

fn nul(text: &str) -> Option<String> {
    text.contains('\0').then(|| "must not contain U+0000".to_owned())
}

fn refuse(errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = errors
        .iter()
        .map(|error| format!("{:?} {}", error.parameter.as_deref().unwrap_or_default(), error.detail))
        .collect();
    Err(Problem::bad_request(told.join("; ")).errors(errors))
}

/// The names of the fields of `T`; `None` of a type that takes any.
fn fields<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut fields = None;
    // Ends in an error, always: nothing but the names was asked for.
    let _ = T::deserialize(Probe(&mut fields));
    fields
}

/// Asked for a struct, it notes the names of the fields, which is all it can do.
struct Probe<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = Some(fields);
        Err(Error::custom("there is no value"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("there is no value"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Filter {
        customer_id: Option<String>,
        limit: Option<u32>,
    }

    fn parse<T: DeserializeOwned>(query_string: &str) -> Result<T, Problem> {
        query(&format!("/list?{query_string}").parse().unwrap())
    }

    #[track_caller]
    fn refused(query_string: &str) -> Vec<String> {
        let problem = parse::<Filter>(query_string).unwrap_err();
        assert_eq!(problem.status, 400, "{query_string}");
        problem.errors.into_iter().filter_map(|error| error.parameter).collect()
    }

    #[test]
    fn a_query_of_known_parameters_is_read() {
        let filter: Filter = parse("customerId=c%2D7&limit=3").unwrap();
        assert_eq!((filter.customer_id.as_deref(), filter.limit), (Some("c-7"), Some(3)));
        let none: Filter = query(&"/list".parse().unwrap()).unwrap();
        assert_eq!((none.customer_id, none.limit), (None, None));
    }

    #[test]
    fn every_unknown_parameter_and_every_nul_is_named() {
        assert_eq!(refused("customerid=c-7&limit=3&page=2"), ["customerid", "page"]);
        assert_eq!(refused("customerId=c%007"), ["customerId"]);
        assert_eq!(refused("customer%00Id=c"), ["customer\0Id"]);
        assert_eq!(parse::<Filter>("limit=many").unwrap_err().status, 400);
    }

    #[test]
    fn a_route_without_parameters_takes_none() {
        assert!(query::<NoQuery>(&"/list".parse().unwrap()).is_ok());
        assert_eq!(parse::<NoQuery>("limit=1").unwrap_err().errors[0].parameter.as_deref(), Some("limit"));
    }

    #[test]
    fn a_type_that_takes_any_parameter_gets_any_but_nul() {
        let any: BTreeMap<String, String> = parse("a=1&b=2").unwrap();
        assert_eq!(any.len(), 2);
        assert_eq!(parse::<BTreeMap<String, String>>("a=%00").unwrap_err().status, 400);
    }
}
