//! What will happen: every name resolved, every default filled, every limit set.
//!
//! A [`Plan`] is a plain value. It is saved as `plan.json` before anything starts, is the same
//! bytes for the same files, seed and version, and is all that `run/`, `verdict/` and `report/`
//! know of the user's files. Ports, folders and pids are symbols here ([`Template`]); `run/` binds
//! them. Planning does no I/O, reads no clock and draws nothing but from the seed.
//!
//! Read next: [`load`] and [`fault`] (what is done to the system), [`property`] (what must hold),
//! [`system`] (what is there), then `run/mod.rs`.

mod build;
pub mod describe;
pub mod fault;
pub mod jq;
pub mod load;
pub mod names;
pub mod property;
pub mod quantity;
pub mod system;
pub mod template;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use build::{BuildOptions, build};
pub use fault::{Direction, FaultEffect, FaultPlan, LinkEffect, ProcessEffect};
pub use load::{Arrivals, JourneyPlan, LoadModel, LoadPlan, StepPlan};
pub use names::*;
pub use property::{Property, PropertyPlan, Window};
pub use system::{BacklogPlan, Fetch, LinkPlan, ServicePlan, SourcePlan, SystemPlan};
pub use template::{Part, Symbol, Template};

use system::RecordKind;

/// The version of `plan.json`'s shape. Raised when an older `chaos` could misread a newer plan.
pub const FORMAT_VERSION: u32 = 1;

/// Where in the user's files something was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRef {
    /// The file as the user named it, relative to the working directory when it lies below it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Everything that will happen, and what must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// [`FORMAT_VERSION`] of the `chaos` that wrote it.
    pub format_version: u32,
    /// The version of that `chaos`.
    pub chaos_version: String,
    /// The scenario's name: `payment-outage`.
    pub name: String,
    /// One line of what happens.
    pub about: String,
    /// The scenario file as the user named it.
    pub scenario_file: String,
    /// The system file as the scenario (or `--system`) names it.
    pub system_file: String,
    /// Splits into arrivals, feeds, think times, keys, fault starts and draws of the proxy.
    pub seed: u64,
    /// The URL of the Toxiproxy that the links run through; none is the run's own proxy.
    pub toxiproxy: Option<String>,
    /// What the command line changed in the files, as words of a command: `--set`, `load.arrivals=5/s`.
    #[serde(default)]
    pub changes: Vec<String>,
    /// What is there and how to see it.
    pub system: SystemPlan,
    /// What is driven against it.
    pub load: LoadPlan,
    /// When the phases begin, from the start of the load.
    pub phases: PhasesPlan,
    /// What is broken, in order of start.
    pub faults: Vec<FaultPlan>,
    /// What must hold, in the order of the file; `stays-up` is always among them.
    pub properties: Vec<PropertyPlan>,
}

/// The absolute time line, from the start of the load (T0). Draining follows `load_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhasesPlan {
    /// When the warm-up ends and the baseline begins.
    #[serde(with = "quantity::duration_serde")]
    pub baseline_start: Duration,
    /// When the baseline ends; faults are placed relative to it.
    #[serde(with = "quantity::duration_serde")]
    pub baseline_end: Duration,
    /// When the last fault has ended and the recovery begins.
    #[serde(with = "quantity::duration_serde")]
    pub recovery_start: Duration,
    /// When the load stops.
    #[serde(with = "quantity::duration_serde")]
    pub load_end: Duration,
    /// How long the drain may take; zero when the scenario has none.
    #[serde(with = "quantity::duration_serde")]
    pub drain_within: Duration,
    /// For how long all backlogs must be zero before the run counts as drained.
    #[serde(with = "quantity::duration_serde")]
    pub drain_quiet: Duration,
}

impl Plan {
    /// The plan as `plan.json`: the same bytes for the same files, seed and version.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan has text keys and finite numbers only")
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&ServicePlan> {
        self.system
            .services
            .iter()
            .find(|service| service.name.as_str() == name)
    }

    /// The link of that name.
    pub fn link(&self, name: &LinkName) -> Option<&LinkPlan> {
        self.system.links.iter().find(|link| link.name == *name)
    }

    /// The fault of that name.
    pub fn fault(&self, name: &FaultName) -> Option<&FaultPlan> {
        self.faults.iter().find(|fault| fault.name == *name)
    }

