//! The worker's books: what every ticket came to, per second and per phase.
//!
//! Fed with notes by pacer and users, on a thread of its own. It yields batches for the
//! coordinator and, at the end, the account of the whole. It reads no clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::evidence::events::{LoadSecond, LoadSummary};
use crate::evidence::{Operation, Phase};
use crate::plan::load::OutcomeClass;
use crate::plan::{JourneyName, OperationName};

use super::histograms::{self, Durations};
use super::shared::{JourneyEnded, Note, Shared, StepEnded};
use super::wire::{
    BATCH_OPERATIONS_MAX, Finished, HistogramSlice, LoadBatch, Measure, PhaseHistogram, PhaseSpan,
    Series,
};

/// The key of a histogram: journey, step (none for the journey as a whole), outcome. Indices, so
/// that booking an operation allocates nothing.
type SeriesKey = (usize, Option<usize>, OutcomeClass);

/// See the module.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    phases: Vec<PhaseSpan>,
    /// How long after its end a second is reported at the latest, ns.
    patience_ns: u64,
    seconds: BTreeMap<usize, Second>,
    /// Every second before it has been reported.
    reported_to: usize,
    by_phase: BTreeMap<(Phase, SeriesKey), Three>,
    send_lag: Durations,
    batch: LoadBatch,
    batches: u64,
    completed: u64,
    failed: u64,
    dropped: u64,
    requests: u64,
}

/// Latency, service time, send-lag.
#[derive(Debug)]
struct Three([Durations; 3]);

const MEASURES: [Measure; 3] = [Measure::Latency, Measure::Service, Measure::SendLag];

impl Three {
    fn new() -> Self {
        Self([(); 3].map(|()| histograms::empty()))
    }

    fn record(&mut self, intended_ns: u64, sent_ns: u64, ended_ns: u64) {
        let spans = [
            ended_ns.saturating_sub(intended_ns),
            ended_ns.saturating_sub(sent_ns),
            sent_ns.saturating_sub(intended_ns),
        ];
        for (durations, ns) in self.0.iter_mut().zip(spans) {
            histograms::record(durations, ns);
        }
    }

    fn encoded(&self) -> impl Iterator<Item = (Measure, String)> {
        let encoded = self.0.iter().map(histograms::encode);
        MEASURES.into_iter().zip(encoded)
    }
}

/// One second of the load, by intended start.
#[derive(Debug)]
struct Second {
    line: LoadSecond,
    /// Latencies of what was answered.
    answered: Durations,
    series: BTreeMap<SeriesKey, Three>,
}

impl Recorder {
    pub(crate) fn new(shared: Arc<Shared>, phases: Vec<PhaseSpan>, patience_ns: u64) -> Self {
        Self {
            shared,
            phases,
            patience_ns,
            seconds: BTreeMap::new(),
            reported_to: 0,
            by_phase: BTreeMap::new(),
            send_lag: histograms::empty(),
            batch: LoadBatch::default(),
            batches: 0,
            completed: 0,
            failed: 0,
            dropped: 0,
            requests: 0,
        }
    }

    /// Books one note.
    pub(crate) fn book(&mut self, note: Note) {
        match note {
            Note::Operation(ended) => self.operation(*ended),
            Note::Journey(ended) => self.journey(ended),
            Note::Dropped { due_ns } => {
                self.dropped += 1;
                self.second(due_ns).line.dropped += 1;
                self.shared.operation_booked(due_ns);
            }
        }
    }

    /// Whether the batch under way is as large as one may be.
    pub(crate) fn is_full(&self) -> bool {
        self.batch.operations.len() >= BATCH_OPERATIONS_MAX
    }

    fn second(&mut self, at_ns: u64) -> &mut Second {
        // What comes after its second was reported goes to the next one that will be: a second
        // is reported once.
        let index = self.shared.second(at_ns);
        self.seconds.entry(index).or_insert_with(|| Second {
            line: LoadSecond {
                second: index as u32,
                ..LoadSecond::default()
            },
            answered: histograms::empty(),
            series: BTreeMap::new(),
        })
    }

