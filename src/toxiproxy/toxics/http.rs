//! `http` (extension): faults of single HTTP requests. This file says *which* requests and *what*; it is
//! done where requests enter (`engine/gate.rs`), before all other toxics, so its `stream` has no meaning.
//!
//! | attribute | what becomes of the request |
//! |---|---|
//! | `status` | answered here with this status (and `body`); the upstream never sees it |
//! | `abort` | the connection is reset; the upstream never sees it |
//! | `drop_response` | the upstream gets and answers it; the answer is swallowed, the connection reset |
//! | `body` | the upstream's answer with another body |
//! | `delay` | it waits for this many ms before that, or before the upstream gets it |
//!
//! The first of them that is set, in this order, is what happens. It happens to the requests that `match`,
//! of those to each `every`-th, of those to a `share` (drawn from the seed), of those to the `first` so many;
//! all counted over the whole proxy. Requests are taken from the first byte on: one whose head began to pass
//! before the toxic was set is spared.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Attributes, Extra, Kind, Role, SMALL_ROOM, Shared, noop};
use crate::toxiproxy::clock::{Nanos, millis};
use crate::toxiproxy::requests::Head;

pub(super) const KIND: Kind = Kind {
    name: "http",
    attributes: &["status", "delay", "first", "every"],
    stage: noop::KIND.stage,
    room: SMALL_ROOM,
    role: Role::Requests,
    extras: &[
        Extra::flag("abort"),
        Extra::flag("drop_response"),
        Extra::text("body"),
        Extra {
            name: "match",
            wants: "object with method, path, header",
            fits: |value| Pattern::parse(value).is_some(),
        },
        Extra::share("share"),
    ],
};

/// One `http` toxic, read from its attributes.
#[derive(Debug)]
pub(crate) struct Rule {
    /// How long the request waits.
    pub(crate) delay: Nanos,
    /// What then happens.
    pub(crate) effect: Effect,
    pattern: Pattern,
    share: f64,
    first: u64,
    every: u64,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It passes.
    Pass,
    /// It is answered here.
    Answer {
        /// 200 to 999.
        status: u16,
        /// May be empty.
        body: Bytes,
    },
    /// The connection is reset before the upstream sees it.
    Abort,
    /// The connection is reset after the upstream has answered it.
    DropResponse,
    /// The answer gets this body.
    Body(Bytes),
}

impl Effect {
    fn new(attributes: &Attributes) -> Self {
        let body = attributes.extra("body").as_str();
        let body = body.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let status = u16::try_from(attributes.get("status")).unwrap_or(0);
        match body {
            body if (200..1000).contains(&status) => Self::Answer {
                status,
                body: body.unwrap_or_default(),
            },
            _ if attributes.flag("abort") => Self::Abort,
            _ if attributes.flag("drop_response") => Self::DropResponse,
            Some(body) => Self::Body(body),
            None => Self::Pass,
        }
    }
}

impl Rule {
    /// Reads the attributes of a toxic of this type.
    pub(crate) fn new(attributes: &Attributes) -> Self {
        let count = |name| u64::try_from(attributes.get(name)).unwrap_or(0);
        Self {
            delay: millis(attributes.get("delay")),
            effect: Effect::new(attributes),
            pattern: Pattern::parse(attributes.extra("match")).unwrap_or_default(),
            share: attributes.share("share", 1.0),
            first: count("first"),
            every: count("every"),
        }
    }

    /// Whether it acts on this request, which is counted if it matches. `unit` draws from [0, 1).
    pub(crate) fn acts_on(&self, head: &Head, shared: &Shared, unit: impl FnOnce() -> f64) -> bool {
        self.pattern.matches(head) && shared.choose(self.every, || unit() < self.share, self.first)
    }
}

/// Which requests are meant; `*` in a text stands for any characters. What is not given matches.
#[derive(Debug, Default)]
struct Pattern {
    method: Option<String>,
    path: Option<String>,
    header: Vec<(String, String)>,
}

impl Pattern {
    fn parse(value: &Value) -> Option<Self> {
        let mut pattern = Self::default();
        for (key, value) in value.as_object()? {
            match (key.as_str(), value) {
                ("method", Value::String(text)) => pattern.method = Some(text.to_uppercase()),
                ("path", Value::String(text)) => pattern.path = Some(text.clone()),
                ("header", Value::Object(fields)) => pattern.header = Self::header(fields)?,
                _ => return None,
            }
        }
        Some(pattern)
    }

