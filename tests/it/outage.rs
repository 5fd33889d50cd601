//! A run that looks like a real one, built in code: 40 orders/s for 75 s, the provider's replies
//! dropped for 20 s in the middle, a breaker that opens and closes, a backlog that grows and
//! drains, a service that dies by itself, and hostile texts wherever a service could put one.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos_harness::evidence::SourceState;
use chaos_harness::evidence::events::{Bite, LoadSecond, LoadSummary};
use chaos_harness::evidence::{
    Call, CallEnd, Event, Evidence, Operation, Phase, RunClock, Sample, Stamped, StopReason,
    Transition,
};
use chaos_harness::plan::fault::{Direction, FaultEffect, LinkEffect};
use chaos_harness::plan::load::{
    Arrivals, LoadModel, OutcomeClass, OutcomeMap, Request, Segment, StatusRange,
};
use chaos_harness::plan::property::{Errors, Expected};
use chaos_harness::plan::system::{BreakerPlan, Protocol, Ready};
use chaos_harness::plan::*;
use chaos_harness::report::Run;
use chaos_harness::verdict::{Finding, JudgedWindow, Status, Verdict, Verdicts};

/// What must never become markup, wherever it comes from.
pub(crate) const HOSTILE: &str = r#"<script>alert("x")</script><img src=x onerror=alert(1)>'&"#;

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
/// The load starts 3 s into the run; the fault is on from 25 s to 45 s of the load.
const T0: u64 = 3 * S;
const FAULT_ON: u64 = T0 + 25 * S + 12 * MS;
const FAULT_OFF: u64 = T0 + 45 * S + 9 * MS;
const LOAD_S: u64 = 75;

/// The parts of a run, to be lent to a [`Run`].
pub(crate) struct Outage {
    pub(crate) plan: Plan,
    pub(crate) evidence: Evidence,
    pub(crate) verdicts: Verdicts,
    pub(crate) files: BTreeMap<String, String>,
}

impl Outage {
    pub(crate) fn new() -> Self {
        let plan = plan();
        let scenario = (1..40)
            .map(|line| match line {
                19 => format!("  orders-answered: {{ errors: {{ at-most: 1% }} }} # {HOSTILE}\n"),
                _ => format!("# line {line}\n"),
            })
            .collect();
        Self {
            evidence: evidence(),
            verdicts: verdicts(),
            files: BTreeMap::from([(plan.scenario_file.clone(), scenario)]),
            plan,
        }
    }

    pub(crate) fn run(&self) -> Run<'_> {
        Run {
            plan: &self.plan,
            evidence: &self.evidence,
            verdicts: &self.verdicts,
            files: &self.files,
        }
    }
}

/// A small generator, so that the fixture is the same everywhere.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// Skewed as latencies are: mostly near `typical`, seldom far above.
    fn latency_ns(&mut self, typical_us: u64) -> u64 {
        let slow = if self.next(100) == 0 { 4 } else { 1 };
        (typical_us / 2 + self.next(typical_us) + self.next(typical_us / 2)) * slow * 1000
    }
}

fn source(line: u32) -> SourceRef {
    SourceRef {
        file: "scenarios/payment-outage.yaml".into(),
        line,
        column: 3,
    }
}

fn link(from: &str, to: &str, breaker: bool) -> LinkPlan {
    LinkPlan {
        name: LinkName::new(from, to),
        source: source(1),
        service: ServiceName::new(to),
        port: PortName::new("http"),
        protocol: Protocol::Http,
        correlate: None,
        listen: None,
        calls: BTreeMap::new(),
        probe: None,
        refuse_when_down: true,
        breaker: breaker.then_some(BreakerPlan {
            threshold: 0.5,
            window: 20,
            min_calls: 10,
            open_for: Duration::from_secs(2),
            probes: 3,
            instances: 1,
        }),
    }
}

fn service(name: &str) -> ServicePlan {
    ServicePlan {
        name: ServiceName::new(name),
        source: source(1),
        command: vec![Template::text(name)],
        dir: ".".into(),
        prepare: Vec::new(),
        once: false,
        needs: Vec::new(),
        ports: BTreeMap::new(),
        env: BTreeMap::new(),
        files: Vec::new(),
        ready: Ready::Tcp(PortName::new("http")),
        ready_within: Duration::from_secs(10),
        stop_signal: "TERM".into(),
        stop_grace: Duration::from_secs(3),
    }
}

