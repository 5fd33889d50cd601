//! `chaos generate`: schemas, shell completions and man pages.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::exit::Exit;
use crate::scenario::schema::schemas;
use crate::terminal::Environment;

use super::{Cli, Failure, Result};

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
  chaos generate schema schema
  chaos generate completions bash > chaos.bash
  chaos generate man man";

pub(super) fn execute(args: Args, _environment: &Environment) -> Result {
    let written = match args.what {
        What::Schema { dir } => write_schemas(&dir),
        What::Completions { shell } => write_completions(shell),
        What::Man { dir } => write_man(&dir),
    };
    written.map_err(Failure::not_carried_out)?;
    Ok(Exit::Held)
}

fn write_schemas(dir: &Path) -> anyhow::Result<()> {
    if dir == Path::new("-") {
        for (_, text) in schemas() {
            std::io::stdout().write_all(text.as_bytes())?;
        }
        return Ok(());
    }
    make_dir(dir)?;
    for (name, text) in schemas() {
        let file = dir.join(name);
        std::fs::write(&file, text).with_context(|| cannot_write(&file))?;
    }
    Ok(())
}

fn write_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chaos", &mut script);
    std::io::stdout()
        .write_all(&script)
        .context("cannot write to standard output")
}

fn write_man(dir: &Path) -> anyhow::Result<()> {
    make_dir(dir)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(|| cannot_write(dir))
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| cannot_write(dir))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// What `chaos generate` can write.
#[derive(Debug, clap::Subcommand)]
pub(super) enum What {
    /// JSON Schemas of the files people write
    Schema {
        /// Folder to write into; `-` is standard output
        #[arg(value_name = "DIR", default_value = "schema")]
        dir: PathBuf,
    },
    /// Completions for a shell, on standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// One man page per subcommand
    Man {
        /// Folder to write into
        #[arg(value_name = "DIR", default_value = "man")]
        dir: PathBuf,
    },
}
