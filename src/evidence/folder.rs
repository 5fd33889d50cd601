//! The run folder on disk: `reports/<run-id>/`, everything a run leaves behind.
//!
//! `plan.json`, `scenario.yaml` and `system.yaml` (copies) are written before anything starts,
//! `events.jsonl` and `records/<kind>.jsonl` as things happen, `outcome.json` and `report.html` at
//! the end. Whole files appear by rename, so none is ever half there; lines are appended, so a
//! killed run keeps what it had. Nothing here judges or knows what a line means.
//!
//! Read next: [`read`] (the way back into memory).

pub mod read;

pub use read::{find, read_plan};

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::plan::Plan;

use super::{Record, Stamped};

/// Largest size of one file of lines, written or read.
pub const FILE_BYTES_MAX: u64 = 2 << 30;
/// Run ids that are tried before giving up: each has its own random part.
const RUN_ID_TRIES: u32 = 64;
/// Kinds of records, in the order of [`crate::plan::system::RecordKind`]: names of their files.
const RECORD_KINDS: usize = 11;

/// Why the run folder could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("could not {attempted} `{}`: {kind}", path.display())]
pub struct FolderError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was attempted: `write`.
    pub attempted: &'static str,
    /// Why it failed.
    pub kind: FolderErrorKind,
}

/// The ways in which the run folder fails.
#[derive(Debug, thiserror::Error)]
pub enum FolderErrorKind {
    /// The disk (or a quota) is full.
    #[error("no space left on the disk")]
    Full,
    /// It is not there.
    #[error("it does not exist")]
    Missing,
    /// Its content is not what it should be: a phrase.
    #[error("{0}")]
    Format(String),
    /// It would be (or is) larger than a bound, in bytes.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// Anything else that the system said.
    #[error("{0}")]
    Io(io::Error),
}

impl FolderError {
    fn new(path: &Path, attempted: &'static str, kind: FolderErrorKind) -> Self {
        Self {
            path: path.to_owned(),
            attempted,
            kind,
        }
    }

    fn io(path: &Path, attempted: &'static str, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FolderErrorKind::Full,
            io::ErrorKind::NotFound => FolderErrorKind::Missing,
            _ => FolderErrorKind::Io(error),
        };
        Self::new(path, attempted, kind)
    }

    /// Whether the disk is full: nothing more can be kept.
    pub fn is_full(&self) -> bool {
        matches!(self.kind, FolderErrorKind::Full)
    }
}

/// The folder of one run. Files are 0600, folders 0700.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    run_id: String,
}

impl RunFolder {
    /// Makes the folder of a new run below `reports` (made as well), named after the wall time
    /// (ms since 1970, shown in UTC) and a random part that no other run has.
    pub fn create(reports: &Path, wall_ms: u64) -> Result<Self, FolderError> {
        make_folder(reports, true)?;
        let mut tries = 0;
        loop {
            let run_id = run_id(wall_ms, rand::random());
            let path = reports.join(&run_id);
            match make_folder(&path, false) {
                Ok(()) => {
                    make_folder(&path.join("records"), false)?;
                    make_folder(&path.join("logs"), false)?;
                    return Ok(Self { path, run_id });
                }
                Err(error) if already_exists(&error) && tries < RUN_ID_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The folder of a stored run.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let path = fs::canonicalize(path).map_err(|error| FolderError::io(path, "open", error))?;
        let run_id = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(Self { path, run_id })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `2026-11-21-0423-7f3a`.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Where the logs of services go.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a whole file: it is there completely or not at all, and survives a crash of ours.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let half = self.path.join(format!(".{name}.{}", rand::random::<u32>()));
        let written = write_synced(&half, bytes)
            .and_then(|()| fs::rename(&half, &path))
            .map_err(|error| FolderError::io(&path, "write", error));
        if written.is_err() {
            // The half file is of no use to anybody; the first error is the one to tell.
            let _ = fs::remove_file(&half);
        }
        written
    }

    /// Writes `plan.json`: the same bytes for the same plan.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), FolderError> {
        self.write_json("plan.json", plan)
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), FolderError> {
        let mut bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| format_error(&self.path.join(name), "write", &error))?;
        bytes.push(b'\n');
        self.write(name, &bytes)
    }

    /// Points `latest`, beside this folder, at it: a symlink that is replaced at once.
    pub fn point_latest(&self) -> Result<(), FolderError> {
        let reports = self.path.parent().unwrap_or(Path::new("."));
        let latest = reports.join("latest");
        let next = reports.join(format!(".latest.{}", rand::random::<u32>()));
        let replaced = symlink(&self.run_id, &next).and_then(|()| fs::rename(&next, &latest));
        if replaced.is_err() {
            let _ = fs::remove_file(&next);
        }
        replaced.map_err(|error| FolderError::io(&latest, "replace", error))
    }

    /// Opens `events.jsonl` for appending.
    pub fn events(&self) -> Result<EventWriter, FolderError> {
        LineWriter::open(self.path.join("events.jsonl")).map(EventWriter)
    }

