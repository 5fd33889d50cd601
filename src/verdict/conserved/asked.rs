//! Over which link a write came twice: where a key that was written too often was asked for.
//!
//! The requests that an operation causes carry its trace. When more than one of them, with one
//! method and path, entered a link to the ledger's service, that link is where the repetition came
//! in.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{LinkName, SourceName};

use super::super::context::Context;

/// The first such link, and how many requests entered it. None where nobody captured or sent the
/// key, or no request shows more than once.
pub(super) fn again<'a>(
    context: &'a Context<'_>,
    ledger: &SourceName,
    key: &str,
) -> Option<(&'a LinkName, usize)> {
    let service = context.plan.source_service(ledger)?;
    let about = context.evidence.operations.iter().filter(|it| {
        let mut captured = it.captured.values().filter_map(|value| value.as_str());
        it.key == key || captured.any(|value| value == key)
    });
    let traces: BTreeSet<&str> = about.map(|it| it.trace.as_str()).collect();
    let links = context.plan.system.links.iter();
    let mut into_ledger = links.filter(|link| link.service == service);
    into_ledger.find_map(|link| {
        let mut requests: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for call in context.calls(&link.name) {
            let writes = !matches!(call.method.as_str(), "GET" | "HEAD");
            if writes && call.trace.as_deref().is_some_and(|it| traces.contains(it)) {
                *requests.entry((&call.method, &call.path)).or_default() += 1;
            }
        }
        let most = requests.into_values().max()?;
        (most > 1).then_some((&link.name, most))
    })
}

/// `; it was asked for 2 times on payments -> psp`.
pub(super) fn told(again: Option<(&LinkName, usize)>) -> String {
    again.map_or(String::new(), |(link, n)| {
        format!("; it was asked for {n} times on {link}")
    })
}
