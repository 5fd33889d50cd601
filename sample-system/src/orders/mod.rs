//! `orders`: takes orders and sees each one through, whatever fails on the way.
//!
//! ```text
//! POST /orders ── one transaction: order.placed + saga + placement ── 201, 402, 409, or 202 after 2 s
//!                        │
//!                        ▼ drive.rs            machine.rs says what is next (pure)
//!   validate → reserve → charge → CONFIRM → commit          forward, until the deadline
//!                 ▲          ▲
//!              release ◄── refund                           undo, for ever
//! ```
//!
//! The truth is the event store (`events.rs`, folded by `aggregate.rs`); `view.rs` derives what clients read. The
//! saga's memory is its log (`ledger.rs`); what could not go on comes back through `redrive.rs`. It never takes money
//! or stock itself: `steps.rs` asks those who do. Read next: `machine.rs`, then `drive.rs`.

mod aggregate;
mod api;
mod drive;
mod events;
mod evidence;
mod ledger;
mod machine;
mod place;
mod prices;
mod redrive;
mod replica;
mod schema;
mod steps;
mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::kit::bus::Bus;
use crate::kit::config::{Config, ConfigError, Profile};
use crate::kit::consumer::ConsumerSpec;
use crate::kit::edge::{Edge, EdgePolicy};
use crate::kit::killpoint::KillPoints;
use crate::kit::service::{RunError, Service};
use crate::kit::shutdown::Stop;
use crate::kit::store::Store;
use events::Publish;
use ledger::Worker;
use prices::LastPrices;
use redrive::Desk;

/// Everything that the parts of `orders` share.
pub(crate) struct Shop {
    store: Store,
    /// The read side has connections of its own: a storm of queries does not hold up a command.
    view: Store,
    users: Edge,
    catalog: Edge,
    inventory: Edge,
    payments: Edge,
    bus: Arc<dyn Bus>,
    killpoints: KillPoints,
    worker: Worker,
    prices: LastPrices,
    desk: Desk,
    /// Events were appended: the projector has something to do.
    appended: Notify,
    publish: Publish,
    swallows_undo_errors: bool,
    /// The compensatable steps in order, as text, for new sagas.
    plan: String,
    /// From placed to given up, unless confirmed.
    deadline_ms: i64,
}

/// Runs the service until it is asked to stop.
///
/// # Errors
/// The environment is wrong, the database cannot be opened, or work was cut at the end.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let shop = Arc::new(Shop::open(&service).await?);
    service.relay(&shop.store, &shop.bus);
    let consumer = ConsumerSpec {
        queue: "orders",
        prefetch: 50,
    };
    service.consume(
        consumer,
        &shop.store,
        &shop.bus,
        Arc::new(replica::Replicas),
    );
    let driver = Arc::clone(&shop);
    service.spawn("sagas", |stop| redrive::work(driver, stop));
    let projector = Arc::clone(&shop);
    service.spawn("projection", |stop| keep_projecting(projector, stop));
    let public = api::routes(&shop, service.config());
    let internal = evidence::routes(&shop, service.evidence());
    service.serve(public, internal).await
}

impl Shop {
    async fn open(service: &Service) -> Result<Self, RunError> {
        let config = service.config();
        let store = service.store(schema::TABLES).await?;
        let view = Store::open(config.required("DATABASE_URL")?, &[]).await?;
        let ordinary = EdgePolicy::ordinary(config.profile);
        let plan = config
            .optional("SHOP_SAGA_STEPS")
            .unwrap_or("reserve,charge")
            .to_owned();
        machine::plan(&plan).map_err(|_wrong| ConfigError::Invalid {
            name: "SHOP_SAGA_STEPS".to_owned(),
            value: plan.clone(),
            expected: "`reserve,charge` or `charge,reserve`",
        })?;
        let by_outbox = !config.defects.on("m6");
        Ok(Self {
            users: service.edge("users", ordinary)?,
            catalog: service.edge("catalog", ordinary)?,
            inventory: service.edge("inventory", ordinary)?,
            payments: service.edge("payments", EdgePolicy::payments(config.profile))?,
            bus: service.bus()?,
            killpoints: service.killpoints().clone(),
            worker: Worker {
                name: config
                    .optional("SHOP_REPLICA")
                    .unwrap_or("orders")
                    .to_owned(),
                incarnation: config.incarnation.clone(),
            },
            prices: LastPrices::load(&store).await?,
            desk: Desk::default(),
            appended: Notify::new(),
            publish: if by_outbox {
                Publish::ByOutbox
            } else {
                Publish::AfterCommit
            },
            swallows_undo_errors: config.defects.on("m10"),
            deadline_ms: deadline_ms(config)?,
            plan,
            store,
            view,
        })
    }
}

fn deadline_ms(config: &Config) -> Result<i64, ConfigError> {
    let default = if config.profile == Profile::Fast {
        8_000
    } else {
        60_000
    };
    let Some(text) = config.optional("SHOP_PAYMENT_DEADLINE_MS") else {
        return Ok(default);
    };
    text.parse()
        .ok()
        .filter(|ms| *ms > 0)
        .ok_or_else(|| ConfigError::Invalid {
            name: "SHOP_PAYMENT_DEADLINE_MS".to_owned(),
            value: text.to_owned(),
            expected: "milliseconds, more than 0",
        })
}

/// Keeps the read model up to date until `stop`.
async fn keep_projecting(shop: Arc<Shop>, stop: Stop) {
    while !stop.asked() {
        let pause = match view::project(&shop.store, &shop.killpoints).await {
            Ok(0) => view::LOOK,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "projection waits");
                view::LOOK
            }
        };
        tokio::select! {
            () = stop.wait() => {}
            () = shop.appended.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How long one step may take in all its tries: the saga comes back to it anyway.
const STEP: Duration = Duration::from_millis(2_500);
/// How long a charge or a refund may take: payments waits 2 s for the provider, we wait longer than payments.
const MONEY: Duration = Duration::from_secs(4);
