//! The shapes that go over HTTP, as plain data: those of Toxiproxy 2.12 and our extensions.
//!
//! Extensions are left out of an answer while they have their default, so an ordinary client of
//! Toxiproxy sees exactly the fields that it knows. Nothing here does any work; the client and the
//! server both read and write these types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// One proxy: a listening address, where it leads, and the toxics on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proxy {
    /// Unique name, case-sensitive.
    pub name: String,
    /// Address it listens on; in answers the bound one.
    #[serde(default)]
    pub listen: String,
    /// Address that it dials, `host:port`.
    pub upstream: String,
    /// Whether it listens at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Upstream toxics first, then downstream ones, each in chain order.
    #[serde(default)]
    pub toxics: Vec<Toxic>,
    /// Extension: what the bytes are; `http` switches the request log on.
    #[serde(default, skip_serializing_if = "Protocol::is_opaque")]
    pub protocol: Protocol,
    /// Extension: the request header whose value is hashed into [`RequestRow::key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlate: Option<String>,
    /// Extension: what a caller meets while the upstream does not listen.
    #[serde(default, skip_serializing_if = "WhenDown::is_accept")]
    pub when_down: WhenDown,
    /// Extension, used with [`WhenDown::Refuse`]: whether the upstream listens. Until a call says so, the proxy
    /// tries it ten times a second. Answers show it only while the upstream does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_up: Option<bool>,
}

impl Proxy {
    /// An enabled proxy without toxics or extensions.
    pub fn new(
        name: impl Into<String>,
        listen: impl Into<String>,
        upstream: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            listen: listen.into(),
            upstream: upstream.into(),
            enabled: true,
            toxics: Vec::new(),
            protocol: Protocol::Opaque,
            correlate: None,
            when_down: WhenDown::Accept,
            upstream_up: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// What flows through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Any bytes: no request log.
    #[default]
    Opaque,
    /// HTTP/1.1: every request is logged.
    Http,
}

impl Protocol {
    /// Whether this is the default, which answers leave out.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        *self == Self::Opaque
    }
}

/// What a caller meets while the upstream of a proxy does not listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// As Toxiproxy: the connection is accepted and then closed.
    #[default]
    Accept,
    /// As without a proxy: while the upstream does not listen the listener is closed, so connects are refused.
    Refuse,
}

impl WhenDown {
    /// Whether this is the default, which answers leave out.
    #[must_use]
    pub fn is_accept(&self) -> bool {
        *self == Self::Accept
    }
}

/// A change of a proxy; what is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyUpdate {
    /// New listening address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// New upstream address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Switches the proxy on or off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Extension: the upstream began (`true`) or ceased (`false`) to listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_up: Option<bool>,
}

/// The direction a toxic acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// From the caller to the upstream: requests.
    Upstream,
    /// From the upstream to the caller: responses.
    Downstream,
}

impl Stream {
    /// The text used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        }
    }

    /// Reads the text of a request, in any case, as Toxiproxy does.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Upstream, Self::Downstream]
            .into_iter()
            .find(|stream| stream.as_str().eq_ignore_ascii_case(text))
    }
}

/// One toxic on one direction of a proxy. Units are those of Toxiproxy, per attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Toxic {
    /// Attributes by name; a server lists all that the type has.
    #[serde(default)]
    pub attributes: Map<String, Value>,
    /// Unique within the proxy; empty asks for `<type>_<stream>`.
    #[serde(default)]
    pub name: String,
    /// `latency`, `bandwidth`, `timeout`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `upstream` or `downstream`, as it was sent.
    #[serde(default = "downstream")]
    pub stream: String,
    /// Share of *connections* it acts on, 0 to 1, not range-checked.
    #[serde(default = "whole", serialize_with = "go_float")]
    pub toxicity: f32,
}

impl Toxic {
    /// A toxic on every connection, without attributes.
    pub fn new(name: impl Into<String>, kind: impl Into<String>, stream: Stream) -> Self {
        Self {
            attributes: Map::new(),
            name: name.into(),
            kind: kind.into(),
            stream: stream.as_str().to_owned(),
            toxicity: 1.0,
        }
    }

