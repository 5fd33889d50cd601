//! Journeys made ready to run: templates read once, every substitution checked, feeds indexed.
//!
//! Pure: which journey a ticket takes and which rows it draws are functions of seed and ticket.
//! Running one is `user.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::plan::load::{
    Capture, FeedEnd, FeedOrder, FeedPlan, FeedRow, OutcomeMap, Request, Until,
};
use crate::plan::{JourneyPlan, StepPlan, Symbol, Template};

use super::draw::{self, Stream};
use super::http::Target;
use super::render::{Bind, JsonTemplate};
use super::wire::Assignment;

/// Everything a ticket needs.
#[derive(Debug)]
pub(crate) struct Journeys {
    seed: u64,
    symbols: BTreeMap<String, Value>,
    feeds: Vec<FeedPlan>,
    pub(crate) journeys: Vec<Journey>,
    /// Where the journeys go; a user holds one connection to each.
    pub(crate) targets: Vec<Target>,
}

/// A journey.
#[derive(Debug)]
pub(crate) struct Journey {
    pub(crate) name: String,
    weight: f64,
    /// Index into [`Journeys::targets`].
    pub(crate) target: usize,
    pub(crate) steps: Vec<Step>,
}

/// A step of a journey.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) think: Duration,
    pub(crate) method: Method,
    pub(crate) path: Template,
    pub(crate) headers: Vec<(HeaderName, Header)>,
    pub(crate) json: Option<JsonTemplate>,
    pub(crate) outcome: OutcomeMap,
    pub(crate) capture: Vec<Capture>,
    pub(crate) until: Option<Until>,
}

/// The value of a header.
#[derive(Debug)]
pub(crate) enum Header {
    Constant(HeaderValue),
    Rendered(Template),
}

impl Journeys {
    /// Reads an assignment; the error is a phrase about what makes it impossible.
    pub(crate) fn new(assignment: &Assignment) -> Result<Self, String> {
        let load = &assignment.load;
        let mut links = Vec::new();
        let mut targets = Vec::new();
        let mut journeys = Vec::new();
        for plan in &load.journeys {
            let target = match links.iter().position(|link| link == &plan.link) {
                Some(known) => known,
                None => {
                    let url = assignment.targets.get(&plan.link);
                    let url = url.ok_or_else(|| format!("no address for `{}`", plan.link))?;
                    targets.push(Target::parse(url)?);
                    links.push(plan.link.clone());
                    targets.len() - 1
                }
            };
            let check = Check {
                assignment,
                captured: BTreeSet::new(),
            };
            journeys.push(journey(plan, target, check)?);
        }
        if !journeys.iter().any(|journey| journey.weight > 0.0) {
            return Err("no journey has a weight".into());
        }
        Ok(Self {
            seed: assignment.seed,
            symbols: assignment.symbols.clone(),
            feeds: load.feeds.clone(),
            journeys,
            targets,
        })
    }

    /// How many tickets there are before a feed that stops the load is used up.
    pub(crate) fn tickets_max(&self) -> u64 {
        let stops = self.feeds.iter().filter(|feed| {
            feed.order == FeedOrder::Sequence
                && feed.at_end == FeedEnd::Stop
                && self.uses(feed.name.as_str())
        });
        stops
            .map(|feed| feed.rows.len() as u64)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn uses(&self, name: &str) -> bool {
        let mut steps = self.journeys.iter().flat_map(|journey| &journey.steps);
        steps.any(|step| {
            step.symbols()
                .iter()
                .any(|symbol| matches!(symbol, Symbol::Pick { feed, .. } if feed == name))
        })
    }

    /// Which journey a ticket takes: an index into [`Journeys::journeys`].
    pub(crate) fn of_ticket(&self, ticket: u64) -> usize {
        if self.journeys.len() == 1 {
            return 0;
        }
        let mut generator = draw::generator(self.seed, Stream::Journeys, ticket);
        let weights = self.journeys.iter().map(|journey| journey.weight);
        draw::weighted(&mut generator, weights)
    }

    /// What the substitutions of a ticket stand for, before anything is captured.
    pub(crate) fn values(&self, ticket: u64) -> Values<'_> {
        Values {
            journeys: self,
            ticket,
            key: draw::key(self.seed, ticket).into(),
            captured: BTreeMap::new(),
        }
    }

    /// The trace id of a step of a ticket.
    pub(crate) fn trace(&self, ticket: u64, step: usize) -> String {
        draw::trace(self.seed, ticket, step)
    }

