//! One worker process, from its assignment to its last word.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use chaos_harness::evidence::clock::mono_ns;
use chaos_harness::evidence::events::LoadSummary;
use chaos_harness::evidence::{Phase, RunClock};
use chaos_harness::load::Durations;
use chaos_harness::load::hlog::{Log, Tag};
use chaos_harness::load::wire::{Assignment, Measure, PhaseSpan, Series, TOKEN_VARIABLE};
use chaos_harness::plan::load::{
    Arrivals, LoadModel, LoadPlan, OutcomeClass, OutcomeMap, Request, Segment, StatusRange,
};
use chaos_harness::plan::{
    JourneyName, JourneyPlan, LinkName, OperationName, SourceRef, StepPlan, Template,
};
use chaos_harness::run::load_host::{LoadHost, LoadMessage};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Users that a plan holds ready at these rates: its cap.
pub(crate) const USERS: u32 = 2_000;

const READY_WITHIN: Duration = Duration::from_secs(30);
const T0_LEAD_NS: u64 = 200_000_000;

/// What a worker told.
pub(crate) struct Told {
    pub(crate) summary: LoadSummary,
    log: Log,
    duration: Duration,
}

impl Told {
    /// The histogram of the one operation: what was answered as declared.
    pub(crate) fn answered(&self, measure: Measure) -> Durations {
        let series = Series::Operation("look".into());
        let tag = Tag {
            series,
            outcome: OutcomeClass::Done,
            measure,
        };
        // Whatever began in the load, however late it was told.
        self.log.sum(&tag, 0..self.duration.as_secs() as u32 + 60)
    }

    pub(crate) fn is_conserved(&self, issued: u64) -> bool {
        let told = &self.summary;
        told.issued == issued && told.issued == told.completed + told.failed + told.dropped
    }

    pub(crate) fn conservation(&self) -> String {
        let told = &self.summary;
        format!(
            "issued {} = completed {} + failed {} + dropped {}",
            told.issued, told.completed, told.failed, told.dropped
        )
    }
}

/// Tickets at a constant rate.
pub(crate) fn constant(per_s: f64, over: Duration) -> LoadModel {
    LoadModel::Open(Arrivals {
        poisson: false,
        segments: vec![Segment {
            from_per_s: per_s,
            to_per_s: per_s,
            over,
        }],
    })
}

/// Runs one worker against a target; `begun` is told T0 (CLOCK_MONOTONIC, ns) ahead of it.
pub(crate) fn drive(
    url: &str,
    model: LoadModel,
    duration: Duration,
    begun: impl FnOnce(u64),
) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let host = LoadHost::start(assignment(url, model, duration)).await;
        let mut host = host.expect("loopback has a free port");
        let mut worker = spawn(&host);
        let ready = host
            .wait_ready(READY_WITHIN)
            .await
            .expect("the worker gets ready");
        assert_eq!(ready.users, ready.connected, "every user has a connection");
        let t0_ns = mono_ns() + T0_LEAD_NS;
        begun(t0_ns);
        host.go(t0_ns);
        let told = listen(&mut host, duration).await;
        ended(&mut worker).await;
        told
    })
}

/// Waits for the worker's exit while the host still answers: its last word is not its last wait.
async fn ended(worker: &mut Child) {
    let looks = async {
        loop {
            if let Some(status) = worker.try_wait().expect("the worker is ours to wait for") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let status = tokio::time::timeout(READY_WITHIN, looks)
        .await
        .expect("the worker ends");
    assert!(status.success(), "the worker ended with {status}");
}

async fn listen(host: &mut LoadHost, duration: Duration) -> Told {
    let mut log = Log::default();
    loop {
        match host.next().await {
            Some(LoadMessage::Batch(batch)) => {
                assert_eq!(batch.operations_lost, 0, "every operation is told");
                log.add(&batch.histograms).expect("histograms read back");
            }
            Some(LoadMessage::Finished(finished)) => {
                let summary = finished.summary;
                return Told {
                    summary,
                    log,
                    duration,
                };
            }
            Some(LoadMessage::Lost(why)) => panic!("the worker is lost: {why}"),
            None => panic!("the worker has no last word"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the benchmark is the worker's parent"
)]
fn spawn(host: &LoadHost) -> Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["worker", "--connect", host.url()])
        .env(TOKEN_VARIABLE, host.token())
        // Held open: a local worker ends with it, and so with this process.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the worker can be started")
}

fn assignment(url: &str, model: LoadModel, duration: Duration) -> Assignment {
    let link = LinkName::new("load", "target");
    Assignment {
        seed: 1,
        load: LoadPlan {
            model,
            users_max: USERS,
            timeout: Duration::from_secs(10),
            journeys: vec![JourneyPlan {
                name: JourneyName::new("looking"),
                source: SourceRef {
                    file: "system.yaml".into(),
                    line: 1,
                    column: 1,
                },
                weight: 1.0,
                link: link.clone(),
                steps: vec![look()],
            }],
            feeds: Vec::new(),
            requests_per_s: (0.0, 0.0),
        },
        targets: BTreeMap::from([(link, url.to_owned())]),
        symbols: BTreeMap::new(),
        clock: RunClock::start(),
        duration,
        phases: vec![PhaseSpan {
            phase: Phase::Baseline,
            from: Duration::ZERO,
        }],
        worker: 0,
        workers: 1,
        ticket_deadline: Duration::from_secs(1),
        local: true,
    }
}

fn look() -> StepPlan {
    StepPlan {
        name: OperationName::new("look"),
        think: Duration::ZERO,
        request: Request {
            method: "GET".into(),
            path: Template::parse("/look?key=$(key)").expect("a constant template"),
            headers: Vec::new(),
            json: None,
        },
        outcome: OutcomeMap {
            done: vec![StatusRange(200, 200)],
            accepted: Vec::new(),
            refused: Vec::new(),
            body_null: None,
        },
        capture: Vec::new(),
        until: None,
    }
}

/// Each user is a connection, and both of its ends are on this machine.
pub(crate) fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is not allowed the worker says that its users have no connections.
    let _ = setrlimit(Resource::Nofile, raised);
}
