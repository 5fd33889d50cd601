//! The requests of one connection: pairs them with their answers and says how each ended.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use super::RequestLog;
use super::http1::{Body, Head, Parser, Progress, Side};
use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::engine::{Stats, locked};
use crate::toxiproxy::toxics::Part;
use crate::toxiproxy::wire::{RequestEnd, RequestRow, Stream, key_hash};

/// Requests that may be under way on one connection; beyond, it is not followed any more.
const OPEN_MAX: usize = 1024;

/// Bytes of a path that are kept.
const PATH_MAX: usize = 512;
/// Longest method that is kept.
const METHOD_MAX: usize = 32;

/// Some of the bytes given to [`ConnectionLog::entered`], and to what they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) length: usize,
    pub(crate) request: u64,
    pub(crate) part: Part,
    /// The head that ends with these bytes, if heads were asked for.
    pub(crate) head: Option<Box<Head>>,
}

/// The log of one connection. Shared by its task and the API.
pub(crate) struct ConnectionLog {
    log: Arc<RequestLog>,
    proxy: Arc<str>,
    connection: u64,
    correlate: Option<String>,
    stats: Arc<Stats>,
    state: Mutex<State>,
}

struct State {
    requests: Parser,
    responses: Parser,
    /// Not HTTP/1.1 (any more): nothing is read.
    opaque: bool,
    /// Something was read as a request, or as none.
    heard: bool,
    last_number: u64,
    /// The head of the last request was read and its body was not.
    in_body: bool,
    /// When the first byte of the request in hand came.
    began: Nanos,
    /// Requests that have not ended.
    open: VecDeque<Exchange>,
    /// The request whose answer is being read; 0 while none is.
    answering: u64,
    /// The source that closed first.
    closed: Option<(Stream, Nanos)>,
}

/// A request and what is known of its answer.
struct Exchange {
    number: u64,
    row: RequestRow,
    head_only: bool,
    upgrades: bool,
    /// The upstream has answered it in full, or never hears of it.
    replied: bool,
    /// It is in the log already, as open.
    published: bool,
}

impl ConnectionLog {
    /// The log of a connection that was just accepted.
    pub(crate) fn new(
        log: Arc<RequestLog>,
        proxy: Arc<str>,
        connection: u64,
        correlate: Option<String>,
        stats: Arc<Stats>,
    ) -> Self {
        let state = State {
            requests: Parser::new(Side::Requests),
            responses: Parser::new(Side::Responses),
            opaque: false,
            heard: false,
            last_number: 0,
            in_body: false,
            began: 0,
            open: VecDeque::new(),
            answering: 0,
            closed: None,
        };
        Self {
            log,
            proxy,
            connection,
            correlate,
            stats,
            state: Mutex::new(state),
        }
    }

    /// Bytes were read from a source, before any toxic. Says to which request each of them belongs; with
    /// `heads`, also where heads end.
    pub(crate) fn entered(&self, stream: Stream, data: &[u8], at: Nanos, heads: bool) -> Vec<Span> {
        let mut state = locked(&self.state);
        let mut spans = Vec::with_capacity(1);
        let mut rest = data;
        while !rest.is_empty() {
            let mut span = match stream {
                _ if state.opaque => Span {
                    length: rest.len(),
                    request: 0,
                    part: Part::Opaque,
                    head: None,
                },
                Stream::Upstream => self.request_bytes(&mut state, rest, at),
                Stream::Downstream => self.response_bytes(&mut state, rest, at),
            };
            rest = &rest[span.length..];
            span.head = span.head.filter(|_| heads);
            join(&mut spans, span);
        }
        spans
    }

    fn request_bytes(&self, state: &mut State, data: &[u8], at: Nanos) -> Span {
        if state.requests.between_messages() {
            state.began = at;
        }
        let (length, progress) = state.requests.read(data);
        let mut request = state.last_number + u64::from(!state.in_body);
        let mut ended = None;
        let part = match progress {
            Progress::More => Part::Inside,
            Progress::End => Part::Last,
            Progress::Unreadable => {
                self.give_up(state);
                request = 0;
                Part::Opaque
            }
            Progress::Head(head) => match head.body(Side::Requests) {
                Some(body) if state.open.len() < OPEN_MAX => {
                    self.begin(state, &head);
                    request = state.last_number;
                    ended = Some(Box::new(head));
                    if state.requests.expect(body) {
                        Part::Last
                    } else {
                        Part::Inside
                    }
                }
                _ => {
                    self.give_up(state);
                    request = 0;
                    Part::Opaque
                }
            },
        };
        if part == Part::Last {
            state.in_body = false;
        }
        Span {
            length,
            request,
            part,
            head: ended,
        }
    }

