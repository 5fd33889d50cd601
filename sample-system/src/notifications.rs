//! Tells customers what happened: one rendered message per event and channel.
//!
//! The messages stand in a table whose key is (event, channel), so a redelivered event cannot send one
//! twice. Who was told what, and how often it was delivered, is in `/internal/ledger`.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::kit::clock::wall_ms;
use crate::kit::consumer::{ConsumerSpec, HandleError, Handler};
use crate::kit::error::ApiError;
use crate::kit::event::Event;
use crate::kit::evidence::{Evidence, Page};
use crate::kit::service::{RunError, Service};
use crate::kit::store::{Store, Tx, sql};

const TABLES: [&str; 1] = ["CREATE TABLE IF NOT EXISTS messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, channel TEXT NOT NULL,
        recipient TEXT NOT NULL, text TEXT NOT NULL, created_at BIGINT NOT NULL,
        UNIQUE (event_id, channel))"];

/// How many events are held at a time.
const PREFETCH: u32 = 32;

#[derive(Clone)]
struct App {
    store: Store,
    evidence: Evidence,
}

/// Serves notifications until it is stopped.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let store = service.store(&TABLES).await?;
    let bus = service.bus()?;
    let spec = ConsumerSpec {
        queue: "notifications",
        prefetch: PREFETCH,
    };
    service.consume(spec, &store, &bus, Arc::new(Notify));
    let app = App {
        store,
        evidence: service.evidence(),
    };
    let internal = Router::new()
        .route("/internal/messages", get(messages))
        .with_state(app);
    service.serve(Router::new(), internal).await
}

async fn messages(State(app): State<App>, page: Page) -> Result<Json<Value>, ApiError> {
    let query = "SELECT seq, event_id, channel, recipient, text, created_at
         FROM messages WHERE seq > $1 ORDER BY seq LIMIT $2";
    let columns = [
        "seq",
        "event_id",
        "channel",
        "recipient",
        "text",
        "created_at",
    ];
    Ok(app
        .evidence
        .table(&app.store, "rows", query, &columns, page)
        .await?)
}

struct Notify;

impl Handler for Notify {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            let recipient = event.data["user_id"]
                .as_str()
                .unwrap_or(&event.aggregate_id);
            for (channel, text) in render(event) {
                let insert = sql("INSERT INTO messages
                     (event_id, channel, recipient, text, created_at)
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
                .bind(&event.id)
                .bind(channel)
                .bind(recipient)
                .bind(text)
                .bind(wall_ms());
                tx.execute(insert).await?;
            }
            Ok(())
        })
    }
}

/// The messages of one event, by channel. A type without a template is handled and says nothing.
fn render(event: &Event) -> Vec<(&'static str, String)> {
    let id = &event.aggregate_id;
    let text = match event.kind.as_str() {
        "user.created" => "Welcome to the shop.".to_owned(),
        "order.placed" => format!("We received your order {id}."),
        "order.confirmed" => format!("Your order {id} is confirmed."),
        "order.cancelled" => format!("Your order {id} was cancelled."),
        "order.rejected" => format!("We cannot accept your order {id}."),
        "order.shipped" => format!("Your order {id} is on its way."),
        "order.completed" => format!("Your order {id} was delivered."),
        "payment.completed" => format!("We received your payment for order {id}."),
        "payment.failed" => format!("Your payment for order {id} was declined."),
        "payment.refunded" => format!("We returned your payment for order {id}."),
        unknown => {
            tracing::debug!(kind = unknown, "no template for this type of event");
            return Vec::new();
        }
    };
    let mut messages = vec![("email", text.clone())];
    if matches!(
        event.kind.as_str(),
        "order.confirmed" | "order.cancelled" | "order.shipped"
    ) {
        messages.push(("push", text));
    }
    messages
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kit::context::Context;

    #[test]
    fn an_order_that_ends_is_told_on_two_channels() {
        let event = Event::new(
            "order.confirmed",
            "o1",
            4,
            &Context::background(),
            json!({}),
        );
        let channels: Vec<_> = render(&event)
            .into_iter()
            .map(|(channel, _)| channel)
            .collect();
        assert_eq!(channels, ["email", "push"]);
    }

    #[test]
    fn an_unknown_type_says_nothing() {
        let event = Event::new(
            "order.teleported",
            "o1",
            4,
            &Context::background(),
            json!({}),
        );
        assert!(render(&event).is_empty());
    }
}
