//! Properties of consistency: sagas, events, ledgers, views, and the evidence that they rest on.

use std::collections::BTreeMap;

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::property::{CatchesUp, Conserved, ConsumerEvidence, Events, Expected, Sagas};
use crate::plan::quantity::duration_text;
use crate::plan::system::RecordKind;
use crate::plan::{ConsumerName, OperationName, Plan, Property, SagaName, SourceName, Window};
use crate::scenario::property_file::{
    AtLeastFile, CatchesUpFile, ConservedFile, EventsFile, SagasFile,
};
use crate::scenario::text::Text;

use super::Builder;
use super::expected::count_text;
use super::properties::Built;
use super::windows::operations_in;

impl Builder<'_> {
    pub(super) fn sagas_property(
        &mut self,
        file: &SagasFile,
        span: Span,
        plan: &Plan,
    ) -> Option<Built> {
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
        let at_least = |file: &Option<AtLeastFile>| file.as_ref().map_or(0, |it| it.at_least);
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
            resumed_at_least: at_least(&file.resumed),
            undone_at_least: at_least(&file.undone),
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

    pub(super) fn events(&mut self, file: &EventsFile, plan: &Plan) -> Option<Built> {
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
        let mut consumers = BTreeMap::new();
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

    pub(super) fn conserved(&mut self, file: &ConservedFile, plan: &Plan) -> Option<Built> {
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
            never_below: file.never_below,
        });
        Some((property, expected))
    }

    pub(super) fn catches_up(&mut self, file: &CatchesUpFile, plan: &Plan) -> Option<Built> {
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
    pub(super) fn only_source(&self, plan: &Plan, kind: RecordKind) -> Option<SourceName> {
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
