//! Properties: what must hold, with every limit resolved and checked for sense.

use std::time::Duration;

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::property::{Errors, Expected, Goodput, GoodputOf, Hangs, Latency, QuantileLimit};
use crate::plan::quantity::{duration_text, share_text};
use crate::plan::{OperationName, Plan, Property, PropertyName, PropertyPlan, SourceRef};
use crate::scenario::property_file::{
    ErrorsFile, ExpectFile, GoodputFile, GoodputOfFile, HangsFile, LatencyFile, LatencyOfFile,
};
use crate::scenario::text::Text;

use super::Builder;
use super::expected::{count_text, of_quantile, of_share, share_n_min};
use super::load::step_bound;
use super::windows::operations_in;

/// A property with what it rests on.
pub(super) type Built = (Property, Expected);

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
    pub(super) fn operation(&mut self, name: &Text, plan: &Plan) -> Option<OperationName> {
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

    pub(super) fn check_n(&mut self, span: Span, expected: &Expected, why: &str) {
        if self.sound() && expected.n < expected.n_min {
            self.mistake(meaning::too_few(span, expected.n, expected.n_min, why));
        }
    }

    /// Whether every quantity so far could be read: after one that could not, what follows from
    /// several of them says nothing.
    pub(super) fn sound(&self) -> bool {
        self.mistakes.iter().all(|m| m.id != meaning::BAD_QUANTITY)
    }

    fn errors(&mut self, file: &ErrorsFile, span: Span, plan: &Plan) -> Option<Built> {
        let operation = self.operation(&file.operation, plan);
        let window = self.window(&file.window(), span, plan);
        let at_most = self.share(&file.at_most);
        if at_most >= 1.0 {
            let why = "no more than all operations can fail";
            let limit = file.at_most.0.span;
            let help = "choose a limit below 100%";
            self.mistake(meaning::never_fails(limit, why, help));
        }
        let accepted = file.accepted.as_ref();
        let steps = plan.load.journeys.iter().flat_map(|journey| &journey.steps);
        let mut named = steps.filter(|step| Some(&step.name) == operation.as_ref());
        if !file.unsettled && accepted.is_none() && named.any(|step| step.until.is_some()) {
            let why = "an operation with `until:` is asked again until it is done or unsettled";
            let help = "count those that never settled: `unsettled: true`";
            self.mistake(meaning::never_fails(file.operation.span, why, help));
        }
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
            if let Some(bound) = bound.filter(|bound| limit > *bound && self.sound()) {
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
        if self.sound() && longer_than > bound {
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