    /// The evidence source of that name.
    pub fn source(&self, name: &SourceName) -> Option<&SourcePlan> {
        self.system
            .evidence
            .iter()
            .find(|source| source.name == *name)
    }

    /// The service whose word a source is: the one that answers, logs, or owns the database.
    pub fn source_service(&self, name: &SourceName) -> Option<ServiceName> {
        match &self.source(name)?.fetch {
            Fetch::Http(fetch) => Some(fetch.service.clone()),
            Fetch::Log { service } => Some(service.clone()),
            Fetch::Operations { .. } => None,
            Fetch::Sql { database, .. } => self.database_owner(database),
        }
    }

    /// The service that a database's URL names (`sqlite://$(data:orders)/orders.db`), else the one
    /// of the database's name.
    fn database_owner(&self, name: &DatabaseName) -> Option<ServiceName> {
        let mut databases = self.system.databases.iter();
        let database = databases.find(|it| it.name == *name)?;
        let named = database.url.symbols().find_map(|symbol| match symbol {
            Symbol::DataOf(service) => Some(ServiceName::new(service)),
            Symbol::Direct { service, .. } => Some(ServiceName::new(service)),
            _ => None,
        });
        named.or_else(|| Some(self.service(name.as_str())?.name.clone()))
    }

    /// Who tells what crossed a link where its proxy does not: a source of `call` records of its
    /// caller, else of its callee, else of nobody in particular. A weaker witness.
    pub fn call_source(&self, link: &LinkName) -> Option<SourceName> {
        let sources = self.system.evidence.iter();
        let calls = sources.filter(|source| source.records == RecordKind::Call);
        let rank = |source: &SourcePlan| match self.source_service(&source.name) {
            Some(service) if service.as_str() == link.from => Some(0),
            Some(service) if service.as_str() == link.to => Some(1),
            Some(_) => None,
            None => Some(2),
        };
        let ranked = calls.filter_map(|source| Some((rank(source)?, &source.name)));
        ranked.min().map(|(_, name)| name.clone())
    }

    /// Whether a source is read in this run. Where the run's own proxies see every request, callers
    /// need not be asked what they sent; a service that only receives tells what came around its
    /// proxies.
    pub fn is_read(&self, source: &SourcePlan) -> bool {
        let receives_only = || {
            self.source_service(&source.name).is_some_and(|service| {
                let mut links = self.system.links.iter();
                links.all(|link| link.name.from != service.as_str())
            })
        };
        self.toxiproxy.is_some() || source.records != RecordKind::Call || receives_only()
    }

    /// What a run through a Toxiproxy cannot show for want of counts, a sentence each. Its verdicts
    /// will be inconclusive.
    pub fn uncounted(&self) -> Vec<String> {
        if self.toxiproxy.is_none() {
            return Vec::new();
        }
        let mut told = Vec::new();
        let unseen = |link: &LinkName| self.call_source(link).is_none();
        for fault in &self.faults {
            if let FaultEffect::Link { links, effect, .. } = &fault.effect {
                for link in links.iter().filter(|link| unseen(link)) {
                    told.push(format!(
                        "whether the fault `{}` bit on `{link}`: no source of `call` records of `{}` or `{}`",
                        fault.name, link.from, link.to
                    ));
                }
                if effect.leaves_requests_whole() {
                    told.push(format!(
                        "whether the fault `{}` bit, unless callers give up: `{}` shows in no `call` record",
                        fault.name,
                        effect.name()
                    ));
                }
            }
        }
        for property in &self.properties {
            let link = match &property.property {
                Property::Breaker(breaker) => &breaker.link,
                Property::Retries(retries) => &retries.link,
                _ => continue,
            };
            if unseen(link) {
                told.push(format!(
                    "`{}`: no source of `call` records of `{}` or `{}`",
                    property.name, link.from, link.to
                ));
            }
        }
        told
    }

    /// The sources of claimed breaker states that speak for a link: its caller's own, and those
    /// that are no single service's.
    pub fn claims_on(&self, link: &LinkName) -> Vec<SourceName> {
        let sources = self.system.evidence.iter();
        let claims = sources.filter(|source| source.records == RecordKind::Transition);
        let speaks = |source: &&SourcePlan| {
            let service = self.source_service(&source.name);
            service.is_none_or(|service| service.as_str() == link.from)
        };
        claims.filter(speaks).map(|it| it.name.clone()).collect()
    }
}
