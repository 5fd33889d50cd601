//! `breaker`: does it open, limit its probes, close? Traffic decides, the claimed state explains.
//!
//! With suppression S = 1 − A/D of the link (see [`super::demand`]), T_open, h probes and k caller
//! instances of the system file, and ε = 1 request for counts, 5 % for S:
//! - *opens*: some t_o ≤ t₀ + opens-within with S ≥ blocks-at-least over [t_o, t_o + Δ], Δ = ¾
//!   T_open, D ≥ 20 k there;
//! - *half-open*: from t_o on, at most k·h + ε attempts in any T_open while the fault lasts;
//! - *not spurious* and *claimed = real*: see [`claims`] and, for other links, [`others`];
//! - *closes*: some t ≤ t₁ + closes-within with S ≤ ε over a second; then at most one flap and no
//!   flood (3 × the baseline's rate in the first second, and what chance adds to that);
//! - *stuck*: S ≥ 50 % over the second from t₁ + 3 T_open.

mod claims;
mod others;

use std::time::Duration;

use crate::plan::fault::Down;
use crate::plan::property::{Breaker, BreakerWhen};
use crate::plan::system::Protocol;
use crate::plan::{FaultEffect, FaultName, FaultPlan, LinkEffect, Window};

use super::Status;
use super::case::{Case, Gap};
use super::context::{Context, FaultSeen, Span};
use super::demand::Demand;
use super::text;

/// Demand that a stretch needs, per caller instance.
const DEMAND_MIN: f64 = 20.0;
/// The share of its requests that a caller answers at least while its breaker is open.
const ANSWERED_MIN: f64 = 0.5;
/// ε of a suppression.
const EPSILON: f64 = 0.05;
/// How finely instants are searched.
const STEP_NS: u64 = 50_000_000;
const SECOND_NS: u64 = 1_000_000_000;

pub(crate) fn check(context: &Context<'_>, property: &Breaker) -> Case {
    let (fault, window) = match &property.when {
        BreakerWhen::During { fault, .. } => (fault, during(fault)),
        BreakerWhen::After { fault, .. } => {
            let fault_name = fault.clone();
            (fault, Window::After { fault: fault_name })
        }
    };
    let mut case = Case::new("requests of demand");
    case.blame(property.link.to_string());
    case.window = context.judged(&window);
    context.expect_exercised(&mut case);
    let Some(fault_plan) = context.plan.fault(fault) else {
        case.blocked(Gap::new(
            format!("there is no fault `{fault}`"),
            "repair the plan",
        ));
        return case;
    };
    case.missing_all(context.fault_gaps(fault_plan, Some(&property.link)));
    let Some(seen) = context.faults.get(fault) else {
        return case;
    };
    if let Some(gap) = uncountable(context, property, fault_plan) {
        case.blocked(gap);
        return case;
    }
    // Suppression is absence: rows that were lost would look like calls that were blocked.
    for gap in context.demand_gaps(&property.link) {
        case.blocked(gap);
    }
    let demand = context.demand(&property.link);
    if !demand.learnt {
        case.blocked(Gap::new(
            format!(
                "`{}` was not used before the fault, so its demand is unknown",
                property.link
            ),
            "drive load that uses it in the baseline, or declare `calls:` on the link",
        ));
        return case;
    }
    if let Some(upstream) = context.starved_by(&property.link, seen.on) {
        case.blocked(Gap::new(
            format!("less than half of what was offered arrived on `{upstream}`"),
            format!("judge the breaker of `{upstream}` first: it hides this one"),
        ));
    }
    let judge = Judge {
        context,
        property,
        demand: &demand,
        seen,
    };
    match &property.when {
        BreakerWhen::During {
            opens_within,
            blocks_at_least,
            ..
        } => judge.during(&mut case, *opens_within, *blocks_at_least),
        BreakerWhen::After { closes_within, .. } => judge.after(&mut case, *closes_within),
    }
    let witness = context.weaker_witness(&property.link);
    case.measured.push_str(&witness);
    case
}

