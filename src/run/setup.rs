//! Requests sent once before the warm-up: log in, fill a feed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use crate::evidence::Event;
use crate::load::draw;
use crate::load::render::{self, Bind, JsonTemplate};
use crate::plan::load::{FeedPlan, FeedRow};
use crate::plan::system::SetupPlan;
use crate::plan::{Plan, Symbol};

use super::bindings::Bindings;
use super::error::RunError;
use super::journal::Journal;

/// Requests that are under way at once.
const CONCURRENCY: usize = 8;
/// How often a request is tried: the system has only just booted.
const TRIES: usize = 5;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(300);

/// Sends all setup requests; the feeds of the plan with the rows that they filled.
pub(crate) async fn set_up(
    plan: &Plan,
    bindings: &Arc<Bindings>,
    client: &reqwest::Client,
    journal: &Journal,
) -> Result<Vec<FeedPlan>, RunError> {
    let begun_ns = journal.now_ns();
    let mut feeds = plan.load.feeds.clone();
    let mut sent = 0;
    for (index, setup) in plan.system.setup.iter().enumerate() {
        let attempt = || format!("set the system up ({})", setup.source);
        let first_key = u64::from(sent);
        let requests = futures_util::stream::iter(0..setup.repeat).map(|repeat| {
            let key = draw::setup_key(plan.seed, first_key + u64::from(repeat));
            send(setup, Arc::clone(bindings), client, key)
        });
        let rows: Vec<_> = requests
            .buffered(CONCURRENCY)
            .try_collect()
            .await
            .map_err(|error| {
                RunError::world(attempt(), format!("request {}: {error}", index + 1))
            })?;
        sent += setup.repeat;
        if let Some(name) = &setup.into_feed
            && let Some(feed) = feeds.iter_mut().find(|feed| feed.name == *name)
        {
            feed.rows.extend(rows.into_iter().map(FeedRow::Fields));
        }
    }
    if let Some(empty) = feeds.iter().find(|feed| feed.rows.is_empty()) {
        return Err(RunError::world(
            "set the system up",
            format!("feed `{}` is empty", empty.name),
        ));
    }
    if sent > 0 {
        let took_ms = (journal.now_ns() - begun_ns) / 1_000_000;
        journal.event(Event::SetupFinished {
            requests: sent,
            took_ms,
        });
    }
    Ok(feeds)
}

/// What a setup request's symbols stand for.
struct Scope {
    bindings: Arc<Bindings>,
    key: String,
}

impl Bind for Scope {
    fn value(&self, symbol: &Symbol) -> Option<Value> {
        match symbol {
            Symbol::Key => Some(self.key.clone().into()),
            other => self.bindings.bind(None, other).ok().map(Value::from),
        }
    }
}

async fn send(
    setup: &SetupPlan,
    bindings: Arc<Bindings>,
    client: &reqwest::Client,
    key: String,
) -> Result<BTreeMap<String, Value>, String> {
    let address = bindings.address(setup.service.as_str(), setup.port.as_str())?;
    let scope = Scope { bindings, key };
    let mut tried = 1;
    loop {
        match try_send(setup, &address, &scope, client).await {
            Ok(row) => return Ok(row),
            Err(error) if tried == TRIES => return Err(error),
            Err(_) => tried += 1,
        }
        tokio::time::sleep(TRY_PAUSE).await;
    }
}

async fn try_send(
    setup: &SetupPlan,
    address: &str,
    scope: &Scope,
    client: &reqwest::Client,
) -> Result<BTreeMap<String, Value>, String> {
    let request = &setup.request;
    let phrase = |error: render::Unbound| error.to_string();
    let path = render::path(&request.path, scope).map_err(phrase)?;
    let method = request
        .method
        .parse()
        .map_err(|_| format!("`{}` is no method", request.method))?;
    let mut sending = client.request(method, format!("http://{address}{path}"));
    for (name, value) in &request.headers {
        sending = sending.header(name, render::text(value, scope).map_err(phrase)?);
    }
    if let Some(json) = &request.json {
        sending = sending.json(&JsonTemplate::parse(json)?.render(scope).map_err(phrase)?);
    }
    let answer = sending
        .send()
        .await
        .map_err(|error| super::collect::http::phrase(&error))?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        let body: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(format!("`{path}` answered {}: {body}", status.as_u16()));
    }
    if setup.capture.is_empty() {
        return Ok(BTreeMap::new());
    }
    let json: Value = serde_json::from_slice(&body)
        .map_err(|error| format!("`{path}` answered no JSON: {error}"))?;
    let captures = setup.capture.iter();
    captures
        .map(|capture| match capture.json.find(&json) {
            Some(value) => Ok((capture.name.clone(), value.clone())),
            None => Err(format!("the answer of `{path}` has no `{}`", capture.name)),
        })
        .collect()
}
