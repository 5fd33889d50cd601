//! `events`: nothing committed is lost, nothing is made up, nothing is applied twice.
//!
//! Per consumer, with C committed events that match its patterns, U those that may have been
//! committed, E effects, V deliveries and Q dead letters:
//! - *lost* = C ∖ (E ∪ Q); *phantom* = E ∖ (C ∪ U); *applied twice* = {x : E(x) > 1};
//! - *unknown is atomic*: where U lists operations and C is what a service stored, C decides: an
//!   effect of U without its event is half of an operation, and a phantom;
//! - *dead letters*: within budget, Q ∩ E = ∅; *order*: versions of a key strictly rise in E;
//! - duplicate deliveries are legal, and counted.
//!
//! What is still missing when a drain ran out of time is a failure of this property. A phantom is
//! one without a drain only where effects were read before commits, or its event may have come
//! between.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::evidence::{Effect, EventRecord};
use crate::plan::property::{ConsumerEvidence, Events};
use crate::plan::{ConsumerName, Fetch, SourceName};

use super::Status;
use super::case::{Case, Gap};
use super::context::Context;
use super::text;

pub(crate) fn check(context: &Context<'_>, property: &Events) -> Case {
    let mut case = Case::new("events");
    context.expect_exercised(&mut case);
    let faults = context.plan.faults.iter();
    case.missing_all(faults.flat_map(|fault| context.fault_gaps(fault, None)));
    let committed = Committed::of(context, property);
    case.n = committed.by_id.len() as u64;
    case.missing_all(committed.lost.clone());
    let dead = property.dead_letter_evidence.as_ref();
    case.missing_all(dead.and_then(|name| context.source_gap(name)));
    if committed.by_id.is_empty() {
        case.blocked(Gap::new(
            format!("evidence `{}` holds no committed event", property.committed),
            "drive load that commits events, or repair its query",
        ));
        return case;
    }
    let mut sums = Sums::default();
    for (name, consumer) in &property.consumers {
        let seen = Consumer::of(context, property, name, consumer);
        seen.judge(&mut case, &committed, &mut sums);
    }
    judge_drain(context, &mut case, property, &sums);
    judge_sums(context, &mut case, property, &committed, &sums);
    judge_ids(&mut case, &committed);
    case
}

/// C and U.
struct Committed<'a> {
    by_id: BTreeMap<&'a str, &'a EventRecord>,
    clashes: Vec<&'a EventRecord>,
    unknown: HashSet<&'a str>,
    /// Whether an unknown operation that happened has its event among those of `by_id`.
    decides: bool,
    lost: Option<Gap>,
    unknown_lost: Option<Gap>,
}

impl<'a> Committed<'a> {
    fn of(context: &'a Context<'_>, property: &Events) -> Self {
        let (mut by_id, mut clashes) = (BTreeMap::<&str, &EventRecord>::new(), Vec::new());
        let mut unknown = HashSet::new();
        for it in &context.evidence.committed {
            if it.source == property.committed {
                let known = by_id.entry(&it.id).or_insert(it);
                if known.key != it.key || known.version != it.version {
                    clashes.push(it);
                }
            }
            if Some(&it.source) == property.unknown.as_ref() {
                unknown.extend([it.id.as_str(), it.key.as_str()]);
            }
        }
        let told_by_load = property.unknown.as_ref();
        let told_by_load = told_by_load.is_some_and(|name| is_operations(context, name));
        Self {
            by_id,
            clashes,
            unknown,
            decides: told_by_load && !is_operations(context, &property.committed),
            lost: context.source_gap(&property.committed),
            unknown_lost: property
                .unknown
                .as_ref()
                .filter(|name| !is_operations(context, name))
                .and_then(|name| context.source_gap(name)),
        }
    }

    /// Whether the event of an effect was committed, or may have been.
    fn knows(&self, effect: &Effect) -> bool {
        self.by_id.contains_key(effect.event.as_str()) || (!self.decides && self.is_unknown(effect))
    }

    /// Whether it is of an event that may have been committed.
    fn is_unknown(&self, effect: &Effect) -> bool {
        let key = effect.key.as_deref();
        self.unknown.contains(effect.event.as_str())
            || key.is_some_and(|key| self.unknown.contains(key))
    }
}

fn is_operations(context: &Context<'_>, name: &SourceName) -> bool {
    let source = context.plan.source(name);
    source.is_some_and(|it| matches!(it.fetch, Fetch::Operations { .. }))
}

