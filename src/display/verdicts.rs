//! The last lines of a run: one per property, failures last, then the one that says it all.

use super::text::{Style, Tone, clean, planned, wrap};
use crate::evidence::StopReason;
use crate::verdict::{Status, Verdict, Verdicts};
use std::time::Duration;

/// What the last lines say besides the verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// How long the run lasted.
    pub lasted: Duration,
    /// The code that the process exits with because of this run.
    pub exit_code: u8,
    /// Whether inconclusive properties only warn.
    pub inconclusive_warns: bool,
    /// Where the report lies, if there is one.
    pub report: Option<String>,
}

/// Columns of the status and the blanks after it.
const STATUS: usize = 14;
/// Widest name that sentences are aligned behind.
const NAME_MAX: usize = 24;

pub(super) fn lines(
    verdicts: &Verdicts,
    ending: &Ending,
    style: Style,
    width: usize,
) -> Vec<String> {
    let names = verdicts.verdicts.iter();
    let name_columns = names
        .map(|verdict| verdict.property.as_str().chars().count())
        .max()
        .unwrap_or(0)
        .min(NAME_MAX);
    let mut lines = Vec::new();
    for status in [Status::Pass, Status::Inconclusive, Status::Fail] {
        if status == Status::Inconclusive && verdicts.ended != StopReason::Finished {
            lines.extend(unsettled_lines(verdicts, style, width));
            continue;
        }
        for verdict in verdicts
            .verdicts
            .iter()
            .filter(|verdict| verdict.status == status)
        {
            lines.extend(verdict_lines(verdict, name_columns, style, width));
        }
    }
    lines.extend(last_lines(verdicts, ending, style, width));
    lines
}

/// What a run that did not come to its end left open: the reason is one for all, and told below.
fn unsettled_lines(verdicts: &Verdicts, style: Style, width: usize) -> Vec<String> {
    let open = verdicts.verdicts.iter();
    let open = open.filter(|verdict| verdict.status == Status::Inconclusive);
    let names: Vec<String> = open
        .map(|verdict| clean(verdict.property.as_str()).into())
        .collect();
    let (word, tone) = word(Status::Inconclusive);
    let wrapped = wrap(&names.join(", "), width.saturating_sub(STATUS));
    let heads = [style.paint(tone, word)]
        .into_iter()
        .chain(std::iter::repeat_with(String::new));
    let line = |(head, text): (String, String)| match head.is_empty() {
        true => format!("{:STATUS$}{text}", ""),
        false => format!("{head}  {text}"),
    };
    heads.zip(wrapped).map(line).collect()
}

fn verdict_lines(verdict: &Verdict, names: usize, style: Style, width: usize) -> Vec<String> {
    let (word, tone) = word(verdict.status);
    let before = STATUS + names + 2;
    // On a narrow terminal the sentence starts under the name instead of beside it.
    let beside = before + 40 <= width;
    let indent = if beside { before } else { STATUS };
    let status = style.paint(tone, &format!("{word:<12}"));
    let name = clean(verdict.property.as_str());
    let mut lines = Vec::new();
    let mut sentence = wrap(&verdict.why, width.saturating_sub(indent)).into_iter();
    let head = format!(
        "{status}  {}",
        style.paint(Tone::Strong, &format!("{name:<names$}"))
    );
    if beside {
        lines.push(format!("{head}  {}", sentence.next().unwrap_or_default()));
    } else {
        lines.push(head);
    }
    lines.extend(sentence.map(|text| format!("{:indent$}{text}", "")));
    if verdict.status != Status::Pass {
        if verdict.status == Status::Fail && !verdict.blames.is_empty() {
            let blames = format!("look at: {}", verdict.blames.join(", "));
            let blames = wrap(&blames, width.saturating_sub(STATUS));
            lines.extend(
                blames
                    .into_iter()
                    .map(|text| format!("{:STATUS$}{text}", "")),
            );
        }
        if let Some(help) = &verdict.help {
            let help = wrap(&format!("help: {help}"), width.saturating_sub(STATUS));
            lines.extend(help.into_iter().map(|text| format!("{:STATUS$}{text}", "")));
        }
        let place = style.paint(Tone::Faint, &clean(&verdict.source.to_string()));
        lines.push(format!("{:STATUS$}{place}", ""));
    }
    lines
}

fn last_lines(verdicts: &Verdicts, ending: &Ending, style: Style, width: usize) -> Vec<String> {
    let (word, tone) = word(verdicts.status());
    let count = |status| {
        verdicts
            .verdicts
            .iter()
            .filter(|v| v.status == status)
            .count()
    };
    let counts: Vec<String> = [
        (count(Status::Fail), "failed"),
        (count(Status::Inconclusive), "inconclusive"),
        (count(Status::Pass), "passed"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    let counts = if counts.is_empty() {
        "nothing judged".into()
    } else {
        counts.join(", ")
    };
    let lasted = planned(Duration::from_secs_f64(ending.lasted.as_secs_f64().round()));
    let mut last = format!("{counts}  {lasted}  exit {}", ending.exit_code);
    if ending.inconclusive_warns && verdicts.status() == Status::Inconclusive {
        last += " (inconclusive only warns)";
    }
    let mut lines = Vec::new();
    if verdicts.ended != StopReason::Finished {
        let why = verdicts.ended_why.as_deref().unwrap_or("it was stopped");
        let why = format!("the run did not come to its end: {why}");
        lines.extend(
            wrap(&why, width)
                .into_iter()
                .map(|text| style.paint(Tone::Doubt, &text)),
        );
    }
    lines.push(format!("{}  {last}", style.paint(tone, word)));
    let indent = word.len() + 2;
    lines.extend(
        ending
            .report
            .iter()
            .map(|path| format!("{:indent$}{path}", "")),
    );
    lines
}

fn word(status: Status) -> (&'static str, Tone) {
    match status {
        Status::Pass => ("PASS", Tone::Good),
        Status::Inconclusive => ("INCONCLUSIVE", Tone::Doubt),
        Status::Fail => ("FAIL", Tone::Bad),
    }
}
