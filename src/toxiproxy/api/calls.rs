//! Makes each call on the engine and shows what it returns.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::route::{Page, Route};
use super::{Api, decode, mark_as_text, metrics};
use crate::toxiproxy::VERSION;
use crate::toxiproxy::engine::{self, Engine, Refusal};
use crate::toxiproxy::wire::{ErrorBody, Populated, Proxy, ToxicsSet};

/// How long a call waits for the connections to follow it.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);

/// How often it looks.
const SETTLE_EVERY: Duration = Duration::from_millis(1);

/// Makes the call, under a lease if one is named. The body is looked at only where the order of checks
/// allows it.
pub(super) async fn make(
    api: &Api,
    route: Route,
    body: Result<Bytes, Refusal>,
    lease: Option<&str>,
) -> Response {
    let engine = &api.engine;
    if route == Route::Populate {
        return populate(api, body, lease).await;
    }
    let result = match route {
        Route::Populate => Ok(no_content()),
        Route::Version => Ok(version()),
        Route::Proxies => Ok(json(StatusCode::OK, &engine.list())),
        Route::Reset => reset(engine).await,
        Route::AllStats => Ok(json(StatusCode::OK, &engine.stats())),
        Route::Requests(name, page) => requests(engine, name.as_deref(), page),
        Route::CreateProxy => create(api, body, lease).await,
        Route::Proxy(name) => shown(engine.find(&name).map(|proxy| proxy.to_wire())),
        Route::UpdateProxy(name) => update(engine, &name, body).await,
        Route::DeleteProxy(name) => engine.remove(&name).map(|()| no_content()),
        Route::Stats(name) => shown(engine.find(&name).map(|proxy| proxy.stats())),
        Route::Toxics(name) => shown(engine.find(&name).map(|proxy| proxy.to_wire().toxics)),
        Route::AddToxic(name) => add_toxic(api, &name, body, lease).await,
        Route::SetToxics(name) => set_toxics(api, &name, body, lease).await,
        Route::Metrics => Ok(metrics(api)),
        Route::RenewLease(id) => renew_lease(api, &id, body),
        Route::EndLease(id) => api.leases.end(&id).map(|()| no_content()),
        Route::Toxic(name, toxic) => toxic_of(engine, &name, &toxic),
        Route::UpdateToxic(name, toxic) => update_toxic(engine, &name, &toxic, body).await,
        Route::DeleteToxic(name, toxic) => remove_toxic(engine, &name, &toxic).await,
    };
    result.unwrap_or_else(|refusal| refused(&refusal))
}

type Answer = Result<Response, Refusal>;

fn shown<T: Serialize>(value: Result<T, Refusal>) -> Answer {
    value.map(|value| json(StatusCode::OK, &value))
}

async fn create(api: &Api, body: Result<Bytes, Refusal>, lease: Option<&str>) -> Answer {
    let asked = decode::new_proxy(&body?)?;
    check(api, lease)?;
    let created = api.engine.create(&asked).await?;
    own(api, lease, &created.proxy, &created.toxics);
    Ok(json(StatusCode::CREATED, &created.proxy.to_wire()))
}

/// Whether the lease that a call names, if it does, is there.
fn check(api: &Api, lease: Option<&str>) -> Result<(), Refusal> {
    lease.map_or(Ok(()), |lease| api.leases.check(lease))
}

/// Puts the toxics that a call has set under its lease, if it names one.
fn own(
    api: &Api,
    lease: Option<&str>,
    proxy: &Arc<engine::Proxy>,
    toxics: &[Arc<engine::ToxicSpec>],
) {
    if let Some(lease) = lease {
        let ids = toxics.iter().map(|spec| spec.id);
        api.leases.own(lease, proxy, ids);
    }
}

async fn update(engine: &Engine, name: &str, body: Result<Bytes, Refusal>) -> Answer {
    engine.find(name)?;
    shown(engine.update(name, decode::proxy_update(&body?)?).await)
}

async fn add_toxic(
    api: &Api,
    name: &str,
    body: Result<Bytes, Refusal>,
    lease: Option<&str>,
) -> Answer {
    let proxy = api.engine.find(name)?;
    let asked = decode::new_toxic(&body?)?;
    check(api, lease)?;
    let toxic = proxy.add_toxic(&asked)?;
    own(api, lease, &proxy, std::slice::from_ref(&toxic));
    settled([&proxy]).await;
    Ok(json(StatusCode::OK, &toxic.to_wire()))
}

async fn set_toxics(
    api: &Api,
    name: &str,
    body: Result<Bytes, Refusal>,
    lease: Option<&str>,
) -> Answer {
    let proxy = api.engine.find(name)?;
    let asked = decode::toxics(&body?)?;
    check(api, lease)?;
    let set = proxy.set_toxics(&asked)?;
    own(api, lease, &proxy, &set.toxics);
    settled([&proxy]).await;
    let set = ToxicsSet {
        generation: set.generation,
        toxics: set.to_wire(),
    };
    Ok(json(StatusCode::OK, &set))
}

