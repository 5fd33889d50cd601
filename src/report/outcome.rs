//! `outcome.json`: how the run ended and every verdict, for machines. Its JSON Schema is committed
//! as `schema/outcome.schema.json`.
//!
//! The types here mirror those of `verdict/` on purpose: the file is a promise to its readers, and
//! a renamed field in the judge must not silently rename a key.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ReportError, Run};
use crate::evidence::{Evidence, StopReason};
use crate::plan::Plan;
use crate::verdict::{Finding, Status, Verdict, Verdicts};

/// The version of the file's shape. Raised when an older reader could misread a newer file.
pub const FORMAT_VERSION: u32 = 1;

/// What `outcome.json` holds, and what `--json` writes of one scenario. Of several, `--json` writes
/// a list of these, one for each scenario in the order in which they were to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(title = "Outcome of a chaos run")]
pub struct Outcome {
    /// The version of this file's shape.
    pub format_version: u32,
    /// The run: `2026-11-21-0423-7f3a`; `unknown` when it did not begin.
    pub run_id: String,
    /// The scenario's name.
    pub scenario: String,
    /// The scenario file as the user named it.
    pub scenario_file: String,
    /// The seed that everything random was drawn from.
    pub seed: u64,
    /// The version of `chaos` that planned the run.
    pub chaos_version: String,
    /// Wall time of the start, ms since 1970.
    pub started_wall_ms: Option<u64>,
    /// From the first to the last event, s.
    pub lasted_s: f64,
    /// How the run ended.
    pub ended: Ended,
    /// Why it ended, when it did not come to its end.
    pub ended_why: Option<String>,
    /// The worst verdict, or inconclusive when the run did not come to its end.
    pub status: OutcomeStatus,
    /// What the command's exit code stands for, `--inconclusive warn` aside.
    pub exit: ExitName,
    /// One verdict per property, in the order of the scenario file.
    pub verdicts: Vec<PropertyOutcome>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It came to its end.
    Finished,
    /// It could not be carried out.
    Failed,
    /// SIGINT.
    Interrupt,
    /// SIGTERM or SIGHUP.
    Terminate,
    /// Another signal after SIGINT: everything was killed at once.
    SecondInterrupt,
    /// Another signal after SIGTERM or SIGHUP: everything was killed at once.
    SecondTerminate,
}

/// What an exit code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExitName {
    /// Every property held (0).
    Held,
    /// A property was violated (1).
    Violated,
    /// The run does not prove it either way (3).
    Inconclusive,
    /// The run could not be carried out (4).
    NotCarriedOut,
    /// SIGINT (130).
    Interrupted,
    /// SIGTERM or SIGHUP (143).
    Terminated,
}

/// How a property came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeStatus {
    /// It held, with proof that it was put to the test.
    Pass,
    /// The run does not prove it either way.
    Inconclusive,
    /// It was violated.
    Fail,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PropertyOutcome {
    /// The property.
    pub property: String,
    /// Its kind: `breaker`.
    pub kind: String,
    /// How it came out.
    pub status: OutcomeStatus,
    /// One sentence: value, limit, window, n, and why.
    pub why: String,
    /// The measured value, with unit.
    pub value: Option<String>,
    /// The limit, with unit.
    pub limit: Option<String>,
    /// How far the value is from the limit; a `-` in front when it is beyond.
    pub margin: Option<String>,
    /// The window it was judged in.
    pub window: Option<OutcomeWindow>,
    /// How many it rests on.
    pub n: u64,
    /// What `n` counts.
    pub n_of: String,
    /// The links or services that are to blame.
    pub blames: Vec<String>,
    /// One edit or command that would settle or help.
    pub help: Option<String>,
    /// The user's file that declares it.
    pub file: String,
    /// The line in it, from 1.
    pub line: u32,
    /// The column in it, from 1.
    pub column: u32,
    /// What it rests on, item by item: at most 50.
    pub findings: Vec<OutcomeFinding>,
    /// Findings beyond those listed.
    pub findings_more: u64,
}

/// The window of a verdict, on the run clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OutcomeWindow {
    /// `during psp-silent`.
    pub name: String,
    /// ns on the run clock.
    pub from_ns: u64,
    /// ns on the run clock.
    pub to_ns: u64,
}

/// One piece of what a verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OutcomeFinding {
    /// How this one came out by itself.
    pub status: OutcomeStatus,
    /// When, ns on the run clock, if it has an instant.
    pub at_ns: Option<u64>,
    /// What it is about.
    pub subject: String,
    /// What was seen.
    pub text: String,
}

