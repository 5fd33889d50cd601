//! What is driven against the system: arrivals, journeys, feeds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SourceRef;
use super::names::*;
use super::quantity::duration_serde;
use super::template::Template;

/// Users that a worker holds at most; each costs memory and a connection.
pub const USERS_MAX: u32 = 2_000;

/// The load of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadPlan {
    /// Open (a schedule) or closed (users in a loop).
    pub model: LoadModel,
    /// Users that are held ready; a ticket that finds none in time is dropped and counted.
    pub users_max: u32,
    /// Bound of one request.
    #[serde(with = "duration_serde")]
    pub timeout: Duration,
    /// The journeys that are driven, with their weights, in the order of the system file.
    pub journeys: Vec<JourneyPlan>,
    /// Values for journeys.
    pub feeds: Vec<FeedPlan>,
    /// Requests per second to expect from the steps at the highest rate, fewest and most
    /// (`until` polls): "40 journeys/s, 80 to 200 requests/s".
    pub requests_per_s: (f64, f64),
}

/// Who decides when a journey starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadModel {
    /// A schedule decides, whatever the system does.
    Open(Arrivals),
    /// The system decides: each user starts again when it was answered. Under-counts stalls.
    Closed {
        /// Users.
        users: u32,
        /// Pause between two journeys of a user.
        #[serde(with = "duration_serde")]
        think: Duration,
    },
}

/// The arrival schedule from T0 to the end of the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Arrivals {
    /// Seeded Poisson arrivals; else evenly spaced.
    pub poisson: bool,
    /// Stretches of linearly changing rate. The last one lasts to the end of the load.
    pub segments: Vec<Segment>,
}

/// A stretch of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Segment {
    /// Journeys per second at its start.
    pub from_per_s: f64,
    /// Journeys per second at its end.
    pub to_per_s: f64,
    /// How long it lasts.
    #[serde(with = "duration_serde")]
    pub over: Duration,
}

/// A journey: steps that one user takes one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JourneyPlan {
    /// Its name.
    pub name: JourneyName,
    /// Where it was declared.
    pub source: SourceRef,
    /// Its share of the tickets is weight / sum of weights.
    pub weight: f64,
    /// The link that carries it: `load -> gateway`.
    pub link: LinkName,
    /// Its steps.
    pub steps: Vec<StepPlan>,
}

/// A step of a journey: one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepPlan {
    /// The operation's name.
    pub name: OperationName,
    /// Declared pause before it.
    #[serde(with = "duration_serde")]
    pub think: Duration,
    /// The request.
    pub request: Request,
    /// Which answers mean what.
    pub outcome: OutcomeMap,
    /// What is kept of the answer. A step whose answer lacks it ends the journey.
    pub capture: Vec<Capture>,
    /// Polls until the answer says so; the whole is one operation.
    pub until: Option<Until>,
}

/// A request with its substitutions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Request {
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: String,
    /// Path and query.
    pub path: Template,
    /// Headers, in order.
    pub headers: Vec<(String, Template)>,
    /// A JSON body; its strings are templates, and one that is a substitution alone keeps its type.
    pub json: Option<Value>,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeClass {
    /// It happened.
    Done,
    /// It exists and will become final, either way (202).
    Accepted,
    /// It definitely did nothing.
    Refused,
    /// The effect may have happened or may still: time-out, reset, 5xx without a contract.
    Unknown,
    /// An `until` that did not come true in time.
    Unsettled,
}

/// Which statuses mean what. Anything else is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OutcomeMap {
    /// Statuses that mean it happened.
    pub done: Vec<StatusRange>,
    /// Statuses that mean it exists and will become final.
    pub accepted: Vec<StatusRange>,
    /// Statuses that mean it did nothing.
    pub refused: Vec<StatusRange>,
    /// A path into the JSON body that must be null or absent, else the outcome is unknown:
    /// `.errors` for `body: .errors == null`.
    pub body_null: Option<JsonPath>,
}

/// Statuses from first to last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRange(pub u16, pub u16);