fn step(name: &str) -> StepPlan {
    StepPlan {
        name: OperationName::new(name),
        think: Duration::ZERO,
        request: Request {
            method: "POST".into(),
            path: Template::text("/api/orders"),
            headers: Vec::new(),
            json: None,
        },
        outcome: OutcomeMap {
            done: vec![StatusRange(201, 201)],
            accepted: vec![StatusRange(202, 202)],
            refused: vec![StatusRange(409, 409)],
            body_null: None,
        },
        capture: Vec::new(),
        until: None,
    }
}

pub(crate) fn plan() -> Plan {
    let s = Duration::from_secs;
    Plan {
        format_version: FORMAT_VERSION,
        chaos_version: "0.1.0".into(),
        name: "payment-outage".into(),
        about: "The payment provider's replies vanish for 20 s while customers order.".into(),
        scenario_file: "scenarios/payment-outage.yaml".into(),
        system_file: "sample-system/system.yaml".into(),
        seed: 4242,
        toxiproxy: None,
        changes: Vec::new(),
        system: SystemPlan {
            name: "shop".into(),
            folder: "sample-system".into(),
            environment: BTreeMap::from([("SHOP_DEFECTS".into(), "m10".into())]),
            services: ["gateway", "orders", "payments", "psp"].map(service).into(),
            links: vec![
                link("load", "gateway", false),
                link("gateway", "orders", false),
                link("orders", "payments", true),
                link("payments", "psp", true),
                link("orders", "bus", false),
                link("notifications", "bus", false),
            ],
            databases: Vec::new(),
            setup: Vec::new(),
            sagas: Vec::new(),
            consumers: Vec::new(),
            evidence: Vec::new(),
            backlogs: Vec::new(),
        },
        load: LoadPlan {
            model: LoadModel::Open(Arrivals {
                poisson: true,
                segments: vec![Segment {
                    from_per_s: 40.0,
                    to_per_s: 40.0,
                    over: s(LOAD_S),
                }],
            }),
            users_max: 320,
            timeout: s(5),
            journeys: vec![JourneyPlan {
                name: JourneyName::new("order-flow"),
                source: source(5),
                weight: 1.0,
                link: LinkName::new("load", "gateway"),
                steps: vec![step("place-order"), step("see-order")],
            }],
            feeds: Vec::new(),
            requests_per_s: (80.0, 200.0),
        },
        phases: PhasesPlan {
            baseline_start: s(5),
            baseline_end: s(25),
            recovery_start: s(45),
            load_end: s(LOAD_S),
            drain_within: s(30),
            drain_quiet: s(6),
        },
        faults: vec![FaultPlan {
            name: FaultName::new("psp-silent"),
            source: source(11),
            start: s(25),
            lasts: Some(s(20)),
            effect: FaultEffect::Link {
                links: vec![LinkName::new("payments", "psp")],
                direction: Direction::Response,
                effect: LinkEffect::Blackhole,
            },
        }],
        properties: vec![PropertyPlan {
            name: PropertyName::new("orders-answered"),
            source: source(19),
            property: Property::Errors(Errors {
                operation: OperationName::new("place-order"),
                window: Window::During {
                    faults: vec![FaultName::new("psp-silent")],
                    and_after: Duration::ZERO,
                },
                at_most: 0.01,
                unsettled: false,
                accepted_at_most: None,
            }),
            expected: Expected::default(),
        }],
    }
}

/// The operations: fast before, waiting for the time-out until the breaker opens, 202 at once
/// after, fast again in the end.
fn operations(draw: &mut Draw) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut at = T0;
    for iteration in 0.. {
        at += draw.next(50) * MS;
        if at >= T0 + LOAD_S * S {
            break;
        }
        let waiting = (FAULT_ON..FAULT_ON + 2_300 * MS).contains(&at);
        let open = (FAULT_ON + 2_300 * MS..FAULT_OFF + 1_500 * MS).contains(&at);
        let lost = at > FAULT_ON && at < FAULT_OFF && draw.next(16) == 0;
        let (took, outcome, status, error) = match () {
            () if lost && draw.next(5) == 0 => (
                draw.latency_ns(9_000),
                OutcomeClass::Unknown,
                Some(503),
                Some("status 503"),
            ),
            () if lost => (5 * S, OutcomeClass::Unknown, None, Some("timeout")),
            () if waiting => (
                2 * S + draw.next(90) * MS,
                OutcomeClass::Accepted,
                Some(202),
                None,
            ),
            () if open => (
                draw.latency_ns(12_000),
                OutcomeClass::Accepted,
                Some(202),
                None,
            ),
            () if draw.next(50) == 0 => (
                draw.latency_ns(6_000),
                OutcomeClass::Refused,
                Some(409),
                None,
            ),
            () => (draw.latency_ns(18_000), OutcomeClass::Done, Some(201), None),
        };
        let place = operation("place-order", iteration, at, took, outcome, status, error);
        let ended = place.ended_ns;
        operations.push(place);
        if outcome == OutcomeClass::Done {
            let took = draw.latency_ns(9_000) + 250 * MS;
            operations.push(operation(
                "see-order",
                iteration,
                ended,
                took,
                outcome,
                Some(200),
                None,
            ));
        }
    }
    operations.sort_by_key(|operation| operation.intended_ns);
    operations
}

