//! Runs made by hand: a small shop, a fault, and the records it would leave. Tests change one thing
//! and look at what becomes of the verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::evidence::events::{Bite, LoadSummary};
use crate::evidence::records::SagaStep;
use crate::evidence::*;
use crate::plan::fault::{Direction, LinkEffect};
use crate::plan::load::*;
use crate::plan::property::*;
use crate::plan::system::*;
use crate::plan::*;

use super::{Status, Verdict, judge};

pub(crate) const S: u64 = 1_000_000_000;
pub(crate) const MS: u64 = 1_000_000;
/// The instants of the made-up run: baseline, fault on, fault off, end of the load.
pub(crate) const BASELINE: u64 = 5 * S;
pub(crate) const ON: u64 = 25 * S;
pub(crate) const OFF: u64 = 45 * S;
pub(crate) const END: u64 = 70 * S;
/// Operations per second.
pub(crate) const RATE: u64 = 40;

/// A plan with its evidence, both free to be changed.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) evidence: Evidence,
}

/// How the breaker of `payments -> psp` behaves in a made-up run, times from the fault's edges.
pub(crate) struct Sim {
    pub(crate) opens: Option<u64>,
    pub(crate) probes: u64,
    pub(crate) closes: Option<u64>,
}

impl Default for Sim {
    fn default() -> Self {
        Self {
            opens: Some(2 * S),
            probes: 3,
            closes: Some(S),
        }
    }
}

pub(crate) fn psp() -> LinkName {
    LinkName::new("payments", "psp")
}

pub(crate) fn fault_name() -> FaultName {
    FaultName::new("psp-silent")
}

pub(crate) fn during() -> Window {
    Window::During {
        faults: vec![fault_name()],
        and_after: Duration::ZERO,
    }
}

pub(crate) fn op() -> OperationName {
    OperationName::new("place-order")
}

fn at_source() -> SourceRef {
    SourceRef {
        file: "scenario.yaml".into(),
        line: 19,
        column: 3,
    }
}

fn service(name: &str) -> ServicePlan {
    ServicePlan {
        name: ServiceName::new(name),
        source: at_source(),
        command: vec![Template::text(name)],
        dir: ".".into(),
        prepare: vec![],
        once: false,
        needs: vec![],
        ports: BTreeMap::from([(PortName::new("http"), None)]),
        env: BTreeMap::new(),
        files: vec![],
        ready: Ready::Tcp(PortName::new("http")),
        ready_within: Duration::from_secs(10),
        stop_signal: "TERM".into(),
        stop_grace: Duration::from_secs(3),
    }
}

fn link(from: &str, to: &str) -> LinkPlan {
    LinkPlan {
        name: LinkName::new(from, to),
        source: at_source(),
        service: ServiceName::new(to),
        port: PortName::new("http"),
        protocol: Protocol::Http,
        correlate: Some("Idempotency-Key".into()),
        listen: None,
        calls: BTreeMap::new(),
        probe: None,
        refuse_when_down: true,
        breaker: None,
    }
}

pub(crate) fn source(name: &str, records: RecordKind, service: &str) -> SourcePlan {
    SourcePlan {
        name: SourceName::new(name),
        source: at_source(),
        records,
        every: None,
        fetch: Fetch::Log {
            service: ServiceName::new(service),
        },
        rows: ".[]".into(),
        select: ".".into(),
    }
}

fn journey() -> JourneyPlan {
    let request = Request {
        method: "POST".into(),
        path: Template::text("/orders"),
        headers: vec![],
        json: None,
    };
    let outcome = OutcomeMap {
        done: vec![StatusRange(201, 201)],
        accepted: vec![StatusRange(202, 202)],
        refused: vec![StatusRange(409, 409)],
        body_null: None,
    };
    JourneyPlan {
        name: JourneyName::new("order-flow"),
        source: at_source(),
        weight: 1.0,
        link: LinkName::new(LOAD, "orders"),
        steps: vec![StepPlan {
            name: op(),
            think: Duration::ZERO,
            request,
            outcome,
            capture: vec![],
            until: None,
        }],
    }
}

