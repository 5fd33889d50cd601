//! What the worker tells, written down: operations as records, seconds as events, histograms as
//! `load.hlog`.

use crate::evidence::folder::RunFolder;
use crate::evidence::{Event, Record};
use crate::load::wire::{Finished, HistogramSlice, LoadBatch};

use super::error::RunError;
use super::journal::Journal;

/// See the module.
pub(crate) struct LoadLog {
    folder: RunFolder,
    slices: Vec<HistogramSlice>,
    operations_lost: u64,
}

impl LoadLog {
    pub(crate) fn new(folder: RunFolder) -> Self {
        Self { folder, slices: Vec::new(), operations_lost: 0 }
    }

    /// Writes a batch down.
    pub(crate) fn take(&mut self, batch: LoadBatch, journal: &Journal) {
        for operation in batch.operations {
            journal.record(Record::Operation(operation));
        }
        for second in batch.seconds {
            journal.event(Event::LoadSecond(second));
        }
        self.slices.extend(batch.histograms);
        self.operations_lost += batch.operations_lost;
    }

    /// Writes the worker's account of the whole.
    pub(crate) fn finish(&mut self, finished: Finished, journal: &Journal) -> Result<(), RunError> {
        journal.event_durable(Event::LoadFinished(finished.summary));
        Ok(())
    }
}
