//! How well is a time known? Monotonic times and the run's own are exact; those of a wall clock have
//! an error bound, which was measured while their source was read.
//!
//! A verdict that would come out otherwise within that bound is inconclusive.

use crate::plan::{LinkName, SourceName};

use super::case::Gap;
use super::context::Context;
use super::text;

impl Context<'_> {
    /// How far the times of a source may be off the run clock, ns: 0 for monotonic ones.
    pub(crate) fn clock_error(&self, name: &SourceName) -> u64 {
        let state = self.evidence.sources.get(name);
        state.map_or(0, |state| state.clock_error_ns)
    }

    /// The same for the word on what crossed a link; the run's own proxies are exact.
    pub(crate) fn calls_clock_error(&self, link: &LinkName) -> u64 {
        let shared = self.plan.toxiproxy.is_some();
        let source = self.plan.call_source(link).filter(|_| shared);
        source.map_or(0, |source| self.clock_error(&source))
    }

    /// A verdict that would turn on less than what a source's clock may be off by.
    pub(crate) fn clock_gap(&self, name: &SourceName, what: &str) -> Gap {
        let bound = text::span(self.clock_error(name));
        Gap::new(
            format!("{what}, and the wall clock of `{name}` is only known to {bound}"),
            format!("let `select:` of `evidence: {name}` yield `at-mono-ns` and its like"),
        )
    }
}