fn plan() -> Plan {
    let s = Duration::from_secs;
    let kinds = [
        ("sagas", RecordKind::Saga, "orders"),
        ("placed", RecordKind::Event, "orders"),
        ("published", RecordKind::Event, "orders"),
        ("notified", RecordKind::Effect, "notifications"),
        ("shown", RecordKind::Delivery, "notifications"),
        ("dead", RecordKind::DeadLetter, "notifications"),
        ("charges", RecordKind::Entry, "psp"),
        ("owed", RecordKind::Entry, "orders"),
        ("breakers", RecordKind::Transition, "payments"),
        ("view", RecordKind::Version, "notifications"),
        ("truth", RecordKind::Version, "orders"),
    ];
    Plan {
        format_version: FORMAT_VERSION,
        chaos_version: "0.1.0".into(),
        name: "payment-outage".into(),
        about: String::new(),
        scenario_file: "scenario.yaml".into(),
        system_file: "system.yaml".into(),
        seed: 1,
        toxiproxy: None,
        changes: Vec::new(),
        system: SystemPlan {
            name: "shop".into(),
            folder: ".".into(),
            environment: BTreeMap::new(),
            services: ["orders", "payments", "psp", "notifications"]
                .map(service)
                .into(),
            links: vec![
                link(LOAD, "orders"),
                link("orders", "payments"),
                link("payments", "psp"),
            ],
            databases: vec![],
            setup: vec![],
            sagas: vec![SagaPlan {
                name: SagaName::new("order"),
                steps: ["reserve", "charge", "confirm"].map(String::from).into(),
                undo: BTreeMap::from([
                    ("reserve".into(), "release".into()),
                    ("charge".into(), "refund".into()),
                ]),
                pivot: Some("confirm".into()),
            }],
            consumers: vec![],
            evidence: kinds.map(|(name, kind, of)| source(name, kind, of)).into(),
            backlogs: vec![],
        },
        load: LoadPlan {
            model: LoadModel::Open(Arrivals {
                poisson: false,
                segments: vec![Segment {
                    from_per_s: RATE as f64,
                    to_per_s: RATE as f64,
                    over: s(70),
                }],
            }),
            users_max: 200,
            timeout: s(5),
            journeys: vec![journey()],
            feeds: vec![],
            requests_per_s: (40.0, 40.0),
        },
        phases: PhasesPlan {
            baseline_start: s(5),
            baseline_end: s(25),
            recovery_start: s(45),
            load_end: s(70),
            drain_within: s(30),
            drain_quiet: s(6),
        },
        faults: vec![FaultPlan {
            name: fault_name(),
            source: at_source(),
            start: s(25),
            lasts: Some(s(20)),
            effect: FaultEffect::Link {
                links: vec![psp()],
                direction: Direction::Response,
                effect: LinkEffect::Blackhole,
            },
        }],
        properties: vec![],
    }
}

pub(crate) fn operation(iteration: u64, intended_ns: u64) -> Operation {
    Operation {
        op: op(),
        journey: JourneyName::new("order-flow"),
        iteration,
        key: format!("k{iteration}"),
        intended_ns,
        sent_ns: intended_ns,
        ended_ns: intended_ns + 20 * MS,
        outcome: OutcomeClass::Done,
        status: Some(201),
        error: None,
        requests: 1,
        captured: BTreeMap::from([("order".into(), json!(format!("o{iteration}")))]),
        trace: format!("t{iteration}"),
    }
}

pub(crate) fn call(link: &LinkName, at_ns: u64, unit: &str) -> Call {
    Call {
        source: SourceName::new(REQUEST_LOG),
        link: link.clone(),
        connection: 1,
        at_ns,
        first_byte_ns: Some(at_ns + 5 * MS),
        ended_ns: Some(at_ns + 5 * MS),
        method: "POST".into(),
        path: "/payments".into(),
        key: Some(format!("key-{unit}")),
        trace: Some(unit.into()),
        status: Some(201),
        end: CallEnd::Answered,
    }
}

pub(crate) fn silent(mut call: Call) -> Call {
    call.first_byte_ns = None;
    call.status = None;
    call.end = CallEnd::ClosedByCaller;
    call.ended_ns = Some(call.at_ns + 2 * S);
    call
}

pub(crate) fn transition(seq: u64, at_ns: u64, from: &str, to: &str) -> Transition {
    Transition {
        source: SourceName::new("breakers"),
        link: psp(),
        at_ns,
        from: from.into(),
        to: to.into(),
        incarnation: "1".into(),
        seq,
    }
}

pub(crate) fn step(name: &str, phase: StepPhase, at_ns: u64, epoch: u64) -> SagaStep {
    SagaStep {
        name: name.into(),
        phase,
        at_ns,
        attempt: 1,
        epoch,
    }
}

