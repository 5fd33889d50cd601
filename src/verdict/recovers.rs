//! `recovers`: the first t ≥ t₁ with goodput and percentile inside the band on [t, t + hold].
//!
//! The band is the given share of the baseline, for latency at least +50 ms. With an open schedule
//! goodput is compared per offered operation, so that the noise of arrivals is none of the
//! system's; else as a rate. Never recovered by the bound is a failure, never "infinite". Told as
//! well: time to detect and damage ∫(G₀ − G) dt. Planning has seen to it that the offered load
//! stays the same from the baseline on.

use std::time::Duration;

use crate::evidence::Operation;
use crate::plan::load::{LoadModel, OutcomeClass};
use crate::plan::property::Recovers;
use crate::plan::{OperationName, Window};

use super::Status;
use super::case::{Case, Gap};
use super::context::{Context, FaultSeen, Span, happened};
use super::latency::quantile_name;
use super::stats::quantile;
use super::text;

const STEP_NS: u64 = 250_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// The least that a latency may rise above the baseline's.
const BAND_MIN: Duration = Duration::from_millis(50);

/// Goodput and latency of a stretch.
struct Level {
    /// Done + accepted, per offered operation or per second.
    goodput: f64,
    latency: u64,
    n: usize,
}

pub(crate) fn check(context: &Context<'_>, property: &Recovers) -> Case {
    let window = Window::After {
        fault: property.after.clone(),
    };
    let mut case = context.case_in(&window, "operations");
    for target in context
        .faults_of(&window)
        .iter()
        .flat_map(|it| it.effect.targets())
    {
        case.blame(target);
    }
    let Some(seen) = context.faults.get(&property.after) else {
        return case;
    };
    let operations = context.operations_of(Some(&property.operation)).collect();
    let in_baseline = context.operations(&Window::Baseline, Some(&property.operation));
    let share = per_offered(context, &property.operation);
    let Some(usual) = level(&in_baseline, context.baseline, property.quantile, share) else {
        case.blocked(Gap::new(
            format!(
                "`{}` was never answered in the baseline",
                property.operation
            ),
            "lengthen `phases: baseline`",
        ));
        return case;
    };
    // Anything lies inside a band around nothing.
    if usual.goodput <= 0.0 || usual.latency == u64::MAX {
        let (op, name) = (&property.operation, quantile_name(property.quantile));
        let what = if usual.goodput <= 0.0 {
            format!("`{op}` was never done or accepted in the baseline")
        } else {
            format!("the {name} of `{op}` was a time-out in the baseline already")
        };
        case.blocked(Gap::new(
            what,
            "see to it that the system is well before the fault",
        ));
        return case;
    }
    let judge = Judge {
        context,
        property,
        operations,
        usual,
        share,
        seen,
    };
    let after = judge.in_span(Span::new(seen.on.to, context.load_end));
    context.expect_generator(&mut case, judge.band().1, &after);
    judge.run(&mut case);
    case
}

/// A schedule offers a journey's first step whatever the system does.
fn per_offered(context: &Context<'_>, operation: &OperationName) -> bool {
    let open = matches!(context.plan.load.model, LoadModel::Open(_));
    let journeys = &context.plan.load.journeys;
    let mut firsts = journeys.iter().filter_map(|journey| journey.steps.first());
    open && firsts.any(|step| step.name == *operation)
}

fn level(operations: &[&Operation], span: Span, q: f64, per_offered: bool) -> Option<Level> {
    let counts =
        |it: &&&Operation| !matches!(it.outcome, OutcomeClass::Refused | OutcomeClass::Unsettled);
    let counted = operations.iter().filter(counts);
    let mut latencies: Vec<u64> = counted
        .map(|it| match (it.outcome, it.status) {
            (OutcomeClass::Unknown, None) => u64::MAX,
            _ => it.latency_ns(),
        })
        .collect();
    latencies.sort_unstable();
    let good = operations.iter().filter(|it| happened(it)).count() as f64;
    let whole = if per_offered {
        operations.len() as f64
    } else {
        span.seconds()
    };
    Some(Level {
        goodput: good / whole.max(1e-9),
        latency: quantile(&latencies, q)?,
        n: operations.len(),
    })
}

struct Judge<'a> {
    context: &'a Context<'a>,
    property: &'a Recovers,
    operations: Vec<&'a Operation>,
    usual: Level,
    share: bool,
    seen: &'a FaultSeen<'a>,
}