    fn header(fields: &Map<String, Value>) -> Option<Vec<(String, String)>> {
        let field = |(name, value): (&String, &Value)| {
            value.as_str().map(|text| (name.clone(), text.to_owned()))
        };
        fields.iter().map(field).collect()
    }

    fn matches(&self, head: &Head) -> bool {
        let fits = |pattern: &Option<String>, text: &str| {
            pattern
                .as_ref()
                .is_none_or(|pattern| glob(pattern.as_bytes(), text.as_bytes()))
        };
        fits(&self.method, &head.method)
            && fits(&self.path, head.path())
            && self.header.iter().all(|(name, pattern)| {
                head.field(name)
                    .is_some_and(|value| glob(pattern.as_bytes(), value))
            })
    }
}

/// Whether a text is what the pattern says, `*` being any characters: greedy, with one way back.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place, mut retry) = (0, 0, None);
    while place < text.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at, place));
            at += 1;
        } else if pattern.get(at) == Some(&text[place]) {
            (at, place) = (at + 1, place + 1);
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (at, place) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(attributes: &str) -> Rule {
        let mut values = Attributes::new(&KIND);
        values
            .merge(&serde_json::from_str(attributes).unwrap())
            .unwrap();
        Rule::new(&values)
    }

    fn head(text: &str) -> Head {
        Head::of_request(text).unwrap()
    }

    #[test]
    fn pattern_looks_at_method_path_and_header() {
        let charge = head("POST /charges/7?x=1 HTTP/1.1\r\nX-Tier: gold\r\n\r\n");
        for (pattern, expected) in [
            ("{}", true),
            (r#"{"method":"post"}"#, true),
            (r#"{"method":"GET"}"#, false),
            (r#"{"path":"/charges/7"}"#, true),
            (r#"{"path":"/charges"}"#, false),
            (r#"{"path":"/charges/*"}"#, true),
            (r#"{"path":"*/7"}"#, true),
            (r#"{"path":"/c*g*/7*"}"#, true),
            (r#"{"path":"/c*x*/7"}"#, false),
            (r#"{"header":{"x-tier":"gold"}}"#, true),
            (r#"{"header":{"x-tier":"*"}}"#, true),
            (r#"{"header":{"x-tier":"*","y":"*"}}"#, false),
        ] {
            let rule = rule(&format!(r#"{{"match":{pattern}}}"#));
            let acts = rule.acts_on(&charge, &Shared::default(), || 0.0);
            assert_eq!(acts, expected, "{pattern}");
        }
    }

    /// Numbers of the requests of 100 that are acted on.
    fn chosen(attributes: &str) -> Vec<usize> {
        let (rule, shared) = (rule(attributes), Shared::default());
        let get = head("GET / HTTP/1.1\r\n\r\n");
        (1..=100)
            .filter(|number| rule.acts_on(&get, &shared, || (number % 4) as f64 / 4.0))
            .collect()
    }

    #[test]
    fn every_share_and_first_are_exact_and_combine() {
        assert_eq!(chosen(r#"{"first":2}"#), [1, 2]);
        assert_eq!(chosen(r#"{"every":25}"#), [25, 50, 75, 100]);
        assert_eq!(chosen(r#"{"every":25,"first":3}"#), [25, 50, 75]);
        assert_eq!(chosen(r#"{"every":10,"share":0.5}"#), [20, 40, 60, 80, 100]);
        assert_eq!(chosen(r#"{"share":0.5,"first":3}"#), [1, 4, 5]);
        assert!(chosen(r#"{"share":0.0}"#).is_empty());
        assert_eq!(chosen("{}").len(), 100);
    }

    #[test]
    fn effect_is_the_first_that_is_set() {
        let effect = |attributes: &str| rule(attributes).effect;
        assert_eq!(effect("{}"), Effect::Pass);
        assert_eq!(effect(r#"{"status":99}"#), Effect::Pass);
        assert_eq!(effect(r#"{"body":"x"}"#), Effect::Body("x".into()));
        assert_eq!(
            effect(r#"{"abort":true,"drop_response":true}"#),
            Effect::Abort
        );
        assert_eq!(
            effect(r#"{"status":503,"body":"x","drop_response":true}"#),
            Effect::Answer {
                status: 503,
                body: "x".into()
            }
        );
    }
}
