//! After the load: waits until nothing is in flight, bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::evidence::{Event, Record, Sample};
use crate::plan::SourceName;

use super::collect::Context;
use super::collect::backlog::Backlog;

/// How often backlogs are read.
const EVERY: Duration = Duration::from_millis(500);

/// Readings of one round.
struct Round {
    left: BTreeMap<String, f64>,
    unread: BTreeMap<String, String>,
}

/// Reads backlogs for the charts while the load is on.
pub(crate) async fn watch(context: &Context, backlogs: &[Backlog], stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        read(context, backlogs).await;
    }
}

/// Waits until all backlogs were zero for the quiet period, or the bound is reached. Without any
/// backlog nothing tells that nothing is in flight, and the bound is what the file gives it.
pub(crate) async fn drain(context: &Context, backlogs: &[Backlog]) {
    let phases = context.plan.phases;
    let begun = Instant::now();
    let mut quiet_since: Option<Instant> = None;
    loop {
        let round = read(context, backlogs).await;
        let now = Instant::now();
        let is_zero = round.left.is_empty() && round.unread.is_empty();
        quiet_since = if is_zero {
            quiet_since.or(Some(now))
        } else {
            None
        };
        let was_quiet = quiet_since.is_some_and(|since| now - since >= phases.drain_quiet);
        let is_over = now - begun >= phases.drain_within;
        let drained = match backlogs {
            [] => is_over,
            _ => was_quiet,
        };
        if drained || is_over {
            context.journal.event(Event::DrainEnded {
                drained,
                left: round.left,
                unread: round.unread,
                took_ms: u64::try_from((now - begun).as_millis()).unwrap_or(u64::MAX),
            });
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn read(context: &Context, backlogs: &[Backlog]) -> Round {
    let readings = backlogs.iter().map(|backlog| backlog.read(context));
    let values = futures_util::future::join_all(readings).await;
    let mut round = Round {
        left: BTreeMap::new(),
        unread: BTreeMap::new(),
    };
    for (backlog, value) in backlogs.iter().zip(values) {
        let name = backlog.plan.name.to_string();
        match value {
            Ok(value) => {
                context.journal.record(Record::Sample(Sample {
                    source: SourceName::new("backlog"),
                    series: format!("backlog:{name}"),
                    at_ns: context.journal.now_ns(),
                    value,
                }));
                if value != 0.0 {
                    round.left.insert(name, value);
                }
            }
            Err(error) => {
                round.unread.insert(name, error);
            }
        }
    }
    round
}