    fn begin(&self, state: &mut State, head: &Head) {
        state.heard = true;
        state.last_number += 1;
        state.in_body = true;
        self.stats.requests.fetch_add(1, Relaxed);
        let row = RequestRow {
            seq: 0,
            proxy: self.proxy.to_string(),
            connection: self.connection,
            at: state.began,
            arrived: None,
            first_byte: None,
            ended: None,
            method: cut(&head.method, METHOD_MAX),
            path: cut(head.path(), PATH_MAX),
            key: self
                .correlate
                .as_deref()
                .and_then(|name| head.field(name))
                .map(key_hash),
            trace: head.field("traceparent").and_then(trace_id),
            status: None,
            end: RequestEnd::Open,
        };
        state.open.push_back(Exchange {
            number: state.last_number,
            row,
            head_only: head.method == "HEAD",
            upgrades: head.upgrades(),
            replied: false,
            published: false,
        });
    }

    fn response_bytes(&self, state: &mut State, data: &[u8], at: Nanos) -> Span {
        if state.answering == 0 {
            let waiting = state.open.iter().find(|exchange| !exchange.replied);
            state.answering = waiting.map_or(0, |exchange| exchange.number);
        }
        let request = state.answering;
        let (length, progress) = state.responses.read(data);
        let mut ended = None;
        let part = match progress {
            Progress::More => Part::Inside,
            Progress::End => Part::Last,
            Progress::Unreadable => {
                self.give_up(state);
                Part::Opaque
            }
            Progress::Head(head) => {
                let part = self.answer(state, &head, at);
                ended = Some(Box::new(head));
                part
            }
        };
        if part == Part::Last {
            state.replied(request);
        }
        Span {
            length,
            request,
            part,
            head: ended,
        }
    }

    /// The head of an answer was read: how the bytes of that head are to be seen.
    fn answer(&self, state: &mut State, head: &Head, at: Nanos) -> Part {
        let number = state.answering;
        let interim = (100..200).contains(&head.status) && head.status != 101;
        if interim {
            state.responses.expect(Body::Length(0));
            return Part::Interim;
        }
        let mut bodiless = matches!(head.status, 204 | 304);
        let mut switched = head.status == 101;
        if let Some(exchange) = state.find(number) {
            exchange.row.status = Some(head.status);
            exchange.row.arrived = Some(at);
            bodiless |= exchange.head_only;
            let connected = exchange.row.method == "CONNECT" && (200..300).contains(&head.status);
            switched = exchange.upgrades && (switched || connected);
        }
        if switched {
            state.opaque = true;
            return Part::Last;
        }
        let body = if bodiless {
            Some(Body::Length(0))
        } else {
            head.body(Side::Responses)
        };
        match body {
            Some(body) if state.responses.expect(body) => Part::Last,
            Some(_) => Part::Inside,
            None => {
                self.give_up(state);
                Part::Opaque
            }
        }
    }

    /// What follows cannot be read: what was read so far stands.
    fn give_up(&self, state: &mut State) {
        state.opaque = true;
        state.heard = true;
        self.stats.opaque.fetch_add(1, Relaxed);
    }

    /// The upstream will never hear of this request.
    pub(crate) fn kept(&self, request: u64) {
        if let Some(exchange) = locked(&self.state).find(request) {
            exchange.replied = true;
        }
    }

    /// A fault answered this request in the place of the upstream.
    pub(crate) fn answered_here(&self, request: u64, status: u16, at: Nanos) {
        if let Some(exchange) = locked(&self.state).find(request) {
            exchange.row.status = Some(status);
            exchange.row.arrived = Some(at);
        }
    }

