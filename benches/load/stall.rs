//! The stall: a target that is frozen for 2 s of 12 s at 1,000 requests/s.
//!
//! How long every ticket had to wait follows from when it was due and when the target thawed, so
//! the right p99 is known. The closed model beside it shows what a loop of users makes of the same.

use std::time::Duration;

use chaos_harness::load::wire::Measure;
use chaos_harness::plan::load::LoadModel;

use crate::rig::{self, Told};
use crate::target::Target;
use crate::{Missed, bar};

const PER_S: u64 = 1_000;
const SECONDS: u64 = 12;
const FROZEN: Duration = Duration::from_secs(2);
const FROZEN_FROM_NS: u64 = 5_000_000_000;
/// Of the known p99.
const TOLERANCE: f64 = 0.10;

pub(crate) fn measure() -> Missed {
    let duration = Duration::from_secs(SECONDS);
    let issued = PER_S * SECONDS;
    let (open, freeze) = frozen(rig::constant(PER_S as f64, duration), duration);
    let known_ms = known_p99_ms(&freeze, issued);
    let found_ms = p99_ms(&open);
    let share = found_ms / known_ms;
    println!("stall: {PER_S} requests/s for {SECONDS} s, target frozen {FROZEN:?}");
    println!("  open model, n {issued}: p99 from the intended start {found_ms:.0} ms");
    println!("  known from the freeze:    {known_ms:.0} ms; found / known {share:.3}");

    // As many loops as make about the same rate when nothing stalls.
    let model = LoadModel::Closed {
        users: 10,
        think: Duration::from_millis(9),
    };
    let (closed, _) = frozen(model, duration);
    let n = closed.summary.issued;
    let hidden_ms = p99_ms(&closed);
    println!("  CLOSED model, n {n}: p99 {hidden_ms:.1} ms: what 10 users in a loop make of it");

    let mut missed = Missed::new();
    let sentence = format!(
        "p99 within {TOLERANCE} of the known one: off by {:.3}",
        share - 1.0
    );
    bar(&mut missed, (share - 1.0).abs() <= TOLERANCE, sentence);
    let met = open.is_conserved(issued) && open.summary.dropped == 0;
    bar(
        &mut missed,
        met,
        format!("{issued} tickets, none dropped: {}", open.conservation()),
    );
    missed
}

fn p99_ms(told: &Told) -> f64 {
    told.answered(Measure::Latency).value_at_quantile(0.99) as f64 / 1000.0
}

/// When T0 was, and when the target was really frozen and thawed, CLOCK_MONOTONIC, ns.
struct Freeze {
    t0_ns: u64,
    frozen_ns: u64,
    thawed_ns: u64,
}

fn frozen(model: LoadModel, duration: Duration) -> (Told, Freeze) {
    let target = Target::start();
    let mut log = None;
    let told = rig::drive(&target.url, model, duration, |t0_ns| {
        log = Some((t0_ns, target.freeze(t0_ns + FROZEN_FROM_NS, FROZEN)));
    });
    let (t0_ns, log) = log.expect("the load began");
    let (frozen_ns, thawed_ns) = log.recv().expect("the target was frozen");
    let freeze = Freeze {
        t0_ns,
        frozen_ns,
        thawed_ns,
    };
    (told, freeze)
}

/// The 99th percentile of what the tickets had to wait, had the target answered at once but for
/// the freeze.
fn known_p99_ms(freeze: &Freeze, issued: u64) -> f64 {
    let due = (0..issued).map(|ticket| freeze.t0_ns + ticket * 1_000_000_000 / PER_S);
    let mut waits_ns: Vec<u64> = due
        .map(
            |due_ns| match (freeze.frozen_ns..freeze.thawed_ns).contains(&due_ns) {
                true => freeze.thawed_ns - due_ns,
                false => 0,
            },
        )
        .collect();
    waits_ns.sort_unstable();
    let rank = (issued * 99).div_ceil(100);
    waits_ns[rank as usize - 1] as f64 / 1e6
}
