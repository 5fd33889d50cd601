//! `users`: who there is, and how they prove it.
//!
//! Passwords are kept as Argon2id hashes and never leave; tokens say who, in which roles, for an
//! hour; a refresh token works once. The unique key on `email` decides between two that register at
//! the same time. Read next: `accounts.rs` (what is stored), `token.rs` (what is signed),
//! `secret.rs` (what is hashed).

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
use crate::kit::store::{Store, StoreError, Tx};
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
        let mut tx = app.store.begin().await?;
        match accounts::create(&mut tx, new, &hash, &Context::background()).await {
            Ok(_) => tx.commit().await?,
            Err(StoreError::Unique) => {}
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
    let fresh = Fresh::make(&app).await?;
    let mut tx = app.store.begin().await?;
    let user = match accounts::create(&mut tx, new, &hash, &context).await {
        Err(StoreError::Unique) => {
            return Err(ApiError::conflict(
                "exists",
                "this e-mail address is registered already",
            ));
        }
        other => other?,
    };
    let (token, refresh_token) = issue(&app, &mut tx, &user, fresh).await?;
    tx.commit().await?;
    let body = json!({
        "success": true, "user": user.shown(), "token": token, "refresh_token": refresh_token,
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// A refresh token that nobody has yet, and what is kept of it.
struct Fresh {
    token: String,
    digest: String,
}

impl Fresh {
    /// Waits for its turn to hash, so it comes before the transaction that keeps the token.
    async fn make(app: &App) -> Result<Self, ApiError> {
        let token = secret::random();
        let digest = app.hasher.digest(token.clone()).await?;
        Ok(Self { token, digest })
    }
}

/// A token, and the refresh token that follows it, which is kept in `tx`.
async fn issue(
    app: &App,
    tx: &mut Tx,
    user: &User,
    fresh: Fresh,
) -> Result<(String, String), ApiError> {
    let token = app.tokens.issue(user).map_err(|error| {
        tracing::error!(%error, "token could not be signed");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "token",
            "no token could be made",
        )
    })?;
    accounts::keep_refresh(tx, &user.id, &fresh.digest).await?;
    Ok((token, fresh.token))
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
    let fresh = Fresh::make(&app).await?;
    let mut tx = app.store.begin().await?;
    let (token, refresh_token) = issue(&app, &mut tx, &user, fresh).await?;
    tx.commit().await?;
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
    let fresh = Fresh::make(&app).await?;
    let mut tx = app.store.begin().await?;
    let user = accounts::spend_refresh(&mut tx, &digest).await?;
    let user = user.ok_or_else(|| denied("the refresh token is spent or unknown"))?;
    let (token, refresh_token) = issue(&app, &mut tx, &user, fresh).await?;
    tx.commit().await?;
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
    use crate::kit::store::sql;

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

    #[tokio::test]
    async fn a_registration_or_a_refresh_that_fails_has_done_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/users.db", dir.path().display());
        let store = Store::open(&url, accounts::TABLES).await.unwrap();
        let (hasher, tokens) = (Hasher::new(), Arc::new(Tokens::new("secret")));
        let app = App {
            store: store.clone(),
            hasher,
            tokens,
        };
        let full = || {
            store.execute(sql("CREATE TRIGGER full BEFORE INSERT ON refresh_tokens
                 BEGIN SELECT RAISE(ABORT, 'no room'); END"))
        };
        let emptied = || store.execute(sql("DROP TRIGGER full"));
        let sign_up = async || {
            let ann = Json(register("a@x.test", "Ann", None));
            super::register(State(app.clone()), Context::background(), ann).await
        };
        full().await.unwrap();
        assert_eq!(sign_up().await.unwrap_err().status, 500);
        emptied().await.unwrap();
        assert_eq!(sign_up().await.unwrap().status(), 201);

        let again = async |token: &str| {
            let refresh_token = token.to_owned();
            refresh(State(app.clone()), Json(Refresh { refresh_token })).await
        };
        let (email, password) = ("a@x.test".to_owned(), "long enough".to_owned());
        let body = login(State(app.clone()), Json(Login { email, password })).await;
        let token = body.unwrap()["refresh_token"].as_str().unwrap().to_owned();
        full().await.unwrap();
        assert_eq!(again(&token).await.unwrap_err().status, 500);
        emptied().await.unwrap();
        assert!(again(&token).await.is_ok());
        assert_eq!(again(&token).await.unwrap_err().status, 401);
    }
}
