//! Mistakes that users make, one file each in `tests/diagnostics`: each is refused with an id, its
//! line, carets and a help, and nothing is started. The `.yml` files there are systems.

use std::path::{Path, PathBuf};

use chaos_harness::diagnostic::{Diagnostic, Diagnostics, Sources};
use chaos_harness::plan::{self, BuildOptions, Plan};
use chaos_harness::scenario::{self, FILE_BYTES_MAX, LoadOptions};

fn planned(path: &Path, options: &LoadOptions) -> Result<Plan, Diagnostics> {
    plan::build(&scenario::load(path, options)?, &BuildOptions::default())
}

fn mistakes(path: &Path, options: &LoadOptions) -> Diagnostics {
    planned(path, options).expect_err("the file holds a mistake")
}

fn bad_files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir("tests/diagnostics").expect("the folder is committed");
    let mut files: Vec<PathBuf> = folder
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn each_bad_file_is_refused_with_its_line_and_a_fix() {
    let files = bad_files();
    assert!(files.len() >= 40, "only {} bad files", files.len());
    for path in files {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let found = mistakes(&path, &LoadOptions::default());
        for mistake in &found.list {
            assert!(mistake.help.is_some(), "{name}: no help: {}", mistake.title);
        }
        insta::with_settings!({ snapshot_path => "../diagnostics/snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name.as_ref(), found.render(false));
        });
    }
}

/// Files that are no scenario at all: what they are, and what to give instead.
#[test]
fn a_file_of_another_kind_is_named_for_what_it_is() {
    for (name, path) in [
        ("file-system", "sample-system/system.yaml"),
        ("file-schema", "schema/scenario.schema.json"),
        ("file-other-schema", "schema/system.schema.json"),
        ("file-outcome", "reports/example/outcome.json"),
        ("file-folder", "scenarios"),
        ("file-folder-without-yaml", "docs"),
        ("file-misspelled", "scenarios/payment-outtage.yaml"),
        ("file-in-no-folder", "scenario/calm.yaml"),
        ("file-program", "tests/diagnostics/program.bin"),
        ("file-utf16", "tests/diagnostics/utf16.txt"),
        ("file-markdown", "README.md"),
    ] {
        let found = mistakes(Path::new(path), &LoadOptions::default());
        assert!(found.list[0].help.is_some(), "{path}");
        insta::with_settings!({ snapshot_path => "../diagnostics/snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, found.render(false));
        });
    }
    let options = LoadOptions {
        system: Some("scenarios/calm.yaml".into()),
        ..LoadOptions::default()
    };
    let found = mistakes(Path::new("scenarios/calm.yaml"), &options);
    assert_eq!(found.list[0].id, "file::wrong-kind");
}

#[test]
fn all_mistakes_of_meaning_are_reported_at_once() {
    let path = Path::new("tests/diagnostics/several-mistakes.yaml");
    let found = mistakes(path, &LoadOptions::default());
    let ids: Vec<&str> = found.list.iter().map(|mistake| mistake.id).collect();
    assert_eq!(
        ids,
        [
            "scenario::bad-quantity",
            "scenario::unknown-link",
            "scenario::unknown-operation"
        ]
    );
}

#[test]
fn a_changed_value_is_checked_like_a_written_one() {
    let path = Path::new("scenarios/payment-outage.yaml");
    let set = |assignment: &str| {
        let options = LoadOptions {
            set: vec![assignment.to_owned()],
            ..LoadOptions::default()
        };
        planned(path, &options)
    };
    let plan = set("phases.baseline=10s").expect("a good value");
    assert_eq!(plan.phases.baseline_end.as_secs(), 15);
    let id = |assignment| set(assignment).expect_err("a bad one").list[0].id;
    assert_eq!(id("phases.baseline=10"), "scenario::bad-quantity");
    assert_eq!(id("phasse.baseline=10s"), "set::unknown-path");
    assert_eq!(id("phases.base=10s"), "yaml::unknown-key");
    assert_eq!(id("phases.baseline"), "set::no-value");
}

#[test]
fn a_mistyped_set_says_the_form_and_the_nearest_key() {
    let cases = [
        ("set-no-path", "=3"),
        ("set-empty-key", "load..timeout=3s"),
        ("set-no-value", "a"),
        ("set-empty-value", "load.timeout="),
        ("set-unknown-key-and-no-value", "load.timout="),
        ("set-unknown-top-key", "fault=3"),
        ("set-unknown-key", "load.timout=3s"),
        ("set-unknown-parent", "phasse.baseline=10s"),
        ("set-below-a-value", "name.first=x"),
        ("set-bad-value", "load.timeout=3"),
        ("set-text-for-number", "seed=x"),
    ];
    for (name, assignment) in cases {
        let options = LoadOptions {
            set: vec![assignment.to_owned()],
            ..LoadOptions::default()
        };
        let found = mistakes(Path::new("scenarios/calm.yaml"), &options);
        insta::with_settings!({ snapshot_path => "../diagnostics/snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, found.render(false));
        });
    }
}