/// Why an event that a source of effects knows may have been committed after the committed ones
/// were read.
fn may_come_between(context: &Context<'_>, property: &Events, effects: &SourceName) -> Option<Gap> {
    let undrained = context.drain_gap()?;
    let committing = [Some(&property.committed), property.unknown.as_ref()];
    // The load is over when sources are read.
    let mut committing = committing
        .into_iter()
        .flatten()
        .filter(|name| !is_operations(context, name));
    let early = committing.find(|name| !context.read_before(effects, name))?;
    Some(Gap::new(
        format!("`{early}` was not read after `{effects}`, and events may have come in between"),
        undrained.help,
    ))
}

/// What all consumers came to.
#[derive(Default)]
struct Sums<'a> {
    lost: Vec<(&'a ConsumerName, &'a EventRecord)>,
    lost_gap: Option<Gap>,
    phantom: Vec<(&'a ConsumerName, &'a str)>,
    phantom_gap: Option<Gap>,
    /// Phantoms of operations whose outcome is unknown.
    halves: u64,
    twice: Vec<(&'a ConsumerName, &'a str)>,
    dead: BTreeSet<&'a str>,
    dead_and_applied: Vec<&'a str>,
    backwards: Vec<(&'a ConsumerName, &'a str)>,
    /// Two events of a key with one version.
    repeated: Vec<(&'a ConsumerName, &'a str, u64)>,
    applied: u64,
    redelivered: u64,
    unique_tables: BTreeSet<&'a str>,
    unseen: Vec<&'a ConsumerName>,
    culprits: BTreeSet<String>,
}

impl Sums<'_> {
    /// How many events were lost, each once however many consumers miss it.
    fn lost_events(&self) -> u64 {
        let ids: BTreeSet<&str> = self.lost.iter().map(|(_, it)| it.id.as_str()).collect();
        ids.len() as u64
    }
}

/// E, V and Q of one consumer.
struct Consumer<'a> {
    name: &'a ConsumerName,
    plan: &'a ConsumerEvidence,
    effects: BTreeMap<&'a str, u64>,
    all: Vec<&'a Effect>,
    deliveries: HashMap<&'a str, u64>,
    dead: BTreeSet<&'a str>,
    lost: Option<Gap>,
    between: Option<Gap>,
    is_table: bool,
    service: Option<String>,
}

impl<'a> Consumer<'a> {
    fn of(
        context: &'a Context<'_>,
        property: &'a Events,
        name: &'a ConsumerName,
        plan: &'a ConsumerEvidence,
    ) -> Self {
        let evidence = context.evidence;
        // A row that counts no effect is that of an event which was not applied.
        let own = |it: &&Effect| it.source == plan.effects && it.consumer == *name && it.count > 0;
        let all: Vec<&Effect> = evidence.effects.iter().filter(own).collect();
        let mut effects: BTreeMap<&str, u64> = BTreeMap::new();
        for it in &all {
            *effects.entry(&it.event).or_default() += it.count;
        }
        let mut deliveries: HashMap<&str, u64> = HashMap::new();
        for it in &evidence.deliveries {
            if Some(&it.source) == plan.deliveries.as_ref() && it.consumer == *name {
                *deliveries.entry(&it.event).or_default() += 1;
            }
        }
        let dead_source = property.dead_letter_evidence.as_ref();
        let dead = evidence.dead_letters.iter();
        let dead = dead.filter(|it| Some(&it.source) == dead_source && it.consumer == *name);
        let is_sql = |it: &crate::plan::SourcePlan| matches!(it.fetch, Fetch::Sql { .. });
        Self {
            name,
            plan,
            effects,
            all,
            deliveries,
            dead: dead.map(|it| it.event.as_str()).collect(),
            lost: context.source_gap(&plan.effects),
            between: may_come_between(context, property, &plan.effects),
            is_table: context.plan.source(&plan.effects).is_some_and(is_sql),
            service: context
                .plan
                .source_service(&plan.effects)
                .map(|service| service.to_string()),
        }
    }

