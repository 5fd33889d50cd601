//! Makes each call on the engine and shows what it returns.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::route::{Page, Route};
use super::{decode, mark_as_text};
use crate::toxiproxy::VERSION;
use crate::toxiproxy::engine::{Engine, Refusal};
use crate::toxiproxy::wire::{ErrorBody, Populated, Proxy};

/// Makes the call. The body is looked at only where the order of checks allows it.
pub(super) async fn make(engine: &Engine, route: Route, body: Result<Bytes, Refusal>) -> Response {
    if route == Route::Populate {
        return populate(engine, body).await;
    }
    let result = match route {
        Route::Populate => Ok(no_content()),
        Route::Version => Ok(version()),
        Route::Proxies => Ok(json(StatusCode::OK, &engine.list())),
        Route::Reset => engine.reset().await.map(|()| no_content()),
        Route::AllStats => Ok(json(StatusCode::OK, &engine.stats())),
        Route::Requests(name, page) => requests(engine, name.as_deref(), page),
        Route::CreateProxy => create(engine, body).await,
        Route::Proxy(name) => shown(engine.find(&name).map(|proxy| proxy.to_wire())),
        Route::UpdateProxy(name) => update(engine, &name, body).await,
        Route::DeleteProxy(name) => engine.remove(&name).map(|()| no_content()),
        Route::Stats(name) => shown(engine.find(&name).map(|proxy| proxy.stats())),
        Route::Toxics(name) => shown(engine.find(&name).map(|proxy| proxy.to_wire().toxics)),
        Route::AddToxic(name) => add_toxic(engine, &name, body),
        Route::SetToxics(name) => set_toxics(engine, &name, body),
        Route::Toxic(name, toxic) => toxic_of(engine, &name, &toxic),
        Route::UpdateToxic(name, toxic) => update_toxic(engine, &name, &toxic, body),
        Route::DeleteToxic(name, toxic) => engine
            .find(&name)
            .and_then(|proxy| proxy.remove_toxic(&toxic))
            .map(|()| no_content()),
    };
    result.unwrap_or_else(|refusal| refused(&refusal))
}

type Answer = Result<Response, Refusal>;

fn shown<T: Serialize>(value: Result<T, Refusal>) -> Answer {
    value.map(|value| json(StatusCode::OK, &value))
}

async fn create(engine: &Engine, body: Result<Bytes, Refusal>) -> Answer {
    let asked = decode::new_proxy(&body?)?;
    engine
        .create(&asked)
        .await
        .map(|proxy| json(StatusCode::CREATED, &proxy))
}

async fn update(engine: &Engine, name: &str, body: Result<Bytes, Refusal>) -> Answer {
    engine.find(name)?;
    shown(engine.update(name, decode::proxy_update(&body?)?).await)
}

fn add_toxic(engine: &Engine, name: &str, body: Result<Bytes, Refusal>) -> Answer {
    let proxy = engine.find(name)?;
    shown(proxy.add_toxic(&decode::new_toxic(&body?)?))
}

fn set_toxics(engine: &Engine, name: &str, body: Result<Bytes, Refusal>) -> Answer {
    let proxy = engine.find(name)?;
    shown(proxy.set_toxics(&decode::toxics(&body?)?))
}

fn toxic_of(engine: &Engine, name: &str, toxic: &str) -> Answer {
    let spec = engine.find(name)?.toxics.find(toxic);
    shown(
        spec.map(|spec| spec.to_wire())
            .ok_or(Refusal::ToxicNotFound),
    )
}

fn update_toxic(engine: &Engine, name: &str, toxic: &str, body: Result<Bytes, Refusal>) -> Answer {
    let proxy = engine.find(name)?;
    proxy.toxics.find(toxic).ok_or(Refusal::ToxicNotFound)?;
    let (attributes, toxicity) = decode::toxic_update(&body?)?;
    shown(proxy.update_toxic(toxic, &attributes, toxicity))
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

async fn populate(engine: &Engine, body: Result<Bytes, Refusal>) -> Response {
    let populated = match body.and_then(|body| decode::proxies(&body)) {
        Ok(asked) => engine.populate(&asked).await,
        Err(refusal) => Err((Vec::new(), refusal)),
    };
    let some = |proxies: Vec<Proxy>| (!proxies.is_empty()).then_some(proxies);
    match populated {
        Ok(proxies) => json(
            StatusCode::CREATED,
            &Populated {
                proxies: some(proxies),
            },
        ),
        Err((proxies, refusal)) => {
            let status = refusal.status();
            let body = PartlyPopulated {
                error: refusal.to_string(),
                status,
                proxies: some(proxies),
            };
            json(status_code(status), &body)
        }
    }
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

fn refused(refusal: &Refusal) -> Response {
    let status = refusal.status();
    let mut text = encode(&ErrorBody {
        error: refusal.to_string(),
        status,
    });
    text.push(b'\n');
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

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data with text keys always has a JSON form")
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