impl Outcome {
    /// The outcome of a run.
    pub fn of(run: &Run<'_>) -> Self {
        let Run { plan, verdicts, .. } = run;
        Self {
            format_version: FORMAT_VERSION,
            run_id: run.id().to_owned(),
            scenario: plan.name.clone(),
            scenario_file: plan.scenario_file.clone(),
            seed: plan.seed,
            chaos_version: plan.chaos_version.clone(),
            started_wall_ms: run.started_wall_ms(),
            lasted_s: run.lasted_s(),
            ended: verdicts.ended.into(),
            ended_why: verdicts.ended_why.clone(),
            status: verdicts.status().into(),
            exit: ExitName::of(verdicts, run.left()),
            verdicts: verdicts.verdicts.iter().map(Into::into).collect(),
        }
    }

    /// The outcome of a scenario that there is no judged run of, and why. `ended` is how the
    /// command ended.
    pub fn not_run(plan: &Plan, ended: StopReason, why: &str) -> Self {
        let verdicts = Verdicts {
            ended,
            ended_why: Some(why.to_owned()),
            verdicts: Vec::new(),
        };
        Self::of(&Run {
            plan,
            evidence: &Evidence::default(),
            verdicts: &verdicts,
            files: &BTreeMap::new(),
        })
    }
}

impl ExitName {
    fn of(verdicts: &Verdicts, left: &[String]) -> Self {
        match (verdicts.ended, verdicts.status()) {
            (StopReason::Interrupt | StopReason::SecondInterrupt, _) => Self::Interrupted,
            (StopReason::Terminate | StopReason::SecondTerminate, _) => Self::Terminated,
            (_, Status::Fail) => Self::Violated,
            (StopReason::Failed, _) => Self::NotCarriedOut,
            (StopReason::Finished, Status::Inconclusive) => Self::Inconclusive,
            (StopReason::Finished, Status::Pass) if !left.is_empty() => Self::NotCarriedOut,
            (StopReason::Finished, Status::Pass) => Self::Held,
        }
    }
}

impl From<StopReason> for Ended {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Finished => Self::Finished,
            StopReason::Failed => Self::Failed,
            StopReason::Interrupt => Self::Interrupt,
            StopReason::Terminate => Self::Terminate,
            StopReason::SecondInterrupt => Self::SecondInterrupt,
            StopReason::SecondTerminate => Self::SecondTerminate,
        }
    }
}

impl From<Status> for OutcomeStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pass => Self::Pass,
            Status::Inconclusive => Self::Inconclusive,
            Status::Fail => Self::Fail,
        }
    }
}

impl From<&Verdict> for PropertyOutcome {
    fn from(verdict: &Verdict) -> Self {
        Self {
            property: verdict.property.to_string(),
            kind: verdict.kind.clone(),
            status: verdict.status.into(),
            why: verdict.why.clone(),
            value: verdict.value.clone(),
            limit: verdict.limit.clone(),
            margin: verdict.margin.clone(),
            window: verdict.window.as_ref().map(|window| OutcomeWindow {
                name: window.name.clone(),
                from_ns: window.from_ns,
                to_ns: window.to_ns,
            }),
            n: verdict.n,
            n_of: verdict.n_of.clone(),
            blames: verdict.blames.clone(),
            help: verdict.help.clone(),
            file: verdict.source.file.clone(),
            line: verdict.source.line,
            column: verdict.source.column,
            findings: verdict.findings.iter().map(Into::into).collect(),
            findings_more: verdict.findings_more,
        }
    }
}

impl From<&Finding> for OutcomeFinding {
    fn from(finding: &Finding) -> Self {
        Self {
            status: finding.status.into(),
            at_ns: finding.at_ns,
            subject: finding.subject.clone(),
            text: finding.text.clone(),
        }
    }
}

/// Renders `outcome.json`.
///
/// # Errors
///
/// Only what the JSON writer says.
pub fn render(run: &Run<'_>) -> Result<Vec<u8>, ReportError> {
    pretty(&Outcome::of(run)).map_err(|e| ReportError::new("outcome.json")(e.into()))
}

/// Renders what `--json` writes: the outcome of one scenario, a list of outcomes of several.
///
/// # Errors
///
/// Only what the JSON writer says.
pub fn render_all(outcomes: &[Outcome]) -> Result<Vec<u8>, ReportError> {
    let rendered = match outcomes {
        [one] => pretty(one),
        several => pretty(&several),
    };
    rendered.map_err(|e| ReportError::new("outcome.json")(e.into()))
}

/// The JSON Schema of `outcome.json`: what `schema/outcome.schema.json` holds.
///
/// # Errors
///
/// Only what the JSON writer says.
pub fn schema() -> Result<Vec<u8>, ReportError> {
    pretty(&schemars::schema_for!(Outcome))
        .map_err(|e| ReportError::new("outcome.schema.json")(e.into()))
}

fn pretty(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
