//! The last prices that `catalog` told us: what an order is priced with while `catalog` does not answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::aggregate::Line;
use crate::kit::clock::wall_ms;
use crate::kit::store::{RowExt, Store, StoreError, sql};

/// Cents per product.
pub(super) type Prices = HashMap<String, i64>;

/// A replica in memory of the table `prices`; as large as the catalog.
#[derive(Debug, Default)]
pub(super) struct LastPrices(Mutex<Prices>);

impl LastPrices {
    /// Reads the table.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let rows = store
            .rows(sql("SELECT sku, price_cents FROM prices"))
            .await?;
        let prices = rows
            .iter()
            .map(|row| Ok((row.try_get("sku")?, row.try_get("price_cents")?)))
            .collect::<Result<Prices, StoreError>>()?;
        Ok(Self(Mutex::new(prices)))
    }

    /// Keeps what is new; only a price that changed is written.
    pub(super) async fn learn(&self, store: &Store, prices: &Prices) {
        let news: Vec<(String, i64)> = {
            let mut known = self.lock();
            let changed = prices
                .iter()
                .filter(|(sku, cents)| known.get(*sku) != Some(cents));
            let news: Vec<_> = changed.map(|(sku, cents)| (sku.clone(), *cents)).collect();
            known.extend(news.iter().cloned());
            news
        };
        for (sku, cents) in news {
            let upsert = sql(
                "INSERT INTO prices (sku, price_cents, at) VALUES ($1, $2, $3)
                 ON CONFLICT (sku) DO UPDATE SET price_cents = $2, at = $3",
            );
            // A price that could not be kept is asked for again with the next order after a restart.
            if let Err(error) = store
                .execute(upsert.bind(&sku).bind(cents).bind(wall_ms()))
                .await
            {
                tracing::warn!(sku, %error, "price not kept");
            }
        }
    }

    /// The last prices of all these products; `None` when one was never heard of.
    pub(super) fn last_known(&self, items: &[Line]) -> Option<Prices> {
        let known = self.lock();
        items
            .iter()
            .map(|line| Some((line.sku.clone(), *known.get(&line.sku)?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Prices> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
