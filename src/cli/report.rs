//! `chaos report`: judges and renders a stored run again, without any system.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use serde::Serialize;
use serde_json::Value;

use crate::display::{Display, Ending, Options};
use crate::evidence::folder::{RunFolder, find, read_plan};
use crate::plan::{Plan, SourceRef, SystemPlan};
use crate::terminal::Environment;

use super::planning::{self, Planned};
use super::results::Results;
use super::{Failure, Rendered, Result, options, rendering};

/// Flags of `chaos report`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run folder, a run id, or `latest`
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: PathBuf,

    /// Judge by the limits of this edited scenario, and say which ones changed
    #[arg(long, value_name = "SCENARIO")]
    pub with: Option<PathBuf>,

    #[command(flatten)]
    pub reports: options::Reports,

    #[command(flatten)]
    pub outputs: options::Outputs,
}

const AFTER_HELP: &str = "\
Examples:
  chaos report latest
  chaos report reports/2026-11-21-0423-7f3a --with stricter.yaml --json -";

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    let mut results = Results::new(&args.outputs)?;
    let which = args.run.to_string_lossy();
    let path = find(&args.reports.report_dir, &which).map_err(Failure::usage)?;
    let folder = RunFolder::open(&path).map_err(Failure::usage)?;
    let mut plan = read_plan(&path).map_err(Failure::usage)?;
    let mut texts = rendering::texts(&path, &plan);
    let prefix = match &args.with {
        Some(scenario) => {
            let edited = edited_plan(scenario, &plan, environment)?;
            say_what_changed(&plan, &edited.plan);
            plan.properties = edited.plan.properties;
            texts.extend(edited.texts);
            "with-"
        }
        None => "",
    };
    let judged = rendering::judge_and_render(&folder, prefix, &plan, &texts, &mut results)?;
    let exit = rendering::exit_of(&judged, args.outputs.inconclusive);
    let shown = args.reports.report_dir.join(folder.run_id());
    let shown = if shown.is_dir() { shown } else { path };
    let options = Options::of(environment, shown.display().to_string());
    let ending = Ending {
        lasted: judged.lasted,
        exit_code: exit.code(),
        inconclusive_warns: args.outputs.inconclusive == options::OnInconclusive::Warn,
        report: Some(
            shown
                .join(format!("{prefix}report.html"))
                .display()
                .to_string(),
        ),
    };
    let mut display = Display::new(&plan, options, std::io::stderr());
    // Nobody is left to tell when standard error is gone; the files are written.
    let _ = display.finish(&judged.verdicts, &ending);
    results.write()?;
    Ok(exit)
}

/// The plan of an edited scenario, which may differ from what was run in its limits alone.
fn edited_plan(
    scenario: &Path,
    ran: &Plan,
    environment: &Environment,
) -> std::result::Result<Planned, Failure> {
    let changes = options::Changes {
        seed: Some(ran.seed),
        toxiproxy: ran.toxiproxy.clone(),
        ..options::Changes::default()
    };
    // Variables as they were in the run, not as they happen to be now.
    let variables = &ran.system.environment;
    let edited = planning::plan_with(scenario, &changes, environment, variables)
        .map_err(|text| Failure::usage(Rendered(text)))?;
    let plan = &edited.plan;
    let same = [
        ("system", same(&system(plan), &system(ran))),
        ("load", same(&plan.load, &ran.load)),
        ("phases", plan.phases == ran.phases),
        ("faults", same(&plan.faults, &ran.faults)),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(edited),
        Some((what, _)) => Err(Failure::usage(anyhow!(
            "`{}` differs from what was run in its {what}: only `expect` can be edited afterwards",
            scenario.display()
        ))),
    }
}

/// The system of a plan, wherever it lies.
fn system(plan: &Plan) -> SystemPlan {
    SystemPlan {
        folder: String::new(),
        ..plan.system.clone()
    }
}

/// Whether two parts of plans say the same, in whatever file and on whatever line.
fn same(a: &impl Serialize, b: &impl Serialize) -> bool {
    fn without_places(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(without_places),
            Value::Object(fields) => {
                fields
                    .retain(|_, field| serde_json::from_value::<SourceRef>(field.clone()).is_err());
                fields.values_mut().for_each(without_places);
            }
            _ => {}
        }
    }
    let content = |value: serde_json::Result<Value>| {
        let mut value = value.ok()?;
        without_places(&mut value);
        Some(value)
    };
    content(serde_json::to_value(a)) == content(serde_json::to_value(b))
}

fn say_what_changed(ran: &Plan, edited: &Plan) {
    let mut err = std::io::stderr().lock();
    let find = |plan: &'_ Plan, name| {
        plan.properties
            .iter()
            .find(|property| property.name == name)
            .map(|p| p.property.clone())
    };
    for property in &edited.properties {
        let what = match find(ran, property.name.clone()) {
            None => "added",
            Some(before) if before != property.property => "changed",
            Some(_) => continue,
        };
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(err, "  {what:<9} {}", property.name);
    }
    for property in &ran.properties {
        if find(edited, property.name.clone()).is_none() {
            let _ = writeln!(err, "  removed   {}", property.name);
        }
    }
}
