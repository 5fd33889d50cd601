//! The command line: one file per subcommand, which turns flags into arguments of the library.
//!
//! No logic lives here that a test would want without the command line. Human text goes to
//! standard error; only `--json -`, `generate` and `explain` write to standard output.

pub mod bug;
mod check;
mod clean;
mod explain;
mod gate;
mod generate;
mod init;
mod keeper;
mod options;
mod plan;
mod planning;
mod proxy;
mod rendering;
mod report;
mod run;
mod sample;
mod up;
mod view;
mod worker;

use std::fmt;

use clap::{ArgAction, Parser, Subcommand};

pub use proxy::with_go_flags;

use crate::exit::Exit;
use crate::terminal::{ColorChoice, Environment};

/// Proves, with evidence, whether a distributed system keeps its promises while parts of it fail
/// under load.
#[derive(Debug, Parser)]
#[command(name = "chaos", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// When to colour what people read
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        env = "CHAOS_COLOR"
    )]
    pub color: ColorChoice,

    /// Say more; twice for the harness's own log
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Say only how it ended
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  chaos run scenarios/payment-outage.yaml      run one scenario of the bundled shop
  chaos plan scenarios/payment-outage.yaml     what it would do; touches nothing
  chaos report latest                          judge and render the newest run again

Exit codes:
  0 every property held   1 a property was violated   2 wrong usage or scenario
  3 inconclusive          4 could not be carried out  101 a bug in chaos
  130, 143 interrupted, everything stopped";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios, one after another
    Run(run::Args),
    /// Show what a scenario would do; touches nothing
    Plan(plan::Args),
    /// Check scenarios without running them, for editors and hooks
    Check(check::Args),
    /// Run scenarios for CI
    Gate(gate::Args),
    /// Judge and render a stored run again
    Report(report::Args),
    /// Open the report of a run
    View(view::Args),
    /// Write a commented scenario and system file to start from
    Init(init::Args),
    /// Boot a system with its proxies and no load, until Ctrl-C
    Up(up::Args),
    /// Explain a property or a fault: meaning, formula, example
    Explain(explain::Args),
    /// Clear what a killed run left
    Clean(clean::Args),
    /// Write schemas, shell completions or man pages
    Generate(generate::Args),
    /// A standalone Toxiproxy-compatible server
    Proxy(proxy::Args),
    /// One service of the bundled sample system
    Sample(sample::Args),
    /// A load worker that dials out to a coordinator
    Worker(worker::Args),
    /// Parent of a run's processes (started by `chaos run`, not by people)
    #[command(hide = true)]
    Keeper(keeper::Args),
}

/// What a subcommand ends with.
pub type Result = std::result::Result<Exit, Failure>;

/// An error on its way out: what to print, and how to exit.
#[derive(Debug)]
pub struct Failure {
    /// How the process exits.
    pub exit: Exit,
    /// What went wrong; its sources are printed as notes.
    pub error: anyhow::Error,
}

impl Failure {
    /// The flags or files are wrong; nothing was started.
    pub fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure {
            exit: Exit::Usage,
            error: error.into(),
        }
    }

    /// The world would not cooperate.
    pub fn not_carried_out(error: impl Into<anyhow::Error>) -> Failure {
        Failure {
            exit: Exit::NotCarriedOut,
            error: error.into(),
        }
    }

    /// A subcommand that this version does not have yet.
    fn not_supported(command: &str) -> Failure {
        Failure::usage(anyhow::anyhow!("`chaos {command}` is not supported yet"))
    }
}

/// An error that is already as people should see it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Rendered(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Rendered(text)) = self.error.downcast_ref() {
            return f.write_str(text.trim_end());
        }
        write!(f, "error: {}", self.error)?;
        self.error
            .chain()
            .skip(1)
            .try_for_each(|source| write!(f, "\n  note: {source}"))
    }
}

/// Runs the subcommand.
///
/// # Errors
///
/// Whatever kept the subcommand from doing what it was asked, with the exit it calls for.
pub fn execute(cli: Cli, environment: &Environment) -> Result {
    match cli.command {
        Command::Run(args) => run::execute(args, environment),
        Command::Plan(args) => plan::execute(args, environment),
        Command::Check(args) => check::execute(args, environment),
        Command::Gate(args) => gate::execute(args, environment),
        Command::Report(args) => report::execute(args, environment),
        Command::View(args) => view::execute(args, environment),
        Command::Init(args) => init::execute(args, environment),
        Command::Up(args) => up::execute(args, environment),
        Command::Explain(args) => explain::execute(args, environment),
        Command::Clean(args) => clean::execute(args, environment),
        Command::Generate(args) => generate::execute(args, environment),
        Command::Proxy(args) => proxy::execute(args, environment),
        Command::Sample(args) => sample::execute(args, environment),
        Command::Worker(args) => worker::execute(args, environment),
        Command::Keeper(args) => keeper::execute(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }
}
