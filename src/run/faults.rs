//! One fault from its planned start to its confirmed end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::evidence::Event;
use crate::plan::{FaultEffect, FaultName, FaultPlan, LinkName, ProcessEffect};

use super::bindings::Bindings;
use super::collect::http::phrase;
use super::fleet::Fleet;
use super::journal::Journal;
use super::links::{Confirmed, Links, PROBE_TRACE};

/// How long a link may take to answer its probe after a fault.
const PROBE_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// What faults act through.
#[derive(Clone)]
pub(crate) struct Injector {
    pub(crate) links: Arc<Links>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) client: reqwest::Client,
    /// T0 on the run clock.
    pub(crate) t0_ns: u64,
}

impl Injector {
    /// Waits for a fault's start and for the end of those `before` it, applies it, waits for its end,
    /// lifts it; then it is `over`.
    pub(crate) async fn inject(
        self,
        fault: FaultPlan,
        before: Vec<CancellationToken>,
        over: DropGuard,
    ) {
        // Held to the end, whichever end this comes to.
        let _over = over;
        self.sleep_until(fault.start).await;
        for earlier in before {
            earlier.cancelled().await;
        }
        self.journal.event_durable(Event::FaultApplying {
            fault: fault.name.clone(),
        });
        let asked_ns = self.journal.now_ns();
        match self.apply(&fault).await {
            Ok(confirmed) => self.journal.event_durable(Event::FaultApplied {
                fault: fault.name.clone(),
                asked_ns,
                confirmed_ns: confirmed.at_ns,
                detail: confirmed.detail,
            }),
            // Half applied is applied: it must still be lifted.
            Err(why) => self.failed(&fault, format!("not applied: {why}")),
        }
        self.sleep_until(fault.end()).await;
        self.journal.event_durable(Event::FaultLifting {
            fault: fault.name.clone(),
        });
        let asked_ns = self.journal.now_ns();
        let bites = match &fault.effect {
            FaultEffect::Link { links, .. } => self.links.bites(&fault.name, links).await,
            FaultEffect::Process { .. } => Vec::new(),
        };
        match self.lift(&fault).await {
            Ok(confirmed) => self.journal.event_durable(Event::FaultLifted {
                fault: fault.name.clone(),
                asked_ns,
                confirmed_ns: confirmed.at_ns,
                bites,
            }),
            Err(why) => self.failed(&fault, format!("not lifted: {why}")),
        }
        if let FaultEffect::Link { links, .. } = &fault.effect {
            join_all(links.iter().map(|link| self.probe(&fault.name, link))).await;
        }
    }

    /// Asks the declared probe of a link, if it has one, until it answers or its time is over.
    async fn probe(&self, fault: &FaultName, link: &LinkName) {
        let plan = self.links.plan().link(link);
        let Some(path) = plan.and_then(|plan| plan.probe.as_deref()) else {
            return;
        };
        let url = format!("http://{}{path}", self.bindings.links[link]);
        let begun_ns = self.journal.now_ns();
        let (took_ms, detail) = loop {
            let answer = self.client.get(&url).timeout(PROBE_EVERY * 10);
            let traceparent = format!("00-{PROBE_TRACE}-00000000000c4a05-01");
            let answer = answer.header("traceparent", traceparent).send().await;
            let since_ms = (self.journal.now_ns() - begun_ns) / 1_000_000;
            let (answered, detail) = match answer {
                Ok(answer) => {
                    let status = answer.status();
                    (status.is_success(), format!("status {}", status.as_u16()))
                }
                Err(error) => (false, phrase(&error)),
            };
            if answered {
                break (Some(since_ms), detail);
            }
            if Duration::from_millis(since_ms) >= PROBE_WITHIN {
                break (None, detail);
            }
            tokio::time::sleep(PROBE_EVERY).await;
        };
        self.journal.event(Event::LinkProbed {
            fault: fault.clone(),
            link: link.clone(),
            took_ms,
            detail,
        });
    }

    fn failed(&self, fault: &FaultPlan, why: String) {
        self.journal.event_durable(Event::FaultFailed {
            fault: fault.name.clone(),
            why,
        });
    }

    /// Waits until an offset from T0.
    pub(crate) async fn sleep_until(&self, offset: Duration) {
        let due_ns = self.t0_ns + u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX);
        let left = due_ns.saturating_sub(self.journal.now_ns());
        tokio::time::sleep(Duration::from_nanos(left)).await;
    }

    async fn apply(&self, fault: &FaultPlan) -> Result<Confirmed, String> {
        match &fault.effect {
            FaultEffect::Link {
                links,
                direction,
                effect,
            } => {
                self.links
                    .apply(&fault.name, links, *direction, effect)
                    .await
            }
            FaultEffect::Process { services, effect } => {
                let each = services.iter().map(|service| async {
                    match effect {
                        ProcessEffect::Kill { .. } => self.fleet.kill(service).await,
                        ProcessEffect::Stop => self.fleet.stop(service, None).await,
                        ProcessEffect::Restart { signal, .. } => {
                            self.fleet.stop(service, Some(signal)).await
                        }
                        ProcessEffect::Pause => self.fleet.pause(service).await,
                    }
                });
                Ok(self.confirmed(try_join_all(each).await?))
            }
        }
    }

    async fn lift(&self, fault: &FaultPlan) -> Result<Confirmed, String> {
        match &fault.effect {
            FaultEffect::Link { links, .. } => self.links.lift(&fault.name, links).await,
            FaultEffect::Process { services, effect } => {
                let each = services.iter().map(|service| async {
                    match effect {
                        ProcessEffect::Pause => self.fleet.resume(service).await,
                        _ => self
                            .fleet
                            .start(service)
                            .await
                            .map_err(|error| error.to_string()),
                    }
                });
                Ok(self.confirmed(try_join_all(each).await?))
            }
        }
    }

    fn confirmed(&self, details: Vec<String>) -> Confirmed {
        Confirmed {
            at_ns: self.journal.now_ns(),
            detail: details.join(", "),
        }
    }
}
