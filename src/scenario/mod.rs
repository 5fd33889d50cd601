//! What the user wrote: the scenario and its system file, typed, with the place of everything, and
//! nothing resolved.
//!
//! Reads the files that are named (and what feeds name), nothing else; no clock, no randomness. A
//! mistake of shape stops here. Read next: [`scenario_file`] and [`system_file`], then `plan/build`.

pub mod fault_file;
pub mod json;
mod kind;
pub mod ports;
pub mod property_file;
mod reading;
pub mod scenario_file;
pub mod schema;
mod set;
pub mod system_file;
pub mod text;
mod typed;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::diagnostic::{Diagnostic, Diagnostics, Sources};

pub use reading::FILE_BYTES_MAX;
pub use scenario_file::ScenarioFile;
pub use system_file::SystemFile;

use kind::Kind;
use reading::read;
use yaml::Node;

/// A scenario and its system, read and typed.
#[derive(Clone, Debug)]
pub struct Files {
    /// The texts, for diagnostics.
    pub sources: Sources,
    /// The scenario file as the user named it.
    pub scenario_name: String,
    /// The system file, found from the scenario (or from `--system`).
    pub system_name: String,
    /// The scenario.
    pub scenario: ScenarioFile,
    /// The system.
    pub system: SystemFile,
    /// The texts of files that feeds name, by the name in the system file; an error is a phrase.
    pub feed_texts: BTreeMap<String, Result<String, String>>,
}

/// What to change about the files.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `--system`: instead of the scenario's own.
    pub system: Option<PathBuf>,
    /// `--set path=value`, in order.
    pub set: Vec<String>,
}

/// Reads a scenario and the system file it names.
///
/// # Errors
///
/// The first mistake of shape, with the texts it is in.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Files, Diagnostics> {
    let mut sources = Sources::default();
    match load_into(path, options, &mut sources) {
        Ok(mut files) => {
            files.sources = sources;
            Ok(files)
        }
        Err(diagnostic) => Err(Diagnostics::one(sources, *diagnostic)),
    }
}

fn load_into(
    path: &Path,
    options: &LoadOptions,
    sources: &mut Sources,
) -> Result<Files, Box<Diagnostic>> {
    let scenario_name = path.display().to_string();
    let text = read(path, &scenario_name, Kind::Scenario.noun())?;
    let file = sources.add(&scenario_name, &text);
    let mut tree = parse(&text, file, path)?;
    for assignment in &options.set {
        let file = sources.add("--set", assignment);
        set::apply(&mut tree, assignment, file)?;
    }
    let scenario: ScenarioFile = typed(&tree, &scenario_name, Kind::Scenario)?;

    let system_path = match &options.system {
        Some(system) => system.clone(),
        None => {
            let folder = path.parent().unwrap_or_else(|| Path::new(""));
            normal(&folder.join(&scenario.system.value))
        }
    };
    let system_name = system_path.display().to_string();
    // What is wrong with the file as a whole is shown where the scenario names it.
    let named_here = |mut diagnostic: Box<Diagnostic>| {
        if options.system.is_none() && diagnostic.span.is_none() {
            diagnostic.span = Some(scenario.system.span);
        }
        diagnostic
    };
    let text = read(&system_path, &system_name, Kind::System.noun()).map_err(named_here)?;
    let file = sources.add(&system_name, &text);
    let tree = parse(&text, file, &system_path)?;
    let system: SystemFile = typed(&tree, &system_name, Kind::System).map_err(named_here)?;
    let feed_texts = read_feeds(&system, &system_path);
    Ok(Files {
        sources: Sources::default(),
        scenario_name,
        system_name,
        scenario,
        system,
        feed_texts,
    })
}

/// Whether a file reads as a system file. One that cannot be read does not.
#[must_use]
pub fn is_system(path: &Path) -> bool {
    let text = read(path, "", Kind::System.noun()).ok();
    let tree = text.and_then(|text| yaml::parse(&text, 0).ok());
    tree.and_then(|tree| Kind::of(&tree)) == Some(Kind::System)
}

/// Reads the tree of a file. One that is not even named like YAML is probably another file.
fn parse(text: &str, file: u32, path: &Path) -> Result<Node, Box<Diagnostic>> {
    let named_so = path
        .extension()
        .is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
    yaml::parse(text, file).map_err(|mistake| match named_so {
        true => mistake,
        false => Box::new(mistake.note("by its name it is no YAML file")),
    })
}

/// Reads a typed file from its tree, unless it is a file of another kind.
fn typed<T: DeserializeOwned>(tree: &Node, name: &str, kind: Kind) -> Result<T, Box<Diagnostic>> {
    typed::from_node(tree)
        .map_err(|mistake| kind::mistaken(tree, name, kind).map_or(mistake, Box::new))
}

fn read_feeds(system: &SystemFile, path: &Path) -> BTreeMap<String, Result<String, String>> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let named = system.feeds.iter().filter_map(|(_, feed)| {
        let name = feed.value.csv.as_ref().or(feed.value.json.as_ref())?;
        Some(name.value.clone())
    });
    named
        .filter(|name| stays_inside(name))
        .map(|name| {
            let text = read(&folder.join(&name), &name, "a feed").map_err(|mistake| mistake.title);
            (name, text)
        })
        .collect()
}

/// Whether a relative path stays in the folder that it is relative to.
#[must_use]
pub fn stays_inside(path: &str) -> bool {
    let path = normal(Path::new(path));
    path.components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// `a/../b` as `b`: the shortest spelling of the same relative path.
fn normal(path: &Path) -> PathBuf {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect()
}
