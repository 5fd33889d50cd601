//! `chaos view`: says where the report of a run is, so that a click or a browser opens it.

use std::path::PathBuf;

use crate::evidence::folder::find;
use crate::exit::Exit;
use crate::terminal::Environment;

use super::{Failure, Result, options, output};

/// Flags of `chaos view`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// A run folder, a run id, or `latest`
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: PathBuf,

    #[command(flatten)]
    pub reports: options::Reports,
}

const AFTER_HELP: &str = "\
Prints the address of the report, which terminals make a link of.

Examples:
  chaos view latest
  xdg-open \"$(chaos view)\"";

pub(super) fn execute(args: Args, _environment: &Environment) -> Result {
    let which = args.run.to_string_lossy();
    let folder = find(&args.reports.report_dir, &which).map_err(Failure::usage)?;
    let page = folder.join("report.html");
    if !page.is_file() {
        let why = format!(
            "`{}` has no report; `chaos report` renders it",
            folder.display()
        );
        return Err(Failure::usage(anyhow::anyhow!(why)));
    }
    output::print(format!("file://{}\n", page.display()).as_bytes())?;
    Ok(Exit::Held)
}
