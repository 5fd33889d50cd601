//! Files and flags to a plan, the same way for every subcommand that needs one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Diagnostics, shape};
use crate::plan::{self, BuildOptions, Plan};
use crate::scenario::{self, LoadOptions};
use crate::terminal::Environment;

use super::options::Changes;

/// Reads and plans one scenario.
///
/// # Errors
///
/// What is wrong with the files or the flags.
pub(super) fn plan_of(
    scenario: &Path,
    changes: &Changes,
    environment: &Environment,
) -> Result<Plan, Diagnostics> {
    let load = LoadOptions {
        system: changes.system.clone(),
        set: changes.set.clone(),
    };
    let files = scenario::load(scenario, &load)?;
    let options = BuildOptions {
        seed: changes.seed,
        only: changes.only.clone(),
        environment: text_variables(environment),
        toxiproxy: changes.toxiproxy.is_some(),
    };
    plan::build(&files, &options)
}

/// The variables that are text; `allow-env` can pass nothing else on.
fn text_variables(environment: &Environment) -> BTreeMap<String, String> {
    let variables = environment.variables().iter();
    variables
        .filter_map(|(name, value)| {
            let (name, value) = (name.to_str()?, value.to_str()?);
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The scenario files that arguments name: files as they are, folders by their `.yaml` files in
/// the order of their names.
///
/// # Errors
///
/// A folder that cannot be read, or holds none.
pub(super) fn scenarios_of(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    let mut scenarios = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            scenarios.push(argument.clone());
            continue;
        }
        let name = argument.display().to_string();
        let unreadable = |error: std::io::Error| Box::new(shape::unreadable(&name, &error.to_string()));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(argument).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
            if yaml && path.is_file() {
                found.push(path);
            }
        }
        if found.is_empty() {
            return Err(Box::new(shape::unreadable(&name, "it holds no `.yaml` file")));
        }
        found.sort();
        scenarios.extend(found);
    }
    Ok(scenarios)
}
