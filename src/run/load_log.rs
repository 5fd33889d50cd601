//! What the worker tells, written down: operations as records, seconds as events, histograms as
//! `load.hlog`.

use crate::evidence::folder::RunFolder;
use crate::evidence::{Event, OPERATIONS, Record};
use crate::load::hlog::Log;
use crate::load::wire::{Finished, LoadBatch};

use crate::plan::SourceName;

use super::error::RunError;
use super::journal::Journal;

/// See the module.
pub(crate) struct LoadLog {
    folder: RunFolder,
    histograms: Log,
    t0_ns: u64,
    operations: u64,
    operations_lost: u64,
}

impl LoadLog {
    pub(crate) fn new(folder: RunFolder) -> Self {
        Self {
            folder,
            histograms: Log::default(),
            t0_ns: 0,
            operations: 0,
            operations_lost: 0,
        }
    }

    /// T0 on the run clock, from which the seconds of histograms count.
    pub(crate) fn begin(&mut self, t0_ns: u64) {
        self.t0_ns = t0_ns;
    }

    /// Writes a batch down.
    pub(crate) fn take(&mut self, batch: LoadBatch, journal: &Journal) -> Result<(), RunError> {
        self.operations += batch.operations.len() as u64;
        for operation in batch.operations {
            journal.record(Record::Operation(operation));
        }
        for second in batch.seconds {
            journal.event(Event::LoadSecond(second));
        }
        self.operations_lost += batch.operations_lost;
        let added = self.histograms.add(&batch.histograms);
        added.map_err(|error| RunError::world("take the load's results", error.to_string()))
    }

    /// Writes the worker's account of the whole.
    pub(crate) fn finish(&mut self, finished: Finished, journal: &Journal) -> Result<(), RunError> {
        journal.event_durable(Event::LoadFinished(finished.summary));
        journal.event(Event::SourceRead {
            source: SourceName::new(OPERATIONS),
            rows: self.operations,
            lost: self.operations_lost,
            error: None,
            clock_error_ns: 0,
        });
        let log = self.histograms.render(&journal.clock(), self.t0_ns);
        let written = self.folder.write("load.hlog", &log);
        written.map_err(|error| RunError::new("keep the load's histograms", error))
    }
}
