//! `junit.xml`: a suite per scenario, a case per property, for the test pages of CI systems.
//!
//! An inconclusive property is an error, or skipped when it only warns; it is never a success.

use std::time::Duration;

pub use quick_junit::TestSuite;
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus};

use super::{Inconclusive, ReportError, Run};
use crate::plan::Plan;
use crate::verdict::{Status, Verdict};

/// Renders the JUnit report of some runs, a suite each.
///
/// # Errors
///
/// Only what the XML writer says.
pub fn render(suites: Vec<TestSuite>) -> Result<Vec<u8>, ReportError> {
    let mut report = Report::new("chaos");
    report.add_test_suites(suites);
    let text = report
        .to_string()
        .map_err(|e| ReportError::new("junit.xml")(e.into()))?;
    Ok(text.into_bytes())
}

/// The suite of a run.
pub fn suite(run: &Run<'_>, inconclusive: Inconclusive) -> TestSuite {
    let mut suite = suite_of(run.plan);
    suite
        .set_time(Duration::from_secs_f64(run.lasted_s()))
        .add_property(Property::new("run", run.id()));
    for verdict in &run.verdicts.verdicts {
        suite.add_test_case(case(run, verdict, inconclusive));
    }
    // A run that was cut short before it judged anything must not read as an empty success.
    if let Some(why) = &run.verdicts.ended_why {
        suite.add_test_case(cut_short(why));
    }
    if !run.left().is_empty() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(run.left().join(", ")).set_type("left");
        suite.add_test_case(TestCase::new("the run left nothing behind", status));
    }
    suite
}

/// The suite of a scenario that there is no judged run of.
pub fn not_run(plan: &Plan, why: &str) -> TestSuite {
    let mut suite = suite_of(plan);
    suite.add_test_case(cut_short(why));
    suite
}

fn suite_of(plan: &Plan) -> TestSuite {
    let mut suite = TestSuite::new(plan.name.as_str());
    suite
        .add_property(Property::new("seed", plan.seed.to_string()))
        .add_property(Property::new("scenario-file", plan.scenario_file.as_str()));
    suite
}

fn cut_short(why: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(why).set_type("ended");
    TestCase::new("the run came to its end", status)
}

fn case(run: &Run<'_>, verdict: &Verdict, inconclusive: Inconclusive) -> TestCase {
    let status = match (verdict.status, inconclusive) {
        (Status::Pass, _) => TestCaseStatus::success(),
        (Status::Fail, _) => problem(NonSuccessKind::Failure, verdict),
        (Status::Inconclusive, Inconclusive::Fail) => problem(NonSuccessKind::Error, verdict),
        (Status::Inconclusive, Inconclusive::Warn) => {
            let mut status = TestCaseStatus::skipped();
            status
                .set_message(verdict.why.as_str())
                .set_type(verdict.kind.as_str());
            status
        }
    };
    let mut case = TestCase::new(verdict.property.as_str(), status);
    case.set_classname(run.plan.name.as_str());
    case
}

fn problem(kind: NonSuccessKind, verdict: &Verdict) -> TestCaseStatus {
    let mut lines = vec![verdict.source.to_string()];
    lines.extend(verdict.help.iter().map(|help| format!("help: {help}")));
    let findings = &verdict.findings;
    lines.extend(
        findings
            .iter()
            .map(|f| format!("{}: {}", f.subject, f.text)),
    );
    if verdict.findings_more > 0 {
        lines.push(format!("and {} more", verdict.findings_more));
    }
    let mut status = TestCaseStatus::non_success(kind);
    status
        .set_message(verdict.why.as_str())
        .set_type(verdict.kind.as_str())
        .set_description(lines.join("\n"));
    status
}