    fn pick(&self, ticket: u64, name: &str, field: Option<&str>) -> Option<Value> {
        let (index, feed) = self
            .feeds
            .iter()
            .enumerate()
            .find(|(_, feed)| feed.name.as_str() == name)?;
        let length = feed.rows.len() as u64;
        let row = match feed.order {
            FeedOrder::Sequence => ticket.checked_rem(length)?,
            FeedOrder::Random => {
                use rand_chacha::rand_core::Rng as _;
                let mut generator = draw::generator(self.seed, Stream::Feeds, ticket);
                generator.set_word_pos(index as u128 * 2);
                generator.next_u64().checked_rem(length)?
            }
        };
        match (&feed.rows[row as usize], field) {
            (FeedRow::Plain(value), None) => Some(value.clone()),
            (FeedRow::Fields(fields), Some(field)) => fields.get(field).cloned(),
            _ => None,
        }
    }
}

impl Journey {
    /// The longest it can take from its ticket, when a request may take `timeout`.
    pub(crate) fn bound(&self, timeout: Duration) -> Duration {
        let step = |step: &Step| step.think + step.until.as_ref().map_or(timeout, |u| u.within);
        self.steps.iter().map(step).sum()
    }
}

/// What the substitutions of one ticket stand for.
#[derive(Debug)]
pub(crate) struct Values<'j> {
    journeys: &'j Journeys,
    ticket: u64,
    pub(crate) key: Arc<str>,
    pub(crate) captured: BTreeMap<String, Value>,
}

impl Bind for Values<'_> {
    fn value(&self, symbol: &Symbol) -> Option<Value> {
        match symbol {
            Symbol::Key => Some(Value::String(self.key.to_string())),
            Symbol::Pick { feed, field } => self.journeys.pick(self.ticket, feed, field.as_deref()),
            Symbol::Captured(name) => self.captured.get(name).cloned(),
            run => self.journeys.symbols.get(&run.to_string()).cloned(),
        }
    }
}

impl Step {
    fn symbols(&self) -> Vec<&Symbol> {
        let headers = self.headers.iter().flat_map(|(_, value)| match value {
            Header::Rendered(template) => template.symbols().collect(),
            Header::Constant(_) => Vec::new(),
        });
        let body = self.json.iter().flat_map(JsonTemplate::symbols);
        self.path.symbols().chain(headers).chain(body).collect()
    }

    /// Whether the answer's body is looked into.
    pub(crate) fn reads_body(&self) -> bool {
        self.until.is_some() || self.outcome.body_null.is_some() || !self.capture.is_empty()
    }
}

/// What a journey's substitutions are checked against.
struct Check<'a> {
    assignment: &'a Assignment,
    captured: BTreeSet<String>,
}

impl Check<'_> {
    fn bound(&self, symbol: &Symbol) -> Result<(), String> {
        let bound = match symbol {
            Symbol::Key => true,
            Symbol::Pick { feed, .. } => {
                let feeds = &self.assignment.load.feeds;
                let feed = feeds.iter().find(|plan| plan.name.as_str() == feed);
                if feed.is_some_and(|feed| feed.rows.is_empty()) {
                    return Err(format!("`$({symbol})` draws from a feed without rows"));
                }
                feed.is_some()
            }
            Symbol::Captured(name) => self.captured.contains(name),
            run => self.assignment.symbols.contains_key(&run.to_string()),
        };
        match bound {
            true => Ok(()),
            false => Err(format!("nothing binds `$({symbol})`")),
        }
    }
}

fn journey(plan: &JourneyPlan, target: usize, mut check: Check<'_>) -> Result<Journey, String> {
    if plan.steps.is_empty() {
        return Err(format!("journey `{}` has no steps", plan.name));
    }
    let mut steps = Vec::with_capacity(plan.steps.len());
    for step_plan in &plan.steps {
        let at = |why| format!("step `{}` of `{}`: {why}", step_plan.name, plan.name);
        let step = step(step_plan).map_err(at)?;
        for symbol in step.symbols() {
            check.bound(symbol).map_err(at)?;
        }
        check
            .captured
            .extend(step.capture.iter().map(|capture| capture.name.clone()));
        steps.push(step);
    }
    Ok(Journey {
        name: plan.name.as_str().to_owned(),
        weight: plan.weight,
        target,
        steps,
    })
}

