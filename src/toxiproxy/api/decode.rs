//! Reads bodies the way Go's `encoding/json` reads them into structs: keys in any case, the last of several
//! wins, unknown keys and whatever follows the first value are ignored, `null` leaves the default.

use serde_json::{Map, Value};

use crate::toxiproxy::engine::Refusal;
use crate::toxiproxy::wire::{Protocol, Proxy, ProxyUpdate, Toxic, WhenDown};

/// The fields of an object.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn of(value: &'a Value, into: &str) -> Result<Option<Self>, Refusal> {
        match value {
            Value::Object(map) => Ok(Some(Self(map))),
            Value::Null => Ok(None),
            other => Err(mismatch(other, &format!("Go value of type {into}"))),
        }
    }

    /// The value of a field, unless it is absent or `null`.
    fn get(&self, name: &str) -> Option<&'a Value> {
        let mut fields = self.0.iter().rev();
        let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        (!value.is_null()).then_some(value)
    }

    fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.read(name, |value| value.as_str().map(str::to_owned))
    }

    fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.read(name, Value::as_bool)
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let value = self.get(name);
        value
            .map(|value| {
                let into = || format!("Go struct field .{name}");
                read(value).ok_or_else(|| mismatch(value, &into()))
            })
            .transpose()
    }
}

fn mismatch(value: &Value, into: &str) -> Refusal {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Refusal::Body(format!("json: cannot unmarshal {kind} into {into}"))
}

/// The first JSON value of a body.
fn first_value(body: &[u8]) -> Result<Value, Refusal> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    match values.next() {
        None => Err(Refusal::Body("EOF".to_owned())),
        Some(Err(error)) if error.is_eof() => Err(Refusal::Body("unexpected EOF".to_owned())),
        Some(Err(error)) => Err(Refusal::Body(error.to_string())),
        Some(Ok(value)) => Ok(value),
    }
}

/// Body of `POST /proxies`.
pub(super) fn new_proxy(body: &[u8]) -> Result<Proxy, Refusal> {
    proxy(&first_value(body)?)
}

/// Body of `POST /populate`, and a configuration file.
pub(crate) fn proxies(body: &[u8]) -> Result<Vec<Proxy>, Refusal> {
    match first_value(body)? {
        Value::Array(values) => values.iter().map(proxy).collect(),
        Value::Null => Ok(Vec::new()),
        other => Err(mismatch(&other, "Go value of type []toxiproxy.Proxy")),
    }
}

fn proxy(value: &Value) -> Result<Proxy, Refusal> {
    let mut proxy = Proxy::new("", "", "");
    let Some(fields) = Fields::of(value, "toxiproxy.Proxy")? else {
        return Ok(proxy);
    };
    proxy.name = fields.text("name")?.unwrap_or_default();
    proxy.listen = fields.text("listen")?.unwrap_or_default();
    proxy.upstream = fields.text("upstream")?.unwrap_or_default();
    proxy.enabled = fields.switch("enabled")?.unwrap_or(true);
    proxy.upstream_up = fields.switch("upstream_up")?;
    proxy.correlate = fields.text("correlate")?;
    proxy.protocol = fields.read("protocol", protocol)?.unwrap_or_default();
    proxy.when_down = fields.read("when_down", when_down)?.unwrap_or_default();
    if let Some(Value::Array(given)) = fields.get("toxics") {
        proxy.toxics = given.iter().map(toxic).collect::<Result<_, _>>()?;
    }
    Ok(proxy)
}

fn protocol(value: &Value) -> Option<Protocol> {
    match value.as_str()? {
        "http" => Some(Protocol::Http),
        // Other protocols may be named; they are not read.
        _ => Some(Protocol::Opaque),
    }
}

fn when_down(value: &Value) -> Option<WhenDown> {
    match value.as_str()? {
        "refuse" => Some(WhenDown::Refuse),
        "accept" => Some(WhenDown::Accept),
        _ => None,
    }
}

