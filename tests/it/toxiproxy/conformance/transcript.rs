//! Transcripts of the API: what is sent, and what must come back, as text.
//!
//! ```text
//! == a case: it begins without proxies
//! POST /proxies {"name":"a","upstream":"u"}
//! < 201 json {"name":"a","listen":"[::]:$p","upstream":"u","enabled":true,"toxics":[]}
//! with User-Agent: Mozilla/5.0
//! GET /proxies
//! < 403 text User agent not allowed
//! differs statistics
//! GET /stats
//! <toxiproxy 404 router 404 page not found
//! <chaos 200 json {"at":$at,"proxies":{}}
//! ```
//!
//! An answer is a status, a form (see [`Form`]) and a text. `$name` in a text stands for a number: the first
//! time any, after that the same; `$taken` is a port in use and `$free` one that is not. `...` stands for any text.
//! `differs` names the difference that the next request shows, here and in `docs/toxiproxy.md`.
//! The field `"Logger":{}` is not written: a real server has it in every proxy.

use std::collections::BTreeMap;

use super::{Answer, Kind, Request, Server, free_port};

/// The difference that is taken out of every answer.
const LOGGER: &str = r#""Logger":{},"#;

/// What an answer is besides its status and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// JSON, byte for byte.
    Json,
    /// The version: JSON of another type, with a newline.
    Version,
    /// `{"error","status"}`, sent as plain text.
    Error,
    /// The error of `/populate`: the error, ` | `, the proxies.
    Populate,
    /// Plain text with a newline.
    Text,
    /// Nothing.
    Empty,
    /// The router's own answer, plain text or nothing, without an id of the request.
    Router,
    /// A redirection; the text is where to.
    Moved,
}

impl Form {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "json" => Self::Json,
            "version" => Self::Version,
            "error" => Self::Error,
            "populate" => Self::Populate,
            "text" => Self::Text,
            "empty" => Self::Empty,
            "router" => Self::Router,
            "moved" => Self::Moved,
            _ => return None,
        })
    }

    /// The text of an answer in this form, `None` if it is not in this form.
    fn read(self, answer: &Answer) -> Option<String> {
        let kind = answer.header("content-type");
        let is_json = kind == Some("application/json");
        let is_text = kind == Some("text/plain; charset=utf-8")
            && answer.header("x-content-type-options") == Some("nosniff");
        let plain = || answer.text.strip_suffix('\n').map(str::to_owned);
        let unmatched = matches!(self, Self::Router | Self::Moved);
        let id = answer.header("x-toxiproxy-request-id").map(str::len);
        if id != (!unmatched).then_some(20) {
            return None;
        }
        match self {
            Self::Json => is_json.then(|| answer.text.replace(LOGGER, "")),
            Self::Version if kind == Some("application/json;charset=utf-8") => plain(),
            Self::Error if is_text => error(answer, &plain()?),
            Self::Populate if is_json => populate_error(answer),
            Self::Text if is_text => plain(),
            Self::Router if answer.text.is_empty() => kind.is_none().then(String::new),
            Self::Router if is_text => plain(),
            Self::Empty if kind.is_none() && answer.text.is_empty() => Some(String::new()),
            Self::Moved if answer.text.is_empty() => answer.header("location").map(str::to_owned),
            _ => None,
        }
    }
}

