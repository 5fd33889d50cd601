//! Text with substitutions, checked against what may be named where it stands.

use crate::diagnostic::meaning::{self, Noun};
use crate::diagnostic::{Span, closest};
use crate::plan::{Part, Symbol, Template};
use crate::scenario::text::{Scalar, Spanned, Text};

use super::Builder;

/// Where a template stands, which decides what it may name.
#[derive(Clone, Copy)]
pub(super) enum Scope<'s> {
    /// A service's command, environment or files.
    Service(&'s str),
    /// The URL of a database.
    Database,
    /// A request for evidence.
    Fetch,
    /// The value of `after:` in a request for evidence.
    Cursor,
    /// A step of a journey, with what earlier steps captured, and what later ones will.
    Journey {
        /// Names that exist already.
        captured: &'s [String],
        /// Names that later steps capture, with the step.
        later: &'s [(String, String)],
    },
}

impl Scope<'_> {
    /// What a typo here was probably meant to be.
    fn spellings(&self) -> &'static [&'static str] {
        match self {
            Self::Service(_) => &[
                "port",
                "link",
                "direct",
                "data",
                "run:id",
                "run:token",
                "env",
                "chaos",
            ],
            Self::Database => &["data", "direct", "env", "run:id"],
            Self::Fetch => &["run:id", "run:token", "env"],
            Self::Cursor => &["cursor"],
            Self::Journey { .. } => &["key", "pick", "run:id", "run:token", "env"],
        }
    }

    fn allows(&self, symbol: &Symbol) -> bool {
        use Symbol as S;
        match self {
            Self::Service(_) => matches!(
                symbol,
                S::Port(_)
                    | S::Link(_)
                    | S::LinkHost(_)
                    | S::LinkPort(_)
                    | S::Direct { .. }
                    | S::Data
                    | S::DataOf(_)
                    | S::RunId
                    | S::RunToken
                    | S::Env(_)
                    | S::Chaos
            ),
            Self::Database => {
                matches!(
                    symbol,
                    S::DataOf(_) | S::Direct { .. } | S::Env(_) | S::RunId
                )
            }
            Self::Fetch => matches!(symbol, S::RunId | S::RunToken | S::Env(_)),
            Self::Cursor => matches!(symbol, S::Cursor),
            Self::Journey { .. } => matches!(
                symbol,
                S::Key | S::Pick { .. } | S::Captured(_) | S::RunId | S::RunToken | S::Env(_)
            ),
        }
    }
}

