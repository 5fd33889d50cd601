//! What the commands say and where: results on standard output, everything else on standard error.

use std::process::{Command, Output};

use crate::support::chaos;

/// A command that ends by itself soon.
#[expect(clippy::disallowed_methods, reason = "the binary under test")]
fn run(arguments: &[&str]) -> Output {
    Command::new(chaos())
        .args(arguments)
        .env("NO_COLOR", "1")
        .output()
        .expect("started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn plan_goes_to_standard_output_and_mistakes_to_standard_error() {
    let good = run(&["plan", "scenarios/calm.yaml"]);
    assert_eq!(good.status.code(), Some(0));
    let plan = text(&good.stdout);
    assert!(
        plan.starts_with("calm") && plan.contains("processes"),
        "{plan}"
    );
    assert_eq!(text(&good.stderr), "");

    let bad = run(&["plan", "tests/diagnostics/unknown-link.yaml"]);
    assert_eq!(bad.status.code(), Some(2));
    assert_eq!(text(&bad.stdout), "");
    assert!(text(&bad.stderr).contains("scenario::unknown-link"));
}
