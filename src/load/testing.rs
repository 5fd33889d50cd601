//! Values for the unit tests of this module.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::evidence::{Phase, RunClock};
use crate::plan::load::{Arrivals, LoadModel, LoadPlan, OutcomeMap, Request, Segment, StatusRange};
use crate::plan::{
    JourneyName, JourneyPlan, LinkName, OperationName, SourceRef, StepPlan, Template,
};

use super::wire::{Assignment, PhaseSpan};

pub(crate) fn get(name: &str, path: &str) -> StepPlan {
    StepPlan {
        name: OperationName::new(name),
        think: Duration::ZERO,
        request: Request {
            method: "GET".into(),
            path: Template::parse(path).unwrap(),
            headers: Vec::new(),
            json: None,
        },
        outcome: OutcomeMap {
            done: vec![StatusRange(200, 201)],
            accepted: vec![StatusRange(202, 202)],
            refused: vec![StatusRange(402, 409)],
            body_null: None,
        },
        capture: Vec::new(),
        until: None,
    }
}

pub(crate) fn journey(name: &str, steps: Vec<StepPlan>) -> JourneyPlan {
    JourneyPlan {
        name: JourneyName::new(name),
        source: SourceRef {
            file: "system.yaml".into(),
            line: 1,
            column: 1,
        },
        weight: 1.0,
        link: LinkName::new("load", "gateway"),
        steps,
    }
}

pub(crate) fn assignment(url: &str) -> Assignment {
    Assignment {
        seed: 1,
        load: LoadPlan {
            model: LoadModel::Open(Arrivals {
                poisson: false,
                segments: vec![Segment {
                    from_per_s: 10.0,
                    to_per_s: 10.0,
                    over: Duration::from_secs(1),
                }],
            }),
            users_max: 4,
            timeout: Duration::from_secs(5),
            journeys: vec![journey("browsing", vec![get("browse", "/")])],
            feeds: Vec::new(),
            requests_per_s: (10.0, 10.0),
        },
        targets: BTreeMap::from([(LinkName::new("load", "gateway"), url.to_owned())]),
        symbols: BTreeMap::new(),
        clock: RunClock::start(),
        duration: Duration::from_secs(1),
        phases: vec![PhaseSpan {
            phase: Phase::WarmUp,
            from: Duration::ZERO,
        }],
        worker: 0,
        workers: 1,
        ticket_deadline: Duration::from_secs(5),
        local: false,
    }
}
