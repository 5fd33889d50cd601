//! Plans of the shipped scenarios, and the schemas of the files.

use std::path::{Path, PathBuf};

use chaos_harness::plan::{self, BuildOptions, Plan, Property};
use chaos_harness::scenario::schema::schemas;
use chaos_harness::scenario::{self, LoadOptions};

fn planned(path: &Path, seed: Option<u64>) -> Plan {
    let options = BuildOptions {
        seed,
        ..BuildOptions::default()
    };
    let files = scenario::load(path, &LoadOptions::default());
    files
        .and_then(|files| plan::build(&files, &options))
        .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn shipped() -> Vec<PathBuf> {
    let folder = std::fs::read_dir("scenarios").expect("the folder is committed");
    let files = folder.map(|entry| entry.expect("a readable entry").path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

#[test]
fn every_shipped_scenario_plans_and_its_plan_reads_back() {
    let shipped = shipped();
    assert!(shipped.len() >= 6);
    for path in shipped {
        let plan = planned(&path, None);
        let json = plan.to_json();
        let back: Plan = serde_json::from_str(&json).expect("a plan reads back");
        assert_eq!(back, plan);
        assert_eq!(back.to_json(), json);
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_another_seed_moves_the_fault() {
    let path = Path::new("scenarios/payment-outage.yaml");
    assert_eq!(
        planned(path, Some(7)).to_json(),
        planned(path, Some(7)).to_json()
    );
    let starts: Vec<_> = (0..10)
        .map(|seed| planned(path, Some(seed)).faults[0].start)
        .collect();
    assert!(starts.iter().any(|start| *start != starts[0]));
}

#[test]
fn retries_reach_the_plan_with_every_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let system = include_str!("../diagnostics/system.yml");
    std::fs::write(folder.path().join("system.yml"), system).expect("written");
    let scenario = include_str!("../diagnostics/redrives-without-deadline.yaml");
    let (head, _) = scenario.split_once("expect:").expect("its properties");
    let line = "paced: { retries: { link: front -> back, during: slow, deadline: 2s, \
                redrives-after: 500ms, backoff: true } }";
    let path = folder.path().join("scenario.yaml");
    std::fs::write(&path, format!("{head}expect:\n  {line}\n")).expect("written");
    let plan = planned(&path, None);
    let Property::Retries(retries) = &plan.properties[0].property else {
        panic!("{:?}", plan.properties[0])
    };
    let seconds = std::time::Duration::from_secs_f64;
    assert_eq!(retries.deadline, seconds(2.0));
    assert_eq!(retries.redrives_after, Some(seconds(0.5)));
    assert!(retries.backoff && !retries.jitter);
}

#[test]
fn stays_up_is_always_judged() {
    for path in shipped() {
        let plan = planned(&path, None);
        let names = plan
            .properties
            .iter()
            .map(|property| property.name.as_str());
        assert_eq!(names.filter(|name| *name == "stays-up").count(), 1);
    }
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for (name, text) in schemas() {
        let committed = std::fs::read_to_string(Path::new("schema").join(name)).unwrap_or_default();
        assert!(
            committed == text,
            "schema/{name} is stale: run `chaos generate schema`"
        );
    }
}

#[test]
fn shipped_files_satisfy_their_schemas() {
    let schema = |name: &str| {
        let (_, text) = schemas()
            .into_iter()
            .find(|(known, _)| *known == name)
            .expect("known");
        jsonschema::validator_for(&serde_json::from_str(&text).expect("JSON")).expect("a schema")
    };
    let check = |validator: &jsonschema::Validator, path: &Path| {
        let text = std::fs::read_to_string(path).expect("a readable file");
        let value: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
        let wrong: Vec<String> = validator
            .iter_errors(&value)
            .map(|e| e.to_string())
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
    };
    let scenario = schema("scenario.schema.json");
    shipped().iter().for_each(|path| check(&scenario, path));
    check(
        &schema("system.schema.json"),
        Path::new("sample-system/system.yaml"),
    );
}
