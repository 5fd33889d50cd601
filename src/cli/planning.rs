//! From the files that the command line names to plans; every mistake of every file before
//! anything starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::plan::{self, BuildOptions, Plan};
use crate::scenario::{self, LoadOptions};
use crate::terminal::Environment;

use super::options::Changes;
use super::{Failure, Rendered};

/// A plan with the texts it was made from, by the names that its places use.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) texts: BTreeMap<String, String>,
}

/// Plans every scenario that the arguments name: files as they are, folders by their YAML files.
pub(super) fn plan_all(
    arguments: &[PathBuf],
    changes: &Changes,
    environment: &Environment,
) -> Result<Vec<Planned>, Failure> {
    let mut planned = Vec::new();
    let mut mistakes = Vec::new();
    for path in scenario_files(arguments)? {
        match plan(&path, changes, environment) {
            Ok(plan) => planned.push(plan),
            Err(text) => mistakes.push(text),
        }
    }
    if mistakes.is_empty() {
        return Ok(planned);
    }
    Err(Failure::usage(Rendered(mistakes.join("\n\n"))))
}

/// Plans one scenario; the error is what to show.
pub(super) fn plan(
    path: &Path,
    changes: &Changes,
    environment: &Environment,
) -> Result<Planned, String> {
    plan_with(path, changes, environment, &BTreeMap::new())
}

/// Plans one scenario with some variables instead of those of the environment.
pub(super) fn plan_with(
    path: &Path,
    changes: &Changes,
    environment: &Environment,
    instead: &BTreeMap<String, String>,
) -> Result<Planned, String> {
    let toxiproxy = changes.toxiproxy.as_deref().map(server_url).transpose()?;
    let render = |found: crate::diagnostic::Diagnostics| found.render(environment.color());
    let load = LoadOptions {
        system: changes.system.clone(),
        set: changes.set.clone(),
    };
    let files = scenario::load(path, &load).map_err(render)?;
    let options = BuildOptions {
        seed: changes.seed,
        only: changes.only.clone(),
        environment: variables(environment, instead),
        toxiproxy,
        changes: changes.words(),
    };
    let plan = plan::build(&files, &options).map_err(render)?;
    let texts = files
        .sources
        .iter()
        .map(|source| (source.name.clone(), source.text.clone()));
    Ok(Planned {
        plan,
        texts: texts.collect(),
    })
}

/// `--toxiproxy`, with what may be left out: `localhost:8474` is `http://localhost:8474`.
fn server_url(text: &str) -> Result<String, String> {
    let url = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let parsed = reqwest::Url::parse(&url);
    let fits = |url: &reqwest::Url| {
        url.scheme() == "http" && url.has_host() && matches!(url.path(), "" | "/")
    };
    match parsed {
        Ok(parsed) if fits(&parsed) => Ok(url.trim_end_matches('/').to_owned()),
        _ => Err(format!(
            "error: `--toxiproxy {text}` is no address of a Toxiproxy\n  = help: write it like \
             `http://127.0.0.1:8474`"
        )),
    }
}

fn variables(
    environment: &Environment,
    instead: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let texts = environment.variables().iter();
    let mut variables: BTreeMap<_, _> = texts
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())))
        .collect();
    variables.extend(instead.clone());
    variables
}

/// The files that are meant, those of a folder in the order of their names.
pub(super) fn scenario_files(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            files.push(argument.clone());
            continue;
        }
        let mut found: Vec<PathBuf> = std::fs::read_dir(argument)
            .with_context(|| format!("cannot read folder `{}`", argument.display()))
            .map_err(Failure::usage)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|end| end == "yaml" || end == "yml")
            })
            // A system often lies beside the scenarios that name it.
            .filter(|path| !scenario::is_system(path))
            .collect();
        if found.is_empty() {
            return Err(Failure::usage(anyhow!(
                "no scenarios in folder `{}`",
                argument.display()
            )));
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}
