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

#[test]
fn plans_of_the_shipped_scenarios_read_as_committed() {
    for scenario in ["payment-outage", "orders-crash", "payment-reply-lost"] {
        let plan = run(&["plan", &format!("scenarios/{scenario}.yaml")]);
        insta::assert_snapshot!(format!("plan_of_{scenario}"), text(&plan.stdout));
    }
}

#[test]
fn generated_schemas_are_named_and_an_unknown_name_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("schemas").display().to_string();

    let unknown = run(&["generate", "schema", "nosuch", "--dir", &dir]);
    assert_eq!(unknown.status.code(), Some(2));
    let said = text(&unknown.stderr);
    assert!(said.contains("scenario, system, outcome"), "{said}");
    assert!(!folder.path().join("schemas").exists());

    let all = run(&["generate", "schema", "--dir", &dir]);
    assert_eq!(all.status.code(), Some(0));
    for name in ["scenario", "system", "outcome"] {
        let file = format!("{name}.schema.json");
        let written = std::fs::read(folder.path().join("schemas").join(&file)).expect("written");
        let committed = std::fs::read(format!("schema/{file}")).expect("committed");
        assert!(written == committed, "{file}");
        assert!(text(&all.stderr).contains(&format!("schemas/{file}`")));
        let printed = run(&["generate", "schema", name, "--dir", "-"]);
        assert!(printed.stdout == committed, "{file}");
    }
    assert_eq!(
        run(&["generate", "schema", "--dir", "-"]).status.code(),
        Some(2)
    );
}

#[test]
fn man_pages_are_written_where_asked_and_only_of_what_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().display().to_string();
    assert_eq!(
        run(&["generate", "man", "--dir", &dir]).status.code(),
        Some(0)
    );
    assert!(folder.path().join("chaos-run.1").is_file());
    assert!(!folder.path().join("chaos-gate.1").exists());
    assert_eq!(run(&["generate", "man", "nosuch"]).status.code(), Some(2));
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    for arguments in [
        &["gate"][..],
        &["init"],
        &["up", "system.yaml"],
        &["explain", "breaker"],
    ] {
        let refused = run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let said = text(&refused.stderr);
        assert!(
            said.contains(&format!("`chaos {}` is not supported yet", arguments[0])),
            "{said}"
        );
    }
}

#[test]
fn folder_may_hold_the_system_beside_its_scenarios() {
    let folder = tempfile::tempdir().expect("a folder");
    for (from, to) in [
        ("tests/diagnostics/system.yml", "system.yml"),
        ("tests/it/systems/good.yaml", "good.yaml"),
    ] {
        std::fs::copy(from, folder.path().join(to)).expect("copied");
    }
    let path = folder.path().display().to_string();
    let checked = run(&["check", &path]);
    let said = text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains("1 scenario checked"), "{said}");

    std::fs::remove_file(folder.path().join("good.yaml")).expect("removed");
    let nothing = run(&["check", &path]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("no scenarios in folder"));
}