/// Body of an update of a proxy.
pub(super) fn proxy_update(body: &[u8]) -> Result<ProxyUpdate, Refusal> {
    let value = first_value(body)?;
    let Some(fields) = Fields::of(&value, "toxiproxy.Proxy")? else {
        return Ok(ProxyUpdate::default());
    };
    Ok(ProxyUpdate {
        listen: fields.text("listen")?,
        upstream: fields.text("upstream")?,
        enabled: fields.switch("enabled")?,
        upstream_up: fields.switch("upstream_up")?,
    })
}

/// Body of `POST …/toxics`.
pub(super) fn new_toxic(body: &[u8]) -> Result<Toxic, Refusal> {
    toxic(&first_value(body)?)
}

/// Body of `PUT /lease/{id}`: the seconds it lives.
pub(super) fn lease(body: &[u8]) -> Result<u64, Refusal> {
    let value = first_value(body)?;
    let fields = Fields::of(&value, "lease")?;
    let seconds = fields.map(|fields| fields.read("ttl_seconds", Value::as_u64));
    seconds
        .transpose()?
        .flatten()
        .ok_or_else(|| Refusal::MissingField("ttl_seconds".to_owned()))
}

/// Body of `PUT …/toxics`.
pub(super) fn toxics(body: &[u8]) -> Result<Vec<Toxic>, Refusal> {
    match first_value(body)? {
        Value::Array(values) => values.iter().map(toxic).collect(),
        other => Err(mismatch(&other, "Go value of type []toxics.Toxic")),
    }
}

fn toxic(value: &Value) -> Result<Toxic, Refusal> {
    let mut toxic = Toxic {
        attributes: Map::new(),
        name: String::new(),
        kind: String::new(),
        stream: "downstream".to_owned(),
        toxicity: 1.0,
    };
    let Some(fields) = Fields::of(value, "toxics.Toxic")? else {
        return Ok(toxic);
    };
    toxic.name = fields.text("name")?.unwrap_or_default();
    toxic.kind = fields.text("type")?.unwrap_or_default();
    toxic.stream = fields.text("stream")?.unwrap_or(toxic.stream);
    toxic.toxicity = fields.read("toxicity", float)?.unwrap_or(1.0);
    toxic.attributes = fields.read("attributes", object)?.unwrap_or_default();
    Ok(toxic)
}

/// Body of an update of a toxic.
pub(super) fn toxic_update(body: &[u8]) -> Result<(Map<String, Value>, Option<f32>), Refusal> {
    let value = first_value(body)?;
    let Some(fields) = Fields::of(&value, "toxics.Toxic")? else {
        return Ok((Map::new(), None));
    };
    let attributes = fields.read("attributes", object)?.unwrap_or_default();
    Ok((attributes, fields.read("toxicity", float)?))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a toxicity is a 32-bit float in Toxiproxy"
)]
fn float(value: &Value) -> Option<f32> {
    let value = value.as_f64()? as f32;
    value.is_finite().then_some(value)
}

fn object(value: &Value) -> Option<Map<String, Value>> {
    value.as_object().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_in_any_case_and_the_rest_is_ignored() {
        let proxy =
            new_proxy(br#"{"NAME":"a","Upstream":"u","x":1,"listen":null} trailing"#).unwrap();
        assert_eq!(proxy, Proxy::new("a", "", "u"));
    }

    #[test]
    fn bodies_that_are_no_json_of_the_shape_are_refused_with_the_prefix() {
        for (body, text) in [
            ("", "bad request body: EOF"),
            ("{", "bad request body: unexpected EOF"),
            (
                r#"{"name":1}"#,
                "bad request body: json: cannot unmarshal number into Go struct field .name",
            ),
            (
                "[]",
                "bad request body: json: cannot unmarshal array into Go value of type toxiproxy.Proxy",
            ),
        ] {
            assert_eq!(new_proxy(body.as_bytes()).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        assert!(new_proxy("[".repeat(100_000).as_bytes()).is_err());
    }
}
