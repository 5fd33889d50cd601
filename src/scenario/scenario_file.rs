//! The scenario file: what happens, what must hold.
//!
//! The doc comment of every key is what editors show, by way of the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::fault_file::FaultFile;
use super::property_file::ExpectFile;
use super::text::{Map, Rate, Short, Spanned, Text, Time};

/// What happens to a system, and what must hold meanwhile and afterwards.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScenarioFile {
    /// The scenario's name.
    pub name: Text,
    /// One line of what happens.
    #[serde(default)]
    pub about: Option<Text>,
    /// The system file, relative to this one.
    pub system: Text,
    /// Everything random is drawn from it; default 1. `--seed` wins.
    #[serde(default)]
    pub seed: Option<u64>,
    /// What is driven against the system.
    pub load: Spanned<LoadFile>,
    /// How long the parts of the run last.
    pub phases: Spanned<PhasesFile>,
    /// What is broken, and when.
    #[serde(default)]
    pub faults: Map<Spanned<FaultFile>>,
    /// What must hold. `stays-up` is always judged.
    pub expect: Map<Spanned<ExpectFile>>,
}

/// What is driven against the system: `arrivals` (open model) or `users` (closed model).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoadFile {
    /// Journeys of the system file with their weights.
    pub journeys: Map<Spanned<f64>>,
    /// Open model: journeys per second, whatever the system does. `40/s`, `{ poisson: 40/s }` or
    /// `{ ramp: [{ to: 100/s, over: 30s }] }`.
    #[serde(default)]
    pub arrivals: Option<Spanned<Short<ArrivalsFile>>>,
    /// Closed model: a number of users in a loop. Under-counts stalls, and is labelled so.
    #[serde(default)]
    pub users: Option<Spanned<UsersFile>>,
    /// Bound of one request; default 5s.
    #[serde(default)]
    pub timeout: Option<Time>,
}

/// Arrivals that are not evenly spaced at one rate: one of `poisson`, `ramp`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ArrivalsFile {
    /// Seeded Poisson arrivals at this rate.
    #[serde(default)]
    pub poisson: Option<Rate>,
    /// Rates that change linearly, one stretch after the other; the last rate stays.
    #[serde(default)]
    pub ramp: Option<Vec<RampFile>>,
}

/// A stretch of a ramp.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RampFile {
    /// The rate at its end.
    pub to: Rate,
    /// How long it lasts.
    pub over: Time,
}

/// Users in a loop.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UsersFile {
    /// How many.
    pub count: u32,
    /// Their pause between two journeys.
    #[serde(default)]
    pub think: Option<Time>,
}

/// How long the parts of a run last. The faults decide what lies between baseline and recovery.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PhasesFile {
    /// Load without judgement; default 5s.
    #[serde(default)]
    pub warm_up: Option<Time>,
    /// What everything is compared with.
    pub baseline: Time,
    /// Load after the last fault has ended.
    #[serde(default)]
    pub recovery: Option<Time>,
    /// The wait for work in flight, after the load has stopped.
    #[serde(default)]
    pub drain: Option<DrainFile>,
}

/// The wait for work in flight.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DrainFile {
    /// How long it may take.
    pub within: Time,
    /// For how long every backlog must be zero; default 2s.
    #[serde(default)]
    pub quiet: Option<Time>,
}
