//! A property's case while it is judged: what was violated, what is missing for a pass.
//!
//! The algebra is here and nowhere else. Something that *blocks* makes any judgement impossible; a
//! violation fails whatever else is missing; a gap keeps a pass from being one. So more evidence of
//! a violation can never turn a failure into a pass, and less evidence can never make a pass.

use crate::plan::PropertyPlan;

use super::{FINDINGS_MAX, Finding, JudgedWindow, Status, Verdict};

/// Something missing, and the edit or command that would settle it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// What is missing: a phrase.
    pub(crate) why: String,
    /// What to do about it: a phrase.
    pub(crate) help: String,
}

impl Gap {
    pub(crate) fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            help: help.into(),
        }
    }
}

/// What a gap keeps from being said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// A pass.
    GatesPass,
    /// A pass and a failure.
    Blocks,
}

/// The case of one property.
#[derive(Debug, Default)]
pub(crate) struct Case {
    pub(crate) window: Option<JudgedWindow>,
    pub(crate) value: Option<String>,
    pub(crate) limit: Option<String>,
    pub(crate) margin: Option<String>,
    pub(crate) n: u64,
    pub(crate) n_of: String,
    /// What a pass (or an inconclusive verdict) says was measured.
    pub(crate) measured: String,
    violations: Vec<String>,
    advice: Option<String>,
    gaps: Vec<(Weight, Gap)>,
    blames: Vec<String>,
    findings: Vec<Finding>,
    findings_more: u64,
}

impl Case {
    pub(crate) fn new(n_of: &str) -> Self {
        Self {
            n_of: n_of.into(),
            ..Self::default()
        }
    }

    /// A definite violation: fails whatever else is missing.
    pub(crate) fn violated(&mut self, why: impl Into<String>) {
        self.violations.push(why.into());
    }

    /// What usually mends a failure like this one.
    pub(crate) fn advise(&mut self, advice: impl Into<String>) {
        self.advice.get_or_insert(advice.into());
    }

    /// Something without which this cannot be a pass.
    pub(crate) fn missing(&mut self, gap: Gap) {
        self.gaps.push((Weight::GatesPass, gap));
    }

    /// The same for several.
    pub(crate) fn missing_all(&mut self, gaps: impl IntoIterator<Item = Gap>) {
        let gaps = gaps.into_iter();
        self.gaps.extend(gaps.map(|gap| (Weight::GatesPass, gap)));
    }

    /// Something without which this can be neither a pass nor a failure.
    pub(crate) fn blocked(&mut self, gap: Gap) {
        self.gaps.push((Weight::Blocks, gap));
    }

    /// The same, told before all others.
    pub(crate) fn blocked_first(&mut self, gap: Gap) {
        self.gaps.insert(0, (Weight::Blocks, gap));
    }

    /// A violation that rests on the absence of evidence: when that evidence is known to be
    /// incomplete (`lost`), it is only a gap.
    pub(crate) fn violated_by_absence(&mut self, why: impl Into<String>, lost: Option<&Gap>) {
        match lost {
            None => self.violated(why),
            Some(gap) => self.missing(gap.clone()),
        }
    }

    /// Who or what is to blame when this fails.
    pub(crate) fn blame(&mut self, who: impl Into<String>) {
        let who = who.into();
        if !self.blames.contains(&who) {
            self.blames.push(who);
        }
    }

    /// A piece of what the verdict rests on. At most [`FINDINGS_MAX`] are kept, the rest counted.
    pub(crate) fn find(
        &mut self,
        status: Status,
        at_ns: Option<u64>,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) {
        if self.findings.len() == FINDINGS_MAX {
            self.findings_more += 1;
            return;
        }
        self.findings.push(Finding {
            status,
            at_ns,
            subject: subject.into(),
            text: text.into(),
        });
    }

    /// How it stands.
    pub(crate) fn status(&self) -> Status {
        if self.first_block().is_some() {
            Status::Inconclusive
        } else if !self.violations.is_empty() {
            Status::Fail
        } else if !self.gaps.is_empty() {
            Status::Inconclusive
        } else {
            Status::Pass
        }
    }

    fn first_block(&self) -> Option<&Gap> {
        let blocks = |it: &&(Weight, Gap)| it.0 == Weight::Blocks;
        self.gaps.iter().find(blocks).map(|(_, gap)| gap)
    }

    /// The gap to tell: the first, as the later ones often follow from it; under a violation the
    /// one that keeps it from counting.
    fn told_gap(&self) -> Option<&Gap> {
        let first = self.gaps.first().map(|(_, gap)| gap);
        if self.violations.is_empty() {
            first
        } else {
            self.first_block().or(first)
        }
    }

    /// The verdict.
    pub(crate) fn close(mut self, plan: &PropertyPlan) -> Verdict {
        let status = self.status();
        let missing = self.told_gap().cloned();
        let why = match (status, &missing) {
            (Status::Fail, _) => self.violations.join("; "),
            (Status::Inconclusive, Some(gap)) => self.with_measured(gap),
            _ => self.measured.clone(),
        };
        if status != Status::Fail {
            self.blames.clear();
        }
        Verdict {
            property: plan.name.clone(),
            kind: plan.property.kind().into(),
            status,
            why,
            value: self.value,
            limit: self.limit,
            margin: self.margin,
            window: self.window,
            n: self.n,
            n_of: self.n_of,
            blames: self.blames,
            help: match status {
                Status::Pass => None,
                Status::Inconclusive => missing.map(|gap| gap.help),
                Status::Fail => self.advice,
            },
            source: plan.source.clone(),
            findings: self.findings,
            findings_more: self.findings_more,
        }
    }

    fn with_measured(&self, gap: &Gap) -> String {
        let seen = match (self.violations.first(), self.measured.as_str()) {
            (Some(violation), _) => violation.as_str(),
            (None, measured) => measured,
        };
        if seen.is_empty() {
            gap.why.clone()
        } else {
            format!("{} ({seen})", gap.why)
        }
    }
}
