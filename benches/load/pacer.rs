//! The pace: 5,000 requests/s against a trivial target, beside a bare pacer at the same rate.
//!
//! The bare pacer is the worker's own (`load::pacer::sleep_until`) on a thread that does nothing
//! but look at the clock: what this machine, with everything that runs on it now, allows at best.
//! Its instants lie half-way between the worker's, so that the two do not wake each other up.

use std::thread::JoinHandle;
use std::time::Duration;

use chaos_harness::evidence::clock::mono_ns;
use chaos_harness::load::wire::Measure;
use chaos_harness::load::{Durations, empty, pacer, record};
use tokio_util::sync::CancellationToken;

use crate::rig;
use crate::target::Target;
use crate::{Missed, bar};

const PER_S: u64 = 5_000;
const SECONDS: u64 = 10;
const GAP_NS: u64 = 1_000_000_000 / PER_S;
/// Of the bare pacer's p99.
const LAG_MAX: f64 = 3.0;

pub(crate) fn measure() -> Missed {
    let duration = Duration::from_secs(SECONDS);
    let issued = PER_S * SECONDS;
    let target = Target::start();
    let mut bare = None;
    let model = rig::constant(PER_S as f64, duration);
    let told = rig::drive(&target.url, model, duration, |t0_ns| {
        bare = Some(bare_pacer(t0_ns))
    });
    let bare = bare
        .expect("the load began")
        .join()
        .expect("the bare pacer ends");
    let lag = told.answered(Measure::SendLag);
    let service = told.answered(Measure::Service);
    let summary = &told.summary;
    let ratio = summary.send_lag_p99_us as f64 / bare.value_at_quantile(0.99) as f64;
    println!(
        "pacer: {PER_S} requests/s for {SECONDS} s, n {issued}, {} users",
        rig::USERS
    );
    line("bare pacer, due → awake", &bare);
    line("worker, due → sent", &lag);
    line("worker, sent → answered", &service);
    let cpu_us = summary.cpu_s * 1e6 / summary.requests as f64;
    println!("  worker: {cpu_us:.1} µs of CPU per request");

    let mut missed = Missed::new();
    let sentence = format!("send-lag p99 ≤ {LAG_MAX} × the bare pacer's: {ratio:.2} ×");
    bar(&mut missed, ratio <= LAG_MAX, sentence);
    bar(&mut missed, told.is_conserved(issued), told.conservation());
    missed
}

fn bare_pacer(t0_ns: u64) -> JoinHandle<Durations> {
    std::thread::spawn(move || {
        pacer::make_timers_exact();
        let never = CancellationToken::new();
        let mut lags = empty();
        for ticket in 0..PER_S * SECONDS {
            let due_ns = t0_ns + ticket * GAP_NS + GAP_NS / 2;
            pacer::sleep_until(due_ns, &never);
            record(&mut lags, mono_ns() - due_ns);
        }
        lags
    })
}

fn line(name: &str, durations: &Durations) {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| durations.value_at_quantile(quantile));
    let max = durations.max();
    println!("  {name:<24} p50 {p50:>5} µs  p99 {p99:>6} µs  p99.9 {p999:>6} µs  max {max:>6} µs");
}