    /// The same toxic with one attribute set.
    #[must_use]
    pub fn with(mut self, attribute: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(attribute.to_owned(), value.into());
        self
    }
}

fn downstream() -> String {
    Stream::Downstream.as_str().to_owned()
}

fn whole() -> f32 {
    1.0
}

/// Writes the shortest number that reads back the same, as Go does: clients compare texts.
fn go_float<S: serde::Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    let size = value.abs();
    let text = if size == 0.0 || (1e-6..1e21).contains(&size) {
        value.to_string()
    } else if size >= 1e21 {
        format!("{value:e}").replace('e', "e+")
    } else {
        format!("{value:e}")
    };
    // What is no number has no form in JSON, and never gets here from JSON.
    let number = RawValue::from_string(text).map_err(serde::ser::Error::custom)?;
    number.serialize(serializer)
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `2.12.0` on a real server; ours ends with `-chaos`.
    pub version: String,
}

/// Answer of `POST /populate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Populated {
    /// The proxies that now exist by this call; `null` when the input was empty.
    pub proxies: Option<Vec<Proxy>>,
}

/// Extension: answer of `PUT /proxies/{p}/toxics`, the whole set replaced at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToxicsSet {
    /// The generation that this set is; compare with [`ProxyStats::generation`].
    pub generation: u64,
    /// The set as stored.
    pub toxics: Vec<Toxic>,
}

/// The error body of every call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What was wrong, in Toxiproxy's words.
    pub error: String,
    /// The HTTP status once more.
    pub status: u16,
}

/// Extension: answer of `GET /stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllStats {
    /// When it was read, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// By proxy name.
    pub proxies: BTreeMap<String, ProxyStats>,
}

/// Extension: live statistics of one proxy. Counters only ever grow while the proxy exists.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ProxyStats {
    /// Switched on.
    pub enabled: bool,
    /// The listener is open now: enabled, and not closed by `when_down: refuse`.
    pub listening: bool,
    /// Connections, in numbers.
    pub connections: ConnectionStats,
    /// Bytes, each way.
    pub bytes: ByteStats,
    /// The generation of the set of toxics now.
    pub generation: u64,
    /// Live connections that run this generation in both directions.
    pub current: u64,
    /// Live connections that do not yet.
    pub older: u64,
    /// Whether no live connection runs an older set.
    pub confirmed: bool,
    /// Requests seen at entry (`protocol: http` only).
    pub requests: u64,
    /// Connections whose bytes could not be read as HTTP/1.1 (`protocol: http` only).
    pub opaque: u64,
    /// By toxic name, also of toxics that were removed.
    pub toxics: BTreeMap<String, ToxicStats>,
}

/// Connections of one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionStats {
    /// Live now.
    pub open: u64,
    /// Accepted so far.
    pub accepted: u64,
    /// Accepted, but the upstream could not be dialled.
    pub refused: u64,
    /// Ended by a reset, whoever sent it.
    pub reset: u64,
    /// Cut by a toxic or by switching the proxy off.
    pub cut: u64,
}

/// Bytes of one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByteStats {
    /// Read from callers.
    pub upstream_received: u64,
    /// Written to the upstream.
    pub upstream_sent: u64,
    /// Read from the upstream.
    pub downstream_received: u64,
    /// Written to callers.
    pub downstream_sent: u64,
    /// Of what was written either way, what went from socket to socket inside the kernel.
    #[serde(default)]
    pub spliced: u64,
}

/// What one toxic did, summed over all connections. It keeps counting when a toxic of the same name is
/// added again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToxicStats {
    /// Connections that it runs on: all that its toxicity did not spare.
    pub connections: u64,
    /// Those of them to which it did something.
    pub touched: u64,
    /// Chunks that had to wait for a time.
    pub delayed_chunks: u64,
    /// Their bytes.
    pub delayed_bytes: u64,
    /// Chunks held until something changes.
    pub held_chunks: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Chunks swallowed.
    pub dropped_chunks: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Chunks cut into pieces or altered.
    pub changed_chunks: u64,
    /// Connections that it closed.
    pub closed: u64,
    /// Connections that it reset.
    pub reset: u64,
    /// Requests of which a byte, of the request or of its answer, was delayed, held, dropped, changed, or
    /// which were cut off by it (`protocol: http` only).
    pub requests: u64,
}

