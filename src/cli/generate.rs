//! `chaos generate`: schemas, shell completions and man pages.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{CommandFactory as _, ValueEnum};

use crate::exit::Exit;
use crate::report::outcome;
use crate::scenario::schema::schemas;
use crate::terminal::Environment;

use super::{Cli, Failure, Result, output};

/// Flags of `chaos generate`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// What to write
    #[command(subcommand)]
    pub what: What,
}

const AFTER_HELP: &str = "\
Examples:
  chaos generate schema
  chaos generate completions bash > chaos.bash
  chaos generate man";

/// What `chaos generate` can write.
#[derive(Debug, clap::Subcommand)]
pub(super) enum What {
    /// JSON Schemas of the files that people and machines read
    #[command(after_help = SCHEMA_HELP)]
    Schema {
        /// Only this one
        #[arg(value_name = "NAME")]
        only: Option<SchemaName>,
        /// Folder to write into, made if it is not there; `-` prints the one that is named
        #[arg(long, value_name = "DIR", default_value = "schema")]
        dir: PathBuf,
    },
    /// Completions for a shell, on standard output
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// One man page per command
    #[command(after_help = MAN_HELP)]
    Man {
        /// Folder to write into, made if it is not there
        #[arg(long, value_name = "DIR", default_value = "man")]
        dir: PathBuf,
    },
}

const SCHEMA_HELP: &str = "\
Examples:
  chaos generate schema                     writes schema/*.schema.json
  chaos generate schema outcome --dir -     prints one";

const COMPLETIONS_HELP: &str = "\
Example:
  chaos generate completions zsh > ~/.zfunc/_chaos";

const MAN_HELP: &str = "\
Example:
  chaos generate man --dir ~/.local/share/man/man1";

/// The schemas there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaName {
    /// Of scenario files.
    Scenario,
    /// Of system files.
    System,
    /// Of `outcome.json`, and of what `--json` writes.
    Outcome,
}

impl SchemaName {
    fn file(self) -> &'static str {
        match self {
            SchemaName::Scenario => "scenario.schema.json",
            SchemaName::System => "system.schema.json",
            SchemaName::Outcome => "outcome.schema.json",
        }
    }
}

pub(super) fn execute(args: Args, _environment: &Environment) -> Result {
    match args.what {
        What::Schema { only, dir } => write_schemas(only, &dir)?,
        What::Completions { shell } => write_completions(shell)?,
        What::Man { dir } => write_man(&dir).map_err(Failure::not_carried_out)?,
    }
    Ok(Exit::Held)
}

fn write_schemas(only: Option<SchemaName>, dir: &Path) -> std::result::Result<(), Failure> {
    let mut all: Vec<(&str, Vec<u8>)> = schemas()
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect();
    let of_outcome = outcome::schema().map_err(Failure::not_carried_out)?;
    all.push((SchemaName::Outcome.file(), of_outcome));
    all.retain(|(name, _)| only.is_none_or(|only| only.file() == *name));
    if dir == Path::new("-") {
        return match all.as_slice() {
            [(_, text)] => output::print(text),
            _ => Err(Failure::usage(anyhow!(
                "`--dir -` prints one schema: name `scenario`, `system` or `outcome`"
            ))),
        };
    }
    make_dir(dir).map_err(Failure::not_carried_out)?;
    for (name, text) in all {
        let file = dir.join(name);
        output::write_to(&file, &text)?;
        say_written(&file);
    }
    Ok(())
}

fn write_completions(shell: clap_complete::Shell) -> std::result::Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chaos", &mut script);
    output::print(&script)
}

fn write_man(dir: &Path) -> anyhow::Result<()> {
    make_dir(dir)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(|| cannot_write(dir))?;
    say_written(&dir.join("chaos*.1"));
    Ok(())
}

fn say_written(what: &Path) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "wrote `{}`", what.display());
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| cannot_write(dir))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}
