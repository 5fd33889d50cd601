//! Newtypes for names: a `String` was typed by the user, a name was resolved by planning.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes a name that planning has resolved (or that a stored run holds).
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as it is written in files and reports.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

names! {
    /// A service of the system file: `payments`.
    ServiceName,
    /// A declared port of a service: `http`.
    PortName,
    /// A fault of the scenario file.
    FaultName,
    /// A property of the scenario file's `expect:`.
    PropertyName,
    /// An evidence source of the system file.
    SourceName,
    /// A backlog of the system file.
    BacklogName,
    /// A journey of the system file.
    JourneyName,
    /// An operation: the name of a journey's step. Unique over the journeys of a plan.
    OperationName,
    /// A feed of values for journeys.
    FeedName,
    /// A database that the harness reads as a witness.
    DatabaseName,
    /// A saga type of the system file.
    SagaName,
    /// A consumer of events, as the system file names it.
    ConsumerName,
}

/// The caller name of the load itself: the link `load -> gateway` is what the worker uses.
pub const LOAD: &str = "load";

/// An arrow of the system: who calls whom. Written `payments -> psp`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName {
    /// The calling service, or [`LOAD`].
    pub from: String,
    /// The called service.
    pub to: String,
}

impl LinkName {
    /// The link from one service to another.
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
        }
    }

    /// Reads `a -> b` or the shell-safe `a..b`; `None` when it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once("->").or_else(|| text.split_once(".."))?;
        let (from, to) = (from.trim(), to.trim());
        (!from.is_empty() && !to.is_empty()).then(|| Self::new(from, to))
    }

    /// The shell-safe alias, also the name of the proxy: `payments..psp`.
    pub fn alias(&self) -> String {
        format!("{}..{}", self.from, self.to)
    }

    /// Whether this is the link that carries the load into the system.
    pub fn is_load(&self) -> bool {
        self.from == LOAD
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} -> {}", self.from, self.to))
    }
}

impl Serialize for LinkName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LinkName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is not a link (`caller -> callee`)"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_reads_back_from_both_spellings() {
        let link = LinkName::new("payments", "psp");
        assert_eq!(LinkName::parse("payments -> psp"), Some(link.clone()));
        assert_eq!(LinkName::parse(&link.alias()), Some(link.clone()));
        assert_eq!(LinkName::parse("payments"), None);
        assert_eq!(link.to_string(), "payments -> psp");
    }
}
