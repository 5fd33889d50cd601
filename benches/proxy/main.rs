//! What the proxy costs: `cargo bench --bench proxy`, beside a real server with `TOXIPROXY_SERVER=PATH`.
//!
//! Subjects: no proxy at all, ours inside the kernel (plain), ours in user space (a `noop` each way), and
//! the real one. They take turns within each round, so that a noisy machine hits all of them alike, and what
//! is printed are medians over the rounds. The figure to trust is CPU per byte of the proxy's own process.
//!
//! Words after `--` choose: `throughput`, `rtt`, `connections`, `delays`, `memory` (default: all), `quick` (one small
//! round), `rounds=N` (default 10), `idle=N` (default 10000 connections), `asleep` (processors may sleep while
//! round trips and delays are measured; otherwise they are kept awake).
#![expect(
    clippy::print_stdout,
    reason = "the numbers are the output of a benchmark"
)]

mod delays;
mod measure;
mod peer;
mod processors;
mod subject;

use std::collections::BTreeMap;
use std::process::ExitCode;

use self::measure::{Figures, Kind, Size};
use self::processors::Awake;
use self::subject::Subject;

/// What was asked on the command line.
struct Asked {
    words: Vec<String>,
}

impl Asked {
    fn has(&self, name: &str) -> bool {
        self.words.iter().any(|word| word == name)
    }

    fn number(&self, name: &str, otherwise: usize) -> usize {
        let given = self.words.iter().find_map(|word| {
            let (key, value) = word.split_once('=')?;
            (key == name).then(|| value.parse().ok())?
        });
        given.unwrap_or(otherwise)
    }

    fn wants(&self, measure: &str) -> bool {
        let mut all = Kind::ALL
            .map(Kind::word)
            .into_iter()
            .chain(["delays", "memory"]);
        self.has(measure) || !all.any(|name| self.has(name))
    }

    fn awake(&self) -> Option<Awake> {
        (!self.has("asleep")).then(Awake::keep)
    }
}

fn main() -> ExitCode {
    let asked = Asked {
        words: std::env::args().skip(1).collect(),
    };
    if !asked.has("--bench") {
        // `cargo test --all-targets` runs it too, and checks that it can be built.
        return ExitCode::SUCCESS;
    }
    let files = subject::allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(compare(&asked, files));
    ExitCode::SUCCESS
}

async fn compare(asked: &Asked, files: u64) {
    let quick = asked.has("quick");
    let size = if quick { Size::quick() } else { Size::full() };
    let rounds = asked.number("rounds", if quick { 1 } else { 10 });
    let upstream = peer::serve().await;
    let subjects = Subject::all(upstream).await;
    let mut figures: BTreeMap<(usize, &'static str), Figures> = BTreeMap::new();
    // One kind after the other: a bulk transfer leaves the scheduler's guesses about who wakes whom in
    // a state that round trips right behind it would measure.
    for kind in Kind::ALL.into_iter().filter(|it| asked.wants(it.word())) {
        let awake = match kind {
            Kind::RoundTrips => asked.awake(),
            Kind::Connections | Kind::Throughput => None,
        };
        for _ in 0..rounds {
            for (place, subject) in subjects.iter().enumerate() {
                for (name, figure) in kind.measure(subject, &size).await {
                    figures.entry((place, name)).or_default().push(figure);
                }
            }
        }
        drop(awake);
    }
    if !figures.is_empty() {
        print(&subjects, &figures, rounds);
    }
    if asked.wants("delays") {
        compare_delays(asked, &subjects, rounds, size.delays).await;
    }
    if asked.wants("memory") {
        // Both ends of each connection are in this process, and both in the proxy.
        let fit = usize::try_from(files.saturating_sub(500) / 2).unwrap_or(usize::MAX);
        let idle = asked
            .number("idle", if quick { 500 } else { 10_000 })
            .min(fit);
        println!("resident memory of the proxy for {idle} idle connections");
        for subject in subjects.iter().filter(|subject| subject.is_proxy()) {
            let (before, with) = measure::memory(subject, idle).await;
            let each = (with - before) * 1e6 / idle as f64;
            println!(
                "  {:<22} {before:>8.1} MB idle {with:>8.1} MB with them {each:>8.0} B each",
                subject.name
            );
        }
    }
}

/// How far the delays of each timing toxic are off, over all rounds.
async fn compare_delays(asked: &Asked, subjects: &[Subject], rounds: usize, each: usize) {
    // Toxics make no difference between our two ways: both are in user space then.
    let own = subjects.iter().find(|subject| subject.is_proxy());
    let real = subjects.last().filter(|subject| subject.is_real());
    let both: Vec<(&str, &Subject)> = own
        .map(|own| ("ours", own))
        .into_iter()
        .chain(real.map(|real| (real.name, real)))
        .collect();
    let mut errors: BTreeMap<(&'static str, usize), Vec<Vec<f64>>> = BTreeMap::new();
    let mut echoes: BTreeMap<usize, Figures> = BTreeMap::new();
    let awake = asked.awake();
    for _ in 0..rounds {
        for timed in &delays::ALL {
            for (place, (_, subject)) in both.iter().enumerate() {
                let seen = timed.errors(subject, each).await;
                errors.entry((timed.kind(), place)).or_default().push(seen);
            }
        }
        for (place, (_, subject)) in both.iter().enumerate() {
            let took = delays::large_echo(subject).await;
            echoes.entry(place).or_default().push(took);
        }
    }
    drop(awake);
    println!("how far delays of 50 ms are off, ms, over {rounds} rounds in turn");
    println!(
        "  (of all; then the middle one of the rounds' own, which a stall of the machine is no part of)"
    );
    for ((kind, place), rounds) in &errors {
        let all = rounds.concat();
        let middle = |share| {
            let each = rounds.iter().map(|seen| measure::quantile(seen, share));
            measure::quantile(&each.collect::<Vec<_>>(), 0.5)
        };
        println!(
            "  {kind:<12} {:<15} p50 {:>7.3}  p99 {:>7.3}  n {:<6}  rounds: p50 {:>7.3}  p99 {:>7.3}",
            both[*place].0,
            measure::quantile(&all, 0.5),
            measure::quantile(&all, 0.99),
            all.len(),
            middle(0.5),
            middle(0.99),
        );
    }
    println!("echo of 8 MB through latency 200, s");
    for (place, figures) in &echoes {
        println!("  {:<15} {:>7.3}", both[*place].0, figures.median());
    }
}

fn print(subjects: &[Subject], figures: &BTreeMap<(usize, &'static str), Figures>, rounds: usize) {
    println!("medians of {rounds} rounds in turn");
    let mut names: Vec<&'static str> = figures.keys().map(|(_, name)| *name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        println!("{name}");
        let of = |place: usize| figures.get(&(place, name));
        let direct = of(0).filter(|_| name.starts_with("RTT"));
        let real = subjects.iter().position(Subject::is_real).and_then(of);
        for (place, subject) in subjects.iter().enumerate() {
            let Some(figure) = of(place) else {
                continue;
            };
            print!("  {:<22} {:>10.3}", subject.name, figure.median());
            if let Some(direct) = direct.filter(|_| place > 0) {
                print!("  added {:>6.1}", figure.without(direct).median());
            }
            if let Some(real) = real.filter(|_| subject.is_proxy() && !subject.is_real()) {
                let beside = |figure: &Figures| match direct {
                    Some(direct) => figure.without(direct).median(),
                    None => figure.median(),
                };
                print!("  {:.2} x the real one", beside(figure) / beside(real));
            }
            println!();
        }
    }
}