    /// A writer of `records/<kind>.jsonl`, which makes a kind's file with its first record.
    pub fn records(&self) -> RecordWriter {
        RecordWriter {
            folder: self.path.join("records"),
            kinds: [const { None }; RECORD_KINDS],
        }
    }
}

/// Appends events to `events.jsonl`.
#[derive(Debug)]
pub struct EventWriter(LineWriter);

impl EventWriter {
    /// Appends an event. It reaches the kernel at once (a crash of ours loses nothing), the disk
    /// with the next [`flush`](Self::flush).
    pub fn append(&mut self, event: &Stamped) -> Result<(), FolderError> {
        self.0.append(event)?;
        self.0.flush()
    }

    /// Puts all events on the disk. `FaultApplying` must be there before the fault's effect.
    pub fn flush(&mut self) -> Result<(), FolderError> {
        self.0.sync()
    }
}

/// Appends records, one file per kind. Buffered: call [`flush`](Self::flush) now and then.
#[derive(Debug)]
pub struct RecordWriter {
    folder: PathBuf,
    kinds: [Option<LineWriter>; RECORD_KINDS],
}

impl RecordWriter {
    /// Appends a record to the file of its kind.
    pub fn append(&mut self, record: &Record) -> Result<(), FolderError> {
        match record {
            Record::Operation(it) => self.line(0, "operation", it),
            Record::Call(it) => self.line(1, "call", it),
            Record::Transition(it) => self.line(2, "transition", it),
            Record::Saga(it) => self.line(3, "saga", it),
            Record::Event(it) => self.line(4, "event", it),
            Record::Effect(it) => self.line(5, "effect", it),
            Record::Delivery(it) => self.line(6, "delivery", it),
            Record::DeadLetter(it) => self.line(7, "dead-letter", it),
            Record::Entry(it) => self.line(8, "entry", it),
            Record::Version(it) => self.line(9, "version", it),
            Record::Sample(it) => self.line(10, "sample", it),
        }
    }

    fn line<T: Serialize>(&mut self, index: usize, kind: &str, it: &T) -> Result<(), FolderError> {
        let slot = &mut self.kinds[index];
        let writer = match slot {
            Some(writer) => writer,
            None => slot.insert(LineWriter::open(self.folder.join(format!("{kind}.jsonl")))?),
        };
        writer.append(it)
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) -> Result<(), FolderError> {
        self.kinds
            .iter_mut()
            .flatten()
            .try_for_each(LineWriter::flush)
    }
}

/// Appends JSON lines to a file, up to [`FILE_BYTES_MAX`].
#[derive(Debug)]
struct LineWriter {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    line: Vec<u8>,
}

impl LineWriter {
    fn open(path: PathBuf) -> Result<Self, FolderError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| FolderError::io(&path, "write", error))?;
        let bytes = file.metadata().map(|it| it.len()).unwrap_or(0);
        Ok(Self {
            path,
            file: BufWriter::with_capacity(64 << 10, file),
            bytes,
            line: Vec::new(),
        })
    }

    fn append<T: Serialize>(&mut self, value: &T) -> Result<(), FolderError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value)
            .map_err(|error| format_error(&self.path, "write", &error))?;
        self.line.push(b'\n');
        self.bytes += self.line.len() as u64;
        if self.bytes > FILE_BYTES_MAX {
            let kind = FolderErrorKind::TooLarge(FILE_BYTES_MAX);
            return Err(FolderError::new(&self.path, "write", kind));
        }
        let written = self.file.write_all(&self.line);
        written.map_err(|error| FolderError::io(&self.path, "write", error))
    }

    fn flush(&mut self) -> Result<(), FolderError> {
        let flushed = self.file.flush();
        flushed.map_err(|error| FolderError::io(&self.path, "write", error))
    }

    fn sync(&mut self) -> Result<(), FolderError> {
        self.flush()?;
        let synced = self.file.get_ref().sync_data();
        synced.map_err(|error| FolderError::io(&self.path, "write", error))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn make_folder(path: &Path, recursive: bool) -> Result<(), FolderError> {
    DirBuilder::new()
        .recursive(recursive)
        .mode(0o700)
        .create(path)
        .map_err(|error| FolderError::io(path, "make", error))
}

fn already_exists(error: &FolderError) -> bool {
    matches!(&error.kind, FolderErrorKind::Io(it) if it.kind() == io::ErrorKind::AlreadyExists)
}

fn format_error(path: &Path, attempted: &'static str, error: &serde_json::Error) -> FolderError {
    FolderError::new(path, attempted, FolderErrorKind::Format(error.to_string()))
}

fn run_id(wall_ms: u64, random: u16) -> String {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(wall_ms).unwrap_or(i64::MAX))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{}-{random:04x}", time.strftime("%Y-%m-%d-%H%M"))
}

#[cfg(test)]
mod tests;