/// A committed saga of iteration `n`.
pub(crate) fn committed_saga(n: u64, at: u64) -> Saga {
    let names = ["reserve", "charge", "confirm"];
    let lines = names.iter().flat_map(|name| {
        [
            step(name, StepPhase::Started, at, 1),
            step(name, StepPhase::Done, at + MS, 1),
        ]
    });
    Saga {
        source: SourceName::new("sagas"),
        id: format!("s{n}"),
        key: format!("o{n}"),
        client_key: Some(format!("k{n}")),
        state: SagaState::Committed,
        started_ns: at,
        ended_ns: Some(at + 5 * MS),
        steps: lines.collect(),
    }
}

impl Run {
    /// A run in which everything went well, its breaker as said.
    pub(crate) fn with(sim: &Sim) -> Self {
        let mut run = Self {
            plan: plan(),
            evidence: Evidence::default(),
        };
        run.events();
        for n in 0..RATE * END / S {
            let at = n * S / RATE;
            run.evidence.operations.push(operation(n, at));
            let trace = format!("t{n}");
            for (link, later) in [("load", "orders"), ("orders", "payments")]
                .map(|(from, to)| LinkName::new(from, to))
                .into_iter()
                .zip([MS, 2 * MS])
            {
                run.evidence.calls.push(call(&link, at + later, &trace));
            }
            run.psp_call(sim, at + 3 * MS, &trace);
            run.shop_records(n, at);
        }
        run.probes(sim);
        for source in &run.plan.system.evidence {
            let state = SourceState {
                rows: 1,
                ..SourceState::default()
            };
            run.evidence.sources.insert(source.name.clone(), state);
        }
        run
    }

    pub(crate) fn healthy() -> Self {
        Self::with(&Sim::default())
    }

    fn psp_call(&mut self, sim: &Sim, at: u64, trace: &str) {
        let opened = sim.opens.map_or(u64::MAX, |after| ON + after);
        let closed = match sim.opens {
            Some(_) => sim.closes.map_or(u64::MAX, |after| OFF + after),
            None => OFF,
        };
        if at < ON || at >= closed || (sim.opens.is_none() && at >= OFF) {
            self.evidence.calls.push(call(&psp(), at, trace));
        } else if at < opened {
            self.evidence.calls.push(silent(call(&psp(), at, trace)));
        }
    }

    /// Half-open probes: some each four seconds (two open, two until they time out).
    fn probes(&mut self, sim: &Sim) {
        let Some(opens) = sim.opens else { return };
        let mut at = ON + opens + 2 * S;
        while at < OFF {
            for n in 0..sim.probes {
                let at = at + n * 10 * MS;
                self.evidence.calls.push(silent(call(&psp(), at, "probe")));
            }
            at += 4 * S;
        }
    }

    fn shop_records(&mut self, n: u64, at: u64) {
        self.evidence.sagas.push(committed_saga(n, at));
        self.evidence.committed.push(EventRecord {
            source: SourceName::new("placed"),
            id: format!("e{n}"),
            key: format!("o{n}"),
            kind: "order.placed".into(),
            version: Some(1),
            at_ns: at,
        });
        self.evidence.effects.push(Effect {
            source: SourceName::new("notified"),
            consumer: ConsumerName::new("notifications"),
            event: format!("e{n}"),
            count: 1,
            at_ns: Some(at + 50 * MS),
            key: Some(format!("o{n}")),
            version: Some(1),
        });
        for ledger in ["charges", "owed"] {
            self.evidence.entries.push(Entry {
                source: SourceName::new(ledger),
                account: "charge".into(),
                key: format!("o{n}"),
                amount: 1990,
                unit: "EUR-cent".into(),
                seq: None,
                at_ns: None,
            });
        }
    }

    fn events(&mut self) {
        let phases = [
            (Phase::WarmUp, 0),
            (Phase::Baseline, BASELINE),
            (Phase::Faults, ON),
            (Phase::Recovery, OFF),
            (Phase::Drain, END),
            (Phase::Collect, END + 8 * S),
            (Phase::Teardown, END + 9 * S),
        ];
        self.add(0, Event::LoadStarted { t0_ns: 0 });
        for (phase, at) in phases {
            let planned_ms = 0;
            self.add(at, Event::PhaseStarted { phase, planned_ms });
        }
        self.add(
            ON,
            Event::FaultApplied {
                fault: fault_name(),
                asked_ns: ON,
                confirmed_ns: ON,
                detail: String::new(),
            },
        );
        let bite = Bite {
            link: Some(psp()),
            requests: 80,
            connections: 20,
            ..Bite::default()
        };
        self.add(
            OFF,
            Event::FaultLifted {
                fault: fault_name(),
                asked_ns: OFF,
                confirmed_ns: OFF,
                bites: vec![bite],
            },
        );
        self.add(END, Event::LoadFinished(LoadSummary::default()));
        self.add(
            END + 8 * S,
            Event::DrainEnded {
                drained: true,
                left: BTreeMap::new(),
                unread: BTreeMap::new(),
                took_ms: 8000,
            },
        );
    }