fn step(plan: &StepPlan) -> Result<Step, String> {
    let Request {
        method,
        path,
        headers,
        json,
    } = &plan.request;
    Ok(Step {
        name: plan.name.as_str().to_owned(),
        think: plan.think,
        method: method
            .parse()
            .map_err(|_| format!("`{method}` is no method"))?,
        path: path.clone(),
        headers: headers
            .iter()
            .map(|(name, value)| header(name, value))
            .collect::<Result<_, _>>()?,
        json: json.as_ref().map(JsonTemplate::parse).transpose()?,
        outcome: plan.outcome.clone(),
        capture: plan.capture.clone(),
        until: plan.until.clone(),
    })
}

fn header(name: &str, template: &Template) -> Result<(HeaderName, Header), String> {
    let parsed = name
        .parse()
        .map_err(|_| format!("`{name}` is no header name"))?;
    if template.symbols().next().is_some() {
        return Ok((parsed, Header::Rendered(template.clone())));
    }
    let text = template.render(|_| Err(String::new()))?;
    let value = HeaderValue::from_str(&text);
    let value = value.map_err(|_| format!("header `{name}` has a value that cannot be sent"))?;
    Ok((parsed, Header::Constant(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing;
    use crate::plan::FeedName;
    use serde_json::json;

    fn feed(name: &str, order: FeedOrder, at_end: FeedEnd) -> FeedPlan {
        FeedPlan {
            name: FeedName::new(name),
            rows: ["a", "b", "c"].map(|row| FeedRow::Plain(json!(row))).into(),
            order,
            at_end,
        }
    }

    fn picking(feeds: Vec<FeedPlan>) -> Assignment {
        let mut assignment = testing::assignment("http://127.0.0.1:1");
        assignment.load.feeds = feeds;
        let mut step = testing::get("browse", "/$(pick:one)/$(pick:two)");
        step.request.headers = vec![("X-Key".into(), Template::parse("$(key)").unwrap())];
        assignment.load.journeys = vec![testing::journey("browsing", vec![step])];
        assignment
    }

    #[test]
    fn rows_are_functions_of_the_ticket() {
        let feeds = vec![
            feed("one", FeedOrder::Sequence, FeedEnd::Restart),
            feed("two", FeedOrder::Random, FeedEnd::Restart),
        ];
        let journeys = Journeys::new(&picking(feeds)).unwrap();
        let drawn: Vec<_> = (0..6).map(|k| journeys.pick(k, "one", None)).collect();
        assert_eq!(drawn[..3], drawn[3..]);
        assert_eq!(drawn[1], Some(json!("b")));
        for ticket in 0..20 {
            let draw = || journeys.pick(ticket, "two", None);
            assert_eq!(draw(), draw());
        }
        let distinct: BTreeSet<_> = (0..50)
            .map(|ticket| journeys.pick(ticket, "two", None).unwrap().to_string())
            .collect();
        assert_eq!(distinct.len(), 3);
        assert_eq!(journeys.tickets_max(), u64::MAX);
    }

    #[test]
    fn a_sequence_that_stops_bounds_the_tickets_only_where_it_is_used() {
        let feeds = vec![
            feed("one", FeedOrder::Sequence, FeedEnd::Stop),
            feed("two", FeedOrder::Random, FeedEnd::Restart),
            feed("unused", FeedOrder::Sequence, FeedEnd::Stop),
        ];
        assert_eq!(Journeys::new(&picking(feeds)).unwrap().tickets_max(), 3);
    }

    #[test]
    fn what_nothing_binds_is_refused_before_the_load_begins() {
        let error = Journeys::new(&picking(Vec::new())).unwrap_err();
        assert!(
            error.contains("`browse`") && error.contains("$(pick:one)"),
            "{error}"
        );

        let mut empty = feed("one", FeedOrder::Sequence, FeedEnd::Restart);
        empty.rows.clear();
        let error = Journeys::new(&picking(vec![empty])).unwrap_err();
        assert!(error.contains("without rows"), "{error}");

        let mut assignment = testing::assignment("http://127.0.0.1:1");
        let step = testing::get("see", "/$(order)");
        assignment.load.journeys = vec![testing::journey("seeing", vec![step])];
        let error = Journeys::new(&assignment).unwrap_err();
        assert!(error.contains("nothing binds `$(order)`"), "{error}");

        assignment.targets.clear();
        assert!(
            Journeys::new(&assignment)
                .unwrap_err()
                .contains("load -> gateway")
        );
    }
}
