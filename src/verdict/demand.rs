//! Demand and attempts on a link: what should have arrived, what did.
//!
//! A_e counts requests that entered the proxy of e, before any toxic. D_e counts requests that
//! arrived at e's caller on its own incoming links, per route, times the calls-per-request ratio
//! of that route: declared (`calls:`), or learnt in warm-up and baseline. A request on e is
//! attributed to the last request of the same trace that had arrived at the caller before it; in a
//! system without traces, all routes share one ratio.
//!
//! Routes that warm-up and baseline never used (refunds) have no ratio. They are left out on both
//! sides: neither their demand nor, where traces tell, the attempts they cause count.

use std::collections::{BTreeMap, HashMap};

use crate::evidence::{Call, CallEnd};
use crate::plan::{FaultEffect, LinkName, ProcessEffect};

use super::context::{Context, Span};

/// Requests that are needed before a ratio means anything.
const LEARN_MIN: usize = 10;

/// Demand and attempts of one link over the whole run, as instants in order.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// When each request arrived at the caller, with how many calls on the link it stands for.
    wanted: Vec<(u64, f64)>,
    /// The same of those that the caller answered.
    answered: Vec<(u64, f64)>,
    /// When each attempt that counts against the demand entered the link.
    attempts: Vec<u64>,
    /// When each attempt entered the link, those of unknown routes included.
    pub(crate) all: Vec<u64>,
    /// Whether anything is known about the demand.
    pub(crate) learnt: bool,
}

impl Demand {
    /// D over a stretch.
    pub(crate) fn wanted(&self, span: Span) -> f64 {
        sum_in(&self.wanted, span)
    }

    /// As much of D as the caller answered, whatever it did on the link.
    pub(crate) fn answered(&self, span: Span) -> f64 {
        sum_in(&self.answered, span)
    }

    /// A over a stretch, as far as it counts against the demand.
    pub(crate) fn attempts(&self, span: Span) -> u64 {
        count_in(&self.attempts, span)
    }

    /// All attempts over a stretch.
    pub(crate) fn entered(&self, span: Span) -> u64 {
        count_in(&self.all, span)
    }

    /// S = 1 − A/D over a stretch, at least 0; none without demand.
    pub(crate) fn suppression(&self, span: Span) -> Option<f64> {
        let wanted = self.wanted(span);
        (wanted > 0.0).then(|| (1.0 - self.attempts(span) as f64 / wanted).max(0.0))
    }
}

fn sum_in(sorted: &[(u64, f64)], span: Span) -> f64 {
    let from = sorted.partition_point(|it| it.0 < span.from);
    let to = sorted.partition_point(|it| it.0 < span.to);
    sorted[from..to.max(from)].iter().map(|it| it.1).sum()
}

fn count_in(sorted: &[u64], span: Span) -> u64 {
    let from = sorted.partition_point(|at| *at < span.from);
    let to = sorted.partition_point(|at| *at < span.to);
    to.saturating_sub(from) as u64
}