/// What the format has and this version has not: refused by its name, never skipped.
#[test]
fn what_is_not_supported_yet_is_refused_by_name() {
    let system = std::fs::read_to_string("tests/diagnostics/system.yml").expect("committed");
    let scenario = "name: bad
system: system.yml
load: { journeys: { shop: 1 }, arrivals: 40/s, timeout: 2s }
phases: { warm-up: 1s, baseline: 10s, recovery: 15s, drain: { within: 10s, quiet: 2s } }
faults:
  slow: { at: 0s, for: 20s, link: front -> back, inject: { latency: 300ms } }
expect:
  up: stays-up
";
    let inject = "link: front -> back, inject: { latency: 300ms }";
    let facts = "{ records: event, http: { get: front.admin/facts }, rows: '.[]' }";
    let link = "front -> back: { to: back.http,";
    for (before, after, says) in [
        (
            "name: fixture",
            "name: fixture\nexternal: {}",
            "services that are only attached to",
        ),
        (
            "name: fixture",
            "name: fixture\nproxies: {}",
            "proxies that outlive a run",
        ),
        (
            "command: [./front]",
            "command: [./front]\n    replicas: 2",
            "more than one replica",
        ),
        (
            link,
            "front -> back: { to: back.http, protocol: postgres,",
            "this protocol",
        ),
        (
            link,
            "front -> back: { to: back.http, protocol: amqp,",
            "this protocol",
        ),
        (
            link,
            "front -> back: { to: back.http, protocol: redis,",
            "this protocol",
        ),
        (
            link,
            "front -> back: { to: back.http, protocol: nats,",
            "this protocol",
        ),
        (
            link,
            "front -> back: { to: back.http, protocol: grpc,",
            "this protocol",
        ),
        (facts, "{ records: span, otlp: {} }", "collecting traces"),
        (
            facts,
            "{ records: sample, prometheus: {} }",
            "reading Prometheus metrics",
        ),
        (facts, "{ records: event, otlp: {} }", "collecting traces"),
        (
            inject,
            "service: back, inject: { rolling-restart: {} }",
            "`rolling-restart`",
        ),
        (
            inject,
            "service: back, inject: { lock-database: {} }",
            "`lock-database`",
        ),
        (inject, "inject: { partition: {} }", "`partition`"),
        (
            inject,
            "service: back, replica: 1, inject: stop",
            "`replica:`",
        ),
        ("at: 0s, for: 20s", "at: 0s, when: {}, for: 20s", "`when:`"),
        ("up: stays-up", "up: { unaffected: {} }", "`unaffected`"),
        ("up: stays-up", "up: { sheds: {} }", "`sheds`"),
        ("up: stays-up", "up: { shuts-down: {} }", "`shuts-down`"),
        ("up: stays-up", "up: { traced: {} }", "`traced`"),
        ("up: stays-up", "up: { metric: {} }", "`metric`"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let changed = |text: &str| text.replacen(before, after, 1);
        assert!(
            changed(&system) != system || changed(scenario) != scenario,
            "`{before}` is in neither file"
        );
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, changed(text)).expect("written");
            path
        };
        write("system.yml", &system);
        let path = write("scenario.yaml", scenario);
        let found = mistakes(&path, &LoadOptions::default());
        let refuses = |it: &Diagnostic| {
            it.id == "scenario::not-supported" && it.title.contains(says) && it.help.is_some()
        };
        assert!(found.list.iter().any(refuses), "{after}:\n{found}");
    }
}

#[test]
fn shipped_files_name_their_schema_for_editors() {
    let scenarios = std::fs::read_dir("scenarios").expect("committed");
    let scenarios = scenarios.map(|entry| entry.expect("readable").path());
    let system = PathBuf::from("sample-system/system.yaml");
    for path in scenarios.chain([system]) {
        let text = std::fs::read_to_string(&path).expect("readable");
        let first = text.lines().next().unwrap_or_default();
        let schema = first.strip_prefix("# yaml-language-server: $schema=");
        let schema = path
            .parent()
            .zip(schema)
            .map(|(folder, file)| folder.join(file));
        assert!(
            schema.is_some_and(|file| file.is_file()),
            "{}",
            path.display()
        );
    }
}

fn refused(text: &str) -> Diagnostic {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hostile.yaml");
    std::fs::write(&path, text).expect("a written file");
    let mut found = mistakes(&path, &LoadOptions::default());
    assert_eq!(found.list.len(), 1, "a mistake of shape is reported alone");
    found.list.remove(0)
}

#[test]
fn hostile_files_are_refused_without_being_built() {
    let nested = "[".repeat(20_000);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = level - 1;
        let copies = vec![format!("*a{before}"); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{copies}]\n");
    }
    let wide = format!("name: [{}]", "x, ".repeat(20_000));
    for text in [nested, bomb, wide] {
        let mistake = refused(&text);
        assert_eq!(mistake.id, "yaml::too-complex");
    }
    let large = " ".repeat(usize::try_from(FILE_BYTES_MAX).expect("a small number") + 1);
    assert_eq!(refused(&large).id, "file::too-large");
}

#[test]
fn colour_adds_nothing_but_colour() {
    let mut sources = Sources::default();
    let file = sources.add("a.yaml", "name: x\n");
    let span = chaos_harness::diagnostic::Span {
        file,
        line: 1,
        column: 7,
        start: 6,
        end: 7,
    };
    let found = Diagnostics::one(
        sources,
        Diagnostic::error("a::b", span, "wrong").help("fix it"),
    );
    let plain = found.render(false);
    assert!(
        plain.contains("a.yaml:1:7") && plain.contains("help: fix it"),
        "{plain}"
    );
    assert!(!plain.contains('\u{1b}'));
    assert!(found.render(true).contains('\u{1b}'));
}