    fn operation(&mut self, ended: StepEnded) {
        let (intended_ns, sent_ns, ended_ns) = (ended.intended_ns, ended.sent_ns, ended.ended_ns);
        let outcome = ended.result.outcome;
        let answered = ended.result.status.is_some() && outcome != OutcomeClass::Unsettled;
        self.requests += u64::from(ended.result.requests);
        if ended.step == 0 {
            histograms::record(&mut self.send_lag, sent_ns.saturating_sub(intended_ns));
        }
        let key = (ended.journey, Some(ended.step), outcome);
        self.count(key, intended_ns, sent_ns, ended_ns);
        let second = self.second(intended_ns);
        if answered {
            histograms::record(&mut second.answered, ended_ns.saturating_sub(intended_ns));
        }
        *match outcome {
            OutcomeClass::Done => &mut second.line.done,
            OutcomeClass::Accepted => &mut second.line.accepted,
            OutcomeClass::Refused => &mut second.line.refused,
            OutcomeClass::Unknown => &mut second.line.unknown,
            OutcomeClass::Unsettled => &mut second.line.unsettled,
        } += 1;
        self.shared.operation_booked(intended_ns);
        let operation = self.spell_out(ended);
        self.batch.operations.push(operation);
    }

    fn journey(&mut self, ended: JourneyEnded) {
        match ended.complete {
            true => self.completed += 1,
            false => self.failed += 1,
        }
        let key = (ended.journey, None, ended.worst);
        self.count(key, ended.due_ns, ended.sent_ns, ended.ended_ns);
    }

    fn count(&mut self, key: SeriesKey, intended_ns: u64, sent_ns: u64, ended_ns: u64) {
        let from_t0 = intended_ns.saturating_sub(self.shared.t0_ns());
        let phase = self.phases.iter().rev();
        let phase = phase.map(|span| (span.phase, span.from.as_nanos() as u64));
        if let Some((phase, _)) = phase.into_iter().find(|(_, from)| *from <= from_t0) {
            let three = self.by_phase.entry((phase, key)).or_insert_with(Three::new);
            three.record(intended_ns, sent_ns, ended_ns);
        }
        let second = self.second(intended_ns);
        let three = second.series.entry(key).or_insert_with(Three::new);
        three.record(intended_ns, sent_ns, ended_ns);
    }

    /// The record of an operation, with the names that its indices stand for.
    fn spell_out(&self, ended: StepEnded) -> Operation {
        let journey = &self.shared.journeys.journeys[ended.journey];
        Operation {
            op: OperationName::new(&journey.steps[ended.step].name),
            journey: JourneyName::new(&journey.name),
            iteration: ended.ticket,
            key: ended.key.to_string(),
            intended_ns: ended.intended_ns,
            sent_ns: ended.sent_ns,
            ended_ns: ended.ended_ns,
            outcome: ended.result.outcome,
            status: ended.result.status,
            error: ended.result.problem.as_ref().map(|problem| problem.text()),
            requests: ended.result.requests,
            captured: ended.result.captured.into_iter().collect(),
            trace: self.shared.journeys.trace(ended.ticket, ended.step),
        }
    }

    fn series(&self, (journey, step, _): SeriesKey) -> Series {
        let journey = &self.shared.journeys.journeys[journey];
        match step {
            Some(step) => Series::Operation(journey.steps[step].name.clone()),
            None => Series::Journey(journey.name.clone()),
        }
    }

