//! `chaos`: does a distributed system keep its promises while parts of it fail under load?
//! The command line: parse, dispatch, print the error, exit.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use chaos_harness::cli::{self, Cli};
use chaos_harness::terminal::{Environment, Streams};
use clap::Parser as _;

fn main() -> ExitCode {
    cli::bug::install_hook();
    let cli = Cli::parse_from(cli::with_go_flags(std::env::args_os()));
    #[expect(clippy::disallowed_methods, reason = "this is the entry")]
    let variables: BTreeMap<_, _> = std::env::vars_os().collect();
    let environment = Environment::new(variables, Streams::of_this_process(), cli.color);
    match cli::execute(cli, &environment) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // Nobody is left to tell when standard error is gone; the exit code still speaks.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit.into()
        }
    }
}
