//! The pace: 5,000 requests/s against a trivial target, beside a bare pacer at the same rate.
//!
//! The bare pacer is a thread that does nothing but look at the clock. Its instants lie half-way
//! between the worker's, so that the two do not wake each other up. What a busy machine does to
//! either within 10 s is a matter of luck, so the middle one of some rounds is judged.

use std::thread::JoinHandle;
use std::time::Duration;

use chaos_harness::evidence::clock::mono_ns;
use chaos_harness::load::wire::Measure;
use chaos_harness::load::{Durations, empty, record};

use crate::bare;
use crate::rig;
use crate::target::Target;
use crate::{Missed, bar};

const PER_S: u64 = 5_000;
const SECONDS: u64 = 10;
const ISSUED: u64 = PER_S * SECONDS;
const GAP_NS: u64 = 1_000_000_000 / PER_S;
/// Of the bare pacer's p99.
const LAG_MAX: f64 = 3.0;

pub(crate) fn measure(rounds: usize) -> Missed {
    println!(
        "pacer: {PER_S} requests/s for {SECONDS} s, n {ISSUED}, {} users, {rounds} rounds",
        rig::USERS
    );
    let mut missed = Missed::new();
    let ratios = (0..rounds.max(1)).map(|_| round(&mut missed));
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let (least, middle, most) = (
        ratios[0],
        ratios[ratios.len() / 2],
        ratios[ratios.len() - 1],
    );
    let sentence = format!(
        "send-lag p99 ≤ {LAG_MAX} × the bare pacer's: {middle:.2} × (median; {least:.2} to {most:.2})"
    );
    bar(&mut missed, middle <= LAG_MAX, sentence);
    missed
}

/// How many times the bare pacer's p99 the worker's was.
fn round(missed: &mut Missed) -> f64 {
    let duration = Duration::from_secs(SECONDS);
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
    let summary = &told.summary;
    line("bare pacer, due → awake", &bare);
    line("worker, due → sent", &told.answered(Measure::SendLag));
    line("worker, sent → answered", &told.answered(Measure::Service));
    let ratio = summary.send_lag_p99_us as f64 / bare.value_at_quantile(0.99) as f64;
    let cpu_us = summary.cpu_s * 1e6 / summary.requests as f64;
    println!("  worker: send-lag p99 {ratio:.2} ×, {cpu_us:.1} µs of CPU per request");
    bar(missed, told.is_conserved(ISSUED), told.conservation());
    ratio
}

fn bare_pacer(t0_ns: u64) -> JoinHandle<Durations> {
    std::thread::spawn(move || {
        bare::make_timers_exact();
        let mut lags = empty();
        for ticket in 0..ISSUED {
            let due_ns = t0_ns + ticket * GAP_NS + GAP_NS / 2;
            bare::sleep_until(due_ns);
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
