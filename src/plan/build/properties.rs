//! Properties: what must hold, with every limit resolved and checked for sense.

use std::time::Duration;

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::property::{
    Breaker, BreakerWhen, CatchesUp, Conserved, ConsumerEvidence, Errors, Events, Expected,
    Goodput, GoodputOf, Hangs, Latency, QuantileLimit, Recovers, Retries, Sagas,
};
use crate::plan::quantity::{duration_text, share_text};
use crate::plan::system::RecordKind;
use crate::plan::{
    ConsumerName, FaultPlan, LinkName, OperationName, Plan, Property, PropertyName, PropertyPlan,
    SagaName, SourceName, SourceRef, Window,
};
use crate::scenario::property_file::{
    AtMostFile, BreakerExpectFile, CatchesUpFile, ConservedFile, ErrorsFile, EventsFile,
    ExpectFile, GoodputFile, GoodputOfFile, HangsFile, LatencyFile, LatencyOfFile, RecoversFile,
    RetriesFile, SagasFile,
};
use crate::scenario::text::Text;

use super::Builder;
use super::expected::{
    count_text, of_quantile, of_share, quantile_n_min, quantile_text, share_n_min,
};
use super::load::step_bound;
use super::traffic::{journeys_between, share_of};
use super::windows::operations_in;

/// Demand that a breaker's suppression is measured on.
const BREAKER_DEMAND_MIN: u64 = 20;
const BLOCKS_AT_LEAST_DEFAULT: f64 = 0.9;
const HOLD_DEFAULT: Duration = Duration::from_secs(5);

/// A property with what it rests on.
type Built = (Property, Expected);