impl Builder<'_> {
    pub(super) fn text(&mut self, text: &Text, scope: Scope<'_>) -> Template {
        self.template(&text.value, text.span, scope)
    }

    pub(super) fn scalar(&mut self, scalar: &Spanned<Scalar>, scope: Scope<'_>) -> Template {
        self.template(&scalar.value.0, scalar.span, scope)
    }

    pub(super) fn template(&mut self, text: &str, span: Span, scope: Scope<'_>) -> Template {
        match Template::parse(text) {
            Ok(template) => {
                for part in &template.0 {
                    if let Part::Symbol(symbol) = part {
                        self.symbol(symbol, place_of(symbol, text, span), scope);
                    }
                }
                template
            }
            Err(why) => {
                let head = text.split("$(").nth(1).unwrap_or_default();
                let help = suggest(head.split([':', ')']).next().unwrap_or_default(), scope);
                self.mistake(meaning::bad_substitution(span, &why, help));
                Template::default()
            }
        }
    }

    fn symbol(&mut self, symbol: &Symbol, span: Span, scope: Scope<'_>) {
        if let Symbol::Otlp = symbol {
            self.mistake(meaning::not_supported(span, "collecting traces is"));
            return;
        }
        if !scope.allows(symbol) {
            let spelled = symbol.to_string();
            let why = format!("`$({spelled})` is not known here");
            let head = spelled.split(':').next().unwrap_or_default();
            self.mistake(meaning::bad_substitution(span, &why, suggest(head, scope)));
            return;
        }
        match symbol {
            Symbol::Port(port) => self.own_port(port, span, scope),
            Symbol::Link(to) | Symbol::LinkHost(to) | Symbol::LinkPort(to) => {
                self.link_of(to, span, scope);
            }
            Symbol::Direct { service, port } => {
                self.address(&format!("{service}.{port}"), span);
            }
            Symbol::DataOf(service) => {
                self.known_service(service, span);
            }
            Symbol::Env(name) if self.system_file().allow_env.get(name).is_none() => {
                self.mistake(meaning::env_not_allowed(span, name));
            }
            Symbol::Pick { feed, field } => self.picked(feed, field.as_deref(), span),
            Symbol::Captured(name) => self.captured(name, span, scope),
            _ => {}
        }
    }

    pub(super) fn known_service(&mut self, service: &str, span: Span) -> bool {
        let services = &self.system_file().services;
        let known = services.get(service).is_some();
        if !known {
            let names = services.names();
            self.mistake(meaning::unknown(Noun::Service, span, service, names));
        }
        known
    }

    fn own_port(&mut self, port: &str, span: Span, scope: Scope<'_>) {
        let Scope::Service(service) = scope else {
            return;
        };
        let Some(service) = self.system_file().services.get(service) else {
            return;
        };
        let names = service.value.ports.names();
        if !names.clone().any(|name| name == port) {
            self.mistake(meaning::unknown(Noun::Port, span, port, names));
        }
    }

    fn link_of(&mut self, to: &str, span: Span, scope: Scope<'_>) {
        let Scope::Service(from) = scope else {
            return;
        };
        let callees = self.callees(from);
        if callees.iter().any(|callee| callee == to) {
            return;
        }
        let help = closest(to, callees.iter().map(String::as_str))
            .map(|callee| format!("did you mean `$(link:{callee})`?"));
        self.mistake(meaning::undeclared_link(span, from, to, help));
    }

    fn captured(&mut self, name: &str, span: Span, scope: Scope<'_>) {
        let Scope::Journey { captured, later } = scope else {
            return;
        };
        if captured.iter().any(|known| known == name) {
            return;
        }
        match later.iter().find(|(known, _)| known == name) {
            Some((_, step)) => self.mistake(meaning::capture_too_early(span, name, step)),
            None => {
                let known = captured.iter().map(String::as_str);
                let fixed = scope.spellings().iter().copied();
                let help = closest(name, known.chain(fixed))
                    .map(|name| format!("did you mean `$({name})`?"));
                let why = format!("nothing captures `$({name})`");
                self.mistake(meaning::bad_substitution(span, &why, help));
            }
        }
    }
}

fn suggest(head: &str, scope: Scope<'_>) -> Option<String> {
    let spellings = scope.spellings();
    match closest(head, spellings.iter().copied()) {
        Some(name) => Some(format!("did you mean `$({name})`?")),
        None => {
            let all: Vec<String> = spellings
                .iter()
                .map(|name| format!("`$({name})`"))
                .collect();
            Some(format!("here there is {}", all.join(", ")))
        }
    }
}

/// The place of a substitution in its text, where the text stands in the file as it reads.
fn place_of(symbol: &Symbol, text: &str, span: Span) -> Span {
    let spelled = format!("$({symbol})");
    let Some(at) = text.find(&spelled) else {
        return span;
    };
    let length = (span.end - span.start) as usize;
    // A quoted scalar is longer than its text by its quotes.
    let quote = match length.checked_sub(text.len()) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return span,
    };
    let narrow = |number: usize| u32::try_from(number).unwrap_or_default();
    let start = span.start + narrow(at + quote);
    Span {
        start,
        end: start + narrow(spelled.len()),
        column: span.column + narrow(text[..at].chars().count() + quote),
        ..span
    }
}