impl Judge<'_> {
    fn run(&self, case: &mut Case) {
        let end = self.seen.on.to;
        let within = self.property.within.as_nanos() as u64;
        let hold = self.property.hold.as_nanos() as u64;
        case.limit = Some(text::span(within));
        case.n = self.in_span(Span::new(end, self.context.load_end)).len() as u64;
        self.expect_enough(case, hold);
        let (mut at, mut last) = (end, None);
        while at <= end + within && at + hold <= self.context.load_end {
            let level = self.level(Span::new(at, at + hold));
            if level.as_ref().is_some_and(|level| self.inside(level)) {
                self.recovered(case, at);
                return;
            }
            last = level.or(last);
            at += STEP_NS;
        }
        if end + within + hold > self.context.load_end + STEP_NS {
            case.blocked(Gap::new(
                format!(
                    "the load ended before {} and {} of hold were over",
                    text::span(within),
                    text::span(hold)
                ),
                "lengthen `phases: recovery`",
            ));
        }
        self.never(case, within, last.as_ref());
    }

    fn in_span(&self, span: Span) -> Vec<&Operation> {
        let from = self
            .operations
            .partition_point(|it| it.intended_ns < span.from);
        let rest = self.operations[from..].iter();
        rest.take_while(|it| it.intended_ns < span.to)
            .copied()
            .collect()
    }

    fn level(&self, span: Span) -> Option<Level> {
        level(
            &self.in_span(span),
            span,
            self.property.quantile,
            self.share,
        )
    }

    fn band(&self) -> (f64, u64) {
        let allowed = (self.usual.latency as f64 * self.property.latency) as u64;
        let floor = self
            .usual
            .latency
            .saturating_add(BAND_MIN.as_nanos() as u64);
        (
            self.usual.goodput * self.property.goodput,
            allowed.max(floor),
        )
    }

    fn inside(&self, level: &Level) -> bool {
        let (goodput, latency) = self.band();
        level.goodput >= goodput && level.latency <= latency
    }

    fn expect_enough(&self, case: &mut Case, hold: u64) {
        let q = self.property.quantile.min(0.999);
        let n_min = (5.0 / (1.0 - q)).round();
        let seconds = self.context.baseline.seconds().max(1e-9);
        let expected = self.usual.n as f64 / seconds * hold as f64 / 1e9;
        if expected < n_min {
            case.missing(Gap::new(
                format!(
                    "{} of hold see about {expected:.0} operations, {} needs {n_min}",
                    text::span(hold),
                    quantile_name(q)
                ),
                "raise `arrivals:` or lengthen `hold:`",
            ));
        }
    }

    fn recovered(&self, case: &mut Case, at: u64) {
        let end = self.seen.on.to;
        let within = self.property.within.as_nanos() as u64;
        case.value = Some(text::span(at - end));
        case.margin = Some(text::signed_span(i128::from(within) - i128::from(at - end)));
        case.measured = format!(
            "`{}` recovered {} after {} ended, limit {}{}",
            self.property.operation,
            text::span(at - end),
            self.property.after,
            text::span(within),
            self.told_damage(case, at)
        );
    }

    fn never(&self, case: &mut Case, within: u64, last: Option<&Level>) {
        let (goodput, latency) = self.band();
        let name = quantile_name(self.property.quantile);
        let seen = match last {
            Some(level) => format!(
                "at the end goodput {} of the baseline's (band {}), {name} {} (band {})",
                text::share(level.goodput / self.usual.goodput.max(1e-9)),
                text::share(goodput / self.usual.goodput.max(1e-9)),
                text::span(level.latency.min(3600 * SECOND_NS)),
                text::span(latency)
            ),
            None => "no operation was answered".into(),
        };
        case.value = Some("never".into());
        let damage = self.told_damage(case, self.context.load_end);
        case.violated(format!(
            "`{}` did not recover within {} of the end of {}: {seen}{damage}",
            self.property.operation,
            text::span(within),
            self.property.after
        ));
    }

    /// Time to detect and damage, as findings and in words.
    fn told_damage(&self, case: &mut Case, until: u64) -> String {
        let start = self.seen.on.from;
        let mut at = start;
        let mut noticed = None;
        while at < until && noticed.is_none() {
            let level = self.level(Span::new(at, at + SECOND_NS));
            let hurt = level.is_none_or(|level| !self.inside(&level));
            noticed = hurt.then_some(at);
            at += SECOND_NS;
        }
        let hit = self.in_span(Span::new(start, until));
        let good = hit.iter().filter(|it| happened(it)).count() as f64;
        let usual = if self.share {
            self.usual.goodput * hit.len() as f64
        } else {
            self.usual.goodput * Span::new(start, until).seconds()
        };
        let damage = (usual - good).max(0.0).round();
        let Some(noticed) = noticed else {
            return String::new();
        };
        let subject = self.property.operation.as_str();
        let text = format!(
            "first outside its band {} after the fault",
            text::span(noticed - start)
        );
        case.find(Status::Pass, Some(noticed), subject, text);
        format!(
            "; outside its band from {}, {damage} operations short",
            text::after(noticed, start)
        )
    }
}
