//! Counts of recent calls: the last N, or those of the last so many milliseconds.
//!
//! Both really forget. (A counter that only grows until the next transition needs a thousand failures
//! to notice an outage after a thousand successes.)

use std::collections::VecDeque;

use serde::Serialize;

use super::policy::{Trip, Window};

/// How many calls a window holds, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Calls in the window.
    pub calls: usize,
    /// Failures among them.
    pub failures: usize,
}

/// The calls that count towards opening.
#[derive(Debug)]
pub(super) enum Recent {
    Ring {
        size: usize,
        results: VecDeque<bool>,
        failures: usize,
    },
    Buckets {
        bucket_ns: u64,
        buckets: usize,
        filled: VecDeque<(u64, Counts)>,
    },
    Streak {
        failures: usize,
    },
}

impl Recent {
    pub(super) fn new(trip: Trip) -> Self {
        match trip {
            Trip::Rate {
                window: Window::Calls(size),
                ..
            } => {
                let size = size.max(1);
                Self::Ring {
                    size,
                    results: VecDeque::with_capacity(size),
                    failures: 0,
                }
            }
            Trip::Rate {
                window: Window::Time { bucket_ms, buckets },
                ..
            } => Self::Buckets {
                bucket_ns: bucket_ms.max(1) * 1_000_000,
                buckets: buckets.max(1),
                filled: VecDeque::new(),
            },
            Trip::Consecutive { .. } => Self::Streak { failures: 0 },
        }
    }

    pub(super) fn record(&mut self, now_ns: u64, failed: bool) {
        match self {
            Self::Ring {
                size,
                results,
                failures,
            } => {
                if results.len() == *size && results.pop_front() == Some(true) {
                    *failures -= 1;
                }
                results.push_back(failed);
                *failures += usize::from(failed);
            }
            Self::Buckets {
                bucket_ns, filled, ..
            } => {
                let index = now_ns / *bucket_ns;
                if filled.back().is_none_or(|(last, _)| *last != index) {
                    filled.push_back((index, Counts::default()));
                }
                if let Some((_, counts)) = filled.back_mut() {
                    counts.calls += 1;
                    counts.failures += usize::from(failed);
                }
                self.forget(now_ns);
            }
            Self::Streak { failures } => *failures = if failed { *failures + 1 } else { 0 },
        }
    }

    pub(super) fn counts(&mut self, now_ns: u64) -> Counts {
        self.forget(now_ns);
        match self {
            Self::Ring {
                results, failures, ..
            } => Counts {
                calls: results.len(),
                failures: *failures,
            },
            Self::Buckets { filled, .. } => {
                filled
                    .iter()
                    .fold(Counts::default(), |sum, (_, bucket)| Counts {
                        calls: sum.calls + bucket.calls,
                        failures: sum.failures + bucket.failures,
                    })
            }
            Self::Streak { failures } => Counts {
                calls: *failures,
                failures: *failures,
            },
        }
    }

    pub(super) fn trips(&mut self, trip: Trip, now_ns: u64) -> bool {
        let counts = self.counts(now_ns);
        match trip {
            Trip::Rate {
                window,
                minimum,
                percent,
            } => {
                let minimum = match window {
                    Window::Calls(size) => minimum.min(size.max(1)),
                    Window::Time { .. } => minimum,
                };
                let enough = counts.calls >= minimum.max(1);
                enough && counts.failures * 100 >= counts.calls * percent as usize
            }
            Trip::Consecutive { failures } => counts.failures >= failures as usize,
        }
    }

    fn forget(&mut self, now_ns: u64) {
        if let Self::Buckets {
            bucket_ns,
            buckets,
            filled,
        } = self
        {
            let oldest = (now_ns / *bucket_ns + 1).saturating_sub(*buckets as u64);
            while filled.front().is_some_and(|(index, _)| *index < oldest) {
                filled.pop_front();
            }
        }
    }
}
