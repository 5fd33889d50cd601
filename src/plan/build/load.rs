//! Load: which journeys, how many per second, how many users that takes.

use std::time::Duration;

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::load::{LoadModel, Segment, USERS_MAX, Until};
use crate::plan::{Arrivals, JourneyPlan, LoadPlan, StepPlan};
use crate::scenario::scenario_file::{ArrivalsFile, LoadFile};
use crate::scenario::text::{Short, Spanned, Text};

use super::Builder;

/// Bound of one request when the scenario says none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The first poll of an `until` step comes after this, each further one after twice the pause.
const POLL_FIRST: Duration = Duration::from_millis(250);
const POLL_LAST: Duration = Duration::from_secs(1);
/// Above this many journeys per second a scenario is a mistake.
const RATE_MAX: f64 = 100_000.0;

impl Builder<'_> {
    pub(super) fn load(&mut self) -> LoadPlan {
        let load = &self.scenario_file().load;
        let file = &load.value;
        let timeout = self.time_or(file.timeout.as_ref(), TIMEOUT_DEFAULT);
        if let Some(written) = file.timeout.as_ref().filter(|_| timeout.is_zero()) {
            self.mistake(meaning::out_of_range(
                written.0.span,
                "a time-out",
                "above 0s",
            ));
        }
        let journeys = self.journeys(load.span);
        let model = self.model(file, load.span);
        let (per_journey, requests) = demand(&journeys, timeout);
        let (users_max, rate) = match &model {
            LoadModel::Open(arrivals) => {
                let rate = peak(arrivals);
                (
                    ((rate * per_journey).ceil() as u32).clamp(1, USERS_MAX),
                    rate,
                )
            }
            LoadModel::Closed { users, .. } => (*users, f64::NAN),
        };
        let requests_per_s = match rate.is_nan() {
            true => (0.0, 0.0),
            false => (rate * requests.0, rate * requests.1),
        };
        LoadPlan {
            model,
            users_max,
            timeout,
            journeys,
            feeds: self.feeds(),
            requests_per_s,
        }
    }

    fn model(&mut self, file: &LoadFile, span: Span) -> LoadModel {
        let keys = [
            ("arrivals", file.arrivals.is_some()),
            ("users", file.users.is_some()),
        ];
        self.choose(span, "the load", &keys);
        if let Some(users) = &file.users {
            if !(1..=USERS_MAX).contains(&users.value.count) {
                let allowed = format!("from 1 to {USERS_MAX}");
                self.mistake(meaning::out_of_range(
                    users.span,
                    "the number of users",
                    &allowed,
                ));
            }
            return LoadModel::Closed {
                users: users.value.count,
                think: self.time_or(users.value.think.as_ref(), Duration::ZERO),
            };
        }
        let none = Arrivals {
            poisson: false,
            segments: Vec::new(),
        };
        LoadModel::Open(match &file.arrivals {
            Some(arrivals) => self.arrivals(arrivals),
            None => none,
        })
    }

    fn arrivals(&mut self, arrivals: &Spanned<Short<ArrivalsFile>>) -> Arrivals {
        let constant = |rate: f64| Segment {
            from_per_s: rate,
            to_per_s: rate,
            over: Duration::ZERO,
        };
        match &arrivals.value {
            Short::Short(text) => {
                let text = Text {
                    value: text.clone(),
                    span: arrivals.span,
                };
                let rate = self.arrival_rate(&text);
                Arrivals {
                    poisson: false,
                    segments: vec![constant(rate)],
                }
            }
            Short::Full(file) => {
                let keys = [
                    ("poisson", file.poisson.is_some()),
                    ("ramp", file.ramp.is_some()),
                ];
                self.choose(arrivals.span, "`arrivals`", &keys);
                if let Some(rate) = &file.poisson {
                    let rate = self.arrival_rate(&rate.0);
                    return Arrivals {
                        poisson: true,
                        segments: vec![constant(rate)],
                    };
                }
                let mut segments: Vec<Segment> = Vec::new();
                for stretch in file.ramp.iter().flatten() {
                    let from_per_s = segments.last().map_or(0.0, |last| last.to_per_s);
                    let to_per_s = self.arrival_rate(&stretch.to.0);
                    let over = self.time(&stretch.over);
                    segments.push(Segment {
                        from_per_s,
                        to_per_s,
                        over,
                    });
                }
                // The last rate stays to the end of the load.
                segments.extend(segments.last().copied().map(|last| constant(last.to_per_s)));
                Arrivals {
                    poisson: false,
                    segments,
                }
            }
        }
    }

    fn arrival_rate(&mut self, text: &Text) -> f64 {
        let before = self.mistakes.len();
        let rate = self.rate(&crate::scenario::text::Rate(text.clone()));
        if self.mistakes.len() == before && !(rate > 0.0 && rate <= RATE_MAX) {
            let allowed = "above 0/s and up to 100000/s";
            self.mistake(meaning::out_of_range(text.span, "the rate", allowed));
        }
        rate
    }

    /// The journeys that are driven, in the order of the system file.
    fn journeys(&mut self, span: Span) -> Vec<JourneyPlan> {
        let declared = &self.system_file().journeys;
        let driven = &self.scenario_file().load.value.journeys;
        if driven.is_empty() {
            self.mistake(meaning::out_of_range(span, "`journeys`", "at least one"));
        }
        for (name, weight) in driven.iter() {
            if declared.get(&name.value).is_none() {
                let names = declared.names();
                self.mistake(meaning::unknown(
                    Noun::Journey,
                    name.span,
                    &name.value,
                    names,
                ));
            }
            if !(weight.value > 0.0 && weight.value.is_finite()) {
                self.mistake(meaning::out_of_range(weight.span, "a weight", "above 0"));
            }
        }
        let all: Vec<JourneyPlan> = declared
            .iter()
            .map(|(name, journey)| self.journey(name, journey))
            .collect();
        self.check_operations_unique();
        all.into_iter()
            .filter_map(|mut journey| {
                journey.weight = driven.get(journey.name.as_str())?.value;
                Some(journey)
            })
            .collect()
    }
}

/// Seconds of a user and requests (fewest, most) that one journey takes, on the average of weights.
fn demand(journeys: &[JourneyPlan], timeout: Duration) -> (f64, (f64, f64)) {
    let weights: f64 = journeys.iter().map(|journey| journey.weight).sum();
    let mut seconds = 0.0;
    let mut requests = (0.0, 0.0);
    for journey in journeys {
        let share = journey.weight / weights;
        for step in &journey.steps {
            seconds += share * (step.think + step_bound(step, timeout)).as_secs_f64();
            requests.0 += share;
            requests.1 += share * step.until.as_ref().map_or(1.0, polls);
        }
    }
    (seconds, requests)
}

/// How long a step can last: the time-out, and an `until` its own bound before its last request.
pub(super) fn step_bound(step: &StepPlan, timeout: Duration) -> Duration {
    match &step.until {
        Some(until) => until.within + timeout,
        None => timeout,
    }
}

/// Requests that an `until` makes when it never comes true.
fn polls(until: &Until) -> f64 {
    let (mut at, mut pause, mut count) = (POLL_FIRST, POLL_FIRST, 0u32);
    while at <= until.within && count < 100_000 {
        count += 1;
        pause = (pause * 2).min(POLL_LAST);
        at += pause;
    }
    f64::from(count.max(1))
}

/// The highest rate of a schedule.
fn peak(arrivals: &Arrivals) -> f64 {
    let rates = arrivals.segments.iter();
    rates
        .flat_map(|segment| [segment.from_per_s, segment.to_per_s])
        .fold(0.0, f64::max)
}
