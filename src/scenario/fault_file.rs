//! Faults as the scenario file writes them.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::json::Json;
use super::text::{ByteRate, Map, Share, Short, Size, Spanned, Text, Time, Unsupported};

/// What is broken, where, from when to when.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultFile {
    /// When it starts, from the end of the baseline.
    #[serde(default)]
    pub at: Option<Time>,
    /// It starts when this fault has ended.
    #[serde(default)]
    pub after: Option<Text>,
    /// How long after the end of `after`.
    #[serde(default)]
    pub delay: Option<Time>,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    pub when: Option<Spanned<Unsupported>>,
    /// How long it lasts.
    #[serde(default, rename = "for")]
    pub lasts: Option<Time>,
    /// Its start moves by up to this much, drawn from the seed.
    #[serde(default)]
    pub spread: Option<Time>,
    /// The link it acts on: `payments -> psp`.
    #[serde(default)]
    pub link: Option<Text>,
    /// The links it acts on.
    #[serde(default)]
    pub links: Option<Vec<Text>>,
    /// Every link of this caller.
    #[serde(default)]
    pub from: Option<Text>,
    /// Every link to this callee.
    #[serde(default)]
    pub to: Option<Text>,
    /// The service it acts on.
    #[serde(default)]
    pub service: Option<Text>,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    pub replica: Option<Spanned<Unsupported>>,
    /// Which way, from the caller's point of view; default `response`.
    #[serde(default)]
    pub direction: Option<Spanned<DirectionFile>>,
    /// What happens there.
    pub inject: Spanned<InjectFile>,
}

/// Which way, from the caller's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DirectionFile {
    /// Caller to callee.
    Request,
    /// Callee to caller.
    Response,
    /// Both.
    Both,
}

/// The closed set of faults.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = allow_bare_words)]
pub enum InjectFile {
    /// Every chunk is delayed: `latency: 300ms` or `latency: { latency: 300ms, jitter: 50ms }`.
    Latency(Spanned<Short<LatencyFile>>),
    /// Bytes are held, and delivered when the fault ends.
    Stall,
    /// Bytes are dropped, and nobody hears of a close; connections are closed when the fault ends.
    Blackhole,
    /// Bytes per second: `bandwidth: 100KB/s`.
    Bandwidth(ByteRate),
    /// A close is passed on late: `slow-close: 1s`.
    SlowClose(Time),
    /// A connection is closed after this much data: `limit-data: 4KiB`.
    LimitData(Size),
    /// Data arrives in small pieces.
    Slicer(SlicerFile),
    /// A connection is reset some time after its first chunk.
    ResetPeer(ResetPeerFile),
    /// All live connections are reset at once.
    Reset,
    /// New connections are opened late: `slow-open: 1s`.
    SlowOpen(Time),
    /// A connection is closed after this time: `limit-time: 10s`.
    LimitTime(Time),
    /// Single bits are flipped.
    Corrupt(CorruptFile),
    /// Segments are lost and sent again, as TCP does: nothing is missing, much is late.
    Loss(LossFile),
    /// Single requests fail, wait, or lose their answer; the link must be declared `protocol: http`.
    Http(Spanned<HttpFile>),
    /// Nothing gets through.
    Down(DownFile),
    /// A toxic in Toxiproxy's own words and units.
    Toxic(Spanned<ToxicFile>),
    /// SIGKILL, then started again.
    Kill(KillFile),
    /// Its stop signal; started again when the fault ends.
    Stop,
    /// SIGSTOP; SIGCONT when the fault ends.
    Pause,
    /// Its stop signal, then started again.
    Restart(RestartFile),
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    RollingRestart(Unsupported),
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    LockDatabase(Unsupported),
    #[schemars(skip)]
    #[expect(missing_docs, reason = "not supported yet, so not in the schema")]
    Partition(Unsupported),
}

/// Faults whose settings all have defaults may be written as a word alone.
fn allow_bare_words(schema: &mut Schema) {
    let words = serde_json::json!({ "enum": ["down", "corrupt", "loss", "kill", "restart"] });
    if let Some(list) = schema.get_mut("oneOf").and_then(|list| list.as_array_mut()) {
        list.push(words);
    }
}

