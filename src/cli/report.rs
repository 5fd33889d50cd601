//! `chaos report`: judges and renders a stored run again, without any system.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::display::{Display, Ending, Options};
use crate::evidence::folder::{RunFolder, find, read_plan};
use crate::evidence::{Evidence, StopReason};
use crate::exit::Exit;
use crate::plan::Plan;
use crate::report::{self, FORMATS, Inconclusive, Run};
use crate::terminal::Environment;
use crate::verdict::{Status, Verdicts, judge};

use super::{Failure, Result, options};

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
    if args.with.is_some() {
        return Err(Failure::usage(anyhow::anyhow!(
            "`--with` is not supported yet"
        )));
    }
    let which = args.run.to_string_lossy();
    let path = find(&args.reports.report_dir, &which).map_err(Failure::usage)?;
    let folder = RunFolder::open(&path).map_err(Failure::usage)?;
    let plan = read_plan(&path).map_err(Failure::usage)?;
    let evidence = Evidence::read(&path).map_err(Failure::not_carried_out)?;
    let verdicts = judge(&plan, &evidence);
    let files = files(&path, &plan);
    let run = Run {
        plan: &plan,
        evidence: &evidence,
        verdicts: &verdicts,
        files: &files,
    };
    write(&folder, &run, &args.outputs).map_err(Failure::not_carried_out)?;
    let exit = exit(&verdicts, args.outputs.inconclusive);
    let shown = args.reports.report_dir.join(folder.run_id());
    let shown = if shown.is_dir() { shown } else { path.clone() };
    tell(&run, &shown, exit, args.outputs.inconclusive, environment)
        .map_err(Failure::not_carried_out)?;
    Ok(exit)
}

/// The copies of the user's files in a run folder, by the names that the plan uses.
pub(super) fn files(folder: &Path, plan: &Plan) -> BTreeMap<String, String> {
    let copies = [
        (&plan.scenario_file, "scenario.yaml"),
        (&plan.system_file, "system.yaml"),
    ];
    copies
        .into_iter()
        // A copy that cannot be read costs the report a line of context, nothing else.
        .filter_map(|(name, copy)| {
            Some((
                name.clone(),
                std::fs::read_to_string(folder.join(copy)).ok()?,
            ))
        })
        .collect()
}

/// Writes every format into the run folder, and those that the flags ask for elsewhere.
pub(super) fn write(
    folder: &RunFolder,
    run: &Run<'_>,
    outputs: &options::Outputs,
) -> anyhow::Result<()> {
    for (name, render) in FORMATS {
        folder.write(name, &render(run)?)?;
    }
    let inconclusive = match outputs.inconclusive {
        options::OnInconclusive::Fail => Inconclusive::Fail,
        options::OnInconclusive::Warn => Inconclusive::Warn,
    };
    if let Some(path) = &outputs.junit {
        save(path, &report::junit::render(&[*run], inconclusive)?)?;
    }
    if let Some(path) = &outputs.json {
        save(path, &report::outcome::render(run)?)?;
    }
    Ok(())
}

fn save(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return std::io::stdout()
            .write_all(bytes)
            .context("cannot write to standard output");
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
}

/// How the command exits because of these verdicts.
pub(super) fn exit(verdicts: &Verdicts, inconclusive: options::OnInconclusive) -> Exit {
    match (verdicts.ended, verdicts.status()) {
        (StopReason::Interrupt | StopReason::SecondInterrupt, _) => Exit::Interrupted,
        (StopReason::Terminate, _) => Exit::Terminated,
        (_, Status::Fail) => Exit::Violated,
        (StopReason::Failed, _) => Exit::NotCarriedOut,
        (_, Status::Pass) => Exit::Held,
        (_, Status::Inconclusive) => match inconclusive {
            options::OnInconclusive::Fail => Exit::Inconclusive,
            options::OnInconclusive::Warn => Exit::Held,
        },
    }
}

/// Writes the verdicts to standard error.
fn tell(
    run: &Run<'_>,
    folder: &Path,
    exit: Exit,
    inconclusive: options::OnInconclusive,
    environment: &Environment,
) -> anyhow::Result<()> {
    let options = Options::of(environment, folder.display().to_string());
    let ending = Ending {
        lasted: Duration::from_secs_f64(run.lasted_s()),
        exit_code: exit.code(),
        inconclusive_warns: inconclusive == options::OnInconclusive::Warn,
        report: Some(folder.join("report.html").display().to_string()),
    };
    let mut display = Display::new(run.plan, options, std::io::stderr());
    // Nobody is left to tell when standard error is gone; the files are written.
    let _ = display.finish(run.verdicts, &ending);
    Ok(())
}