    fn judge(&self, case: &mut Case, committed: &Committed<'a>, sums: &mut Sums<'a>) {
        case.missing_all(self.lost.clone());
        let wants = |it: &&&EventRecord| {
            let patterns = &self.plan.patterns;
            patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, &it.kind))
        };
        let wanted: Vec<&EventRecord> = committed.by_id.values().filter(wants).copied().collect();
        if wanted.is_empty() {
            sums.unseen.push(self.name);
        }
        for event in wanted {
            let id = event.id.as_str();
            if !self.effects.contains_key(id) && !self.dead.contains(id) {
                sums.lost.push((self.name, event));
                sums.lost_gap = sums.lost_gap.take().or_else(|| self.lost.clone());
            }
        }
        let before = sums.phantom.len() + sums.twice.len();
        for it in &self.all {
            if !committed.knows(it) {
                sums.phantom.push((self.name, &it.event));
                sums.halves += u64::from(committed.is_unknown(it));
                sums.phantom_gap = sums.phantom_gap.take().or_else(|| self.between.clone());
            }
        }
        let twice = self.effects.iter().filter(|(_, n)| **n > 1);
        sums.twice.extend(twice.map(|(id, _)| (self.name, *id)));
        if sums.phantom.len() + sums.twice.len() > before {
            sums.culprits.extend(self.service.clone());
        }
        let both = self.dead.iter().filter(|id| self.effects.contains_key(*id));
        sums.dead_and_applied.extend(both);
        sums.dead.extend(&self.dead);
        sums.applied += self.effects.len() as u64;
        sums.redelivered += self.deliveries.values().filter(|n| **n > 1).count() as u64;
        if self.is_table {
            sums.unique_tables.insert(self.name.as_str());
        }
        self.judge_order(sums);
    }

    /// Versions of a key rise from event to event, in order of the effects' own times. The same
    /// event again is applied twice, which is another matter.
    fn judge_order(&self, sums: &mut Sums<'a>) {
        let timed = self.all.iter().filter_map(|it| Some((it.at_ns?, *it)));
        let mut timed: Vec<(u64, &Effect)> = timed.collect();
        timed.sort_by_key(|(at, it)| (*at, it.version));
        let mut last: HashMap<&str, (u64, &str)> = HashMap::new();
        for (_, it) in timed {
            let (Some(key), Some(version)) = (it.key.as_deref(), it.version) else {
                continue;
            };
            let (highest, event) = last.entry(key).or_insert((version, &it.event));
            match version.cmp(highest) {
                Ordering::Less => sums.backwards.push((self.name, key)),
                Ordering::Equal if *event != it.event => {
                    sums.repeated.push((self.name, key, version));
                }
                Ordering::Equal => {}
                Ordering::Greater => (*highest, *event) = (version, it.event.as_str()),
            }
        }
    }
}

fn judge_drain(context: &Context<'_>, case: &mut Case, property: &Events, sums: &Sums<'_>) {
    let Some(gap) = context.drain_gap() else {
        return;
    };
    let mut drain = context.drain.iter();
    let ran_out = drain.any(|drain| !drain.drained && !drain.left.is_empty());
    if ran_out && sums.lost_events() > property.lost && sums.lost_gap.is_none() {
        case.violated(format!(
            "not drained in time: {} left, {} still missing",
            context.left(),
            text::count(sums.lost.len() as u64, "effect")
        ));
    }
    case.missing(gap);
}

fn judge_sums(
    context: &Context<'_>,
    case: &mut Case,
    property: &Events,
    committed: &Committed<'_>,
    sums: &Sums<'_>,
) {
    let drain_gap = context.drain_gap();
    let absent = sums.lost_gap.as_ref().or(drain_gap.as_ref());
    if sums.lost_events() > property.lost {
        case.advise("commit the event with the fact in one transaction, and publish it from there");
        case.violated_by_absence(lost_text(context, property, sums), absent);
        let source = context.plan.source_service(&property.committed);
        case.blame(source.map_or(property.committed.to_string(), |it| it.to_string()));
        for (consumer, it) in &sums.lost {
            let text = format!("{} never applied by {consumer}", it.kind);
            case.find(Status::Fail, Some(it.at_ns), &it.key, text);
        }
    }
    if sums.phantom.len() as u64 > property.phantom {
        let gap = committed.lost.as_ref().or(committed.unknown_lost.as_ref());
        let gap = gap.or(sums.phantom_gap.as_ref());
        let mut told = format!(
            "{} of events that were never committed: {}",
            text::count(sums.phantom.len() as u64, "effect"),
            text::some_of(sums.phantom.iter().map(|(_, id)| *id))
        );
        if sums.halves > 0 {
            told.push_str(&format!(
                ", {} of them by operations of unknown outcome, which happened by half",
                sums.halves
            ));
        }
        case.violated_by_absence(told, gap);
    }
    if sums.twice.len() as u64 > property.applied_twice {
        case.violated(format!(
            "{} applied more than once: {}",
            text::count(sums.twice.len() as u64, "event"),
            text::some_of(sums.twice.iter().map(|(_, id)| *id))
        ));
    }
    for (consumer, id) in sums.phantom.iter().chain(&sums.twice) {
        case.find(
            Status::Fail,
            None,
            *id,
            format!("wrongly applied by {consumer}"),
        );
    }
    if sums.dead.len() as u64 > property.dead_letters {
        case.violated(format!(
            "{}, at most {} allowed",
            text::count(sums.dead.len() as u64, "dead letter"),
            property.dead_letters
        ));
    }
    if let Some(id) = sums.dead_and_applied.first() {
        case.violated(format!(
            "event {id} was given up on and applied all the same"
        ));
    }
    if let Some((consumer, key)) = sums.backwards.first() {
        case.violated(format!("{consumer} applied versions of {key} out of order"));
    }
    if let Some((consumer, key, version)) = sums.repeated.first() {
        case.violated(format!(
            "{consumer} applied two events of {key} as version {version}"
        ));
    }
    for culprit in &sums.culprits {
        case.blame(culprit);
    }
    for consumer in &sums.unseen {
        case.missing(Gap::new(
            format!("no committed event was for {consumer}"),
            "drive load that commits events for it, or repair its patterns",
        ));
    }
    tell(case, property, sums);
}

