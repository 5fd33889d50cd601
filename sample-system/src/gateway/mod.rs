//! `gateway`: the one door. Who are you, are you too fast, who answers this: in this order, then it gets out of the way.
//!
//! It holds no data and makes nothing up. What comes from outside in `x-user-…` is dropped; what goes inside in these
//! headers was proved by a token. Read next: `door.rs` (admission), `route.rs` (who answers).

mod door;
mod route;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use serde_json::Value;

use crate::kit::context::Context;
use crate::kit::edge::{Edge, EdgePolicy, EdgeRequest, IDEMPOTENCY_KEY, Reply};
use crate::kit::error::ApiError;
use crate::kit::http::Bulkhead;
use crate::kit::service::{RunError, Service};
use door::{Door, Visitor};
use route::{Callee, Route};

struct Gateway {
    door: Door,
    users: Edge,
    catalog: Edge,
    orders: Edge,
    commands: Bulkhead,
    queries: Bulkhead,
}

/// Runs the service until it is asked to stop.
///
/// # Errors
/// The environment is wrong, or work was cut at the end.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let config = service.config();
    let ordinary = EdgePolicy::ordinary(config.profile);
    let gateway = Gateway {
        door: Door::new(config)?,
        users: service.edge("users", ordinary)?,
        catalog: service.edge("catalog", ordinary)?,
        orders: service.edge("orders", EdgePolicy::orders(config.profile))?,
        commands: Bulkhead::commands(config.profile),
        queries: Bulkhead::queries(config.profile),
    };
    // Every path goes through the same door, so no route can be added behind its back.
    let public = Router::new()
        .route("/api/{*path}", axum::routing::any(forward))
        .with_state(Arc::new(gateway));
    service.serve(public, Router::new()).await
}

async fn forward(
    State(gateway): State<Arc<Gateway>>,
    context: Context,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let route = Route::of(&method, uri.path());
    let visitor = gateway
        .door
        .admit(&headers, route.as_ref())
        .map_err(challenge)?;
    let route = route.ok_or_else(|| ApiError::not_found("route").into_response())?;
    let request = request(&route, &method, &uri, &headers, &body, visitor.as_ref());
    let request = request.map_err(IntoResponse::into_response)?;
    let class = if method == Method::GET {
        &gateway.queries
    } else {
        &gateway.commands
    };
    let executing = class.enter().map_err(IntoResponse::into_response)?;
    if route.waits {
        // Waiting for the end of an order is not executing; the edge bounds how many wait.
        drop(executing);
        gateway.pass_on(&context, &route, request).await
    } else {
        let reply = gateway.pass_on(&context, &route, request).await;
        drop(executing);
        reply
    }
}

impl Gateway {
    async fn pass_on(
        &self,
        context: &Context,
        route: &Route,
        request: EdgeRequest,
    ) -> Result<Response, Response> {
        let edge = match route.callee {
            Callee::Users => &self.users,
            Callee::Catalog => &self.catalog,
            Callee::Orders => &self.orders,
        };
        let reply = edge.send(context, request).await;
        reply
            .map(answer)
            .map_err(|error| ApiError::from(error).into_response())
    }
}

/// The request as it goes inside: same method, path without `/api`, proven identity instead of claimed.
fn request(
    route: &Route,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
    visitor: Option<&Visitor>,
) -> Result<EdgeRequest, ApiError> {
    let mut path = route.path(visitor.map(|visitor| visitor.id.as_str()));
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    let mut request = match *method {
        Method::GET => EdgeRequest::get(path),
        Method::POST => EdgeRequest::post(path),
        Method::PUT => EdgeRequest::put(path),
        Method::DELETE => EdgeRequest::delete(path),
        _ => {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Err(ApiError::new(
                status,
                "method",
                "this method is not known here",
            ));
        }
    };
    if !body.is_empty() {
        let body: Value = serde_json::from_slice(body)
            .map_err(|_| ApiError::bad_request("the body is not JSON"))?;
        request = request.json(body);
    }
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(key) = text(&IDEMPOTENCY_KEY) {
        request = request.key(key);
    }
    if let Some(prefer) = text(&HeaderName::from_static("prefer")) {
        request = request.header("prefer", prefer);
    }
    if let Some(visitor) = visitor {
        request = request
            .header("x-user-id", &visitor.id)
            .header("x-user-roles", &visitor.roles);
    }
    Ok(request)
}

/// The callee's answer, with the headers that mean something to a client.
fn answer(reply: Reply) -> Response {
    let replayed = HeaderName::from_static("idempotent-replayed");
    let mut headers = HeaderMap::new();
    for name in [CONTENT_TYPE, LOCATION, RETRY_AFTER, replayed] {
        if let Some(value) = reply.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    (reply.status, headers, reply.body).into_response()
}

/// A refusal at the door; a 401 says what would open it.
fn challenge(error: ApiError) -> Response {
    let unauthorized = error.status == StatusCode::UNAUTHORIZED;
    let mut response = error.into_response();
    if unauthorized {
        let bearer = http::HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    }
    response
}
