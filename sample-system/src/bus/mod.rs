//! `busd`: a small message bus in a process of its own. Topic routing, durable queues, redelivery, dead
//! letters, over HTTP.
//!
//! ```text
//!  publish ─▶ topic match ─▶ one row per queue ─▶ ready ─fetch─▶ unacked ─ack─▶ gone
//!                                                  ▲  ▲             │  │
//!                              delay is over ── delayed ◀── nack ───┘  ├─ dead ─▶ dead letters
//!                                                     └── 5 s, or a new incarnation fetches
//! ```
//!
//! A publish is answered after its commit: what was confirmed survives `kill -9`. What nobody wants is
//! refused. All writes go through one task that commits whatever came in together (`bus::committer`),
//! so a hundred publishers cost one commit. Next: `bus::queues` (the statements), `bus::api`.

mod api;
mod committer;
mod queues;

use crate::kit::bus::QUEUES;
use crate::kit::config::{Config, ConfigError};
use crate::kit::service::{RunError, Service};
use committer::Committer;

/// Serves the bus until it is stopped.
pub(crate) async fn run(service: Service) -> Result<(), RunError> {
    let topology = topology(service.config())?;
    let store = service.store(&queues::TABLES).await?;
    queues::declare_all(&store, &topology).await?;
    let (committer, work) = Committer::new(store.clone());
    service.spawn("committer", |stop| work.run(stop));
    let (public, internal) = api::routers(&service, store, committer);
    service.serve(public, internal).await
}

/// One queue and the topic patterns it wants.
type Declared = (String, Vec<String>);

/// The queues that exist from the start: `BUS_TOPOLOGY`, such as `orders=payment.*,user.created;all=#`,
/// or else the shop's own.
fn topology(config: &Config) -> Result<Vec<Declared>, ConfigError> {
    let Some(text) = config.optional("BUS_TOPOLOGY") else {
        let own = QUEUES.iter().map(|binding| {
            let patterns = binding.patterns.iter().map(|pattern| (*pattern).to_owned());
            (binding.queue.to_owned(), patterns.collect())
        });
        return Ok(own.collect());
    };
    let queues = text
        .split(';')
        .map(str::trim)
        .filter(|queue| !queue.is_empty());
    queues.map(declared).collect()
}

fn declared(text: &str) -> Result<Declared, ConfigError> {
    let invalid = || ConfigError::Invalid {
        name: "BUS_TOPOLOGY".to_owned(),
        value: text.to_owned(),
        expected: "`QUEUE=PATTERN,PATTERN;QUEUE=…`",
    };
    let (queue, patterns) = text.split_once('=').ok_or_else(invalid)?;
    let patterns: Vec<String> = patterns.split(',').map(|p| p.trim().to_owned()).collect();
    if queue.is_empty() || patterns.iter().any(String::is_empty) {
        return Err(invalid());
    }
    Ok((queue.trim().to_owned(), patterns))
}

#[cfg(test)]
mod tests;