/// A delay.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LatencyFile {
    /// The delay.
    pub latency: Time,
    /// How much it varies, as `distribution` says.
    #[serde(default)]
    pub jitter: Option<Time>,
    /// `uniform` (default): within the jitter, either way. `normal`: the jitter is the standard
    /// deviation. `pareto`: `latency` is the least, the jitter scales a long tail.
    #[serde(default)]
    pub distribution: Option<Spanned<DistributionFile>>,
}

/// How delays vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DistributionFile {
    /// Within the jitter, either way.
    Uniform,
    /// The jitter is the standard deviation.
    Normal,
    /// The latency is the least; the jitter scales a long tail.
    Pareto,
}

/// Flipped bits.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CorruptFile {
    /// One bit in about so many bytes; default 1KB.
    #[serde(default)]
    pub every: Option<Size>,
}

/// Lost segments.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LossFile {
    /// Share of segments that are lost; default 1%.
    #[serde(default)]
    pub share: Option<Share>,
    /// How long until one is sent again, doubled each time; default 200ms, the shortest of Linux.
    #[serde(default)]
    pub timeout: Option<Time>,
}

/// What happens to single requests: exactly one of `status`, `abort`, `drop-response`, `body`, `delay`;
/// `body` may go with `status`, `delay` with each.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpFile {
    /// The proxy answers with this status; the callee never sees the request.
    #[serde(default)]
    pub status: Option<Spanned<u16>>,
    /// `true`: the connection is reset; the callee never sees the request.
    #[serde(default)]
    pub abort: bool,
    /// `true`: the callee gets the request and answers it; the answer is lost and the connection reset.
    #[serde(default)]
    pub drop_response: bool,
    /// The answer gets this body.
    #[serde(default)]
    pub body: Option<String>,
    /// The request waits for so long before it is sent on.
    #[serde(default)]
    pub delay: Option<Time>,
    /// Which requests are meant; default: all.
    #[serde(default, rename = "match")]
    pub matches: Option<HttpMatchFile>,
    /// A share of those that match, drawn from the seed.
    #[serde(default)]
    pub share: Option<Share>,
    /// Only so many, from the first.
    #[serde(default)]
    pub first: Option<Spanned<u32>>,
    /// Only every so-manieth of those that match.
    #[serde(default)]
    pub every: Option<Spanned<u32>>,
}

/// Which requests are meant; `*` stands for any text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpMatchFile {
    /// `POST`.
    #[serde(default)]
    pub method: Option<String>,
    /// `/charges/*`, without the query.
    #[serde(default)]
    pub path: Option<String>,
    /// Fields of the head that it must have: `{ X-Tier: gold }`.
    #[serde(default)]
    pub header: Map<String>,
}

/// Data in small pieces.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SlicerFile {
    /// Average size of a piece.
    pub average_size: Size,
    /// How much sizes vary; less than the average.
    #[serde(default)]
    pub size_variation: Option<Size>,
    /// Pause after each piece.
    #[serde(default)]
    pub delay: Option<Time>,
}

/// A reset after a while.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ResetPeerFile {
    /// How long after the first chunk.
    pub after: Time,
}

/// How connections are turned away.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DownFile {
    /// `refuse` (default): the port is closed, live connections are cut. `reset`: connections are
    /// accepted, their request is counted, then they are reset.
    #[serde(default)]
    pub how: Option<DownHowFile>,
}

/// How connections are turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DownHowFile {
    /// The port is closed.
    Refuse,
    /// Accepted, counted, reset.
    Reset,
}

/// A toxic in Toxiproxy's own words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ToxicFile {
    /// `latency`, `timeout`, `bandwidth`, `slow_close`, `reset_peer`, `slicer`, `limit_data`.
    #[serde(rename = "type")]
    pub kind: Text,
    /// Its attributes, in Toxiproxy's units.
    #[serde(default)]
    pub attributes: Map<Json>,
    /// Share of connections it acts on, from 0 to 1; default 1.
    #[serde(default)]
    pub toxicity: Option<Spanned<f64>>,
}

/// SIGKILL, then started again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KillFile {
    /// For how long it stays down; default 0s.
    #[serde(default)]
    pub down_for: Option<Time>,
}

/// A stop signal, then started again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RestartFile {
    /// `TERM`, `INT`, `HUP`, `QUIT` or `KILL`; default: the service's stop signal.
    #[serde(default)]
    pub signal: Option<Text>,
    /// For how long it stays down; default 0s.
    #[serde(default)]
    pub down_for: Option<Time>,
}