/// Extension: answer of `GET /requests` and `GET /proxies/{p}/requests`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestRows {
    /// Rows after the asked position, oldest first.
    pub rows: Vec<RequestRow>,
    /// What to pass as `after` next time.
    pub next: u64,
    /// Rows that were overwritten before they were asked for, of all proxies together.
    pub lost: u64,
}

/// One HTTP/1.1 request that entered a proxy. All times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRow {
    /// Position in the log, growing, over all proxies.
    pub seq: u64,
    /// The proxy it entered.
    pub proxy: String,
    /// Number of the connection on this proxy, from 1.
    pub connection: u64,
    /// When its first byte was read from the caller, before any toxic.
    pub at: u64,
    /// When the first byte of its answer was read from the upstream.
    #[serde(default)]
    pub arrived: Option<u64>,
    /// When the first byte of its answer was written to the caller, after all toxics.
    #[serde(default)]
    pub first_byte: Option<u64>,
    /// When it ended; `None` while open.
    #[serde(default)]
    pub ended: Option<u64>,
    /// `GET`, `POST`, …
    pub method: String,
    /// Path without query, at most 512 bytes.
    pub path: String,
    /// [`key_hash`] of the chosen header, when the request has it.
    #[serde(default)]
    pub key: Option<String>,
    /// Trace id of `traceparent`, 32 hex digits.
    #[serde(default)]
    pub trace: Option<String>,
    /// Status that the upstream answered, whether or not it reached the caller; or the fault in its place.
    #[serde(default)]
    pub status: Option<u16>,
    /// How it ended.
    pub end: RequestEnd,
}

/// How a request ended, seen at the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestEnd {
    /// The last byte of the answer was written to the caller.
    Answered,
    /// A toxic, or switching the proxy off, closed the connection first.
    CutByFault,
    /// The caller closed or reset the connection first.
    ClosedByCaller,
    /// The upstream closed or reset the connection first.
    ClosedByCallee,
    /// A toxic reset the connection.
    Reset,
    /// The upstream could not be dialled.
    Refused,
    /// Not ended yet.
    Open,
}

/// The hash of a correlation key: FNV-1a of its bytes, 64 bits, as 16 hex digits. Whoever joins the
/// request log with keys of its own computes the same.
#[must_use]
pub fn key_hash(key: &[u8]) -> String {
    format!("{:016x}", fnv1a(key))
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; offset basis and prime of draft-eastlake-fnv).
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_hash_is_the_published_fnv_1a() {
        assert_eq!(key_hash(b""), "cbf29ce484222325");
        assert_eq!(key_hash(b"a"), "af63dc4c8601ec8c");
        assert_eq!(key_hash(b"foobar"), "85944171f73967e8");
    }

    #[test]
    fn toxic_has_the_key_order_and_numbers_of_toxiproxy() {
        let mut toxic = Toxic::new("slow", "latency", Stream::Upstream).with("latency", 5);
        let text = |toxic: &Toxic| serde_json::to_string(toxic).unwrap();
        assert_eq!(
            text(&toxic),
            r#"{"attributes":{"latency":5},"name":"slow","type":"latency","stream":"upstream","toxicity":1}"#
        );
        for (toxicity, shown) in [
            (0.2, "0.2"),
            (-1.0, "-1"),
            (1e-9, "1e-9"),
            (1e20, "100000000000000000000"),
            (1e30, "1e+30"),
        ] {
            toxic.toxicity = toxicity;
            assert!(text(&toxic).ends_with(&format!(r#""toxicity":{shown}}}"#)));
        }
    }

    #[test]
    fn ordinary_proxy_shows_no_extension() {
        let text = serde_json::to_string(&Proxy::new("a", "l", "u")).unwrap();
        assert_eq!(
            text,
            r#"{"name":"a","listen":"l","upstream":"u","enabled":true,"toxics":[]}"#
        );
    }
}
