//! Flags that several subcommands share, so that they mean and read the same everywhere. A
//! subcommand's own flags stand before these, which have headings of their own in its help.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What to change in a scenario without editing it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Changes to the scenario")]
pub(super) struct Changes {
    /// Draw everything random from this seed instead of the scenario's
    #[arg(long, value_name = "N", env = "CHAOS_SEED")]
    pub seed: Option<u64>,

    /// Set one value of the scenario, like `phases.baseline=10s` (repeatable)
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,

    /// Judge only this property (repeatable); the run itself stays the same
    #[arg(long, value_name = "PROPERTY")]
    pub only: Vec<String>,

    /// Run against this system file instead of the one the scenario names
    #[arg(long, value_name = "FILE", env = "CHAOS_SYSTEM")]
    pub system: Option<PathBuf>,

    /// Use a running Toxiproxy instead of a proxy of the run's own, like `http://127.0.0.1:8474`
    #[arg(long, value_name = "URL", env = "CHAOS_TOXIPROXY")]
    pub toxiproxy: Option<String>,
}

impl Changes {
    /// The words that make these changes to the files, but for the seed, which every run has.
    pub(super) fn words(&self) -> Vec<String> {
        let system = self.system.iter().map(|file| file.display().to_string());
        let flags = [
            ("--set", self.set.clone()),
            ("--only", self.only.clone()),
            ("--system", system.collect()),
            ("--toxiproxy", self.toxiproxy.iter().cloned().collect()),
        ];
        let words = flags.into_iter().flat_map(|(flag, values)| {
            let pairs = values
                .into_iter()
                .map(move |value| [flag.to_owned(), value]);
            pairs.flatten()
        });
        words.collect()
    }
}

/// Where results go besides the terminal.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Results")]
pub(super) struct Outputs {
    /// Write JUnit XML to this file, a suite per scenario
    #[arg(long, value_name = "FILE", env = "CHAOS_JUNIT")]
    pub junit: Option<PathBuf>,

    /// Write the outcome as JSON to this file, a list of them for several scenarios; `-` is
    /// standard output
    #[arg(long, value_name = "FILE", env = "CHAOS_JSON")]
    pub json: Option<PathBuf>,

    /// Whether an inconclusive property fails the command (exit 3) or only warns
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHAT",
        env = "CHAOS_INCONCLUSIVE"
    )]
    pub inconclusive: OnInconclusive,
}

/// `--report-dir`: where run folders live.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Results")]
pub(super) struct Reports {
    /// Folder that holds one folder per run
    #[arg(
        long,
        value_name = "DIR",
        default_value = "reports",
        env = "CHAOS_REPORT_DIR"
    )]
    pub report_dir: PathBuf,
}

/// `--inconclusive`: what an inconclusive property does to the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum OnInconclusive {
    /// Exit 3.
    #[default]
    Fail,
    /// Exit 0, and say so in the last line.
    Warn,
}

/// `--progress`: how a run shows how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Progress {
    /// Live on a terminal, plain lines otherwise.
    #[default]
    Auto,
    /// A block that redraws itself.
    Live,
    /// One line per event.
    Plain,
    /// Nothing until the end.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_in_the_words_that_make_them() {
        let changes = Changes {
            seed: Some(7),
            set: vec!["a=1".into(), "b=x y".into()],
            only: vec!["answered".into()],
            system: Some("other.yaml".into()),
            toxiproxy: Some("localhost:8474".into()),
        };
        assert_eq!(
            changes.words().join("|"),
            "--set|a=1|--set|b=x y|--only|answered|--system|other.yaml|--toxiproxy|localhost:8474"
        );
    }
}