impl Builder<'_> {
    pub(super) fn properties(&mut self, plan: &Plan) -> Vec<PropertyPlan> {
        let declared = &self.scenario_file().expect;
        let only = &self.options.only;
        for name in only {
            if declared.get(name).is_none() && name != "stays-up" {
                let span = self.scenario_file().name.span;
                let names = declared.names();
                let mistake = meaning::unknown(Noun::Property, span, name, names);
                self.mistake(mistake);
            }
        }
        let mut plans: Vec<PropertyPlan> = Vec::new();
        for (name, property) in declared.iter() {
            // Built even when `--only` leaves it out: a mistake in it is a mistake of the file.
            let built = self.property(name, &property.value, plan);
            let wanted = only.is_empty() || only.contains(&name.value);
            if let Some((property, expected)) = built.filter(|_| wanted) {
                plans.push(PropertyPlan {
                    name: PropertyName::new(&name.value),
                    source: self.source(name.span),
                    property,
                    expected,
                });
            }
        }
        if !plans.iter().any(|plan| plan.property == Property::StaysUp) {
            plans.push(self.stays_up(plan));
        }
        plans
    }

    fn stays_up(&self, plan: &Plan) -> PropertyPlan {
        PropertyPlan {
            name: PropertyName::new("stays-up"),
            source: SourceRef {
                file: plan.scenario_file.clone(),
                ..self.source(self.scenario_file().name.span)
            },
            property: Property::StaysUp,
            expected: stays_up_expected(plan),
        }
    }

    fn property(&mut self, name: &Text, file: &ExpectFile, plan: &Plan) -> Option<Built> {
        let span = name.span;
        match file {
            ExpectFile::Errors(file) => self.errors(file, span, plan),
            ExpectFile::Latency(file) => self.latency_property(file, span, plan),
            ExpectFile::Goodput(file) => self.goodput(file, span, plan),
            ExpectFile::Hangs(file) => self.hangs(file, span, plan),
            ExpectFile::Breaker(file) => self.breaker_property(file, span, plan),
            ExpectFile::Retries(file) => self.retries(file, span, plan),
            ExpectFile::Sagas(file) => self.sagas_property(file, span, plan),
            ExpectFile::Events(file) => self.events(file, plan),
            ExpectFile::Conserved(file) => self.conserved(file, plan),
            ExpectFile::CatchesUp(file) => self.catches_up(file, plan),
            ExpectFile::Recovers(file) => self.recovers(file, span, plan),
            ExpectFile::StaysUp => Some((Property::StaysUp, stays_up_expected(plan))),
            ExpectFile::Unaffected(_) => self.unsupported(span, "unaffected"),
            ExpectFile::Sheds(_) => self.unsupported(span, "sheds"),
            ExpectFile::ShutsDown(_) => self.unsupported(span, "shuts-down"),
            ExpectFile::Traced(_) => self.unsupported(span, "traced"),
            ExpectFile::Metric(_) => self.unsupported(span, "metric"),
        }
    }

    fn unsupported(&mut self, span: Span, kind: &str) -> Option<Built> {
        self.mistake(meaning::not_supported(
            span,
            &format!("the property `{kind}` is"),
        ));
        None
    }

    /// An operation that is driven by this scenario's load.
    fn operation(&mut self, name: &Text, plan: &Plan) -> Option<OperationName> {
        let steps = plan.load.journeys.iter().flat_map(|journey| &journey.steps);
        let names: Vec<&str> = steps.map(|step| step.name.as_str()).collect();
        if names.contains(&name.value.as_str()) {
            return Some(OperationName::new(&name.value));
        }
        self.mistake(meaning::unknown(
            Noun::Operation,
            name.span,
            &name.value,
            names,
        ));
        None
    }

    fn check_n(&mut self, span: Span, expected: &Expected, why: &str) {
        if expected.n < expected.n_min {
            self.mistake(meaning::too_few(span, expected.n, expected.n_min, why));
        }
    }

    fn errors(&mut self, file: &ErrorsFile, span: Span, plan: &Plan) -> Option<Built> {
        let operation = self.operation(&file.operation, plan);
        let window = self.window(&file.window(), span, plan);
        let at_most = self.share(&file.at_most);
        if at_most >= 1.0 {
            let why = "no more than all operations can fail";
            let limit = file.at_most.0.span;
            self.mistake(meaning::never_fails(
                limit,
                why,
                "choose a limit below 100%",
            ));
        }
        let accepted = file.accepted.as_ref();
        let accepted_at_most = accepted.map(|accepted| self.share(&accepted.at_most));
        let (operation, window) = (operation?, window?);
        let expected = of_share(operations_in(plan, &window, Some(&operation)), at_most);
        let why = format!("a share of {} needs 3 / limit", share_text(at_most));
        self.check_n(file.at_most.0.span, &expected, &why);
        let property = Property::Errors(Errors {
            operation,
            window,
            at_most,
            unsettled: file.unsettled,
            accepted_at_most,
        });
        Some((property, expected))
    }

    fn latency_property(&mut self, file: &LatencyFile, span: Span, plan: &Plan) -> Option<Built> {
        let operation = self.operation(&file.operation, plan);
        let window = self.window(&file.window(), span, plan);
        let named = [
            (0.5, &file.p50),
            (0.9, &file.p90),
            (0.95, &file.p95),
            (0.99, &file.p99),
            (0.999, &file.p999),
            (1.0, &file.max),
        ];
        let bound = operation
            .as_ref()
            .map(|operation| bound_of(plan, operation));
        let mut limits: Vec<QuantileLimit> = Vec::new();
        for (quantile, limit) in named {
            let Some(written) = limit else {
                continue;
            };
            let limit = self.time(written);
            let at = written.0.span;
            if limit.is_zero() && self.mistakes.iter().all(|m| m.span != Some(at)) {
                let why = "nothing answers in no time";
                self.mistake(meaning::never_passes(at, why, "choose a limit above 0s"));
            }
            if let Some(bound) = bound.filter(|bound| limit > *bound) {
                let bound = duration_text(bound);
                let why = format!("no operation lasts longer than its time-out of {bound}");
                let help = format!("choose a limit below {bound}, or a longer `timeout`");
                self.mistake(meaning::never_fails(at, &why, &help));
            }
            limits.push(QuantileLimit { quantile, limit });
        }
        let Some(highest) = limits.last().map(|limit| limit.quantile) else {
            let keys = ["p50", "p90", "p95", "p99", "p999", "max"];
            self.mistake(meaning::one_of(span, "`latency`", &keys, &[]));
            return None;
        };
        let (operation, window) = (operation?, window?);
        let n = operations_in(plan, &window, Some(&operation));
        let finite = limits.iter().rev().find(|limit| limit.quantile < 1.0);
        let expected = of_quantile(n, finite.map_or(highest, |limit| limit.quantile));
        self.check_n(
            span,
            &expected,
            "a percentile needs five operations beyond it",
        );
        let property = Property::Latency(Latency {
            operation,
            window,
            limits,
            of_done: file.of == Some(LatencyOfFile::Done),
        });
        Some((property, expected))
    }

    fn goodput(&mut self, file: &GoodputFile, span: Span, plan: &Plan) -> Option<Built> {
        let operation = self.operation(&file.operation, plan);
        let window = self.window(&file.window(), span, plan);
        let at_least = self.share(&file.at_least);
        let of = match file.of {
            Some(GoodputOfFile::Baseline) => GoodputOf::Baseline,
            Some(GoodputOfFile::Offered) | None => GoodputOf::Offered,
        };
        let limit = file.at_least.0.span;
        if at_least > 1.0 && of == GoodputOf::Offered {
            let why = "no more than what is offered can be done";
            self.mistake(meaning::never_passes(
                limit,
                why,
                "choose a limit up to 100%",
            ));
        }
        if at_least <= 0.0 && self.mistakes.iter().all(|m| m.span != Some(limit)) {
            let why = "goodput is never below nothing";
            self.mistake(meaning::never_fails(limit, why, "choose a limit above 0%"));
        }
        let (operation, window) = (operation?, window?);
        let n = operations_in(plan, &window, Some(&operation));
        let n_min = share_n_min(1.0 - at_least.min(1.0)).max(30);
        let (counted, least) = (
            count_text(n),
            count_text((n as f64 * at_least).ceil() as u64),
        );
        let expected = Expected {
            n,
            n_min,
            arithmetic: format!(
                "about {counted} operations; at least {least} must be answered well"
            ),
        };
        self.check_n(span, &expected, "a share needs that many to mean anything");
        let property = Property::Goodput(Goodput {
            operation,
            window,
            at_least,
            of,
        });
        Some((property, expected))
    }

    fn hangs(&mut self, file: &HangsFile, span: Span, plan: &Plan) -> Option<Built> {
        let operation = match &file.operation {
            Some(name) => Some(self.operation(name, plan)?),
            None => None,
        };
        let window = self.window(&file.window(), span, plan);
        let longer_than = self.time(&file.longer_than);
        let bounds = plan.load.journeys.iter().flat_map(|journey| &journey.steps);
        let bound = bounds
            .filter(|step| operation.as_ref().is_none_or(|name| step.name == *name))
            .map(|step| step_bound(step, plan.load.timeout))
            .max()
            .unwrap_or(plan.load.timeout);
        if longer_than > bound {
            let bound = duration_text(bound);
            let why = format!("the load gives up after {bound}");
            let help = format!("choose a limit below {bound}, or a longer `timeout`");
            let at = file.longer_than.0.span;
            self.mistake(meaning::never_fails(at, &why, &help));
        }
        let window = window?;
        let n = operations_in(plan, &window, operation.as_ref());
        let counted = count_text(n);
        let what = if operation.is_some() {
            "operations"
        } else {
            "journeys"
        };
        let limit = duration_text(longer_than);
        let expected = Expected {
            n,
            n_min: 1,
            arithmetic: format!("about {counted} {what}; none may last longer than {limit}"),
        };
        self.check_n(span, &expected, "there must be something to look at");
        let property = Property::Hangs(Hangs {
            operation,
            window,
            longer_than,
        });
        Some((property, expected))
    }

    fn breaker_property(
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
        let transitions = self.only_source(plan, RecordKind::Transition);
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
    fn check_load_after(&mut self, span: Span, fault: &FaultPlan, needs: Duration, plan: &Plan) {
        let has = plan.phases.load_end.saturating_sub(fault.end());
        if has < needs {
            let what = format!("the load after `{}`", fault.name);
            let (has, needs) = (duration_text(has), duration_text(needs));
            let help = "make `recovery:` under `phases:` longer";
            self.mistake(meaning::too_short(span, &what, &has, &needs).help(help));
        }
    }

    fn retries(&mut self, file: &RetriesFile, span: Span, plan: &Plan) -> Option<Built> {
        let link = self.link_named(&file.link);
        let window = self.window(&file.window(), span, plan);
        let amplification_at_most = self.at_most(file.amplification.as_ref());
        let peak_at_most = self.at_most(file.peak.as_ref());
        let attempts = self.at_most(file.attempts.as_ref());
        if amplification_at_most
            .or(peak_at_most)
            .or(attempts)
            .is_none()
            && !file.jitter
        {
            let keys = ["amplification", "peak", "attempts", "jitter"];
            self.mistake(meaning::one_of(span, "`retries`", &keys, &[]));
        }
        let deadline = self.time_or(file.deadline.as_ref(), plan.load.timeout);
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
            jitter: file.jitter,
        });
        Some((property, expected))
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

    fn sagas_property(&mut self, file: &SagasFile, span: Span, plan: &Plan) -> Option<Built> {
        let saga = self.saga_named(file.saga.as_ref(), span)?;
        let evidence = match &file.evidence {
            Some(name) => self.source_of(name, RecordKind::Saga, plan)?,
            None => self.only_source_needed(plan, RecordKind::Saga, span)?,
        };
        let within = self.time(&file.within);
        let drain = plan.phases.drain_within;
        if !drain.is_zero() && drain < within {
            let at = file.within.0.span;
            let (has, needs) = (duration_text(drain), duration_text(within));
            let help = "make `drain: { within: … }` under `phases:` longer";
            self.mistake(meaning::too_short(at, "the drain", &has, &needs).help(help));
        }
        let operation = match &file.operation {
            Some(name) => Some(self.operation(name, plan)?),
            None => keyed_operation(plan),
        };
        let n = operations_in(plan, &Window::Whole, operation.as_ref());
        let counted = count_text(n);
        let resumed_at_least = file.resumed.as_ref().map_or(0, |resumed| resumed.at_least);
        let expected = Expected {
            n,
            n_min: 1,
            arithmetic: format!("about {counted} sagas after the warm-up; every one is looked at"),
        };
        let property = Property::Sagas(Sagas {
            saga,
            evidence,
            within,
            operation,
            resumed_at_least,
        });
        Some((property, expected))
    }

    fn saga_named(&mut self, name: Option<&Text>, span: Span) -> Option<SagaName> {
        let sagas = &self.system_file().sagas;
        if let Some(name) = name {
            if sagas.get(&name.value).is_none() {
                let names = sagas.names();
                self.mistake(meaning::unknown(Noun::Saga, name.span, &name.value, names));
            }
            return Some(SagaName::new(&name.value));
        }
        let mut names = sagas.names();
        match (names.next(), names.next()) {
            (Some(only), None) => Some(SagaName::new(only)),
            (None, _) => {
                let help = "declare their steps under `sagas:`";
                self.mistake(meaning::not_declared(span, "`sagas:`", help));
                None
            }
            (Some(_), Some(_)) => {
                let keys: Vec<&str> = sagas.names().collect();
                let what = "one saga type alone";
                let help = format!("add `saga: {}`", keys.join("` or `saga: "));
                self.mistake(meaning::not_declared(span, what, &help));
                None
            }
        }
    }

    fn events(&mut self, file: &EventsFile, plan: &Plan) -> Option<Built> {
        let committed = self.source_of(&file.committed, RecordKind::Event, plan);
        let unknown = match &file.unknown {
            Some(name) => Some(self.source_of(name, RecordKind::Event, plan)?),
            None => None,
        };
        let dead_letter_evidence = match &file.dead_letter_evidence {
            Some(name) => Some(self.source_of(name, RecordKind::DeadLetter, plan)?),
            None => self.only_source(plan, RecordKind::DeadLetter),
        };
        let declared = &self.system_file().consumers;
        let mut consumers = std::collections::BTreeMap::new();
        for (name, consumer) in file.consumers.iter() {
            let Some(patterns) = declared.get(&name.value) else {
                let names = declared.names();
                self.mistake(meaning::unknown(
                    Noun::Consumer,
                    name.span,
                    &name.value,
                    names,
                ));
                continue;
            };
            let effects = self.source_of(&consumer.effects, RecordKind::Effect, plan);
            let deliveries = consumer.deliveries.as_ref();
            let deliveries =
                deliveries.and_then(|name| self.source_of(name, RecordKind::Delivery, plan));
            if let Some(effects) = effects {
                let evidence = ConsumerEvidence {
                    patterns: patterns.clone(),
                    effects,
                    deliveries,
                };
                consumers.insert(ConsumerName::new(&name.value), evidence);
            }
        }
        let n = operations_in(plan, &Window::Whole, None);
        let counted = count_text(n);
        let seen = consumers.len();
        let expected = Expected {
            n,
            n_min: 1,
            arithmetic: format!(
                "about {counted} journeys after the warm-up; every committed event is looked for \
                 at {seen} consumers"
            ),
        };
        let property = Property::Events(Events {
            committed: committed?,
            unknown,
            lost: file.lost,
            phantom: file.phantom,
            applied_twice: file.applied_twice,
            dead_letters: file.dead_letters,
            dead_letter_evidence,
            consumers,
        });
        Some((property, expected))
    }

    fn conserved(&mut self, file: &ConservedFile, plan: &Plan) -> Option<Built> {
        let left = self.source_of(&file.left, RecordKind::Entry, plan);
        let right = self.source_of(&file.right, RecordKind::Entry, plan);
        if file.left.value == file.right.value {
            let why = "a ledger always agrees with itself";
            let help = "name two different sources";
            self.mistake(meaning::never_fails(file.right.span, why, help));
        }
        let n = operations_in(plan, &Window::Whole, None);
        let counted = count_text(n);
        let expected = Expected {
            n,
            n_min: 1,
            arithmetic: format!(
                "about {counted} journeys after the warm-up; every key is compared, then the total"
            ),
        };
        let property = Property::Conserved(Conserved {
            left: left?,
            right: right?,
        });
        Some((property, expected))
    }

    fn catches_up(&mut self, file: &CatchesUpFile, plan: &Plan) -> Option<Built> {
        let view = self.source_of(&file.view, RecordKind::Version, plan);
        let source = self.source_of(&file.source, RecordKind::Version, plan);
        let within = self.time(&file.within);
        let after = match &file.after {
            Some(name) => {
                let fault = self.fault_named(name, plan)?;
                self.check_load_after(file.within.0.span, fault, within, plan);
                Some(fault.name.clone())
            }
            None => None,
        };
        let expected = Expected {
            n: operations_in(plan, &Window::Whole, None),
            n_min: 1,
            arithmetic: "every row of the view is compared with its source".into(),
        };
        let property = Property::CatchesUp(CatchesUp {
            view: view?,
            source: source?,
            after,
            within,
        });
        Some((property, expected))
    }

    fn recovers(&mut self, file: &RecoversFile, span: Span, plan: &Plan) -> Option<Built> {
        let operation = self.operation(&file.operation, plan);
        let fault = self.fault_named(&file.after, plan)?;
        let within = self.time(&file.within);
        let hold = self.time_or(file.hold.as_ref(), HOLD_DEFAULT);
        self.check_load_after(file.within.0.span, fault, within + hold, plan);
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

    /// An evidence source of a kind, by name.
    fn source_of(&mut self, name: &Text, kind: RecordKind, plan: &Plan) -> Option<SourceName> {
        let declared = &self.system_file().evidence;
        if declared.get(&name.value).is_none() {
            let names = declared.names();
            self.mistake(meaning::unknown(
                Noun::Evidence,
                name.span,
                &name.value,
                names,
            ));
            return None;
        }
        let source = plan.source(&SourceName::new(&name.value))?;
        if source.records != kind {
            let (is, needs) = (kind_text(source.records), kind_text(kind));
            self.mistake(meaning::wrong_records(name.span, &name.value, is, needs));
            return None;
        }
        Some(source.name.clone())
    }

    /// The only source of a kind, if there is exactly one.
    fn only_source(&self, plan: &Plan, kind: RecordKind) -> Option<SourceName> {
        let mut sources = plan
            .system
            .evidence
            .iter()
            .filter(|source| source.records == kind);
        match (sources.next(), sources.next()) {
            (Some(only), None) => Some(only.name.clone()),
            _ => None,
        }
    }

    fn only_source_needed(
        &mut self,
        plan: &Plan,
        kind: RecordKind,
        span: Span,
    ) -> Option<SourceName> {
        let only = self.only_source(plan, kind);
        if only.is_none() {
            let kind = kind_text(kind);
            let what = format!("single evidence source of `{kind}` records");
            let help = "add one under `evidence:`, or name it here with `evidence:`";
            self.mistake(meaning::not_declared(span, &what, help));
        }
        only
    }
}