fn error(answer: &Answer, text: &str) -> Option<String> {
    let (message, status) = text
        .strip_prefix(r#"{"error":"#)?
        .rsplit_once(r#","status":"#)?;
    (status == format!("{}}}", answer.status)).then_some(())?;
    serde_json::from_str(message).ok()
}

fn populate_error(answer: &Answer) -> Option<String> {
    let text = answer.text.replace(LOGGER, "");
    let status = format!(r#","status":{},"proxies":"#, answer.status);
    let (message, proxies) = text.strip_prefix(r#"{"error":"#)?.split_once(&status)?;
    let message: String = serde_json::from_str(message).ok()?;
    Some(format!("{message} | {}", proxies.strip_suffix('}')?))
}

/// Numbers by name.
type Numbers = BTreeMap<String, String>;

/// Whether a text is what a pattern says; learns the numbers that are new.
fn fits(mut pattern: &str, mut text: &str, numbers: &mut Numbers) -> bool {
    loop {
        if let Some(rest) = pattern.strip_prefix("...") {
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            return ends.any(|at| fits(rest, &text[at..], &mut numbers.clone()));
        }
        if let Some(rest) = pattern.strip_prefix('$') {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            let (number, left) = text.split_at(end);
            let known = numbers
                .entry(name.to_owned())
                .or_insert_with(|| number.to_owned());
            if known != number || number.is_empty() {
                return false;
            }
            (pattern, text) = (rest, left);
            continue;
        }
        match (pattern.chars().next(), text.chars().next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found => {
                pattern = &pattern[wanted.len_utf8()..];
                text = &text[found.len_utf8()..];
            }
            _ => return false,
        }
    }
}

/// A text with its known numbers.
fn filled(text: &str, numbers: &Numbers) -> String {
    numbers
        .iter()
        .fold(text.to_owned(), |text, (name, number)| {
            text.replace(&format!("${name}"), number)
        })
}

/// One request of a transcript and its answers.
#[derive(Default)]
struct Exchange<'a> {
    request: &'a str,
    header: Option<(&'a str, &'a str)>,
    both: Option<&'a str>,
    toxiproxy: Option<&'a str>,
    chaos: Option<&'a str>,
}

impl<'a> Exchange<'a> {
    fn expected(&self, kind: Kind) -> &'a str {
        let own = match kind {
            Kind::Chaos => self.chaos,
            Kind::Toxiproxy => self.toxiproxy,
        };
        own.or(self.both)
            .unwrap_or_else(|| panic!("no answer of {kind:?} to {}", self.request))
    }

    async fn hold(&self, server: &Server, numbers: &mut Numbers) -> Result<(), String> {
        let request = filled(self.request, numbers);
        let mut words = request.splitn(3, ' ');
        let (method, path) = (words.next().unwrap(), words.next().expect("a path"));
        let sent = Request {
            header: self.header,
            ..Request::new(method, path, words.next().unwrap_or_default())
        };
        let answer = server.call(&sent).await;
        let expected = self.expected(server.kind);
        let mut words = expected.splitn(3, ' ');
        let status = words.next().unwrap();
        let form = words.next().and_then(Form::of).expect("a form");
        let text = form.read(&answer);
        let fit = text.is_some_and(|text| fits(words.next().unwrap_or_default(), &text, numbers));
        if fit && status == answer.status.to_string() {
            return Ok(());
        }
        Err(format!(
            "{request}\n  must  {}\n  is    {answer:?}",
            filled(expected, numbers)
        ))
    }
}

/// A case: its title and what is said.
type Case<'a> = (&'a str, Vec<Exchange<'a>>);

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    let mut header = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("== ") {
            cases.push((title, Vec::new()));
            continue;
        }
        let (_, exchanges) = cases.last_mut().expect("a case first");
        let last = exchanges.last_mut();
        if let Some(given) = line.strip_prefix("with ") {
            header = given.split_once(": ");
        } else if let Some(answer) = line.strip_prefix("< ") {
            last.expect("a request first").both = Some(answer);
        } else if let Some(answer) = line.strip_prefix("<toxiproxy ") {
            last.expect("a request first").toxiproxy = Some(answer);
        } else if let Some(answer) = line.strip_prefix("<chaos ") {
            last.expect("a request first").chaos = Some(answer);
        } else if !line.starts_with("differs ") {
            exchanges.push(Exchange {
                request: line,
                header: header.take(),
                ..Exchange::default()
            });
        }
    }
    cases
}

/// The differences that a transcript names.
pub(super) fn differences(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("differs "))
}

async fn hold(text: &str) {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = super::super::address(&taken).port().to_string();
    let mut broken = Vec::new();
    for (title, exchanges) in cases(text) {
        for kind in [Kind::Chaos, Kind::Toxiproxy] {
            let Some(server) = Server::start(kind, &[]).await else {
                continue;
            };
            let free = free_port().to_string();
            let mut numbers =
                Numbers::from([("taken".into(), taken.clone()), ("free".into(), free)]);
            for exchange in &exchanges {
                if let Err(how) = exchange.hold(&server, &mut numbers).await {
                    broken.push(format!("{kind:?}, {title}:\n  {how}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

pub(super) const ROUTES: &str = include_str!("routes.txt");
pub(super) const DECODING: &str = include_str!("decoding.txt");
pub(super) const PROXIES: &str = include_str!("proxies.txt");
pub(super) const TOXICS: &str = include_str!("toxics.txt");

#[tokio::test]
async fn routes_are_those_of_toxiproxy() {
    hold(ROUTES).await;
}

#[tokio::test]
async fn bodies_are_read_as_toxiproxy_reads_them() {
    hold(DECODING).await;
}

#[tokio::test]
async fn proxies_are_created_changed_and_populated_as_by_toxiproxy() {
    hold(PROXIES).await;
}

#[tokio::test]
async fn toxics_are_added_changed_and_shown_as_by_toxiproxy() {
    hold(TOXICS).await;
}

#[test]
fn patterns_learn_numbers_and_skip_what_may_be_anything() {
    let mut numbers = Numbers::new();
    assert!(fits("a:$p b:$p ...", "a:12 b:12 x", &mut numbers));
    assert_eq!(numbers["p"], "12");
    assert!(!fits("$p", "13", &mut numbers));
    assert!(fits("x...z | $q", "xyz | 1", &mut numbers));
    assert!(!fits("x", "xy", &mut numbers));
}

#[tokio::test]
async fn original_shows_a_logger_and_ours_does_not() {
    super::on_each(async |server| {
        server.proxy("a", "127.0.0.1:0", "u").await;
        let shown = server.done("GET", "/proxies/a", "").await.text;
        let logger = server.differs("logger", true, false);
        assert_eq!(shown.contains(LOGGER), logger, "{shown}");
    })
    .await;
}
