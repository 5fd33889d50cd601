//! Who tells what crossed a link, and what is missing of it: the request log of the run's own proxy, else
//! what its caller or callee tells (the weaker witness). A callee that tells as well is held against the log.

use std::collections::BTreeMap;

use crate::evidence::{Call, Event, REQUEST_LOG, Stamped};
use crate::plan::system::Protocol;
use crate::plan::{LinkName, SourceName};

use super::case::Gap;
use super::context::{Context, Span};
use super::text;

/// For so long after its caller gave it up, a request may still reach its callee, ns.
const BYPASS_GRACE_NS: u64 = 1_000_000_000;

impl Context<'_> {
    /// What is missing of the word on what crossed a link.
    pub(crate) fn call_gaps(&self, link: &LinkName) -> Vec<Gap> {
        let mut gaps = self.witness_gaps(link);
        gaps.extend(self.bypassed(link));
        gaps
    }

    fn witness_gaps(&self, link: &LinkName) -> Vec<Gap> {
        let Some(server) = &self.plan.toxiproxy else {
            let gaps = [self.known_loss(REQUEST_LOG), self.unreadable(link)];
            return gaps.into_iter().flatten().collect();
        };
        let Some(source) = self.plan.call_source(link) else {
            return vec![Gap::new(
                format!("nobody tells what crossed `{link}`: {server} keeps no log of requests"),
                format!(
                    "add `call` records of `{}` to `evidence:`, or run it without `--toxiproxy`",
                    link.from
                ),
            )];
        };
        let gaps = [self.source_gap(&source), self.forgotten(&source)];
        gaps.into_iter().flatten().collect()
    }

    /// Connections in which the proxy could not count requests.
    fn unreadable(&self, link: &LinkName) -> Option<Gap> {
        let events = self.evidence.events.iter();
        let opaque = events.filter_map(|it| match &it.event {
            Event::LinkStats {
                link: of, opaque, ..
            } if of == link => Some(*opaque),
            _ => None,
        });
        let opaque = opaque.max().filter(|opaque| *opaque > 0)?;
        Some(Gap::new(
            format!(
                "{} on `{link}` could not be read as HTTP/1.1",
                text::count(opaque, "connection")
            ),
            "let both ends speak HTTP/1.1 there, or declare `protocol: tcp`",
        ))
    }

    /// A callee that received more under load than what crossed its link: the rest came around the
    /// proxy, where no fault reaches it and nobody counts it.
    ///
    /// Only the run's own proxies know what crossed: a caller's log tells what it sent, not which way.
    pub(crate) fn bypassed(&self, link: &LinkName) -> Option<Gap> {
        let counts = self.plan.link(link)?.protocol == Protocol::Http;
        if self.plan.toxiproxy.is_some() || !counts || !self.witness_gaps(link).is_empty() {
            return None;
        }
        let load = Span::new(self.baseline.from, self.load_end);
        let told = self.evidence.calls.iter().filter(|call| {
            call.link == *link
                && load.holds(call.at_ns)
                && (self.plan.source_service(&call.source))
                    .is_some_and(|service| service.as_str() == link.to)
        });
        let mut received: BTreeMap<&SourceName, u64> = BTreeMap::new();
        for call in told {
            *received.entry(&call.source).or_default() += 1;
        }
        let (source, received) = received.into_iter().max_by_key(|(_, n)| *n)?;
        let unsure = self.clock_error(source);
        let could_arrive = |call: &&&Call| {
            let ended = call.ended_ns.unwrap_or(u64::MAX);
            call.at_ns < load.to.saturating_add(unsure)
                && ended.saturating_add(BYPASS_GRACE_NS + unsure) >= load.from
        };
        let crossed = self.calls(link).iter().filter(could_arrive).count() as u64;
        (received > crossed).then(|| {
            Gap::new(
                format!(
                    "`{link}` was bypassed: `{source}` tells of {}, {crossed} crossed the link",
                    text::count(received, "call"),
                ),
                format!(
                    "let whoever calls `{}` do so by `$(link:{})`, and let `{source}` tell of \
                     those calls alone",
                    link.to, link.to
                ),
            )
        })
    }

    /// What is missing of the word on a link's calls, and on those that cause them.
    pub(crate) fn demand_gaps(&self, link: &LinkName) -> Vec<Gap> {
        let mut gaps = self.call_gaps(link);
        if self.plan.toxiproxy.is_some() {
            let links = self.plan.system.links.iter();
            let causes = links.filter(|it| it.service.as_str() == link.from);
            gaps.extend(causes.flat_map(|it| self.call_gaps(&it.name)));
        }
        gaps
    }

    /// A service that was started again had forgotten the calls that nobody had read yet.
    fn forgotten(&self, source: &SourceName) -> Option<Gap> {
        let service = self.plan.source_service(source)?;
        let again = |it: &Stamped| {
            matches!(&it.event, Event::ServiceSpawned { service: name, incarnation, .. }
                if *name == service && *incarnation > 1)
        };
        self.evidence.events.iter().any(again).then(|| {
            Gap::new(
                format!(
                    "`{service}` was started again and had forgotten its last calls (`{source}`)"
                ),
                "run it without `--toxiproxy`: then the proxy itself keeps the log",
            )
        })
    }

    /// Who else tells what crossed a link, where the proxy itself does not: for the sentence of a
    /// verdict.
    pub(crate) fn weaker_witness(&self, link: &LinkName) -> String {
        if self.plan.toxiproxy.is_none() {
            return String::new();
        }
        let source = self.plan.call_source(link);
        source.map_or(String::new(), |it| format!(" (weaker witness: {it})"))
    }
}