fn operation(
    op: &str,
    iteration: u64,
    intended_ns: u64,
    took_ns: u64,
    outcome: OutcomeClass,
    status: Option<u16>,
    error: Option<&str>,
) -> Operation {
    Operation {
        op: OperationName::new(op),
        journey: JourneyName::new("order-flow"),
        iteration,
        key: format!("k{iteration}"),
        intended_ns,
        sent_ns: intended_ns + 40_000,
        ended_ns: intended_ns + took_ns,
        outcome,
        status,
        error: error.map(str::to_owned),
        requests: 1,
        captured: BTreeMap::new(),
        trace: format!("{iteration:032x}"),
    }
}

fn calls(draw: &mut Draw, operations: &[Operation]) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut call = |from: &str, to: &str, at_ns: u64, answered: bool| {
        calls.push(Call {
            source: SourceName::new("request-log"),
            link: LinkName::new(from, to),
            connection: 1,
            at_ns,
            first_byte_ns: answered.then_some(at_ns + 5 * MS),
            ended_ns: Some(at_ns + 6 * MS),
            method: "POST".into(),
            path: "/charges".into(),
            key: None,
            trace: None,
            status: answered.then_some(200),
            end: if answered {
                CallEnd::Answered
            } else {
                CallEnd::ClosedByCaller
            },
        });
    };
    for operation in operations {
        let at = operation.intended_ns;
        call("load", "gateway", at, operation.status.is_some());
        call("gateway", "orders", at + MS, operation.status.is_some());
        if operation.op.as_str() == "place-order" {
            call("orders", "payments", at + 2 * MS, true);
            let open = (FAULT_ON + 2_300 * MS..FAULT_OFF + 1_500 * MS).contains(&at);
            if !open || draw.next(25) == 0 {
                call(
                    "payments",
                    "psp",
                    at + 3 * MS,
                    !(FAULT_ON..FAULT_OFF).contains(&at),
                );
            }
            call("orders", "bus", at + 20 * MS, true);
        }
    }
    calls
}

fn transitions() -> Vec<Transition> {
    let mut transitions = Vec::new();
    let mut state = "CLOSED";
    let mut change = |at_ns: u64, to: &'static str| {
        transitions.push(Transition {
            source: SourceName::new("breakers"),
            link: LinkName::new("payments", "psp"),
            at_ns,
            from: state.into(),
            to: to.into(),
            incarnation: "1".into(),
            seq: at_ns,
        });
        state = to;
    };
    for probe in 0..7 {
        change(FAULT_ON + (2_300 + probe * 2_600) * MS, "OPEN");
        change(FAULT_ON + (4_300 + probe * 2_600) * MS, "HALF_OPEN");
    }
    change(FAULT_OFF + 1_500 * MS, "CLOSED");
    transitions
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for second in 0..LOAD_S + 12 {
        let at_ns = T0 + second * S;
        let pending = match second {
            25..45 => (second - 25) * 16,
            45..52 => 320_u64.saturating_sub((second - 44) * 45),
            _ => second % 3,
        };
        for (series, value) in [
            ("backlog:open-sagas", pending),
            ("backlog:outbox", second % 4),
        ] {
            let source = SourceName::new("backlog");
            samples.push(Sample {
                source,
                series: series.into(),
                at_ns,
                value: value as f64,
            });
        }
    }
    samples
}

