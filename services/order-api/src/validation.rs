//! The body of `POST /api/orders`, checked field by field so that one answer names everything that is wrong.

use orders::messages::{Address, OrderLine, PaymentMethod};
use orders::{CountryCode, Currency, InvalidValue, Sku};
use serde::Serialize;
use serde_json::{Map, Value};

/// Most lines in one order.
const MAX_LINES: usize = 100;
/// Most units in one line.
const MAX_QUANTITY: i64 = 1_000;

/// A checked request for an order. Serialises to the same bytes for every body that asks for the same order, whatever
/// its whitespace, key order, or unknown fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderRequest {
    pub customer_id: String,
    pub currency: Currency,
    pub items: Vec<OrderLine>,
    pub payment: PaymentMethod,
    pub shipping: Address,
    /// Sum over the lines, in minor units. Not a field of the body.
    #[serde(skip)]
    pub total: i64,
}

/// A field of the body that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// JSON Pointer to the field; the field may be absent.
    pub pointer: String,
    /// What is wrong, completing "the field …".
    pub detail: String,
}

/// Checks a parsed body. Fields that are not known are ignored.
///
/// # Errors
/// Every field that is missing, of the wrong type, or out of range, in the order of the contract.
pub fn order_request(body: &Value) -> Result<OrderRequest, Vec<InvalidField>> {
    let mut check = Check::default();
    let Some(body) = check.object("", Some(body)) else { return Err(check.errors) };
    let customer_id = check.text("/customerId", body.get("customerId"), 128);
    let currency = check.value::<Currency>("/currency", body.get("currency"));
    let items = check.lines("/items", body.get("items"));
    let payment = check.payment("/payment", body.get("payment"));
    let shipping = check.address("/shipping", body.get("shipping"));
    let total = items.as_deref().and_then(|items| check.total("/items", items));
    match (customer_id, currency, items, payment, shipping, total) {
        (Some(customer_id), Some(currency), Some(items), Some(payment), Some(shipping), Some(total))
            if check.errors.is_empty() =>
        {
            Ok(OrderRequest { customer_id, currency, items, payment, shipping, total })
        }
        _ => Err(check.errors),
    }
}

/// Checks one value after the other and remembers what was wrong.
#[derive(Default)]
struct Check {
    errors: Vec<InvalidField>,
}

impl Check {
    fn fail<T>(&mut self, pointer: &str, detail: impl Into<String>) -> Option<T> {
        self.errors.push(InvalidField { pointer: pointer.to_owned(), detail: detail.into() });
        None
    }

