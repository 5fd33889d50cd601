//! The run's memory: stamps every event, writes it to the run folder, passes it on to the display.
//!
//! Writing never fails for the caller: the first error is kept and ends the run, because evidence
//! that cannot be written is evidence that cannot be judged.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::evidence::folder::{EventWriter, FolderError, RecordWriter, RunFolder};
use crate::evidence::{Event, Record, RunClock, Stamped};

/// Events that may wait for the display before it misses some.
pub const DISPLAY_QUEUE: usize = 4096;

/// What the display is told.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Every event.
    Event(Stamped),
    /// Claimed breaker states, which show in the live block.
    Record(Record),
}

/// See the module.
pub struct Journal {
    clock: RunClock,
    inner: Mutex<Inner>,
    failed: watch::Sender<Option<String>>,
}

struct Inner {
    events: EventWriter,
    records: RecordWriter,
    /// None once the display is told no more.
    display: Option<mpsc::Sender<Shown>>,
}

impl Inner {
    /// A display that lags behind loses lines; the run does not wait for it.
    fn show(&self, shown: Shown) {
        if let Some(display) = &self.display {
            let _ = display.try_send(shown);
        }
    }
}

impl Journal {
    /// Opens the files of a run folder. `display` gets every event that it has room for.
    pub fn open(
        folder: &RunFolder,
        clock: RunClock,
        display: mpsc::Sender<Shown>,
    ) -> Result<Self, FolderError> {
        let inner = Inner {
            events: folder.events()?,
            records: folder.records(),
            display: Some(display),
        };
        Ok(Self {
            clock,
            inner: Mutex::new(inner),
            failed: watch::Sender::new(None),
        })
    }

    /// The run clock.
    pub fn clock(&self) -> RunClock {
        self.clock
    }

    /// ns on the run clock.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Writes an event. It reaches the disk with the next flush.
    pub fn event(&self, event: Event) {
        self.write(event, false);
    }

    /// Writes an event and flushes before returning: for what must be known even if the next
    /// instruction is the last.
    pub fn event_durable(&self, event: Event) {
        self.write(event, true);
    }

    fn write(&self, event: Event, flush: bool) {
        let at_ns = self.clock.now_ns();
        let stamped = Stamped {
            at_ns,
            wall_ms: self.clock.wall_ms(at_ns),
            event,
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = inner.events.append(&stamped);
        if flush && result.is_ok() {
            result = inner.events.flush();
        }
        self.keep_failure(result);
        inner.show(Shown::Event(stamped));
    }

    /// Ends the display, whoever else still holds this journal: a part of a run that was killed in
    /// haste must not keep its end waiting.
    pub fn end_display(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.display = None;
    }

    /// Writes a record.
    pub fn record(&self, record: Record) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let result = inner.records.append(&record);
        self.keep_failure(result);
        if matches!(record, Record::Transition(_)) {
            inner.show(Shown::Record(record));
        }
    }

    /// Writes what is buffered.
    pub fn flush(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let result = inner.events.flush().and_then(|()| inner.records.flush());
        self.keep_failure(result);
    }

    /// Turns to `Some` when something could not be written.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    fn keep_failure(&self, result: Result<(), FolderError>) {
        if let Err(error) = result {
            self.failed.send_if_modified(|failed| {
                let first = failed.is_none();
                failed.get_or_insert_with(|| error.to_string());
                first
            });
        }
    }
}