/// The events of the run alone: what live output is told.
pub(crate) fn events(operations: &[Operation]) -> Vec<Stamped> {
    let mut events = Vec::new();
    let mut push = |at_ns: u64, event: Event| {
        events.push(Stamped {
            at_ns,
            wall_ms: 1_795_000_000_000 + at_ns / MS,
            event,
        });
    };
    push(
        0,
        Event::RunStarted {
            run_id: "2026-11-21-0423-7f3a".into(),
            scenario: "payment-outage".into(),
            seed: 4242,
            chaos_version: "0.1.0".into(),
            clock: RunClock {
                origin_mono_ns: 1,
                origin_wall_ms: 1_795_000_000_000,
            },
            boot_id: "0c0ffee0".into(),
            pid: 4711,
        },
    );
    let phase = |phase, s: u64| Event::PhaseStarted {
        phase,
        planned_ms: s * 1000,
    };
    push(MS, phase(Phase::Boot, 0));
    push(
        2 * MS,
        Event::ProxyReady {
            version: "2.12.0 (chaos)".into(),
            embedded: true,
        },
    );
    for (n, name) in ["gateway", "orders", "payments", "psp"]
        .into_iter()
        .enumerate()
    {
        let (service, pid) = (ServiceName::new(name), 5000 + n as u32);
        push(
            100 * MS,
            Event::ServiceSpawned {
                service: service.clone(),
                pid,
                incarnation: 1,
            },
        );
        push(
            900 * MS,
            Event::ServiceReady {
                service,
                incarnation: 1,
                took_ms: 800,
            },
        );
    }
    push(T0, Event::LoadStarted { t0_ns: T0 });
    push(T0, phase(Phase::WarmUp, 5));
    push(T0 + 5 * S, phase(Phase::Baseline, 20));
    push(T0 + 25 * S, phase(Phase::Faults, 20));
    let fault = || FaultName::new("psp-silent");
    push(T0 + 25 * S, Event::FaultApplying { fault: fault() });
    push(
        FAULT_ON,
        Event::FaultApplied {
            fault: fault(),
            asked_ns: T0 + 25 * S,
            confirmed_ns: FAULT_ON,
            detail: "12 of 12 connections".into(),
        },
    );
    push(
        T0 + 30 * S,
        Event::ServiceExited {
            service: ServiceName::new("notifications"),
            pid: 5005,
            incarnation: 1,
            code: Some(101),
            signal: None,
            by_us: false,
            log_tail: vec!["thread 'main' panicked".into(), HOSTILE.into()],
        },
    );
    push(
        FAULT_OFF,
        Event::FaultLifted {
            fault: fault(),
            asked_ns: T0 + 45 * S,
            confirmed_ns: FAULT_OFF,
            bites: vec![Bite {
                link: Some(LinkName::new("payments", "psp")),
                connections: 34,
                requests: 118,
                bytes_delayed: 0,
                bytes_dropped: 41_300,
                closed: 12,
            }],
        },
    );
    push(T0 + 45 * S, phase(Phase::Recovery, 30));
    push(T0 + LOAD_S * S, phase(Phase::Drain, 30));
    for second in 0..LOAD_S {
        push(
            T0 + (second + 1) * S,
            Event::LoadSecond(load_second(operations, second)),
        );
    }
    let issued = operations
        .iter()
        .filter(|o| o.op.as_str() == "place-order")
        .count() as u64;
    push(
        T0 + LOAD_S * S + MS,
        Event::LoadFinished(LoadSummary {
            issued,
            completed: issued - 51,
            failed: 51,
            dropped: 0,
            requests: 4_210,
            send_lag_p99_us: 180,
            send_lag_max_us: 2_400,
            cpu_s: 7.1,
            wall_s: 75.0,
            users_busy_max: 96,
        }),
    );
    push(
        T0 + (LOAD_S + 8) * S,
        Event::DrainEnded {
            drained: true,
            left: BTreeMap::new(),
            unread: BTreeMap::new(),
            took_ms: 8_000,
        },
    );
    push(T0 + (LOAD_S + 8) * S, phase(Phase::Collect, 0));
    push(T0 + (LOAD_S + 9) * S, phase(Phase::Teardown, 0));
    events.sort_by_key(|stamped| stamped.at_ns);
    events
}

