//! `chaos clean`: clears what a killed run left.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::{Failure, Result, options};
use crate::exit::Exit;
use crate::run::leftovers::{Cleared, LET_GO_WITHIN, clear, unfinished};
use crate::run::ports::Ports;
use crate::terminal::Environment;

/// Flags of `chaos clean`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Only this run, instead of every run found in the report folder
    #[arg(long, value_name = "DIR")]
    pub run_folder: Option<PathBuf>,

    /// Its coordinator was killed just now, and may not have let go of everything
    #[arg(long, hide = true, requires = "run_folder")]
    pub orphaned: bool,

    #[command(flatten)]
    pub reports: options::Reports,
}

const AFTER_HELP: &str = "\
Kills the processes of runs that were killed themselves, lets go of their ports
and removes their proxies from a Toxiproxy they used (`--toxiproxy`); keeps
their evidence. Every `chaos run` does this first. Runs under way are left
alone.

Examples:
  chaos clean
  chaos clean --run-folder reports/2026-11-21-0423-7f3a";

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    let folders = match args.run_folder {
        Some(folder) => vec![folder],
        None => unfinished(&args.reports.report_dir)
            .with_context(|| format!("cannot read `{}`", args.reports.report_dir.display()))
            .map_err(Failure::not_carried_out)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::not_carried_out)?;
    let patience = match args.orphaned {
        true => LET_GO_WITHIN,
        false => Duration::ZERO,
    };
    let mut exit = Exit::Held;
    for folder in folders {
        let cleared = runtime
            .block_on(clear(&folder, patience))
            .with_context(|| format!("cannot clear `{}`", folder.display()));
        exit = exit.max(match cleared {
            Ok(cleared) => tell(&folder, &cleared),
            // Told at once: it keeps no other from being cleared.
            Err(error) => {
                let failure = Failure::not_carried_out(error);
                // Nobody to tell when standard error is gone; the exit code still speaks.
                let _ = writeln!(std::io::stderr(), "{failure}");
                failure.exit
            }
        });
    }
    let ports = Ports::new(&environment.temp_dir()).map_err(Failure::not_carried_out)?;
    ports.clear_stale();
    Ok(exit)
}

/// Says what was cleared, and how to exit.
fn tell(folder: &Path, cleared: &Cleared) -> Exit {
    let folder = folder.display();
    let (text, exit) = match cleared {
        Cleared::UnderWay => (format!("`{folder}` is under way: left alone"), Exit::Held),
        Cleared::Cleared {
            processes,
            proxies_left,
        } if processes.left.is_empty() && proxies_left.is_empty() => (
            format!("`{folder}` cleared: {} processes killed", processes.killed),
            Exit::Held,
        ),
        Cleared::Cleared {
            processes,
            proxies_left,
        } => {
            let processes = processes.left.iter().map(|pid| format!("process {pid}"));
            let left: Vec<String> = processes.chain(proxies_left.iter().cloned()).collect();
            (
                format!("`{folder}`: left in spite of all: {}", left.join(", ")),
                Exit::NotCarriedOut,
            )
        }
    };
    // Nobody to tell when standard error is gone; the exit code still speaks.
    let _ = writeln!(std::io::stderr(), "{text}");
    exit
}
