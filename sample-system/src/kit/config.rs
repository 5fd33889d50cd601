//! The configuration of one service, from the environment map that the caller read.
//!
//! It never looks at the process's environment itself, so several services with different
//! configurations can live in one test process. Every name that a service may read is listed in
//! [`Config::from_environment`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use uuid::Uuid;

/// What can be wrong with the environment of a service.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A name without a default is not set.
    #[error("`{0}` is not set")]
    Missing(String),
    /// A value does not have the form that its name asks for.
    #[error("`{name}` is `{value}`, expected {expected}")]
    Invalid {
        /// The name of the variable.
        name: String,
        /// What it was set to.
        value: String,
        /// The form that would have been understood.
        expected: &'static str,
    },
}

/// Which set of time-outs, windows and limits every edge uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Short windows, so that a scenario of a minute shows a whole cycle. The default.
    Fast,
    /// The numbers of the source documents.
    Documents,
}

impl Profile {
    /// The name used in `SHOP_PROFILE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Documents => "documents",
        }
    }
}

/// The seeded defects that are switched on: `SHOP_DEFECTS=m1,m10`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defects(BTreeSet<String>);

impl Defects {
    /// Reads a comma-separated list; an empty text switches nothing on.
    ///
    /// # Errors
    /// A name that this sample does not know: a misspelt defect would otherwise be a healthy run.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        match names
            .iter()
            .find(|name| !KNOWN_DEFECTS.contains(&name.as_str()))
        {
            Some(unknown) => Err(ConfigError::Invalid {
                name: "SHOP_DEFECTS".to_owned(),
                value: unknown.clone(),
                expected: "a comma-separated list of m1, m2, m6, m10, m25",
            }),
            None => Ok(Self(names)),
        }
    }

    /// Whether the defect of this name is switched on.
    pub fn on(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The names that are switched on, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

const KNOWN_DEFECTS: [&str; 5] = ["m1", "m2", "m6", "m10", "m25"];

/// Everything that one service was told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the service, such as `payments`.
    pub service: &'static str,
    /// The version that it says it is (`SHOP_VERSION`, default `v1`).
    pub version: String,
    /// A new id at each start, in every answer of an evidence endpoint.
    pub incarnation: String,
    /// Where the service listens for its clients.
    pub http: SocketAddr,
    /// Where it listens for operators; none = the same port as its clients use.
    pub admin: Option<SocketAddr>,
    /// What `X-Token` must be on `/internal/…`. Empty = such calls are refused.
    pub admin_token: String,
    /// The defects that are switched on.
    pub defects: Defects,
    /// The set of limits in force.
    pub profile: Profile,
    environment: BTreeMap<String, String>,
}

impl Config {
    /// Reads the environment of one service:
    ///
    /// | name | meaning | default |
    /// |---|---|---|
    /// | `PORT_HTTP` | data port | required |
    /// | `PORT_ADMIN` | admin port; without it `/internal/…` is on the data port | none |
    /// | `HOST` | IP address to listen on | `127.0.0.1` |
    /// | `ADMIN_TOKEN` | expected in `X-Token` | empty: refused |
    /// | `DATABASE_URL` | such as `sqlite:///data/payments.db` | required by services with a store |
    /// | `CALLEE_URL` | such as `PSP_URL`, `BUS_URL`: base URL of a callee | required by its callers |
    /// | `SHOP_PROFILE` | `fast` or `documents` | `fast` |
    /// | `SHOP_DEFECTS` | comma-separated defects | none |
    /// | `SHOP_KILLPOINT` | `NAME:nth[:kill\|sleep\|fail]` | none |
    /// | `SHOP_SYNCHRONOUS` | SQLite's `synchronous`: `NORMAL` or `FULL` | `NORMAL` |
    /// | `SHOP_VERSION` | version shown in logs and evidence | `v1` |
    /// | `SHOP_READY_FILE` | file to write pid and ports to, once they are taken | none |
    /// | `SHOP_LOG` | a filter as `tracing` knows it | `info` |
    ///
    /// # Errors
    /// The first name that is missing or does not parse.
    pub fn from_environment(
        service: &'static str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let read = |name: &str| environment.get(name).map(String::as_str);
        let host: IpAddr = match read("HOST") {
            Some(text) => parse("HOST", text, "an IP address")?,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let port = |name| {
            read(name)
                .map(|text| parse::<u16>(name, text, "a port"))
                .transpose()
        };
        let http = port("PORT_HTTP")?.ok_or_else(|| ConfigError::Missing("PORT_HTTP".into()))?;
        Ok(Self {
            service,
            version: read("SHOP_VERSION").unwrap_or("v1").to_owned(),
            incarnation: Uuid::now_v7().to_string(),
            http: (host, http).into(),
            admin: port("PORT_ADMIN")?.map(|port| (host, port).into()),
            admin_token: read("ADMIN_TOKEN").unwrap_or_default().to_owned(),
            defects: Defects::parse(read("SHOP_DEFECTS").unwrap_or_default())?,
            profile: profile(read("SHOP_PROFILE"))?,
            environment: environment.clone(),
        })
    }

    /// A variable of the environment that only one service knows, if it is set and not empty.
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A variable of the environment that a service cannot do without.
    ///
    /// # Errors
    /// It is not set, or empty.
    pub fn required(&self, name: &str) -> Result<&str, ConfigError> {
        self.optional(name)
            .ok_or_else(|| ConfigError::Missing(name.to_owned()))
    }

    /// The base URL of a callee without a trailing slash: `CALLEE_URL` in upper case.
    ///
    /// # Errors
    /// It is not set.
    pub fn url(&self, callee: &str) -> Result<String, ConfigError> {
        let name = format!("{}_URL", callee.to_uppercase().replace('-', "_"));
        Ok(self.required(&name)?.trim_end_matches('/').to_owned())
    }
}

/// Reads `text` as a `T`, or says which variable has the wrong form.
fn parse<T: std::str::FromStr>(
    name: &str,
    text: &str,
    expected: &'static str,
) -> Result<T, ConfigError> {
    text.parse().map_err(|_| ConfigError::Invalid {
        name: name.to_owned(),
        value: text.to_owned(),
        expected,
    })
}

fn profile(text: Option<&str>) -> Result<Profile, ConfigError> {
    match text.unwrap_or_default() {
        "" | "fast" => Ok(Profile::Fast),
        "documents" => Ok(Profile::Documents),
        other => Err(ConfigError::Invalid {
            name: "SHOP_PROFILE".to_owned(),
            value: other.to_owned(),
            expected: "`fast` or `documents`",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_misspelt_defect_is_refused() {
        let map = environment(&[("PORT_HTTP", "0"), ("SHOP_DEFECTS", "m1,m99")]);
        let error = Config::from_environment("psp", &map).unwrap_err();
        assert!(error.to_string().contains("m99"), "{error}");
    }

    #[test]
    fn callee_urls_lose_their_trailing_slash() {
        let map = environment(&[("PORT_HTTP", "0"), ("PSP_URL", "http://127.0.0.1:1/")]);
        let config = Config::from_environment("payments", &map).unwrap();
        assert_eq!(config.url("psp").unwrap(), "http://127.0.0.1:1");
        assert!(matches!(config.url("bus"), Err(ConfigError::Missing(name)) if name == "BUS_URL"));
    }
}
