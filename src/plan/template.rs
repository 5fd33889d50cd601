//! Text with substitutions: `http://$(link:psp)/charges`.
//!
//! In a plan, ports, folders and pids are symbols; `run/` binds them. A template keeps the user's
//! spelling in `plan.json`, so a stored plan reads like the file. `$$(` is a literal `$(`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that stands for itself.
    Text(String),
    /// Something that is bound when the run starts or when a journey runs.
    Symbol(Symbol),
}

/// What a `$(...)` names. Closed: an unknown one is a mistake of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// `$(port:http)`: a port of the service itself.
    Port(String),
    /// `$(link:psp)`: host and port of the proxy of the link from this service to `psp`.
    Link(String),
    /// `$(link:psp:host)`: its host alone.
    LinkHost(String),
    /// `$(link:psp:port)`: its port alone.
    LinkPort(String),
    /// `$(direct:db.pg)`: the address itself, past the proxy.
    Direct {
        /// The service.
        service: String,
        /// Its port.
        port: String,
    },
    /// `$(data)`: the data folder of the service itself.
    Data,
    /// `$(data:orders)`: the data folder of a service.
    DataOf(String),
    /// `$(run:id)`.
    RunId,
    /// `$(run:token)`: a secret of this run, for the evidence endpoints of services.
    RunToken,
    /// `$(env:NAME)`: a variable that `allow-env` declares.
    Env(String),
    /// `$(otlp)`: where the harness receives spans.
    Otlp,
    /// `$(chaos)`: this very binary.
    Chaos,
    /// `$(cursor)`: in `after:` of an evidence source, where the last page ended.
    Cursor,
    /// `$(key)`: in journeys, a key that is unique to the iteration and a function of the seed.
    Key,
    /// `$(pick:FEED)` and `$(pick:FEED.FIELD)`: in journeys, a value of a feed.
    Pick {
        /// The feed.
        feed: String,
        /// A field of the feed's rows; none when its values are plain.
        field: Option<String>,
    },
    /// `$(order)`: in journeys, what an earlier step captured under this name.
    Captured(String),
}

impl Symbol {
    /// Reads what stands between `$(` and `)`. Names without a colon that are none of the fixed
    /// ones are captures; whether such a capture exists is for planning to say.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.splitn(3, ':');
        let head = words.next().unwrap_or_default().trim();
        let rest: Vec<&str> = words.map(str::trim).collect();
        let owned = |i: usize| rest[i].to_owned();
        Ok(match (head, rest.len()) {
            ("data", 0) => Self::Data,
            ("otlp", 0) => Self::Otlp,
            ("chaos", 0) => Self::Chaos,
            ("cursor", 0) => Self::Cursor,
            ("key", 0) => Self::Key,
            ("port", 1) => Self::Port(owned(0)),
            ("data", 1) => Self::DataOf(owned(0)),
            ("env", 1) => Self::Env(owned(0)),
            ("link", 1) => Self::Link(owned(0)),
            ("link", 2) if rest[1] == "host" => Self::LinkHost(owned(0)),
            ("link", 2) if rest[1] == "port" => Self::LinkPort(owned(0)),
            ("run", 1) if rest[0] == "id" => Self::RunId,
            ("run", 1) if rest[0] == "token" => Self::RunToken,
            ("direct", 1) => match rest[0].split_once('.') {
                Some((service, port)) => Self::Direct {
                    service: service.to_owned(),
                    port: port.to_owned(),
                },
                None => {
                    return Err(format!(
                        "`$({text})` needs a port: `$(direct:{}.http)`",
                        rest[0]
                    ));
                }
            },
            ("pick", 1) => match rest[0].split_once('.') {
                Some((feed, field)) => Self::Pick {
                    feed: feed.to_owned(),
                    field: Some(field.to_owned()),
                },
                None => Self::Pick {
                    feed: owned(0),
                    field: None,
                },
            },
            (name, 0) if !name.is_empty() => Self::Captured(name.to_owned()),
            _ => return Err(format!("`$({text})` is not a substitution")),
        })
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port:{port}"),
            Self::Link(to) => write!(f, "link:{to}"),
            Self::LinkHost(to) => write!(f, "link:{to}:host"),
            Self::LinkPort(to) => write!(f, "link:{to}:port"),
            Self::Direct { service, port } => write!(f, "direct:{service}.{port}"),
            Self::Data => write!(f, "data"),
            Self::DataOf(service) => write!(f, "data:{service}"),
            Self::RunId => write!(f, "run:id"),
            Self::RunToken => write!(f, "run:token"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Otlp => write!(f, "otlp"),
            Self::Chaos => write!(f, "chaos"),
            Self::Cursor => write!(f, "cursor"),
            Self::Key => write!(f, "key"),
            Self::Pick {
                feed,
                field: Some(field),
            } => write!(f, "pick:{feed}.{field}"),
            Self::Pick { feed, field: None } => write!(f, "pick:{feed}"),
            Self::Captured(name) => write!(f, "{name}"),
        }
    }
}

/// Text with substitutions, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

impl Template {
    /// A template without substitutions.
    pub fn text(text: impl Into<String>) -> Self {
        Self(vec![Part::Text(text.into())])
    }

    /// Reads a template; the error is a phrase about the first bad substitution.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("$(") {
            if rest[..at].ends_with('$') {
                literal.push_str(&rest[..at]);
                literal.push('(');
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let inner = &rest[at + 2..];
            let Some(end) = inner.find(')') else {
                return Err(format!("`{}` has no closing `)`", &rest[at..]));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Symbol(Symbol::parse(&inner[..end])?));
            rest = &inner[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// The symbols in order of appearance.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.0.iter().filter_map(|part| match part {
            Part::Symbol(symbol) => Some(symbol),
            Part::Text(_) => None,
        })
    }

    /// The symbol, when the template is one substitution alone (such a value keeps its type).
    pub fn single_symbol(&self) -> Option<&Symbol> {
        match self.0.as_slice() {
            [Part::Symbol(symbol)] => Some(symbol),
            _ => None,
        }
    }

    /// Fills in every symbol by `bind`; stops at the first that cannot be bound.
    pub fn render<E>(
        &self,
        mut bind: impl FnMut(&Symbol) -> Result<String, E>,
    ) -> Result<String, E> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Symbol(symbol) => text.push_str(&bind(symbol)?),
            }
        }
        Ok(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(literal) => write!(f, "{}", literal.replace("$(", "$$("))?,
                Part::Symbol(symbol) => write!(f, "$({symbol})")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_reads_back_from_its_spelling() {
        for text in [
            "port:http",
            "link:psp",
            "link:psp:host",
            "link:psp:port",
            "direct:db.pg",
            "data",
            "data:orders",
            "run:id",
            "run:token",
            "env:HOME",
            "otlp",
            "chaos",
            "cursor",
            "key",
            "pick:sku",
            "pick:tokens.token",
            "order",
        ] {
            assert_eq!(Symbol::parse(text).unwrap().to_string(), text);
        }
        assert!(Symbol::parse("prot:http").is_err());
        assert!(Symbol::parse("").is_err());
    }

    #[test]
    fn an_escaped_substitution_is_text_and_reads_back() {
        let template = Template::parse("a $$(b) $(key)!").unwrap();
        assert_eq!(
            template.0,
            vec![
                Part::Text("a $(b) ".into()),
                Part::Symbol(Symbol::Key),
                Part::Text("!".into())
            ]
        );
        assert_eq!(template.to_string(), "a $$(b) $(key)!");
        assert!(Template::parse("$(key").is_err());
    }
}
