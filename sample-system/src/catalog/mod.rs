//! `catalog`: what there is to buy, and for how much. Reading is open to everybody; changing asks for the role `admin`,
//! which the gateway vouches for in `x-user-roles`.
//!
//! It knows no stock and no orders. Money is in cents.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::clock::wall_ms;
use crate::kit::config::Profile;
use crate::kit::context::Context;
use crate::kit::error::ApiError;
use crate::kit::event::Event;
use crate::kit::http::Bulkhead;
use crate::kit::outbox;
use crate::kit::service::{RunError, Service};
use crate::kit::store::{Row, RowExt, Store, StoreError, sql};

/// The table, and the sample's products.
const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS products (
        sku TEXT PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL,
        price_cents BIGINT NOT NULL CHECK (price_cents > 0), version BIGINT NOT NULL,
        updated_at BIGINT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS products_category ON products (category, sku)",
    "INSERT INTO products (sku, name, category, price_cents, version, updated_at) VALUES
        ('A1', 'Notebook', 'paper', 450, 1, 0), ('B2', 'Fountain pen', 'pens', 2900, 1, 0),
        ('C3', 'Ink, blue', 'pens', 790, 1, 0), ('D4', 'Desk lamp', 'desk', 4990, 1, 0),
        ('E5', 'Paper clips', 'paper', 120, 1, 0), ('RARE', 'First edition', 'books', 99000, 1, 0)
        ON CONFLICT DO NOTHING",
];

/// Products on one page at most.
const PAGE_MAX: i64 = 100;
/// Products in one batch at most.
const BATCH_MAX: usize = 100;

#[derive(Clone)]
struct App {
    store: Store,
    queries: Bulkhead,
    commands: Bulkhead,
}

/// Runs the service until it is asked to stop.
///
/// # Errors
/// The environment is wrong, the database cannot be opened, or work was cut at the end.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let store = service.store(TABLES).await?;
    let bus = service.bus()?;
    service.relay(&store, &bus);
    let public = routes(store, service.config().profile);
    service.serve(public, Router::new()).await
}

fn routes(store: Store, profile: Profile) -> Router {
    let app = App {
        store,
        queries: Bulkhead::queries(profile),
        commands: Bulkhead::commands(profile),
    };
    Router::new()
        .route("/products", get(list).post(create))
        .route("/products/batch", post(batch))
        .route("/products/{sku}", get(show).put(update))
        .with_state(app)
}

#[derive(Deserialize)]
struct Listing {
    page: Option<i64>,
    limit: Option<i64>,
    category: Option<String>,
    search: Option<String>,
}

/// `?page=1&limit=10&category=…&search=…`; pages are stable because products are sorted by SKU.
async fn list(
    State(app): State<App>,
    Query(listing): Query<Listing>,
) -> Result<Json<Value>, ApiError> {
    let _executing = app.queries.enter()?;
    let limit = listing.limit.unwrap_or(10).clamp(1, PAGE_MAX);
    let page = listing.page.unwrap_or(1).clamp(1, i64::MAX / PAGE_MAX);
    let select = sql(
        "SELECT sku, name, category, price_cents, version FROM products
         WHERE ($1 = '' OR category = $1) AND ($2 = '' OR lower(name) LIKE $3 ESCAPE '!')
         ORDER BY sku LIMIT $4 OFFSET $5",
    );
    let search = listing.search.unwrap_or_default().to_lowercase();
    let select = select
        .bind(listing.category.unwrap_or_default())
        .bind(&search);
    let select = select
        .bind(like(&search))
        .bind(limit)
        .bind((page - 1) * limit);
    let products = app.store.rows(select).await?;
    let products = products.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(
        json!({ "products": products, "page": page, "limit": limit }),
    ))
}

/// A pattern that finds `text` anywhere, whatever wildcards it contains.
fn like(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| {
            matches!(c, '%' | '_' | '!')
                .then_some('!')
                .into_iter()
                .chain([c])
        })
        .collect();
    format!("%{escaped}%")
}

fn shown(row: &Row) -> Result<Value, StoreError> {
    Ok(json!({
        "sku": row.try_get::<String, _>("sku")?,
        "name": row.try_get::<String, _>("name")?,
        "category": row.try_get::<String, _>("category")?,
        "price_cents": row.try_get::<i64, _>("price_cents")?,
        "version": row.try_get::<i64, _>("version")?,
    }))
}

async fn find(store: &Store, sku: &str) -> Result<Option<Value>, StoreError> {
    let select =
        sql("SELECT sku, name, category, price_cents, version FROM products WHERE sku = $1");
    store
        .row(select.bind(sku))
        .await?
        .as_ref()
        .map(shown)
        .transpose()
}

