//! From what the user wrote to what will happen: names resolved, defaults filled, limits set.
//!
//! Every mistake of meaning is noted and building goes on with a harmless value in its place, so
//! that all mistakes are reported at once. Nothing here does I/O, reads a clock, or draws from
//! anything but the seed. Read in the order of [`build`].

mod consistency;
mod evidence;
mod expected;
mod faults;
mod feeds;
mod journeys;
mod links;
mod load;
mod properties;
mod request_faults;
mod requests;
mod resilience;
mod services;
mod templates;
mod traffic;
mod windows;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::meaning::{self, Noun};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::scenario::text::{ByteRate, Rate, Share, Size, Text, Time};
use crate::scenario::{Files, ScenarioFile, SystemFile};

use super::quantity::{self, QuantityError};
use super::{FORMAT_VERSION, Plan, SourceRef, SystemPlan};

/// What the command line and the environment say about a plan.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// `--seed`: instead of the scenario's.
    pub seed: Option<u64>,
    /// `--only`: judge these properties alone (and `stays-up`).
    pub only: Vec<String>,
    /// The environment that `allow-env` may read.
    pub environment: BTreeMap<String, String>,
    /// `--toxiproxy`: the server that the links run through, which must be able to do all faults.
    pub toxiproxy: Option<String>,
    /// What the command line changed in the files, as words of a command.
    pub changes: Vec<String>,
}

/// Builds the plan of a scenario.
///
/// # Errors
///
/// All mistakes of meaning, in the order of the files.
pub fn build(files: &Files, options: &BuildOptions) -> Result<Plan, Diagnostics> {
    let mut builder = Builder {
        files,
        options,
        mistakes: Vec::new(),
    };
    let plan = builder.plan();
    if builder.mistakes.is_empty() {
        return Ok(plan);
    }
    let mut list = builder.mistakes;
    list.sort_by_key(|mistake| mistake.span);
    // A value that is wrong in itself is not also wrong for what it would mean.
    list.dedup_by(|later, first| later.span == first.span);
    Err(Diagnostics {
        sources: files.sources.clone(),
        list,
    })
}

struct Builder<'f> {
    files: &'f Files,
    options: &'f BuildOptions,
    mistakes: Vec<Diagnostic>,
}

impl<'f> Builder<'f> {
    fn plan(&mut self) -> Plan {
        let files = self.files;
        let seed = self.options.seed.or(files.scenario.seed).unwrap_or(1);
        let about = files.scenario.about.as_ref();
        self.refuse_unsupported();
        let load = self.load();
        let system = self.system();
        let (phases, faults) = self.timeline(seed);
        let mut plan = Plan {
            format_version: FORMAT_VERSION,
            chaos_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: files.scenario.name.value.clone(),
            about: about.map(|text| text.value.clone()).unwrap_or_default(),
            scenario_file: files.scenario_name.clone(),
            system_file: files.system_name.clone(),
            seed,
            toxiproxy: self.options.toxiproxy.clone(),
            changes: self.options.changes.clone(),
            system,
            load,
            phases,
            faults,
            properties: Vec::new(),
        };
        self.check_breaker_links(&plan);
        plan.properties = self.properties(&plan);
        plan
    }

    fn system(&mut self) -> SystemPlan {
        let system = self.system_file();
        let folder = std::path::Path::new(&self.files.system_name)
            .parent()
            .map(|folder| folder.display().to_string())
            .unwrap_or_default();
        let environment = self.environment();
        SystemPlan {
            name: system.name.value.clone(),
            folder: if folder.is_empty() {
                ".".into()
            } else {
                folder
            },
            environment,
            services: self.services(),
            links: self.links(),
            databases: self.databases(),
            setup: self.setup(),
            sagas: self.sagas(),
            consumers: self.consumers(),
            evidence: self.evidence(),
            backlogs: self.backlogs(),
        }
    }

