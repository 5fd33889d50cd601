//! `users`: who there is, and how they prove it.
//!
//! Passwords are kept as Argon2id hashes and never leave; tokens say who, in which roles, for an hour; a refresh token
//! works once. The unique key on `email` decides between two that register at the same time. Read next: `accounts.rs`
//! (what is stored), `token.rs` (what is signed), `secret.rs` (what is hashed).

mod accounts;
mod secret;
pub(crate) mod token;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::context::Context;
use crate::kit::error::ApiError;
use crate::kit::service::{RunError, Service};
use crate::kit::store::{Store, StoreError};
use accounts::{NewUser, User};
use secret::Hasher;
use token::Tokens;

#[derive(Clone)]
struct App {
    store: Store,
    hasher: Hasher,
    tokens: Arc<Tokens>,
}

/// Runs the service until it is asked to stop.
///
/// # Errors
/// The environment is wrong, the database cannot be opened, or work was cut at the end.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let tokens = Tokens::new(service.config().required("JWT_SECRET")?);
    let store = service.store(accounts::TABLES).await?;
    let bus = service.bus()?;
    let app = App {
        store: store.clone(),
        hasher: Hasher::new(),
        tokens: Arc::new(tokens),
    };
    seed(&app).await?;
    service.relay(&store, &bus);
    let public = Router::new()
        .route("/register", post(register))
        .route("/users", post(register))
        .route("/login", post(login))
        .route("/refresh", post(refresh))
        .route("/users/{id}", get(profile))
        .with_state(app);
    service.serve(public, Router::new()).await
}

/// The sample's own users; their tier tells the gateway not to limit them. Password: `secret-NAME`.
const SEEDS: [(&str, &str, &str); 10] = [
    ("alice", "customer", "standard"),
    ("admin", "customer,admin", "standard"),
    ("load1", "customer", "load"),
    ("load2", "customer", "load"),
    ("load3", "customer", "load"),
    ("load4", "customer", "load"),
    ("load5", "customer", "load"),
    ("load6", "customer", "load"),
    ("load7", "customer", "load"),
    ("load8", "customer", "load"),
];

async fn seed(app: &App) -> Result<(), StoreError> {
    for (name, roles, tier) in SEEDS {
        let email = format!("{name}@shop.test");
        if accounts::by_email(&app.store, &email).await?.is_some() {
            continue;
        }
        let hash = app.hasher.hash(format!("secret-{name}")).await;
        let hash = hash.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let new = NewUser {
            email,
            name: name.to_owned(),
            phone: None,
            roles,
            tier,
        };
        match accounts::create(&app.store, new, &hash, &Context::background()).await {
            Ok(_) | Err(StoreError::Unique) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    email: String,
    name: String,
    password: String,
    phone: Option<String>,
}

impl Register {
    fn check(&self) -> Result<(), ApiError> {
        let email_ok = matches!(self.email.split_once('@'), Some((user, domain))
            if !user.is_empty() && domain.contains('.') && !domain.starts_with('.'));
        if !email_ok || self.email.len() > 254 || self.email.contains(char::is_whitespace) {
            return Err(ApiError::bad_request("`email` is not an e-mail address"));
        }
        if !(2..=100).contains(&self.name.chars().count()) {
            return Err(ApiError::bad_request("`name` has 2 to 100 characters"));
        }
        if !(8..=200).contains(&self.password.len()) {
            return Err(ApiError::bad_request("`password` has 8 to 200 bytes"));
        }
        if self.phone.as_deref().is_some_and(|phone| !is_phone(phone)) {
            return Err(ApiError::bad_request("`phone` looks like +82-10-1234-5678"));
        }
        Ok(())
    }
}

/// `+82-10-` and twice four digits.
fn is_phone(text: &str) -> bool {
    let four = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_digit());
    let rest = text
        .strip_prefix("+82-10-")
        .and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(first, second)| four(first) && four(second))
}