    /// The value, when the field is there. `null` counts as a wrong type, not as absent.
    fn required<'a>(&mut self, pointer: &str, value: Option<&'a Value>) -> Option<&'a Value> {
        value.or_else(|| self.fail(pointer, "is required"))
    }

    fn object<'a>(&mut self, pointer: &str, value: Option<&'a Value>) -> Option<&'a Map<String, Value>> {
        let value = self.required(pointer, value)?;
        value.as_object().or_else(|| self.fail(pointer, "must be an object"))
    }

    /// A string without control characters. PostgreSQL cannot store U+0000, and no name or address has the others.
    fn plain<'a>(&mut self, pointer: &str, value: Option<&'a Value>) -> Option<&'a str> {
        let value = self.required(pointer, value)?;
        let Some(text) = value.as_str() else { return self.fail(pointer, "must be a string") };
        match text.chars().find(|c| c.is_control()) {
            Some(control) => {
                self.fail(pointer, format!("must not have control characters (U+{:04X})", u32::from(control)))
            }
            None => Some(text),
        }
    }

    fn text(&mut self, pointer: &str, value: Option<&Value>, max: usize) -> Option<String> {
        let text = self.plain(pointer, value)?;
        match text.chars().count() {
            0 => self.fail(pointer, "must not be empty"),
            length if length > max => self.fail(pointer, format!("must have at most {max} characters, has {length}")),
            _ => Some(text.to_owned()),
        }
    }

    fn value<T: TryFrom<String, Error = InvalidValue>>(&mut self, pointer: &str, value: Option<&Value>) -> Option<T> {
        let text = self.plain(pointer, value)?.to_owned();
        T::try_from(text).map_err(|error| self.fail::<()>(pointer, error.to_string())).ok()
    }

    fn integer(&mut self, pointer: &str, value: Option<&Value>, min: i64, max: i64) -> Option<i64> {
        let value = self.required(pointer, value)?;
        let Value::Number(number) = value else { return self.fail(pointer, "must be a number") };
        match number.as_i64() {
            Some(integer) if (min..=max).contains(&integer) => Some(integer),
            // What fits no i64 is a fraction, or whole and far out of range: only the first is told apart.
            None if number.as_f64().is_some_and(|float| float.fract() != 0.0) => {
                self.fail(pointer, "must be a whole number")
            }
            _ => self.fail(pointer, format!("must be a whole number from {min} to {max}")),
        }
    }

    fn lines(&mut self, pointer: &str, value: Option<&Value>) -> Option<Vec<OrderLine>> {
        let value = self.required(pointer, value)?;
        let Some(lines) = value.as_array() else { return self.fail(pointer, "must be an array") };
        if lines.is_empty() || lines.len() > MAX_LINES {
            return self.fail(pointer, format!("must have 1 to {MAX_LINES} lines, has {}", lines.len()));
        }
        // Every line is checked before the first bad one ends it.
        let lines: Vec<_> =
            lines.iter().enumerate().map(|(i, line)| self.line(&format!("{pointer}/{i}"), line)).collect();
        lines.into_iter().collect()
    }

    fn line(&mut self, pointer: &str, line: &Value) -> Option<OrderLine> {
        let line = self.object(pointer, Some(line))?;
        let sku = self.value::<Sku>(&format!("{pointer}/sku"), line.get("sku"));
        let quantity = self.integer(&format!("{pointer}/quantity"), line.get("quantity"), 1, MAX_QUANTITY);
        let unit_price = self.integer(&format!("{pointer}/unitPrice"), line.get("unitPrice"), 1, i64::MAX);
        Some(OrderLine { sku: sku?, quantity: u32::try_from(quantity?).ok()?, unit_price: unit_price? })
    }

    fn total(&mut self, pointer: &str, lines: &[OrderLine]) -> Option<i64> {
        lines
            .iter()
            .try_fold(0_i64, |total, line| total.checked_add(line.unit_price.checked_mul(line.quantity.into())?))
            .or_else(|| self.fail(pointer, format!("must add up to at most {} minor units", i64::MAX)))
    }

    fn payment(&mut self, pointer: &str, value: Option<&Value>) -> Option<PaymentMethod> {
        let payment = self.object(pointer, value)?;
        Some(PaymentMethod { token: self.text(&format!("{pointer}/token"), payment.get("token"), 256)? })
    }

    fn address(&mut self, pointer: &str, value: Option<&Value>) -> Option<Address> {
        let address = self.object(pointer, value)?;
        let mut text = |name: &str| self.text(&format!("{pointer}/{name}"), address.get(name), 256);
        let (name, street, city, postal_code) = (text("name"), text("street"), text("city"), text("postalCode"));
        let country = self.value::<CountryCode>(&format!("{pointer}/country"), address.get("country"));
        Some(Address { name: name?, street: street?, city: city?, postal_code: postal_code?, country: country? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid() -> Value {
        json!({
            "customerId": "c-1001", "currency": "EUR",
            "items": [{"sku": "SKU-001", "quantity": 2, "unitPrice": 1999}],
            "payment": {"token": "tok_ok"},
            "shipping": {"name": "Ada", "street": "1 Main St", "city": "Paris", "postalCode": "75001", "country": "FR"}
        })
    }

    fn pointers(body: &Value) -> Vec<String> {
        let errors = order_request(body).expect_err("the body is not valid");
        errors.into_iter().map(|error| error.pointer).collect()
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut body = valid();
        *body.pointer_mut(pointer).expect("a field of the order") = value;
        body
    }

    #[test]
    fn a_valid_order_adds_up() {
        let request = order_request(&valid()).expect("valid");
        assert_eq!(request.total, 3998);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let mut body = valid();
        body["coupon"] = json!({"code": 1});
        body["items"][0]["gift"] = json!(true);
        assert_eq!(order_request(&body), order_request(&valid()));
    }

    #[test]
    fn every_bad_field_is_named_at_once() {
        let body = json!({
            "customerId": "", "currency": "ZZZ",
            "items": [{"sku": "A", "quantity": 0, "unitPrice": 1}, {"quantity": "2", "unitPrice": -5}, 7],
            "payment": {}, "shipping": {"name": "Ada", "street": 3, "city": "\u{0}", "country": "XX"}
        });
        let expected = [
            "/customerId",
            "/currency",
            "/items/0/quantity",
            "/items/1/sku",
            "/items/1/quantity",
            "/items/1/unitPrice",
            "/items/2",
            "/payment/token",
            "/shipping/street",
            "/shipping/city",
            "/shipping/postalCode",
            "/shipping/country",
        ];
        assert_eq!(pointers(&body), expected);
    }

    #[test]
    fn one_wrong_value_names_its_field() {
        let long = |n: usize| json!("é".repeat(n));
        let cases = [
            ("/customerId", json!(null)),
            ("/customerId", long(129)),
            ("/customerId", json!("a\u{0}b")),
            ("/customerId", json!("a\nb")),
            ("/currency", json!("eur")),
            ("/currency", json!(978)),
            ("/items", json!([])),
            ("/items", json!({})),
            ("/items", json!(vec![valid()["items"][0].clone(); 101])),
            ("/items/0/sku", long(65)),
            ("/items/0/quantity", json!(0)),
            ("/items/0/quantity", json!(-1)),
            ("/items/0/quantity", json!(1001)),
            ("/items/0/quantity", json!(1.5)),
            ("/items/0/quantity", json!("2")),
            ("/items/0/unitPrice", json!(0)),
            ("/items/0/unitPrice", json!(-1999)),
            ("/items/0/unitPrice", json!(u64::MAX)),
            ("/items/0/unitPrice", json!(1e300)),
            ("/payment", json!("tok_ok")),
            ("/payment/token", long(257)),
            ("/shipping", json!([])),
            ("/shipping/postalCode", json!(75001)),
            ("/shipping/country", json!("FRA")),
        ];
        for (pointer, value) in cases {
            assert_eq!(pointers(&with(pointer, value.clone())), [pointer], "{pointer} = {value}");
        }
        assert_eq!(pointers(&json!([valid()])), [""]);
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert!(order_request(&with("/customerId", json!("é".repeat(128)))).is_ok());
        assert!(order_request(&with("/items/0/sku", json!("é".repeat(64)))).is_ok());
        assert!(order_request(&with("/shipping/name", json!("é".repeat(256)))).is_ok());
    }

    #[test]
    fn a_total_that_overflows_is_refused() {
        assert_eq!(pointers(&with("/items/0/unitPrice", json!(i64::MAX))), ["/items"]);
        let half = json!({"sku": "A", "quantity": 1, "unitPrice": i64::MAX / 2 + 1});
        assert_eq!(pointers(&with("/items", json!([half, half]))), ["/items"]);
        assert!(order_request(&with("/items", json!([half]))).is_ok());
    }
}
