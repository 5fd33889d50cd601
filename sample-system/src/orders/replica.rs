//! What `orders` keeps of other services' events: customers, so that an outage of `users` stops no order, and an empty
//! cart for each new one.

use futures_util::future::BoxFuture;
use serde::Deserialize;

use crate::kit::clock::wall_ms;
use crate::kit::consumer::{HandleError, Handler};
use crate::kit::event::Event;
use crate::kit::store::{Tx, sql};

/// The consumer of the queue `orders`. Events of payments and inventory are for the choreographed mode; the
/// orchestrated saga asks instead of listening.
pub(super) struct Replicas;

#[derive(Deserialize)]
struct UserCreated {
    user_id: String,
    email: String,
    name: String,
}

impl Handler for Replicas {
    fn handle<'a>(
        &'a self,
        tx: &'a mut Tx,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            if event.kind == "user.created" {
                keep_user(tx, event).await
            } else {
                Ok(())
            }
        })
    }
}

async fn keep_user(tx: &mut Tx, event: &Event) -> Result<(), HandleError> {
    let user: UserCreated = serde_json::from_value(event.data.clone())
        .map_err(|error| HandleError::Poison(error.to_string()))?;
    let customer = sql(
        "INSERT INTO customers (user_id, email, name) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET email = $2, name = $3",
    );
    tx.execute(
        customer
            .bind(&user.user_id)
            .bind(&user.email)
            .bind(&user.name),
    )
    .await?;
    let cart = sql(
        "INSERT INTO carts (user_id, items, created_at) VALUES ($1, '[]', $2)
         ON CONFLICT DO NOTHING",
    );
    tx.execute(cart.bind(&user.user_id).bind(wall_ms())).await?;
    Ok(())
}