async fn show(State(app): State<App>, Path(sku): Path<String>) -> Result<Json<Value>, ApiError> {
    let _executing = app.queries.enter()?;
    find(&app.store, &sku)
        .await?
        .map(Json)
        .ok_or_else(|| ApiError::not_found("product"))
}

#[derive(Deserialize)]
struct Batch {
    skus: Vec<String>,
}

/// Many products in one call; those that do not exist are named.
async fn batch(State(app): State<App>, Json(batch): Json<Batch>) -> Result<Json<Value>, ApiError> {
    let _executing = app.queries.enter()?;
    if batch.skus.len() > BATCH_MAX {
        return Err(ApiError::bad_request(format!(
            "at most {BATCH_MAX} products at a time"
        )));
    }
    let (mut products, mut missing) = (Vec::new(), Vec::new());
    for sku in batch.skus {
        match find(&app.store, &sku).await? {
            Some(product) => products.push(product),
            None => missing.push(sku),
        }
    }
    Ok(Json(json!({ "products": products, "missing": missing })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Product {
    sku: Option<String>,
    name: String,
    category: String,
    price_cents: i64,
}

impl Product {
    fn check(&self) -> Result<(), ApiError> {
        let short = |text: &str| (1..=200).contains(&text.len());
        if !short(&self.name) || !short(&self.category) {
            return Err(ApiError::bad_request(
                "`name` and `category` have 1 to 200 bytes",
            ));
        }
        if self.price_cents < 1 {
            return Err(ApiError::bad_request("`price_cents` is at least 1"));
        }
        Ok(())
    }
}

fn require_admin(headers: &HeaderMap) -> Result<(), ApiError> {
    let roles = headers
        .get("x-user-roles")
        .and_then(|roles| roles.to_str().ok());
    let admin = roles.is_some_and(|roles| roles.split(',').any(|role| role == "admin"));
    let error = || {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "only admins may do this",
        )
    };
    admin.then_some(()).ok_or_else(error)
}

async fn create(
    State(app): State<App>,
    context: Context,
    headers: HeaderMap,
    Json(product): Json<Product>,
) -> Result<Response, ApiError> {
    require_admin(&headers)?;
    product.check()?;
    let _executing = app.commands.enter()?;
    let sku = product.sku.filter(|sku| (1..=40).contains(&sku.len()));
    let sku = sku.ok_or_else(|| ApiError::bad_request("`sku` has 1 to 40 bytes"))?;
    let mut tx = app.store.begin().await?;
    let insert = sql(
        "INSERT INTO products (sku, name, category, price_cents, version, updated_at)
         VALUES ($1, $2, $3, $4, 1, $5)",
    );
    let insert = insert
        .bind(&sku)
        .bind(&product.name)
        .bind(&product.category);
    match tx
        .execute(insert.bind(product.price_cents).bind(wall_ms()))
        .await
    {
        Err(StoreError::Unique) => {
            return Err(ApiError::conflict("exists", "this product exists already"));
        }
        other => drop(other?),
    }
    let data = json!({ "sku": sku, "price_cents": product.price_cents });
    outbox::put(
        &mut tx,
        &Event::new("product.created", &sku, 1, &context, data),
    )
    .await?;
    tx.commit().await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "sku": sku, "version": 1 })),
    )
        .into_response())
}

async fn update(
    State(app): State<App>,
    context: Context,
    headers: HeaderMap,
    Path(sku): Path<String>,
    Json(product): Json<Product>,
) -> Result<Json<Value>, ApiError> {
    require_admin(&headers)?;
    product.check()?;
    let _executing = app.commands.enter()?;
    let mut tx = app.store.begin().await?;
    let update = sql(
        "UPDATE products SET name = $1, category = $2, price_cents = $3,
                version = version + 1, updated_at = $4
         WHERE sku = $5 RETURNING version",
    );
    let update = update
        .bind(&product.name)
        .bind(&product.category)
        .bind(product.price_cents);
    let row = tx.row(update.bind(wall_ms()).bind(&sku)).await?;
    let row = row.ok_or_else(|| ApiError::not_found("product"))?;
    let version: i64 = row.try_get("version").map_err(StoreError::from)?;
    let data = json!({ "sku": sku, "price_cents": product.price_cents });
    let event = Event::new("product.updated", &sku, version, &context, data);
    outbox::put(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(Json(json!({ "sku": sku, "version": version })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_for_a_percent_sign_finds_percent_signs() {
        assert_eq!(like("50%_!"), "%50!%!_!!%");
    }

    #[test]
    fn only_the_role_admin_may_change_products() {
        let with = |roles: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-user-roles", roles.parse().unwrap());
            require_admin(&headers)
        };
        assert!(with("customer,admin").is_ok());
        assert_eq!(
            with("customer,administrator").unwrap_err().status,
            StatusCode::FORBIDDEN
        );
        assert!(require_admin(&HeaderMap::new()).is_err());
    }
}