impl Context<'_> {
    /// Demand and attempts of a link, the ratio learnt from warm-up and baseline.
    pub(crate) fn demand(&self, link: &LinkName) -> Demand {
        self.demand_learnt_in(link, Span::new(self.warm_up.from, self.baseline.to))
    }

    /// The same with the ratio learnt in one stretch.
    pub(crate) fn demand_learnt_in(&self, link: &LinkName, learn: Span) -> Demand {
        self.demand_among(link, learn, |_| true)
    }

    /// The same of those requests alone that are `among`, and of the calls that they cause.
    pub(crate) fn demand_among(
        &self,
        link: &LinkName,
        learn: Span,
        among: impl Fn(&Call) -> bool,
    ) -> Demand {
        let mut arrivals = self.arrivals(&link.from);
        arrivals.retain(|(_, call)| among(call));
        let causes = Causes::of(&arrivals);
        let calls = self.calls(link).iter().copied();
        let calls: Vec<&Call> = calls.filter(|call| among(call)).collect();
        let routes: Vec<Option<String>> = calls.iter().map(|call| causes.route(call)).collect();
        let ratios = self.ratios(link, &arrivals, &calls, &routes, learn);
        let ratio_of = |route: &str| ratios.get(route).or(ratios.get(ANY)).copied();
        let stands_for = |(route, call): &(String, &Call)| Some((call.at_ns, ratio_of(route)?));
        let wanted = arrivals.iter().filter_map(stands_for).collect();
        let answered = arrivals
            .iter()
            .filter(|(_, call)| call.end == CallEnd::Answered);
        let answered = answered.filter_map(stands_for).collect();
        let counts = |route: &Option<String>| {
            let known = |route: &String| ratio_of(route).is_some();
            route.as_ref().is_none_or(known)
        };
        let attempts = calls
            .iter()
            .zip(&routes)
            .filter(|(_, route)| counts(route))
            .map(|(call, _)| call.at_ns)
            .collect();
        Demand {
            wanted,
            answered,
            attempts,
            all: calls.iter().map(|call| call.at_ns).collect(),
            learnt: !ratios.is_empty(),
        }
    }

    /// Requests that arrived at a service on all its incoming links, with their routes, in order.
    fn arrivals(&self, service: &str) -> Vec<(String, &Call)> {
        let links = self.plan.system.links.iter();
        let mut arrivals: Vec<(String, &Call)> = links
            .filter(|link| link.service.as_str() == service)
            .flat_map(|link| self.calls(&link.name))
            .map(|call| (route(call), *call))
            .collect();
        arrivals.sort_by_key(|(_, call)| call.at_ns);
        arrivals
    }

    /// Calls per request, by route of the caller.
    fn ratios(
        &self,
        link: &LinkName,
        arrivals: &[(String, &Call)],
        calls: &[&Call],
        routes: &[Option<String>],
        learn: Span,
    ) -> BTreeMap<String, f64> {
        let declared = self.plan.link(link).map(|link| &link.calls);
        if let Some(declared) = declared.filter(|it| !it.is_empty()) {
            return declared_ratios(declared, arrivals);
        }
        let mut requests: BTreeMap<&str, u64> = BTreeMap::new();
        for (route, _) in arrivals.iter().filter(|(_, call)| learn.holds(call.at_ns)) {
            *requests.entry(route).or_default() += 1;
        }
        let in_learn = calls.iter().zip(routes);
        let in_learn: Vec<&Option<String>> = in_learn
            .filter(|(call, _)| learn.holds(call.at_ns))
            .map(|(_, route)| route)
            .collect();
        if in_learn.len() < LEARN_MIN {
            return BTreeMap::new();
        }
        let traced = in_learn.iter().filter(|route| route.is_some()).count();
        if traced * 10 < in_learn.len() * 9 {
            let total: u64 = requests.values().sum();
            let ratio = in_learn.len() as f64 / total.max(1) as f64;
            let any = requests.keys().map(|route| ((*route).to_owned(), ratio));
            return if total == 0 {
                BTreeMap::new()
            } else {
                any.collect()
            };
        }
        let mut caused: BTreeMap<&str, u64> = BTreeMap::new();
        for route in in_learn.iter().filter_map(|route| route.as_deref()) {
            *caused.entry(route).or_default() += 1;
        }
        let ratio = |route: &str, n: u64| *caused.get(route).unwrap_or(&0) as f64 / n as f64;
        requests
            .iter()
            .map(|(route, n)| ((*route).to_owned(), ratio(route, *n)))
            .collect()
    }

    /// Whether the caller of a link was down or frozen by one of our faults within a stretch.
    pub(crate) fn caller_away(&self, link: &LinkName, span: Span) -> bool {
        self.faults.values().any(|seen| match &seen.plan.effect {
            FaultEffect::Process { services, effect } => {
                let away = Span::new(seen.asked, seen.on.to + settle_ns(effect));
                services.iter().any(|it| it.as_str() == link.from) && away.overlaps(span)
            }
            FaultEffect::Link { .. } => false,
        })
    }

    /// An incoming link of the caller on which less than half of what was offered arrived.
    pub(crate) fn starved_by(&self, link: &LinkName, span: Span) -> Option<LinkName> {
        let links = self.plan.system.links.iter();
        let mut upstream =
            links.filter(|it| it.service.as_str() == link.from && !it.name.is_load());
        let starved = |name: &LinkName| {
            let demand = self.demand(name);
            let wanted = demand.wanted(span);
            wanted >= 20.0 && (demand.attempts(span) as f64) < wanted / 2.0
        };
        upstream
            .find(|it| starved(&it.name))
            .map(|it| it.name.clone())
    }
}

/// How long after its return a process's demand is not yet the usual.
fn settle_ns(effect: &ProcessEffect) -> u64 {
    match effect {
        ProcessEffect::Pause => 0,
        _ => 1_000_000_000,
    }
}

/// The key of a ratio that holds for every route.
const ANY: &str = "*";

/// Declared ratios: by `POST /path`, by a word of the path, or `*` for every route.
fn declared_ratios(
    declared: &BTreeMap<String, f64>,
    arrivals: &[(String, &Call)],
) -> BTreeMap<String, f64> {
    let mut ratios = BTreeMap::new();
    for (route, _) in arrivals {
        let names = |name: &str| {
            name == ANY || name == route || route.split(['/', ' ']).any(|word| word == name)
        };
        let exact = declared.get(route.as_str());
        let ratio = exact.or_else(|| declared.iter().find(|it| names(it.0)).map(|it| it.1));
        if let Some(ratio) = ratio {
            ratios.insert(route.clone(), *ratio);
        }
    }
    ratios
}

/// Which request at the caller caused a call, by trace.
struct Causes<'a>(HashMap<&'a str, Vec<(u64, &'a str)>>);

impl<'a> Causes<'a> {
    fn of(arrivals: &'a [(String, &'a Call)]) -> Self {
        let mut by_trace: HashMap<&str, Vec<(u64, &str)>> = HashMap::new();
        for (route, call) in arrivals {
            if let Some(trace) = &call.trace {
                by_trace.entry(trace).or_default().push((call.at_ns, route));
            }
        }
        Self(by_trace)
    }

    fn route(&self, call: &Call) -> Option<String> {
        let requests = self.0.get(call.trace.as_deref()?)?;
        let before = requests.partition_point(|(at, _)| *at <= call.at_ns);
        let (_, route) = requests.get(before.checked_sub(1)?)?;
        Some((*route).to_owned())
    }
}

/// The route of a request: its method and its path with what looks like an id left out.
pub(crate) fn route(call: &Call) -> String {
    let words = call.path.split('/').map(|word| {
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let id = word.len() >= 16 || (digits > 0 && (digits * 3 >= word.len() || word.len() >= 8));
        if id && !is_version(word) {
            "{id}"
        } else {
            word
        }
    });
    let path: Vec<&str> = words.collect();
    format!("{} {}", call.method, path.join("/"))
}

/// `v1`, `v2`: part of the route, not an id.
fn is_version(word: &str) -> bool {
    word.strip_prefix('v')
        .is_some_and(|rest| rest.len() <= 2 && rest.chars().all(|c| c.is_ascii_digit()))
}
