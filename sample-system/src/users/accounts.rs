//! Accounts and refresh tokens in the database.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::clock::wall_ms;
use crate::kit::context::Context;
use crate::kit::event::Event;
use crate::kit::outbox;
use crate::kit::store::{Row, RowExt, Store, StoreError, Tx, sql};

/// The tables.
pub(super) const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS users (
        id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL, phone TEXT,
        password_hash TEXT NOT NULL, roles TEXT NOT NULL, tier TEXT NOT NULL,
        created_at BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS refresh_tokens (
        digest TEXT PRIMARY KEY, user_id TEXT NOT NULL, created_at BIGINT NOT NULL,
        spent_at BIGINT)",
];

/// A refresh token is good for a week.
const REFRESH_MS: i64 = 7 * 24 * 3_600_000;

/// A user without the secret part.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) email: String,
    pub(super) name: String,
    pub(super) phone: Option<String>,
    /// Separated by commas.
    pub(super) roles: String,
    /// `standard`, or `load` for users that no rate limit applies to.
    pub(super) tier: String,
}

impl User {
    /// As the user sees it.
    pub(super) fn shown(&self) -> Value {
        json!({
            "id": self.id, "email": self.email, "name": self.name, "phone": self.phone,
            "roles": self.roles.split(',').collect::<Vec<_>>(),
        })
    }
}

/// What a registration says.
pub(super) struct NewUser {
    pub(super) email: String,
    pub(super) name: String,
    pub(super) phone: Option<String>,
    pub(super) roles: &'static str,
    pub(super) tier: &'static str,
}

/// Adds a user and announces it.
///
/// # Errors
/// [`StoreError::Unique`] when the e-mail address is taken; any other of the store.
pub(super) async fn create(
    tx: &mut Tx,
    new: NewUser,
    password_hash: &str,
    context: &Context,
) -> Result<User, StoreError> {
    let user = User {
        id: Uuid::now_v7().to_string(),
        email: new.email,
        name: new.name,
        phone: new.phone,
        roles: new.roles.to_owned(),
        tier: new.tier.to_owned(),
    };
    let insert = sql(
        "INSERT INTO users (id, email, name, phone, password_hash, roles, tier, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    let insert = insert
        .bind(&user.id)
        .bind(&user.email)
        .bind(&user.name)
        .bind(&user.phone);
    let insert = insert
        .bind(password_hash)
        .bind(&user.roles)
        .bind(&user.tier);
    tx.execute(insert.bind(wall_ms())).await?;
    let data = json!({ "user_id": user.id, "email": user.email, "name": user.name });
    let event = Event::new("user.created", &user.id, 1, context, data);
    outbox::put(tx, &event).await?;
    Ok(user)
}

/// The user with this e-mail address, and the hash of the password.
///
/// # Errors
/// The store's.
pub(super) async fn by_email(
    store: &Store,
    email: &str,
) -> Result<Option<(User, String)>, StoreError> {
    let row = store
        .row(sql("SELECT * FROM users WHERE email = $1").bind(email))
        .await?;
    row.map(|row| Ok((user(&row)?, row.try_get("password_hash")?)))
        .transpose()
}

/// The user with this id.
///
/// # Errors
/// The store's.
pub(super) async fn by_id(store: &Store, id: &str) -> Result<Option<User>, StoreError> {
    let row = store
        .row(sql("SELECT * FROM users WHERE id = $1").bind(id))
        .await?;
    row.as_ref().map(user).transpose()
}

fn user(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: row.try_get("id")?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        phone: row.try_get("phone")?,
        roles: row.try_get("roles")?,
        tier: row.try_get("tier")?,
    })
}

/// Keeps the digest of a refresh token.
///
/// # Errors
/// The store's.
pub(super) async fn keep_refresh(
    tx: &mut Tx,
    user_id: &str,
    digest: &str,
) -> Result<(), StoreError> {
    let insert =
        sql("INSERT INTO refresh_tokens (digest, user_id, created_at) VALUES ($1, $2, $3)");
    tx.execute(insert.bind(digest).bind(user_id).bind(wall_ms()))
        .await
        .map(drop)
}

/// Spends a refresh token: whose it was, the first time; `None` ever after, or when it is too old.
///
/// # Errors
/// The store's.
pub(super) async fn spend_refresh(tx: &mut Tx, digest: &str) -> Result<Option<User>, StoreError> {
    let spend = sql("UPDATE refresh_tokens SET spent_at = $1
         WHERE digest = $2 AND spent_at IS NULL AND created_at > $3 RETURNING user_id");
    let now = wall_ms();
    let row = tx
        .row(spend.bind(now).bind(digest).bind(now - REFRESH_MS))
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let select = sql("SELECT * FROM users WHERE id = $1");
    let row = tx
        .row(select.bind(row.try_get::<String, _>("user_id")?))
        .await?;
    row.as_ref().map(user).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/users.db", dir.path().display());
        (dir, Store::open(&url, TABLES).await.unwrap())
    }

    fn ann() -> NewUser {
        let (email, name) = ("ann@shop.test".to_owned(), "Ann".to_owned());
        NewUser {
            email,
            name,
            phone: None,
            roles: "customer",
            tier: "standard",
        }
    }

    #[tokio::test]
    async fn of_many_that_register_one_address_at_once_one_wins() {
        let (_dir, store) = store().await;
        let tries = (0..20).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut tx = store.begin().await?;
                create(&mut tx, ann(), "h", &Context::background()).await?;
                tx.commit().await
            })
        });
        let mut created = 0;
        for attempt in futures_util::future::join_all(tries).await {
            match attempt.unwrap() {
                Ok(_) => created += 1,
                Err(error) => assert!(matches!(error, StoreError::Unique), "{error}"),
            }
        }
        assert_eq!(created, 1);
    }

    #[tokio::test]
    async fn a_refresh_token_works_once() {
        let (_dir, store) = store().await;
        let mut tx = store.begin().await.unwrap();
        let created = create(&mut tx, ann(), "h", &Context::background()).await;
        let id = created.unwrap().id;
        keep_refresh(&mut tx, &id, "d").await.unwrap();
        let first = spend_refresh(&mut tx, "d").await.unwrap();
        assert_eq!(first.map(|user| user.id), Some(id));
        assert!(spend_refresh(&mut tx, "d").await.unwrap().is_none());
    }
}
