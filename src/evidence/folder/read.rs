//! From a run folder back into memory: the plan, and all evidence.
//!
//! A run that was killed ends in half a line: that is expected and left out in silence. A line in
//! the middle that cannot be read is damage: it is left out, counted and told, and `verdict/`
//! takes it for lost evidence.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::evidence::{Damage, Event, Evidence, OPERATIONS};
use crate::plan::{FORMAT_VERSION, Plan, SourceName};

use super::{FILE_BYTES_MAX, FolderError, FolderErrorKind};

/// Largest `plan.json` that is read.
const PLAN_BYTES_MAX: u64 = 64 << 20;
/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Reads `plan.json` of a run folder.
pub fn read_plan(folder: &Path) -> Result<Plan, FolderError> {
    let path = folder.join("plan.json");
    let size = fs::metadata(&path)
        .map_err(|error| FolderError::io(&path, "read", error))?
        .len();
    if size > PLAN_BYTES_MAX {
        let kind = FolderErrorKind::TooLarge(PLAN_BYTES_MAX);
        return Err(FolderError::new(&path, "read", kind));
    }
    let bytes = fs::read(&path).map_err(|error| FolderError::io(&path, "read", error))?;
    check_version(&path, &bytes)?;
    serde_json::from_slice(&bytes).map_err(|error| super::format_error(&path, "read", &error))
}

/// A newer plan is refused by its number before its unknown shape confuses anybody.
fn check_version(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Head {
        format_version: u32,
    }
    let head: Head =
        serde_json::from_slice(bytes).map_err(|error| super::format_error(path, "read", &error))?;
    if head.format_version > FORMAT_VERSION {
        let why = format!(
            "it has format version {}, this `chaos` reads up to {FORMAT_VERSION}",
            head.format_version
        );
        return Err(FolderError::new(path, "read", FolderErrorKind::Format(why)));
    }
    Ok(())
}

/// The run folder that `which` names: `latest`, a run id, or a path.
pub fn find(reports: &Path, which: &str) -> Result<PathBuf, FolderError> {
    let below = reports.join(which);
    let path = if below.join("plan.json").is_file() {
        below
    } else {
        PathBuf::from(which)
    };
    if path.join("plan.json").is_file() {
        return fs::canonicalize(&path).map_err(|error| FolderError::io(&path, "open", error));
    }
    let kind = if path.is_dir() {
        FolderErrorKind::Format("it is no run folder: it holds no `plan.json`".into())
    } else {
        FolderErrorKind::Missing
    };
    Err(FolderError::new(&path, "open", kind))
}

impl Evidence {
    /// Reads all evidence of a run folder. What a run had not yet written is empty.
    pub fn read(folder: &Path) -> Result<Self, FolderError> {
        let mut damage = Vec::new();
        let records = folder.join("records");
        let file = |kind: &str| records.join(format!("{kind}.jsonl"));
        let mut evidence = Self {
            events: lines(&folder.join("events.jsonl"), &mut damage)?,
            operations: lines(&file("operation"), &mut damage)?,
            calls: lines(&file("call"), &mut damage)?,
            transitions: lines(&file("transition"), &mut damage)?,
            sagas: lines(&file("saga"), &mut damage)?,
            committed: lines(&file("event"), &mut damage)?,
            effects: lines(&file("effect"), &mut damage)?,
            deliveries: lines(&file("delivery"), &mut damage)?,
            dead_letters: lines(&file("dead-letter"), &mut damage)?,
            entries: lines(&file("entry"), &mut damage)?,
            versions: lines(&file("version"), &mut damage)?,
            samples: lines(&file("sample"), &mut damage)?,
            sources: Default::default(),
            damage,
        };
        evidence.operations.sort_by_key(|it| it.intended_ns);
        evidence.count_sources();
        evidence.count_missing();
        Ok(evidence)
    }

    /// Records that were written and are not there any more (a cut or lost file) are lost rows.
    fn count_missing(&mut self) {
        let mut found: BTreeMap<SourceName, u64> = BTreeMap::new();
        let of_sources = (self.transitions.iter().map(|it| &it.source))
            .chain(self.sagas.iter().map(|it| &it.source))
            .chain(self.committed.iter().map(|it| &it.source))
            .chain(self.effects.iter().map(|it| &it.source))
            .chain(self.deliveries.iter().map(|it| &it.source))
            .chain(self.dead_letters.iter().map(|it| &it.source))
            .chain(self.entries.iter().map(|it| &it.source))
            .chain(self.versions.iter().map(|it| &it.source))
            .chain(self.samples.iter().map(|it| &it.source))
            .chain(self.calls.iter().map(|it| &it.source));
        for source in of_sources {
            *found.entry(source.clone()).or_default() += 1;
        }
        found.insert(SourceName::new(OPERATIONS), self.operations.len() as u64);
        for (name, state) in &mut self.sources {
            let here = found.get(name).copied().unwrap_or(0);
            state.lost += state.rows.saturating_sub(here);
        }
    }

    /// Fills `sources` from the `SourceRead` events: rows and losses add up, the last error stays.
    pub fn count_sources(&mut self) {
        self.sources.clear();
        for stamped in &self.events {
            if let Event::SourceRead {
                source,
                rows,
                lost,
                error,
                clock_error_ns,
            } = &stamped.event
            {
                let state = self.sources.entry(source.clone()).or_default();
                state.rows += rows;
                state.lost += lost;
                state.clock_error_ns = state.clock_error_ns.max(*clock_error_ns);
                if error.is_some() {
                    state.error.clone_from(error);
                }
            }
        }
    }
}

/// The lines of a file; none when the file is not there.
fn lines<T: DeserializeOwned>(
    path: &Path,
    damage: &mut Vec<Damage>,
) -> Result<Vec<T>, FolderError> {
    let fail = |error| FolderError::io(path, "read", error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    if file.metadata().map_err(fail)?.len() > FILE_BYTES_MAX {
        let kind = FolderErrorKind::TooLarge(FILE_BYTES_MAX);
        return Err(FolderError::new(path, "read", kind));
    }
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let (mut values, mut line, mut number) = (Vec::new(), Vec::new(), 0u64);
    let mut hurt: Option<Damage> = None;
    loop {
        line.clear();
        let read = (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        if read.map_err(fail)? == 0 {
            break;
        }
        number += 1;
        let whole = line.last() == Some(&b'\n');
        match serde_json::from_slice(&line) {
            Ok(value) => values.push(value),
            // The last line of a killed run: not ended, nothing after it.
            Err(_) if !whole && reader.fill_buf().map_err(fail)?.is_empty() => break,
            Err(error) => note_damage(&mut hurt, path, number, &error),
        }
    }
    damage.extend(hurt);
    Ok(values)
}

fn note_damage(hurt: &mut Option<Damage>, path: &Path, number: u64, error: &serde_json::Error) {
    let damage = hurt.get_or_insert_with(|| Damage {
        file: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        lines: 0,
        first_line: number,
        why: error.to_string(),
    });
    damage.lines += 1;
}