fn during(fault: &FaultName) -> Window {
    Window::During {
        faults: vec![fault.clone()],
        and_after: Duration::ZERO,
    }
}

/// Attempts on a link can only be counted where its proxy reads requests.
fn uncountable(context: &Context<'_>, property: &Breaker, fault: &FaultPlan) -> Option<Gap> {
    let http = |it: &&crate::plan::LinkPlan| it.protocol == Protocol::Http;
    if context.plan.link(&property.link).filter(http).is_none() {
        return Some(Gap::new(
            format!("requests on `{}` are not counted", property.link),
            format!("declare `protocol: http` on `{}`", property.link),
        ));
    }
    let refuses = matches!(&fault.effect, FaultEffect::Link { links, effect: LinkEffect::Down { how: Down::Refuse }, .. }
        if links.contains(&property.link));
    refuses.then(|| {
        Gap::new(
            "connections that are refused cannot be counted",
            format!(
                "write `inject: {{ down: {{ how: reset }} }}` in `{}`",
                fault.name
            ),
        )
    })
}

/// Everything that judging one breaker needs.
struct Judge<'a> {
    context: &'a Context<'a>,
    property: &'a Breaker,
    demand: &'a Demand,
    seen: &'a FaultSeen<'a>,
}

impl Judge<'_> {
    fn open_for(&self) -> u64 {
        (self.property.breaker.open_for.as_nanos() as u64).max(SECOND_NS / 5)
    }

    fn instances(&self) -> u64 {
        u64::from(self.property.breaker.instances.max(1))
    }

    fn demand_min(&self) -> f64 {
        DEMAND_MIN * self.instances() as f64
    }

    fn during(&self, case: &mut Case, opens_within: Duration, blocks: f64) {
        let on = self.seen.on;
        case.n = self.demand.wanted(on) as u64;
        case.limit = Some(format!(
            "{} blocked within {}",
            text::share(blocks),
            text::span(opens_within.as_nanos() as u64)
        ));
        match self.opening(opens_within, blocks) {
            Opening::At(at, blocked) => {
                let at = self.settled(at);
                let open = Span::new(at, (at + self.open_for() / 4 * 3).min(on.to));
                let blocked = self.demand.suppression(open).unwrap_or(blocked);
                let limit = on.from + opens_within.as_nanos() as u64;
                self.expect_clock(case, at, limit);
                if at > limit + self.context.calls_clock_error(&self.property.link) {
                    case.violated(format!(
                        "the breaker of {} opened only {} after the fault, limit {}",
                        self.property.link,
                        text::span(at - on.from),
                        text::span(opens_within.as_nanos() as u64)
                    ));
                }
                case.value = Some(text::share(blocked));
                case.margin = Some(text::signed_span(i128::from(limit) - i128::from(at)));
                case.measured = format!(
                    "opened {} after the fault, {} of the demand blocked",
                    text::span(at.saturating_sub(on.from)),
                    text::share(blocked)
                );
                case.find(
                    Status::Pass,
                    Some(at),
                    self.property.link.to_string(),
                    "opened",
                );
                self.half_open(case, at);
                self.others_go_on(case, at);
                claims::expect_some(self.context, case, self.property);
                self.caller_answers(case, open);
            }
            Opening::Never { best } => {
                case.advise(
                    "guard the call with a breaker that refuses at once while its callee fails",
                );
                case.value = Some(text::share(best));
                case.violated(format!(
                    "the breaker of {} did not open within {}: at best {} of the demand was kept \
                     off the link, at least {} expected ({} attempts of {} wanted during {})",
                    self.property.link,
                    text::span(opens_within.as_nanos() as u64),
                    text::share(best),
                    text::share(blocks),
                    self.demand.entered(on),
                    self.demand.wanted(on).round(),
                    self.seen.plan.name
                ));
            }
            Opening::NoDemand { most } => case.blocked(self.too_little_demand(most)),
        }
        claims::not_spurious(self.context, case, self.property, self.seen);
        self.quiet_before(case);
        claims::agree(self.context, case, self.property, self.demand, on);
    }

    /// The first instant from which enough of the demand is kept off the link.
    fn opening(&self, opens_within: Duration, blocks: f64) -> Opening {
        let on = self.seen.on;
        let last = (on.from + opens_within.as_nanos() as u64).min(on.to);
        let (mut best, mut most) = (None::<f64>, 0.0f64);
        let mut at = on.from;
        while at <= last {
            let span = Span::new(at, (at + self.open_for() / 4 * 3).min(on.to));
            let wanted = self.demand.wanted(span);
            most = most.max(wanted);
            if wanted >= self.demand_min() && !self.context.caller_away(&self.property.link, span) {
                let blocked = self.demand.suppression(span).unwrap_or(0.0);
                if blocked >= blocks {
                    return Opening::At(at, blocked);
                }
                best = Some(best.map_or(blocked, |best| best.max(blocked)));
            }
            at += STEP_NS;
        }
        match best {
            Some(best) => Opening::Never { best },
            None => Opening::NoDemand { most },
        }
    }

    /// A caller whose every connection hangs on the link is as silent there as one whose breaker is
    /// open, but answers nobody. What it claims of its breaker tells the two apart as well.
    fn caller_answers(&self, case: &mut Case, open: Span) {
        let wanted = self.demand.wanted(open);
        let share = self.demand.answered(open) / wanted.max(1e-9);
        if wanted > 0.0
            && share < ANSWERED_MIN
            && !claims::open_in(self.context, self.property, open)
        {
            let link = &self.property.link;
            case.missing(Gap::new(
                format!(
                    "{} answered only {} of what it was asked while {link} was silent: it may have \
                     hung there",
                    link.from,
                    text::share(share)
                ),
                format!(
                    "let `{}` tell of its breaker (`records: transition`), or give its calls a \
                     time-out",
                    link.from
                ),
            ));
        }
    }

    /// The opening itself: a window in which enough is blocked may begin a little before it, and
    /// what entered until then was not let through by a half-open breaker. It is the last attempt
    /// before the first pause of half of T_open, if that comes within T_open.
    fn settled(&self, opened: u64) -> u64 {
        let mut last = opened;
        for at in self.demand.all.iter().copied().filter(|at| *at >= opened) {
            if at - last >= self.open_for() / 2 {
                break;
            }
            last = at + 1;
        }
        if last <= opened + self.open_for() {
            last
        } else {
            opened
        }
    }

    /// No T_open after the opening sees more attempts than the probes of all instances.
    fn half_open(&self, case: &mut Case, opened: u64) {
        let probes = u64::from(self.property.breaker.probes.max(1));
        let bound = self.instances() * probes + 1;
        let Some((at, n)) = self.busiest(Span::new(opened, self.seen.on.to), self.open_for())
        else {
            return;
        };
        let origin = self.seen.on.from;
        let open_for = text::span(self.open_for());
        case.measured.push_str(&format!(
            ", at most {n} probes in {open_for} (limit {bound})"
        ));
        if n > bound {
            case.value = Some(text::count(n, "attempt"));
            case.limit = Some(text::count(bound, "attempt"));
            case.advise("let no more than the configured probes through until one has succeeded");
            case.violated(format!(
                "half-open lets too many through on {}: {n} requests in {open_for} from {}, at \
                 most {bound} expected ({} x {} probes + 1)",
                self.property.link,
                text::after(at, origin),
                self.instances(),
                probes
            ));
            case.find(
                Status::Fail,
                Some(at),
                self.property.link.to_string(),
                format!("{n} requests while half-open"),
            );
        }
    }

    /// The most attempts in any stretch of a length.
    fn busiest(&self, within: Span, length: u64) -> Option<(u64, u64)> {
        let attempts = self.demand.all.iter().filter(|at| within.holds(**at));
        let counted = |at: u64| {
            let span = Span::new(at, (at + length).min(within.to));
            (at, self.demand.entered(span))
        };
        // The first of equals, so that the instant shown is where it began.
        attempts
            .map(|at| counted(*at))
            .fold(None, |best, it| match best {
                Some((_, n)) if n >= it.1 => best,
                _ => Some(it),
            })
    }

    /// Where calls are told by a wall clock, an instant so close to its limit that it may lie on
    /// either side proves nothing.
    fn expect_clock(&self, case: &mut Case, at: u64, limit: u64) {
        let link = &self.property.link;
        let error = self.context.calls_clock_error(link);
        let source = self.context.plan.call_source(link);
        if let Some(source) = source.filter(|_| error > 0 && at.abs_diff(limit) <= error) {
            let what = format!("the breaker of {link} moved just about when the limit was over");
            case.missing(self.context.clock_gap(&source, &what));
        }
    }

    /// No suppression in the baseline, by the ratio of the warm-up.
    fn quiet_before(&self, case: &mut Case) {
        let warm = self
            .context
            .demand_learnt_in(&self.property.link, self.context.warm_up);
        let baseline = self.context.baseline;
        let wanted = warm.wanted(baseline);
        let blocked = warm.suppression(baseline).unwrap_or(0.0);
        // The ratio itself is an estimate: allow for its noise, beyond ε.
        let noise = 3.0 / warm.wanted(self.context.warm_up).max(1.0).sqrt();
        if warm.learnt && wanted >= self.demand_min() && blocked > EPSILON + noise {
            case.violated(format!(
                "{} of the demand on {} was blocked in the baseline, without any fault",
                text::share(blocked),
                self.property.link
            ));
        }
    }

    fn after(&self, case: &mut Case, closes_within: Duration) {
        let end = self.seen.on.to;
        let within = closes_within.as_nanos() as u64;
        case.n = self.demand.wanted(Span::new(end, self.context.load_end)) as u64;
        case.limit = Some(text::span(within));
        if end + within > self.context.load_end {
            case.missing(Gap::new(
                format!("the load ended before {} were over", text::span(within)),
                "lengthen `phases: recovery`",
            ));
        }
        self.must_have_opened(case);
        match self.closing(within) {
            Closing::At(at) => {
                self.expect_clock(case, at, end + within);
                case.value = Some(text::span(at - end));
                case.margin = Some(text::signed_span(i128::from(within) - i128::from(at - end)));
                case.measured = format!(
                    "closed {} after the fault's end, limit {}",
                    text::span(at - end),
                    text::span(within)
                );
                case.find(
                    Status::Pass,
                    Some(at),
                    self.property.link.to_string(),
                    "closed",
                );
                self.no_flood(case, at);
            }
            // It may have closed in what nobody saw.
            Closing::Never { until, .. } if until + STEP_NS < end + within => {
                case.blocked(Gap::new(
                    format!(
                        "{} was seen only until {} after the fault's end, and had not closed by then",
                        self.property.link,
                        text::span(until - end)
                    ),
                    "lengthen `phases: recovery`, or raise `arrivals:`",
                ));
            }
            Closing::Never { least, .. } => {
                case.advise("let a few probes through once it has been open for long enough");
                case.value = Some(format!("{} still blocked", text::share(least)));
                case.violated(format!(
                    "the breaker of {} did not close within {} of the fault's end: at least {} of \
                     the demand was still kept off the link ({} attempts of {:.0} wanted)",
                    self.property.link,
                    text::span(within),
                    text::share(least),
                    self.demand.attempts(Span::new(end, end + within)),
                    self.demand.wanted(Span::new(end, end + within)),
                ));
            }
            Closing::NoDemand => case.blocked(Gap::new(
                format!(
                    "too little demand on {} after the fault to tell",
                    self.property.link
                ),
                "raise `arrivals:`, or lengthen `phases: recovery`",
            )),
        }
        self.not_stuck(case);
        claims::flaps(self.context, case, self.property, end);
        let to = self.context.load_end;
        claims::agree(
            self.context,
            case,
            self.property,
            self.demand,
            Span::new(end, to),
        );
    }

    /// What never opened cannot close.
    fn must_have_opened(&self, case: &mut Case) {
        let whole = Duration::from_nanos(self.seen.on.len());
        match self.opening(whole, 0.5) {
            Opening::At(..) => {}
            Opening::Never { best } => case.missing(Gap::new(
                format!(
                    "the breaker of {} never opened (at best {} of the demand was kept off the \
                     link), so it could not close",
                    self.property.link,
                    text::share(best)
                ),
                "judge its opening first: a `breaker:` property with `during:`",
            )),
            Opening::NoDemand { most } => case.missing(self.too_little_demand(most)),
        }
    }

    fn too_little_demand(&self, most: f64) -> Gap {
        let stretch = text::span(self.open_for() / 4 * 3);
        Gap::new(
            format!(
                "too little demand on {} to tell whether it opened: {most:.0} requests in {stretch}, \
                 it takes {}",
                self.property.link,
                self.demand_min()
            ),
            "raise `arrivals:`",
        )
    }

    /// The first instant from which the demand gets through again.
    fn closing(&self, within: u64) -> Closing {
        let end = self.seen.on.to;
        let mut least = None::<f64>;
        let (mut at, mut until) = (end, end);
        while at <= end + within {
            let span = self.enough_demand(at);
            if let Some(span) = span {
                until = at;
                let wanted = self.demand.wanted(span);
                let missing = wanted - self.demand.attempts(span) as f64;
                if missing <= (EPSILON * wanted).max(1.0) && self.open_throughout(span) {
                    return Closing::At(at);
                }
                let blocked = missing / wanted;
                least = Some(least.map_or(blocked, |least| least.min(blocked)));
            }
            at += STEP_NS;
        }
        least.map_or(Closing::NoDemand, |least| Closing::Never { least, until })
    }

    /// No quarter of a stretch is mostly blocked: a flood at its end must not make up for a
    /// breaker that was still open at its start.
    fn open_throughout(&self, span: Span) -> bool {
        let quarter = span.len() / 4;
        let parts = (0..4).map(|n| span.from + n * quarter);
        let mut parts = parts.map(|from| Span::new(from, from + quarter));
        parts.all(|part| self.demand.suppression(part).unwrap_or(0.0) <= 0.5)
    }

    /// A second or more from an instant on, with enough demand, before the load's end.
    fn enough_demand(&self, at: u64) -> Option<Span> {
        (1..=5)
            .map(|seconds| Span::new(at, at + seconds * SECOND_NS))
            .filter(|span| span.to <= self.context.load_end)
            .filter(|span| !self.context.caller_away(&self.property.link, *span))
            .find(|span| self.demand.wanted(*span) >= self.demand_min())
    }

    /// The first second after closing is no flood.
    fn no_flood(&self, case: &mut Case, closed: u64) {
        let baseline = self.context.baseline;
        let usual = self.demand.entered(baseline) as f64 / baseline.seconds().max(1e-9);
        let bound = 3.0 * usual + 3.0 * (3.0 * usual).sqrt();
        let first = self.demand.entered(Span::new(closed, closed + SECOND_NS));
        if first as f64 > bound.max(10.0) {
            case.violated(format!(
                "{first} requests flooded {} in the second after closing, {usual:.0} are usual",
                self.property.link
            ));
        }
    }

    fn not_stuck(&self, case: &mut Case) {
        let Some(span) = self.enough_demand(self.seen.on.to + 3 * self.open_for()) else {
            return;
        };
        let blocked = self.demand.suppression(span).unwrap_or(0.0);
        if blocked >= 0.5 {
            case.violated(format!(
                "the breaker of {} is stuck open: {} blocked {} after the fault's end, it should \
                 try again every {}",
                self.property.link,
                text::share(blocked),
                text::span(3 * self.open_for()),
                text::span(self.open_for())
            ));
        }
    }
}

enum Opening {
    At(u64, f64),
    Never { best: f64 },
    NoDemand { most: f64 },
}

enum Closing {
    At(u64),
    /// `least` is what was blocked at best, `until` the last instant at which it was looked at.
    Never {
        least: f64,
        until: u64,
    },
    NoDemand,
}
