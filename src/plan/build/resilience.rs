//! Properties of resilience: breakers, retries, recovery.

use std::time::Duration;

use crate::diagnostic::Span;
use crate::diagnostic::meaning;
use crate::plan::property::{Breaker, BreakerWhen, Expected, Recovers, Retries};
use crate::plan::quantity::duration_text;
use crate::plan::{FaultPlan, LinkName, Plan, Property};
use crate::scenario::property_file::{AtMostFile, BreakerExpectFile, RecoversFile, RetriesFile};

use super::Builder;
use super::expected::{count_text, quantile_n_min, quantile_text};
use super::properties::Built;
use super::traffic::{is_constant, journeys_between, share_of};
use super::windows::operations_in;

/// Demand that a breaker's suppression is measured on.
const BREAKER_DEMAND_MIN: u64 = 20;
const BLOCKS_AT_LEAST_DEFAULT: f64 = 0.9;
const HOLD_DEFAULT: Duration = Duration::from_secs(5);

impl Builder<'_> {
    pub(super) fn breaker_property(
        &mut self,
        file: &BreakerExpectFile,
        span: Span,
        plan: &Plan,
    ) -> Option<Built> {
        let link = self.link_named(&file.link)?;
        let Some(breaker) = plan.link(&link).and_then(|link| link.breaker) else {
            let what = format!("`breaker:` on the link `{link}`");
            let help = "say how it is set: `breaker: { threshold: 50%, window: 20, \
                        min-calls: 10, open-for: 2s, probes: 3 }`";
            self.mistake(meaning::not_declared(file.link.span, &what, help));
            return None;
        };
        let keys = [
            ("during", file.during.is_some()),
            ("after", file.after.is_some()),
        ];
        self.choose(span, "`breaker`", &keys)?;
        let (when, from, to) = match (&file.during, &file.after) {
            (Some(name), _) => {
                let fault = self.fault_named(name, plan)?;
                let when = self.breaker_opens(file, span, fault)?;
                (when, fault.start, fault.end())
            }
            (None, Some(name)) => {
                let fault = self.fault_named(name, plan)?;
                let stuck = breaker.open_for * 3;
                let when = self.breaker_closes(file, span, fault, stuck, plan)?;
                (when, fault.end(), plan.phases.load_end)
            }
            (None, None) => return None,
        };
        let n = demand_between(plan, &link, from, to);
        let counted = count_text(n);
        let expected = Expected {
            n,
            n_min: BREAKER_DEMAND_MIN * u64::from(breaker.instances),
            arithmetic: format!(
                "about {counted} calls of demand, one per journey unless `calls:` or the baseline \
                 says otherwise; {BREAKER_DEMAND_MIN} needed per caller"
            ),
        };
        self.check_n(span, &expected, "suppression is a share of demand");
        let transitions = plan.claims_on(&link);
        let property = Property::Breaker(Breaker {
            link,
            when,
            breaker,
            transitions,
        });
        Some((property, expected))
    }

    fn breaker_opens(
        &mut self,
        file: &BreakerExpectFile,
        span: Span,
        fault: &FaultPlan,
    ) -> Option<BreakerWhen> {
        let Some(written) = &file.opens_within else {
            let keys = ["opens-within"];
            self.mistake(meaning::one_of(
                span,
                "`breaker` with `during:`",
                &keys,
                &[],
            ));
            return None;
        };
        let opens_within = self.time(written);
        let lasts = fault.end().saturating_sub(fault.start);
        if opens_within >= lasts {
            let (what, has) = (format!("`{}`", fault.name), duration_text(lasts));
            let needs = format!(
                "more than its `opens-within` of {}",
                duration_text(opens_within)
            );
            self.mistake(meaning::too_short(written.0.span, &what, &has, &needs));
        }
        let blocks = file.blocks_at_least.as_ref();
        let blocks_at_least = blocks.map_or(BLOCKS_AT_LEAST_DEFAULT, |share| self.share(share));
        if let Some(share) = blocks.filter(|_| blocks_at_least > 1.0) {
            let why = "no more than all calls can be kept off";
            self.mistake(meaning::never_passes(
                share.0.span,
                why,
                "choose a share up to 100%",
            ));
        }
        Some(BreakerWhen::During {
            fault: fault.name.clone(),
            opens_within,
            blocks_at_least,
        })
    }

    fn breaker_closes(
        &mut self,
        file: &BreakerExpectFile,
        span: Span,
        fault: &FaultPlan,
        stuck: Duration,
        plan: &Plan,
    ) -> Option<BreakerWhen> {
        let Some(written) = &file.closes_within else {
            let keys = ["closes-within"];
            self.mistake(meaning::one_of(span, "`breaker` with `after:`", &keys, &[]));
            return None;
        };
        let closes_within = self.time(written);
        self.check_load_after(written.0.span, fault, closes_within.max(stuck), plan);
        Some(BreakerWhen::After {
            fault: fault.name.clone(),
            closes_within,
        })
    }

    /// The load must go on long enough after a fault for its end to be judged.
    pub(super) fn check_load_after(
        &mut self,
        span: Span,
        fault: &FaultPlan,
        needs: Duration,
        plan: &Plan,
    ) {
        let has = plan.phases.load_end.saturating_sub(fault.end());
        if has < needs {
            let what = format!("the load after `{}`", fault.name);
            let (has, needs) = (duration_text(has), duration_text(needs));
            let help = "make `recovery:` under `phases:` longer";
            self.mistake(meaning::too_short(span, &what, &has, &needs).help(help));
        }
    }

    pub(super) fn retries(&mut self, file: &RetriesFile, span: Span, plan: &Plan) -> Option<Built> {
        let link = self.link_named(&file.link);
        let window = self.window(&file.window(), span, plan);
        let amplification_at_most = self.at_most(file.amplification.as_ref());
        let peak_at_most = self.at_most(file.peak.as_ref());
        let attempts = self.at_most(file.attempts.as_ref());
        if amplification_at_most
            .or(peak_at_most)
            .or(attempts)
            .is_none()
            && !(file.jitter || file.backoff || file.redrives_after.is_some())
        {
            let keys = [
                "amplification",
                "peak",
                "attempts",
                "jitter",
                "backoff",
                "redrives-after",
            ];
            self.mistake(meaning::one_of(span, "`retries`", &keys, &[]));
        }
        let deadline = self.time_or(file.deadline.as_ref(), plan.load.timeout);
        let redrives_after = self.redrives_after(file);
        let (link, window) = (link?, window?);
        if let Some(on) = plan.link(&link).filter(|on| on.correlate.is_none()) {
            let what = format!("`correlate:` on the link `{}`", on.name);
            let help = "name the header that attempts of one call share: \
                        `correlate: Idempotency-Key`";
            self.mistake(meaning::not_declared(file.link.span, &what, help));
        }
        let n = operations_in(plan, &window, None);
        let counted = count_text(n);
        let expected = Expected {
            n,
            n_min: 20,
            arithmetic: format!("about {counted} journeys; 20 keys on the link needed"),
        };
        self.check_n(span, &expected, "a ratio needs that many keys");
        let property = Property::Retries(Retries {
            link,
            window,
            amplification_at_most,
            peak_at_most,
            attempts_at_most: attempts.map(|attempts| attempts as u32),
            deadline,
            redrives_after,
            jitter: file.jitter,
            backoff: file.backoff,
        });
        Some((property, expected))
    }

    /// The pause that tells re-drives apart, so that retries can be held to the declared deadline.
    fn redrives_after(&mut self, file: &RetriesFile) -> Option<Duration> {
        let written = file.redrives_after.as_ref()?;
        let at = written.0.span;
        let pause = self.time(written);
        if pause.is_zero() && self.mistakes.iter().all(|m| m.span != Some(at)) {
            let why = "every attempt is a re-drive, so there are no retries";
            let help = "say how long a re-drive waits at least";
            self.mistake(meaning::never_fails(at, why, help));
        }
        if file.deadline.is_none() {
            let keys = ["deadline"];
            self.mistake(meaning::one_of(at, "`redrives-after`", &keys, &[]));
        }
        Some(pause)
    }

    fn at_most(&mut self, limit: Option<&AtMostFile>) -> Option<f64> {
        let limit = &limit?.at_most;
        if limit.value < 1.0 {
            let why = "there is at least one attempt for each key";
            self.mistake(meaning::never_passes(
                limit.span,
                why,
                "choose a limit of 1 or more",
            ));
        }
        Some(limit.value)
    }

    pub(super) fn recovers(
        &mut self,
        file: &RecoversFile,
        span: Span,
        plan: &Plan,
    ) -> Option<Built> {
        let operation = self.operation(&file.operation, plan);
        let fault = self.fault_named(&file.after, plan)?;
        let within = self.time(&file.within);
        let hold = self.time_or(file.hold.as_ref(), HOLD_DEFAULT);
        self.check_load_after(file.within.0.span, fault, within + hold, plan);
        let compared = (plan.phases.baseline_start, fault.end() + within + hold);
        if !is_constant(&plan.load, compared.0, compared.1) {
            self.mistake(meaning::load_changes(file.after.span));
        }
        let goodput = file
            .goodput
            .as_ref()
            .map_or(0.95, |share| self.share(share));
        let named = [(0.5, &file.p50), (0.9, &file.p90), (0.99, &file.p99)];
        let keys = [
            ("p50", file.p50.is_some()),
            ("p90", file.p90.is_some()),
            ("p99", file.p99.is_some()),
        ];
        let (quantile, latency) = match keys.iter().any(|(_, given)| *given) {
            false => (0.9, 1.5),
            true => {
                let chosen = self.choose(span, "`recovers`", &keys)?;
                let (quantile, share) = named[chosen];
                (
                    quantile,
                    share.as_ref().map_or(1.5, |share| self.share(share)),
                )
            }
        };
        let operation = operation?;
        let from = fault.end();
        let in_hold = journeys_between(&plan.load, from, from + hold);
        let n = (in_hold * share_of(&plan.load, &operation)).round() as u64;
        let (counted, held) = (count_text(n), duration_text(hold));
        let needed = count_text(quantile_n_min(quantile));
        let name = quantile_text(quantile);
        let expected = Expected {
            n,
            n_min: quantile_n_min(quantile),
            arithmetic: format!(
                "about {counted} operations in each {held}, {needed} needed for {name} (five \
                 beyond it)"
            ),
        };
        self.check_n(
            span,
            &expected,
            "a percentile needs five operations beyond it",
        );
        let property = Property::Recovers(Recovers {
            operation,
            after: fault.name.clone(),
            goodput,
            quantile,
            latency,
            within,
            hold,
        });
        Some((property, expected))
    }
}

/// Calls that want to cross a link: as declared by `calls:`, else one per journey.
fn demand_between(plan: &Plan, link: &LinkName, from: Duration, to: Duration) -> u64 {
    let declared: f64 = plan
        .link(link)
        .map(|link| link.calls.values().sum())
        .unwrap_or_default();
    let per_journey = if declared > 0.0 { declared } else { 1.0 };
    (journeys_between(&plan.load, from, to) * per_journey).round() as u64
}
