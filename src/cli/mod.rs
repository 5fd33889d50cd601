//! The command line: one file per subcommand, which turns flags into arguments of the library.
//!
//! No logic lives here that a test would want without the command line. What a command was asked
//! for (a plan, an address, `--json -`) goes to standard output, all else that people read to
//! standard error.

pub mod bug;
mod check;
mod clean;
mod explain;
mod gate;
mod generate;
mod init;
mod keeper;
mod options;
mod output;
mod plan;
mod planning;
mod proxy;
mod rendering;
mod report;
mod results;
mod run;
mod sample;
mod up;
mod view;
mod worker;

use std::fmt;

use clap::{Parser, Subcommand};

pub use proxy::with_go_flags;

use crate::exit::Exit;
use crate::terminal::{ColorChoice, Environment};

/// Proves, with evidence, whether a distributed system keeps its promises while parts of it fail
/// under load.
#[derive(Debug, Parser)]
#[command(name = "chaos", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// When to colour what people read: auto, always or never
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        env = "CHAOS_COLOR",
        hide_possible_values = true,
        display_order = 1000
    )]
    pub color: ColorChoice,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  chaos run scenarios/payment-outage.yaml    break the bundled shop and judge it
  chaos plan scenarios/payment-outage.yaml   what that would do; touches nothing
  chaos report latest                        judge and render the newest again

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
    #[command(hide = true)]
    Gate(gate::Args),
    /// Judge and render a stored run again
    Report(report::Args),
    /// Print the address of a run's report
    View(view::Args),
    /// Write a commented scenario and system file to start from
    #[command(hide = true)]
    Init(init::Args),
    /// Boot a system with its proxies and no load, until Ctrl-C
    #[command(hide = true)]
    Up(up::Args),
    /// Explain a property or a fault: meaning, formula, example
    #[command(hide = true)]
    Explain(explain::Args),
    /// Clear what a killed run left
    Clean(clean::Args),
    /// Write schemas, shell completions or man pages
    Generate(generate::Args),
    /// A standalone Toxiproxy-compatible server
    Proxy(proxy::Args),
    /// One service of the bundled sample system
    Sample(sample::Args),
    /// A load worker that dials out to a coordinator (started by `chaos run`, not by people)
    #[command(hide = true)]
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

    /// A subcommand that this version does not have yet, and what to do meanwhile.
    fn not_supported(command: &str, meanwhile: &str) -> Failure {
        Failure::usage(anyhow::anyhow!(
            "`chaos {command}` is not supported yet\n  help: {meanwhile}"
        ))
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

    /// Every command and subcommand that people see, by its whole name.
    fn visible(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
        let mut found = vec![(name.to_owned(), command.clone())];
        for part in command.get_subcommands() {
            if !part.is_hide_set() && part.get_name() != "help" {
                found.extend(visible(part, &format!("{name} {}", part.get_name())));
            }
        }
        found
    }

    #[test]
    fn help_fits_80_columns_and_shows_an_example() {
        let mut command = Cli::command().term_width(80);
        command.build();
        for (name, mut command) in visible(&command, "chaos") {
            let help = command.render_long_help().to_string();
            let wide = help.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{name}");
            assert!(help.contains(&format!("\n  {name}")), "{name}: {help}");
            let json = command.get_arguments().find(|it| it.get_id() == "json");
            let heading = json.and_then(clap::Arg::get_help_heading);
            let expected = json.filter(|_| name != "chaos plan").map(|_| "Results");
            assert_eq!(heading, expected, "{name}: a heading leaks");
            // Lines broken by hand must not be broken again.
            let by_hand = command.get_after_help().map(ToString::to_string);
            let by_hand = by_hand.unwrap_or_default();
            let wide = by_hand.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{name}");
        }
    }

    #[test]
    fn help_lists_nothing_that_does_not_work_yet_and_nothing_internal() {
        let mut command = Cli::command();
        command.build();
        for (name, mut command) in visible(&command, "chaos") {
            let help = command.render_long_help().to_string();
            let listed = |word: &str| help.lines().any(|line| line.trim_start().starts_with(word));
            for command in ["gate ", "init ", "up ", "explain ", "worker ", "keeper "] {
                assert!(!listed(command), "{name} lists {command}");
            }
            assert!(!help.contains("--keep-running"), "{name} lists it");
        }
    }
}