fn load_second(operations: &[Operation], second: u64) -> LoadSecond {
    let of = operations
        .iter()
        .filter(|o| (o.intended_ns - T0) / S == second);
    let mut latencies: Vec<u64> = of.clone().map(|o| o.latency_ns() / 1000).collect();
    latencies.sort_unstable();
    let n = |outcome| of.clone().filter(|o| o.outcome == outcome).count() as u64;
    LoadSecond {
        second: second as u32,
        offered: of
            .clone()
            .filter(|o| o.op.as_str() == "place-order")
            .count() as u64,
        done: n(OutcomeClass::Done),
        accepted: n(OutcomeClass::Accepted),
        refused: n(OutcomeClass::Refused),
        unknown: n(OutcomeClass::Unknown),
        p50_us: latencies.get(latencies.len() / 2).copied().unwrap_or(0),
        p99_us: latencies.last().copied().unwrap_or(0),
        max_us: latencies.last().copied().unwrap_or(0),
        ..LoadSecond::default()
    }
}

fn evidence() -> Evidence {
    let mut draw = Draw(4242);
    let operations = operations(&mut draw);
    let failed = SourceState {
        rows: 310,
        error: Some("row 310: answered 503".into()),
        ..SourceState::default()
    };
    let whole = SourceState {
        rows: 2_800,
        ..SourceState::default()
    };
    Evidence {
        events: events(&operations),
        calls: calls(&mut draw, &operations),
        transitions: transitions(),
        samples: samples(),
        sources: BTreeMap::from([
            (SourceName::new("sagas"), failed),
            (SourceName::new("placed"), whole),
        ]),
        operations,
        ..Evidence::default()
    }
}

fn verdict(name: &str, kind: &str, status: Status, line: u32, why: &str) -> Verdict {
    Verdict {
        property: PropertyName::new(name),
        kind: kind.into(),
        status,
        why: why.into(),
        value: None,
        limit: None,
        margin: None,
        window: None,
        n: 800,
        n_of: "operations".into(),
        blames: Vec::new(),
        help: None,
        source: source(line),
        findings: Vec::new(),
        findings_more: 0,
    }
}

fn during() -> Option<JudgedWindow> {
    let name = "during psp-silent".into();
    Some(JudgedWindow {
        name,
        from_ns: FAULT_ON,
        to_ns: FAULT_OFF,
    })
}

fn verdicts() -> Verdicts {
    use Status::{Fail, Inconclusive, Pass};
    let mut answered = verdict(
        "orders-answered",
        "errors",
        Fail,
        19,
        "6.4% (51 of 800) during psp-silent, limit 1%: 44 time-outs, 7 x 503, first at +0.4s",
    );
    answered.value = Some("6.4%".into());
    answered.limit = Some("1%".into());
    answered.margin = Some("-5.4%".into());
    answered.window = during();
    answered.blames = vec!["payments -> psp".into()];
    answered.help = Some("give payments -> psp a time-out below the 5s of the load".into());
    answered.findings = (0..50)
        .map(|n| Finding {
            status: Fail,
            at_ns: Some(FAULT_ON + n * 390 * MS),
            subject: format!("order {}", 1000 + n),
            text: if n == 0 {
                HOSTILE.into()
            } else {
                "no answer within 5s".into()
            },
        })
        .collect();
    answered.findings_more = 1;
    let mut sagas = verdict(
        "sagas-settle",
        "sagas",
        Inconclusive,
        21,
        "evidence `sagas` ended at row 310 with 503, so 2,490 sagas were not seen",
    );
    sagas.n = 310;
    sagas.n_of = "sagas".into();
    sagas.help = Some("keep orders up until collection ends".into());
    let mut opens = verdict(
        "breaker-opens",
        "breaker",
        Pass,
        16,
        "opened 2.3s after psp-silent, then kept 96% of demand off payments -> psp; limit 4s, 95%",
    );
    opens.value = Some("2.3s".into());
    opens.limit = Some("4s".into());
    opens.margin = Some("1.7s".into());
    opens.window = during();
    let mut lost = verdict(
        "nothing-lost",
        "events",
        Pass,
        22,
        "2800 events, each applied once, outbox empty",
    );
    lost.n = 2800;
    lost.n_of = "events".into();
    Verdicts {
        ended: StopReason::Finished,
        ended_why: None,
        verdicts: vec![
            opens,
            verdict(
                "breaker-closes",
                "breaker",
                Pass,
                17,
                "closed 1.5s after psp-silent, limit 6s",
            ),
            answered,
            verdict(
                "orders-fast",
                "latency",
                Pass,
                20,
                "p99 2.09s during psp-silent, limit 2.5s",
            ),
            sagas,
            lost,
            verdict("stays-up", "stays-up", Pass, 1, "9 services stayed up"),
        ],
    }
}