fn lost_text(context: &Context<'_>, property: &Events, sums: &Sums<'_>) -> String {
    let mut per_consumer: BTreeMap<&str, u64> = BTreeMap::new();
    for (consumer, _) in &sums.lost {
        *per_consumer.entry(consumer.as_str()).or_default() += 1;
    }
    let per_consumer: Vec<String> = per_consumer
        .iter()
        .map(|(consumer, n)| format!("{n} by {consumer}"))
        .collect();
    let by = match context.plan.source_service(&property.committed) {
        Some(service) => format!(" by `{service}`"),
        None => String::new(),
    };
    let first = sums.lost.iter().map(|(_, it)| it.at_ns).min().unwrap_or(0);
    format!(
        "{} committed{by} but lost, limit {}: never applied {}; first committed at {}",
        text::count(sums.lost_events(), "event"),
        property.lost,
        text::some_of(per_consumer.iter().map(String::as_str)),
        text::after(first, context.t0)
    )
}

fn tell(case: &mut Case, property: &Events, sums: &Sums<'_>) {
    let lost = sums.lost_events();
    case.value = Some(format!("{} lost", text::count(lost, "event")));
    case.limit = Some(text::count(property.lost, "event"));
    case.measured = format!(
        "{} committed, {} applied by {}, {} lost, {} phantom, {} applied twice, {} dead letters",
        text::count(case.n, "event"),
        sums.applied,
        text::count(property.consumers.len() as u64, "consumer"),
        lost,
        sums.phantom.len(),
        sums.twice.len(),
        sums.dead.len()
    );
    if sums.redelivered > 0 {
        let told = format!(", {} delivered again (legal)", sums.redelivered);
        case.measured.push_str(&told);
    }
    if !sums.unique_tables.is_empty() {
        let names = text::some_of(sums.unique_tables.iter().copied());
        let told =
            format!("; a second effect shows in {names} only if its table admits an event twice");
        case.measured.push_str(&told);
    }
}

/// Two committed events with one id: a consumer that skips known ids drops one of them.
fn judge_ids(case: &mut Case, committed: &Committed<'_>) {
    if let Some(first) = committed.clashes.first() {
        case.violated(format!(
            "{} with the id of another one: {}",
            text::count(committed.clashes.len() as u64, "event"),
            first.id
        ));
    }
}

/// Topic patterns: `*` is one word, `#` any number of words.
fn matches(pattern: &str, topic: &str) -> bool {
    fn words(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                words(rest, topic) || (!topic.is_empty() && words(pattern, &topic[1..]))
            }
            (Some((word, rest)), Some((first, others))) => {
                (*word == "*" || word == first) && words(rest, others)
            }
            _ => false,
        }
    }
    let pattern: Vec<&str> = pattern.split('.').collect();
    let topic: Vec<&str> = topic.split('.').collect();
    words(&pattern, &topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_word_and_a_hash_any_number() {
        assert!(matches("order.*", "order.placed"));
        assert!(!matches("order.*", "order"));
        assert!(!matches("order.*", "order.item.added"));
        assert!(matches("order.#", "order"));
        assert!(matches("order.#", "order.item.added"));
        assert!(matches("#", "anything.at.all"));
        assert!(matches("#.placed", "order.placed"));
        assert!(!matches("payment.*", "order.placed"));
    }
}