    /// Closes the batch under way: operations booked, and the seconds that are complete at
    /// `now_ns` (run clock), or older than the patience, or all of them when `last`. None when
    /// there is nothing to say.
    pub(crate) fn take_batch(&mut self, now_ns: u64, last: bool) -> Option<LoadBatch> {
        self.report_seconds(now_ns, last);
        self.batch.operations_lost = self.shared.notes_lost.swap(0, Relaxed);
        let batch = std::mem::take(&mut self.batch);
        if batch == LoadBatch::default() {
            return None;
        }
        self.batches += 1;
        Some(LoadBatch {
            seq: self.batches,
            ..batch
        })
    }

    fn report_seconds(&mut self, now_ns: u64, last: bool) {
        let from_t0 = now_ns.saturating_sub(self.shared.t0_ns());
        let issued_to_ns = self.shared.issued_to_ns.load(Relaxed);
        while self.reported_to < self.shared.seconds() {
            let end_ns = (self.reported_to as u64 + 1) * 1_000_000_000;
            let over = from_t0 >= end_ns && issued_to_ns >= end_ns;
            let complete = over && self.shared.open(self.reported_to) == 0;
            let patience_over = from_t0 >= end_ns + self.patience_ns;
            if !(complete || patience_over || last) || self.is_beyond_end(last) {
                break;
            }
            self.report_second(self.reported_to);
            self.reported_to += 1;
        }
        // Stragglers of seconds reported before: their histograms still add up.
        while let Some((&index, _)) = self.seconds.first_key_value()
            && index < self.reported_to
        {
            self.send_histograms(index);
        }
    }

    /// Whether nothing was due, or happened, from the next second on.
    fn is_beyond_end(&self, last: bool) -> bool {
        let known = self.seconds.last_key_value().map(|(index, _)| *index);
        let offered_later =
            (self.reported_to..self.shared.seconds()).any(|second| self.shared.offered(second) > 0);
        let schedule_over = self.shared.issued_to_ns.load(Relaxed) == u64::MAX;
        (last || schedule_over) && known < Some(self.reported_to) && !offered_later
    }

    fn report_second(&mut self, index: usize) {
        let offered = self.shared.offered(index);
        let mut line = LoadSecond {
            second: index as u32,
            ..LoadSecond::default()
        };
        if let Some(second) = self.seconds.get(&index) {
            line = second.line.clone();
            if !second.answered.is_empty() {
                line.p50_us = second.answered.value_at_quantile(0.5);
                line.p99_us = second.answered.value_at_quantile(0.99);
                line.max_us = second.answered.max();
            }
        }
        line.offered = offered;
        self.batch.seconds.push(line);
        self.send_histograms(index);
    }

    fn send_histograms(&mut self, index: usize) {
        let Some(second) = self.seconds.remove(&index) else {
            return;
        };
        for (key, three) in &second.series {
            let series = self.series(*key);
            let slices = three.encoded().map(|(measure, encoded)| HistogramSlice {
                second: index as u32,
                series: series.clone(),
                outcome: key.2,
                measure,
                encoded,
            });
            self.batch.histograms.extend(slices);
        }
    }

    /// The account of the whole, once every note was booked.
    pub(crate) fn finish(&self, cpu_s: f64, wall_s: f64) -> Finished {
        let summary = LoadSummary {
            issued: self.shared.issued.load(Relaxed),
            completed: self.completed,
            failed: self.failed,
            dropped: self.dropped,
            requests: self.requests,
            send_lag_p99_us: self.send_lag.value_at_quantile(0.99),
            send_lag_max_us: self.send_lag.max(),
            cpu_s,
            wall_s,
            users_busy_max: self.shared.users_busy_max.load(Relaxed),
        };
        let phases = self.by_phase.iter().flat_map(|((phase, key), three)| {
            let series = self.series(*key);
            three
                .encoded()
                .map(move |(measure, encoded)| PhaseHistogram {
                    phase: *phase,
                    series: series.clone(),
                    outcome: key.2,
                    measure,
                    encoded,
                })
        });
        Finished {
            summary,
            phases: phases.collect(),
        }
    }
}