fn renew_lease(api: &Api, id: &str, body: Result<Bytes, Refusal>) -> Answer {
    let life = Duration::from_secs(decode::lease(&body?)?);
    shown(api.leases.renew(id, life))
}

fn metrics(api: &Api) -> Response {
    let mut response = Response::new(Body::from(metrics::page(&api.engine, api.metrics)));
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn toxic_of(engine: &Engine, name: &str, toxic: &str) -> Answer {
    let spec = engine.find(name)?.toxics.find(toxic);
    shown(
        spec.map(|spec| spec.to_wire())
            .ok_or(Refusal::ToxicNotFound),
    )
}

async fn update_toxic(
    engine: &Engine,
    name: &str,
    toxic: &str,
    body: Result<Bytes, Refusal>,
) -> Answer {
    let proxy = engine.find(name)?;
    proxy.toxics.find(toxic).ok_or(Refusal::ToxicNotFound)?;
    let (attributes, toxicity) = decode::toxic_update(&body?)?;
    let updated = proxy.update_toxic(toxic, &attributes, toxicity);
    settled([&proxy]).await;
    shown(updated)
}

async fn remove_toxic(engine: &Engine, name: &str, toxic: &str) -> Answer {
    let proxy = engine.find(name)?;
    proxy.remove_toxic(toxic)?;
    settled([&proxy]).await;
    Ok(no_content())
}

async fn reset(engine: &Engine) -> Answer {
    let done = engine.reset().await;
    settled(&engine.all()).await;
    done.map(|()| no_content())
}

/// Waits until every live connection runs the set of toxics that was just made, so that whoever sent the
/// call meets it from now on. No peer can hold this up, only a machine that is out of breath: then the
/// call is answered without.
async fn settled<'a>(proxies: impl IntoIterator<Item = &'a Arc<engine::Proxy>>) {
    let settle = async {
        for proxy in proxies {
            while !proxy.stats().confirmed {
                sleep(SETTLE_EVERY).await;
            }
        }
    };
    // Late is as good as not: statistics say which connections run what.
    let _ = timeout(SETTLE_WITHIN, settle).await;
}

fn requests(engine: &Engine, name: Option<&str>, page: Page) -> Answer {
    let proxy = name.map(|name| engine.find(name)).transpose()?;
    let rows = engine.requests(proxy.as_deref(), page.after, page.limit, page.flush);
    Ok(json(StatusCode::OK, &rows))
}

/// What `POST /populate` answers when it could not do all: unlike other errors, and what it did.
#[derive(Serialize)]
struct PartlyPopulated {
    error: String,
    status: u16,
    proxies: Option<Vec<Proxy>>,
}

async fn populate(api: &Api, body: Result<Bytes, Refusal>, lease: Option<&str>) -> Response {
    let asked = body.and_then(|body| decode::proxies(&body));
    let populated = match asked.and_then(|asked| check(api, lease).map(|()| asked)) {
        Ok(asked) => api.engine.populate(&asked).await,
        Err(refusal) => Err((Vec::new(), refusal)),
    };
    let (done, refusal) = match populated {
        Ok(done) => (done, None),
        Err((done, refusal)) => (done, Some(refusal)),
    };
    for created in &done {
        own(api, lease, &created.proxy, &created.toxics);
    }
    // As they are when all is done: one of the name may have replaced another.
    let proxies: Vec<Proxy> = done.iter().map(|created| created.proxy.to_wire()).collect();
    let proxies = (!proxies.is_empty()).then_some(proxies);
    let Some(refusal) = refusal else {
        return json(StatusCode::CREATED, &Populated { proxies });
    };
    let status = refusal.status();
    let body = PartlyPopulated {
        error: refusal.to_string(),
        status,
        proxies,
    };
    json(status_code(status), &body)
}

/// Byte for byte as the original writes it: clients match it by expression.
fn version() -> Response {
    let mut response = Response::new(Body::from(format!("{{\"version\": \"{VERSION}\"}}\n")));
    let kind = HeaderValue::from_static("application/json;charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The error of every call but `/populate`: JSON that is sent as text.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let status = refusal.status();
    let mut text = encode(&ErrorBody {
        error: refusal.to_string(),
        status,
    });
    text.push('\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status_code(status);
    mark_as_text(&mut response);
    response
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let mut response = Response::new(Body::from(encode(value)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// As Go writes JSON: what HTML could mistake is escaped, which can only be inside of a text.
fn encode<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value);
    let text = text.expect("plain data with text keys always has a JSON form");
    const UNSAFE: [(char, &str); 5] = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    if !text.contains(UNSAFE.map(|(character, _)| character)) {
        return text;
    }
    UNSAFE.iter().fold(text, |text, (character, escape)| {
        text.replace(*character, escape)
    })
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
