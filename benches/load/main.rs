//! What the load worker measures, against what is known from elsewhere: `cargo bench --bench load`.
//!
//! `stall` freezes a target and compares the worker's p99 with the one that the logged freeze
//! implies; `pacer` compares the worker's send-lag with that of a bare pacer next to it, `rounds=5`
//! times. Both drive the real `chaos worker` process through [`LoadHost`]. Exit code 1 when a bar is
//! missed.
//!
//! No criterion: one run is one number, and what matters is whether it is the right one.
//!
//! [`LoadHost`]: chaos_harness::run::load_host::LoadHost
#![expect(
    clippy::print_stdout,
    reason = "the numbers are the output of a benchmark"
)]

mod bare;
mod pacer;
mod rig;
mod stall;
mod target;

use std::process::ExitCode;

/// Of `pacer`.
const ROUNDS: usize = 5;

/// What was missed, as a sentence.
type Missed = Vec<String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if !has("--bench") {
        // `cargo test --all-targets` runs it too, and checks that it can be built.
        return ExitCode::SUCCESS;
    }
    let rounds = arguments.iter().find_map(|it| it.strip_prefix("rounds="));
    let rounds = rounds.map_or(ROUNDS, |given| given.parse().expect("rounds is a number"));
    let all = !has("stall") && !has("pacer");
    rig::allow_many_files();
    let mut missed = Missed::new();
    if all || has("stall") {
        missed.extend(stall::measure());
    }
    if all || has("pacer") {
        missed.extend(pacer::measure(rounds));
    }
    missed
        .iter()
        .for_each(|sentence| println!("MISSED: {sentence}"));
    match missed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Prints a bar and notes it when it is missed.
fn bar(missed: &mut Missed, met: bool, sentence: String) {
    println!("  {} {sentence}", if met { "met   " } else { "MISSED" });
    if !met {
        missed.push(sentence);
    }
}