    pub(crate) fn add(&mut self, at_ns: u64, event: Event) {
        let wall_ms = at_ns / MS;
        let stamped = Stamped {
            at_ns,
            wall_ms,
            event,
        };
        self.evidence.events.push(stamped);
    }

    /// Changes every event that `change` knows.
    pub(crate) fn change_events(&mut self, change: impl Fn(&mut Event)) {
        for it in &mut self.evidence.events {
            change(&mut it.event);
        }
    }

    pub(crate) fn did_not_drain(&mut self) {
        self.change_events(|event| {
            if let Event::DrainEnded { drained, left, .. } = event {
                *drained = false;
                left.insert("outbox".into(), 12.0);
            }
        });
    }

    pub(crate) fn had_no_drain(&mut self) {
        let events = &mut self.evidence.events;
        events.retain(|it| !matches!(it.event, Event::DrainEnded { .. }));
    }

    /// Nothing was touched by the fault.
    pub(crate) fn did_not_bite(&mut self) {
        self.change_events(|event| {
            if let Event::FaultLifted { bites, .. } = event {
                *bites = vec![Bite {
                    link: Some(psp()),
                    ..Bite::default()
                }];
            }
        });
    }

    pub(crate) fn generator_was_late(&mut self) {
        self.change_events(|event| {
            if let Event::LoadFinished(load) = event {
                load.send_lag_p99_us = 900_000;
            }
        });
    }

    pub(crate) fn tickets_were_dropped(&mut self) {
        self.change_events(|event| {
            if let Event::LoadFinished(load) = event {
                (load.issued, load.dropped) = (7, 7);
            }
        });
    }

    pub(crate) fn source_lost(&mut self, name: &str) {
        let state = self.evidence.sources.get_mut(&SourceName::new(name));
        state.unwrap().lost = 3;
    }

    /// Operations whose intended start lies in a stretch.
    pub(crate) fn operations_in(&mut self, from: u64, to: u64) -> Vec<&mut Operation> {
        let operations = self.evidence.operations.iter_mut();
        let inside = |it: &&mut Operation| from <= it.intended_ns && it.intended_ns < to;
        operations.filter(inside).collect()
    }

    pub(crate) fn verdict(&mut self, property: Property) -> Verdict {
        self.plan.properties = vec![PropertyPlan {
            name: PropertyName::new("it"),
            source: at_source(),
            property,
            expected: Expected::default(),
        }];
        judge(&self.plan, &self.evidence).verdicts.remove(0)
    }

    #[track_caller]
    pub(crate) fn passes(&mut self, property: Property) -> Verdict {
        let verdict = self.verdict(property);
        assert_eq!(verdict.status, Status::Pass, "{}", verdict.why);
        assert!(verdict.blames.is_empty() && verdict.help.is_none());
        verdict
    }

    #[track_caller]
    pub(crate) fn fails(&mut self, property: Property, says: &str) -> Verdict {
        let verdict = self.verdict(property);
        assert_eq!(verdict.status, Status::Fail, "{}", verdict.why);
        assert!(verdict.why.contains(says), "{}", verdict.why);
        verdict
    }

    #[track_caller]
    pub(crate) fn is_inconclusive(&mut self, property: Property, says: &str) -> Verdict {
        let verdict = self.verdict(property);
        assert_eq!(verdict.status, Status::Inconclusive, "{}", verdict.why);
        assert!(verdict.why.contains(says), "{}", verdict.why);
        assert!(verdict.help.is_some(), "it says what would settle it");
        verdict
    }
}

/// An operation that timed out.
pub(crate) fn time_out(it: &mut Operation) {
    it.outcome = OutcomeClass::Unknown;
    it.status = None;
    it.error = Some("timeout".into());
    it.ended_ns = it.intended_ns + 5 * S;
}