    /// Bytes of an answer were written to the caller; `whole` when they were the last of their piece.
    pub(crate) fn delivered(&self, request: u64, part: Part, whole: bool, now: Nanos) {
        if request == 0 || matches!(part, Part::Interim | Part::Opaque) {
            return;
        }
        let mut state = locked(&self.state);
        if let Some(exchange) = state.find(request) {
            exchange.row.first_byte.get_or_insert(now);
        }
        if part == Part::Last && whole {
            self.end(&mut state, request, RequestEnd::Answered, now);
        }
    }

    /// The end of the answers was passed on to the caller: it completes an answer without a length.
    pub(crate) fn delivered_end(&self, now: Nanos) {
        let mut state = locked(&self.state);
        let number = state.answering;
        let answered = state
            .find(number)
            .is_some_and(|exchange| exchange.row.first_byte.is_some());
        if answered && state.responses.until_close() && !state.opaque {
            self.end(&mut state, number, RequestEnd::Answered, now);
        }
    }

    /// A source closed or was reset.
    pub(crate) fn source_closed(&self, source: Stream, now: Nanos) {
        locked(&self.state).closed.get_or_insert((source, now));
    }

    /// The connection is over, for this reason if a peer's closing is not all there was.
    pub(crate) fn finish(&self, reason: Option<RequestEnd>, now: Nanos) {
        let mut state = locked(&self.state);
        let (end, ended) = match (reason, state.closed) {
            (Some(end), _) => (end, now),
            (None, Some((Stream::Upstream, at))) => (RequestEnd::ClosedByCaller, at),
            (None, Some((Stream::Downstream, at))) => (RequestEnd::ClosedByCallee, at),
            (None, None) => (RequestEnd::ClosedByCallee, now),
        };
        while let Some(number) = state.open.front().map(|exchange| exchange.number) {
            self.end(&mut state, number, end, ended);
        }
    }

    /// Publishes what is open as it is now; it is not published again.
    pub(crate) fn flush(&self) {
        let mut state = locked(&self.state);
        for exchange in state.open.iter_mut().filter(|exchange| !exchange.published) {
            exchange.published = true;
            self.log.publish(exchange.row.clone());
        }
    }

    /// Numbers of the requests that have not ended.
    pub(crate) fn open_numbers(&self) -> Vec<u64> {
        locked(&self.state)
            .open
            .iter()
            .map(|exchange| exchange.number)
            .collect()
    }

    /// Whether nothing was heard that is a request or cannot be one.
    pub(crate) fn awaits_first_request(&self) -> bool {
        !locked(&self.state).heard
    }

    fn end(&self, state: &mut State, number: u64, end: RequestEnd, ended: Nanos) {
        let place = state
            .open
            .iter()
            .position(|exchange| exchange.number == number);
        let exchange = place.and_then(|place| state.open.remove(place));
        if let Some(exchange) = exchange.filter(|exchange| !exchange.published) {
            self.log.publish(RequestRow {
                end,
                ended: Some(ended),
                ..exchange.row
            });
        }
    }
}

impl State {
    fn find(&mut self, number: u64) -> Option<&mut Exchange> {
        self.open
            .iter_mut()
            .find(|exchange| exchange.number == number)
    }

    fn replied(&mut self, number: u64) {
        if let Some(exchange) = self.find(number) {
            exchange.replied = true;
        }
        self.answering = 0;
    }
}

/// Adds a span, joined with the one before it when both are the same part of the same message.
fn join(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last)
            if last.request == span.request
                && last.part == Part::Inside
                && last.head.is_none()
                && span.part != Part::Interim =>
        {
            last.length += span.length;
            last.part = span.part;
            last.head = span.head;
        }
        Some(last) if last.part == Part::Opaque && span.part == Part::Opaque => {
            last.length += span.length;
        }
        _ => spans.push(span),
    }
}

fn cut(path: &str, most: usize) -> String {
    let end = (0..=most.min(path.len()))
        .rev()
        .find(|end| path.is_char_boundary(*end));
    path[..end.unwrap_or(0)].to_owned()
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_id(value: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(value).ok()?.trim().split('-').nth(1)?;
    let valid = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| id.to_owned())
}
