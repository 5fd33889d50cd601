//! What is wrong with the user's files, shown on their own lines.
//!
//! A [`Diagnostic`] is one mistake: a stable id (`scenario::unknown-link`), a sentence, the place
//! with carets, and the edit that would fix it. [`Diagnostics`] holds the mistakes of a set of
//! files together with their texts, so that it can be rendered anywhere. Every mistake has one
//! constructor: those of shape in [`shape`], those of meaning in [`meaning`].
//!
//! Nothing here reads files or decides what is a mistake.

pub mod meaning;
pub mod shape;

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

/// A place in one of the user's texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Which text: an index into [`Sources`].
    pub file: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The place itself, without extent.
    #[must_use]
    pub fn bytes(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The texts that spans point into: the scenario, the system file, each `--set`.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

/// A text with the name that people know it by.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file as the user named it, or `--set`.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Sources {
    /// Adds a text; spans refer to it by the number that is returned.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> u32 {
        self.0.push(Source {
            name: name.into(),
            text: text.into(),
        });
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    /// All texts, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// The text that a span points into.
    #[must_use]
    pub fn get(&self, file: u32) -> Option<&Source> {
        self.0.get(file as usize)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The files cannot be used.
    Error,
    /// They can, but this is probably not what was meant.
    Warning,
}

/// One mistake of the user.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Stable name: `scenario::unknown-link`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: a lowercase phrase without a trailing dot.
    pub title: String,
    /// Where.
    pub span: Option<Span>,
    /// What stands beside the carets.
    pub label: String,
    /// Facts that explain it.
    pub notes: Vec<String>,
    /// The edit that would fix it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(id: &'static str, span: Span, title: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            ..Self::nowhere(id, title)
        }
    }

    /// An error that has no place in a text: a file that cannot be read.
    #[must_use]
    pub fn nowhere(id: &'static str, title: impl Into<String>) -> Self {
        Self {
            id,
            severity: Severity::Error,
            title: title.into(),
            span: None,
            label: String::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    /// With words beside the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With a fact that explains it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With a fact that explains it, when there is one.
    #[must_use]
    pub fn maybe_note(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }

    /// With the edit that would fix it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With the edit that would fix it, when there is one to offer.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// As a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}

/// The mistakes of a set of files, with the texts they are in.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// The texts.
    pub sources: Sources,
    /// The mistakes, in the order of the files.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// One mistake in these texts.
    #[must_use]
    pub fn one(sources: Sources, diagnostic: Diagnostic) -> Self {
        Self {
            sources,
            list: vec![diagnostic],
        }
    }

    /// Whether there is anything that makes the files unusable.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// What people read: each mistake with its line, carets and help, and an empty line between.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let rendered: Vec<String> = self
            .list
            .iter()
            .map(|diagnostic| self.render_one(diagnostic, &renderer))
            .collect();
        rendered.join("\n\n")
    }

    fn render_one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(diagnostic.title.as_str())
            .id(diagnostic.id)
            .elements(std::iter::empty::<annotate_snippets::Element<'_>>());
        let source = diagnostic
            .span
            .and_then(|span| Some((span, self.sources.get(span.file)?)));
        if let Some((span, source)) = source {
            let bytes = caret_range(&source.text, span.bytes());
            if source.text.is_empty() {
                group = group.element(Origin::path(source.name.as_str()));
            } else {
                let annotation = AnnotationKind::Primary.span(bytes);
                let annotation = if diagnostic.label.is_empty() {
                    annotation
                } else {
                    annotation.label(diagnostic.label.as_str())
                };
                group = group.element(
                    Snippet::source(source.text.as_str())
                        .path(source.name.as_str())
                        .annotation(annotation),
                );
            }
        }
        for note in &diagnostic.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Carets on the first line of a place: a mapping of thirty lines is shown by its first.
fn caret_range(text: &str, bytes: Range<usize>) -> Range<usize> {
    let start = bytes.start.min(text.len());
    let end = bytes.end.clamp(start, text.len());
    let first_line = text[start..end].find('\n').map_or(end, |at| start + at);
    start..first_line
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// The candidate that was probably meant: within a third of the length of edits.
#[must_use]
pub fn closest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (candidate.chars().count().max(name.chars().count()) / 3).max(1)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// "did you mean `psp`?", or the list of what there is when that is short.
#[must_use]
pub fn suggestion<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str> + Clone,
) -> Option<String> {
    if let Some(candidate) = closest(name, candidates.clone()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    let all: Vec<String> = candidates
        .into_iter()
        .map(|candidate| format!("`{candidate}`"))
        .collect();
    match all.len() {
        0 => None,
        1..=16 => Some(format!("there is {}", all.join(", "))),
        _ => Some(format!("there is {} and more", all[..16].join(", "))),
    }
}