async fn register(
    State(app): State<App>,
    context: Context,
    Json(body): Json<Register>,
) -> Result<Response, ApiError> {
    body.check()?;
    let hash = app.hasher.hash(body.password).await?;
    let (roles, tier) = ("customer", "standard");
    let email = body.email.to_lowercase();
    let new = NewUser {
        email,
        name: body.name,
        phone: body.phone,
        roles,
        tier,
    };
    let user = match accounts::create(&app.store, new, &hash, &context).await {
        Err(StoreError::Unique) => {
            return Err(ApiError::conflict(
                "exists",
                "this e-mail address is registered already",
            ));
        }
        other => other?,
    };
    let (token, refresh_token) = issue(&app, &user).await?;
    let body = json!({
        "success": true, "user": user.shown(), "token": token, "refresh_token": refresh_token,
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// A token, and the refresh token that follows it.
async fn issue(app: &App, user: &User) -> Result<(String, String), ApiError> {
    let token = app.tokens.issue(user).map_err(|error| {
        tracing::error!(%error, "token could not be signed");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "token",
            "no token could be made",
        )
    })?;
    let refresh = secret::random();
    let digest = app.hasher.digest(refresh.clone()).await?;
    accounts::keep_refresh(&app.store, &user.id, &digest).await?;
    Ok((token, refresh))
}

#[derive(Deserialize)]
struct Login {
    email: String,
    password: String,
}

async fn login(State(app): State<App>, Json(body): Json<Login>) -> Result<Json<Value>, ApiError> {
    let found = accounts::by_email(&app.store, &body.email.to_lowercase()).await?;
    let hash = found.as_ref().map(|(_, hash)| hash.clone());
    let right = app.hasher.verify(body.password, hash).await?;
    let user = found.filter(|_| right).map(|(user, _)| user);
    let user = user.ok_or_else(|| denied("e-mail address or password is wrong"))?;
    let (token, refresh_token) = issue(&app, &user).await?;
    Ok(Json(
        json!({ "token": token, "refresh_token": refresh_token, "user": user.shown() }),
    ))
}

fn denied(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "denied", message)
}

#[derive(Deserialize)]
struct Refresh {
    refresh_token: String,
}

async fn refresh(
    State(app): State<App>,
    Json(body): Json<Refresh>,
) -> Result<Json<Value>, ApiError> {
    let digest = app.hasher.digest(body.refresh_token).await?;
    let user_id = accounts::spend_refresh(&app.store, &digest).await?;
    let user_id = user_id.ok_or_else(|| denied("the refresh token is spent or unknown"))?;
    let user = accounts::by_id(&app.store, &user_id).await?;
    let user = user.ok_or_else(|| denied("the user is gone"))?;
    let (token, refresh_token) = issue(&app, &user).await?;
    Ok(Json(
        json!({ "token": token, "refresh_token": refresh_token }),
    ))
}

/// Everybody inside may know the name; the rest is for the user.
async fn profile(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let user = accounts::by_id(&app.store, &id).await?;
    let user = user.ok_or_else(|| ApiError::not_found("user"))?;
    let own = headers
        .get("x-user-id")
        .is_some_and(|asking| asking.as_bytes() == id.as_bytes());
    Ok(Json(if own {
        user.shown()
    } else {
        json!({ "id": user.id, "name": user.name })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(email: &str, name: &str, phone: Option<&str>) -> Register {
        Register {
            email: email.into(),
            name: name.into(),
            password: "long enough".into(),
            phone: phone.map(str::to_owned),
        }
    }

    #[test]
    fn a_refused_registration_names_the_field() {
        for (body, field) in [
            (register("nobody", "Ann", None), "email"),
            (register("@x.test", "Ann", None), "email"),
            (register("a@x.test", "A", None), "name"),
            (
                register("a@x.test", "Ann", Some("+82-10-12345-678")),
                "phone",
            ),
        ] {
            assert!(body.check().unwrap_err().message.contains(field), "{field}");
        }
        assert!(
            register("a@x.test", "Ann", Some("+82-10-1234-5678"))
                .check()
                .is_ok()
        );
    }
}
