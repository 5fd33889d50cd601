//! Journeys and setup: steps in order, with what they may refer to.

use crate::diagnostic::meaning::{self, Noun};
use crate::plan::load::{Capture, JsonPath, Until};
use crate::plan::system::SetupPlan;
use crate::plan::{
    FeedName, JourneyName, JourneyPlan, LOAD, LinkName, OperationName, PortName, ServiceName,
    StepPlan,
};
use crate::scenario::system_file::{CaptureFile, JourneyFile, SetupFile, StepFile, UntilFile};
use crate::scenario::text::{Map, Spanned, Text};

use super::Builder;
use super::templates::Scope;

impl Builder<'_> {
    pub(super) fn journey(&mut self, name: &Text, journey: &Spanned<JourneyFile>) -> JourneyPlan {
        let file = &journey.value;
        let target = self.address(&file.target.value, file.target.span);
        if file.steps.is_empty() {
            let what = "the steps of a journey";
            self.mistake(meaning::out_of_range(name.span, what, "at least one"));
        }
        let mut captured: Vec<String> = Vec::new();
        let mut steps = Vec::new();
        for (index, step) in file.steps.iter().enumerate() {
            let later: Vec<(String, String)> = file.steps[index..]
                .iter()
                .flat_map(|later| {
                    let step = &later.value.name.value;
                    let names = later.value.capture.names();
                    names.map(|name| (name.to_owned(), step.clone()))
                })
                .collect();
            steps.push(self.step(&step.value, &captured, &later));
            captured.extend(step.value.capture.names().map(str::to_owned));
        }
        JourneyPlan {
            name: JourneyName::new(&name.value),
            source: self.source(name.span),
            weight: 0.0,
            link: LinkName::new(LOAD, target.map(|(service, _)| service).unwrap_or_default()),
            steps,
        }
    }

    fn step(
        &mut self,
        file: &StepFile,
        captured: &[String],
        later: &[(String, String)],
    ) -> StepPlan {
        let scope = Scope::Journey { captured, later };
        let think = file.think.as_ref().map(|think| self.time(think));
        StepPlan {
            name: OperationName::new(&file.name.value),
            think: think.unwrap_or_default(),
            request: self.request(&file.request, file.name.span, scope),
            outcome: self.outcome(&file.outcome),
            capture: self.captures(&file.capture),
            until: file.until.as_ref().map(|until| self.until(&until.value)),
        }
    }

    fn until(&mut self, file: &UntilFile) -> Until {
        let within = self.time(&file.within);
        if within.is_zero() {
            let span = file.within.0.span;
            self.mistake(meaning::out_of_range(span, "`within`", "above 0s"));
        }
        Until {
            json: self.json_path(&file.json),
            values: file.values.iter().map(|value| value.0.clone()).collect(),
            within,
        }
    }

    fn captures(&mut self, captures: &Map<CaptureFile>) -> Vec<Capture> {
        let fixed = ["key", "data", "chaos", "otlp", "cursor"];
        let mut plans = Vec::new();
        for (name, capture) in captures.iter() {
            if fixed.contains(&name.value.as_str()) {
                let why = format!("`$({})` means something else", name.value);
                self.mistake(meaning::bad_name(name.span, &name.value, &why));
            }
            plans.push(Capture {
                name: name.value.clone(),
                json: self.json_path(&capture.json),
            });
        }
        plans
    }

    pub(super) fn json_path(&mut self, path: &Text) -> JsonPath {
        JsonPath::parse(&path.value).unwrap_or_else(|why| {
            self.mistake(meaning::bad_path(path.span, &why));
            JsonPath::parse(".").unwrap_or_else(|_| unreachable!("`.` is a path"))
        })
    }

    /// An operation is known by its step's name alone, so it must be the only one of that name.
    pub(super) fn check_operations_unique(&mut self) {
        let mut seen: Vec<&str> = Vec::new();
        for (_, journey) in self.system_file().journeys.iter() {
            for step in &journey.value.steps {
                let name = &step.value.name;
                if seen.contains(&name.value.as_str()) {
                    let mistake = meaning::duplicate_name(Noun::Operation, name.span, &name.value);
                    self.mistake(mistake);
                }
                seen.push(&name.value);
            }
        }
    }

    pub(super) fn setup(&mut self) -> Vec<SetupPlan> {
        let requests = self.system_file().setup.iter();
        requests
            .filter_map(|request| self.setup_request(request))
            .collect()
    }

    fn setup_request(&mut self, setup: &Spanned<SetupFile>) -> Option<SetupPlan> {
        let file = &setup.value;
        let scope = Scope::Journey {
            captured: &[],
            later: &[],
        };
        let request = self.request(&file.request, setup.span, scope);
        let feeds = &self.system_file().feeds;
        if let Some(feed) = &file.into_feed
            && feeds.get(&feed.value).is_none()
        {
            self.mistake(meaning::unknown(
                Noun::Feed,
                feed.span,
                &feed.value,
                feeds.names(),
            ));
        }
        let repeat = file.repeat.unwrap_or(1);
        if !(1..=10_000).contains(&repeat) {
            self.mistake(meaning::out_of_range(
                setup.span,
                "`repeat`",
                "from 1 to 10000",
            ));
        }
        let capture = self.captures(&file.capture);
        let (service, port) = self.address(&file.target.value, file.target.span)?;
        Some(SetupPlan {
            source: self.source(setup.span),
            service: ServiceName::new(service),
            port: PortName::new(port),
            repeat,
            request,
            capture,
            into_feed: file
                .into_feed
                .as_ref()
                .map(|feed| FeedName::new(&feed.value)),
        })
    }
}