impl OutcomeMap {
    /// The class of an answer with this status (the body's say comes on top).
    pub fn class(&self, status: u16) -> OutcomeClass {
        let holds = |ranges: &[StatusRange]| ranges.iter().any(|r| r.0 <= status && status <= r.1);
        if holds(&self.done) {
            OutcomeClass::Done
        } else if holds(&self.accepted) {
            OutcomeClass::Accepted
        } else if holds(&self.refused) {
            OutcomeClass::Refused
        } else {
            OutcomeClass::Unknown
        }
    }
}

/// A value kept of an answer under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Capture {
    /// The name: `$(order)`.
    pub name: String,
    /// Where it is in the JSON body.
    pub json: JsonPath,
}

/// Polling of an operation until its answer holds a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Until {
    /// Where to look in the JSON body.
    pub json: JsonPath,
    /// The values that end it.
    pub values: Vec<Value>,
    /// How long it may take from the step's intended start.
    #[serde(with = "duration_serde")]
    pub within: Duration,
}

/// A plain path into a JSON document: `.items[0].id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JsonPath(Vec<Key>);

/// One step of a [`JsonPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Field(String),
    Index(usize),
}

impl JsonPath {
    /// Reads `.a.b[0]`; the error is a phrase.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no plain path such as `.items[0].id`");
        let mut keys = Vec::new();
        let mut rest = text.trim().strip_prefix('.').ok_or_else(bad)?;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let (index, after) = after.split_once(']').ok_or_else(bad)?;
                keys.push(Key::Index(index.parse().map_err(|_| bad())?));
                rest = after.strip_prefix('.').unwrap_or(after);
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                if end == 0
                    || !rest[..end]
                        .chars()
                        .all(|c| c.is_alphanumeric() || "_-".contains(c))
                {
                    return Err(bad());
                }
                keys.push(Key::Field(rest[..end].to_owned()));
                rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
            }
        }
        Ok(Self(keys))
    }

    /// The value there, if any.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, key| match key {
            Key::Field(name) => value.get(name),
            Key::Index(index) => value.get(index),
        })
    }
}

impl TryFrom<String> for JsonPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<JsonPath> for String {
    fn from(path: JsonPath) -> Self {
        let mut text = String::new();
        for key in &path.0 {
            match key {
                Key::Field(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                Key::Index(index) => {
                    if text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(&format!("[{index}]"));
                }
            }
        }
        if text.is_empty() { ".".into() } else { text }
    }
}

/// Values for journeys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FeedPlan {
    /// Its name.
    pub name: FeedName,
    /// Its rows; empty when `setup` fills it.
    pub rows: Vec<FeedRow>,
    /// In which order rows are drawn.
    pub order: FeedOrder,
    /// What happens when they are used up.
    pub at_end: FeedEnd,
}

/// A row of a feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedRow {
    /// One value: `$(pick:sku)`.
    Plain(Value),
    /// Named fields: `$(pick:tokens.token)`.
    Fields(BTreeMap<String, Value>),
}

/// In which order rows of a feed are drawn. Either way the row is a function of seed and ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedOrder {
    /// Ticket k draws row k.
    Sequence,
    /// A seeded draw.
    Random,
}

/// What happens when a sequence is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedEnd {
    /// Starts again.
    Restart,
    /// The load ends.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_finds_what_it_names_and_reads_back() {
        let path = JsonPath::parse(".items[1].id").unwrap();
        assert_eq!(
            path.find(&json!({"items": [{"id": 1}, {"id": 2}]})),
            Some(&json!(2))
        );
        assert_eq!(path.find(&json!({"items": []})), None);
        assert_eq!(String::from(path), ".items[1].id");
        assert!(JsonPath::parse("items").is_err());
        assert!(JsonPath::parse(".a | .b").is_err());
    }

    #[test]
    fn a_status_that_nothing_names_is_unknown() {
        let map = OutcomeMap {
            done: vec![StatusRange(201, 201)],
            accepted: vec![StatusRange(202, 202)],
            refused: vec![StatusRange(402, 402), StatusRange(409, 409)],
            body_null: None,
        };
        assert_eq!(map.class(201), OutcomeClass::Done);
        assert_eq!(map.class(409), OutcomeClass::Refused);
        assert_eq!(map.class(503), OutcomeClass::Unknown);
        assert_eq!(map.class(200), OutcomeClass::Unknown);
    }
}