fn stays_up_expected(plan: &Plan) -> Expected {
    let services = plan
        .system
        .services
        .iter()
        .filter(|service| !service.once)
        .count();
    Expected {
        n: services as u64,
        n_min: 1,
        arithmetic: format!("{services} services; none may end unless the run ends it"),
    }
}

/// How long an operation can last before the load gives it up.
fn bound_of(plan: &Plan, operation: &OperationName) -> Duration {
    let mut steps = plan.load.journeys.iter().flat_map(|journey| &journey.steps);
    let step = steps.find(|step| step.name == *operation);
    step.map_or(plan.load.timeout, |step| {
        step_bound(step, plan.load.timeout)
    })
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

/// The one operation that carries `$(key)`, which is what a saga is joined by.
fn keyed_operation(plan: &Plan) -> Option<OperationName> {
    let steps = plan.load.journeys.iter().flat_map(|journey| &journey.steps);
    let mut keyed = steps.filter(|step| {
        let mut headers = step.request.headers.iter();
        headers.any(|(_, value)| value.symbols().any(|s| *s == crate::plan::Symbol::Key))
    });
    match (keyed.next(), keyed.next()) {
        (Some(only), None) => Some(only.name.clone()),
        _ => None,
    }
}

fn kind_text(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Operation => "operation",
        RecordKind::Call => "call",
        RecordKind::Transition => "transition",
        RecordKind::Saga => "saga",
        RecordKind::Event => "event",
        RecordKind::Effect => "effect",
        RecordKind::Delivery => "delivery",
        RecordKind::DeadLetter => "dead-letter",
        RecordKind::Entry => "entry",
        RecordKind::Version => "version",
        RecordKind::Sample => "sample",
    }
}