    fn refuse_unsupported(&mut self) {
        let system = self.system_file();
        let parts = [
            (&system.external, "services that are only attached to are"),
            (&system.proxies, "proxies that outlive a run are"),
        ];
        for (part, what) in parts {
            if let Some(part) = part {
                self.mistake(meaning::not_supported(part.span, what));
            }
        }
    }

    /// The values of `allow-env`.
    fn environment(&mut self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        for (name, default) in self.system_file().allow_env.iter() {
            let set = self.options.environment.get(&name.value).cloned();
            match set.or_else(|| default.as_ref().map(|default| default.0.clone())) {
                Some(value) => {
                    values.insert(name.value.clone(), value);
                }
                None => self.mistake(meaning::env_not_set(name.span, &name.value)),
            }
        }
        values
    }

    fn system_file(&self) -> &'f SystemFile {
        &self.files.system
    }

    fn scenario_file(&self) -> &'f ScenarioFile {
        &self.files.scenario
    }

    fn mistake(&mut self, mistake: Diagnostic) {
        self.mistakes.push(mistake);
    }

    fn source(&self, span: Span) -> SourceRef {
        let file = self.files.sources.get(span.file);
        SourceRef {
            file: file.map(|file| file.name.clone()).unwrap_or_default(),
            line: span.line,
            column: span.column,
        }
    }

    fn quantity<T: Default>(
        &mut self,
        text: &Text,
        what: &str,
        parse: impl Fn(&str) -> Result<T, QuantityError>,
    ) -> T {
        parse(&text.value).unwrap_or_else(|why| {
            self.mistake(meaning::bad_quantity(text.span, &text.value, what, &why.0));
            T::default()
        })
    }

    fn time(&mut self, time: &Time) -> Duration {
        self.quantity(&time.0, "a duration", quantity::parse_duration)
    }

    fn time_or(&mut self, time: Option<&Time>, default: Duration) -> Duration {
        time.map_or(default, |time| self.time(time))
    }

    fn rate(&mut self, rate: &Rate) -> f64 {
        self.quantity(&rate.0, "a rate", quantity::parse_rate)
    }

    fn share(&mut self, share: &Share) -> f64 {
        self.quantity(&share.0, "a share", quantity::parse_share)
    }

    fn size(&mut self, size: &Size) -> u64 {
        self.quantity(&size.0, "a size", quantity::parse_size)
    }

    fn bandwidth(&mut self, rate: &ByteRate) -> u64 {
        self.quantity(&rate.0, "a bandwidth", quantity::parse_bandwidth)
    }

    /// `service.port`, both of which exist; `None` (and a mistake) otherwise.
    fn address(&mut self, text: &str, span: Span) -> Option<(String, String)> {
        let services = &self.system_file().services;
        let Some((service, port)) = text.split_once('.') else {
            let port = services
                .get(text)
                .and_then(|service| service.value.ports.names().next());
            let example = format!("{text}.{}", port.unwrap_or("http"));
            self.mistake(meaning::bad_address(span, text, &example));
            return None;
        };
        let Some(found) = services.get(service) else {
            self.mistake(meaning::unknown(
                Noun::Service,
                span,
                service,
                services.names(),
            ));
            return None;
        };
        let ports = found.value.ports.names();
        if !ports.clone().any(|name| name == port) {
            self.mistake(meaning::unknown(Noun::Port, span, port, ports));
            return None;
        }
        Some((service.to_owned(), port.to_owned()))
    }

    /// Exactly one of several optional keys; the index of the one, or a mistake.
    fn choose(&mut self, span: Span, what: &str, keys: &[(&str, bool)]) -> Option<usize> {
        let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
        let given = keys.iter().filter(|(_, given)| *given);
        let given: Vec<&str> = given.map(|(name, _)| *name).collect();
        if given.len() != 1 {
            self.mistake(meaning::one_of(span, what, &names, &given));
        }
        keys.iter().position(|(_, given)| *given)
    }
}
