//! What the plan's symbols stand for in this run: ports, link addresses, folders, the token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::plan::template::Symbol;
use crate::plan::{LinkName, Plan, Template};

/// Everything that a symbol can stand for.
#[derive(Clone, Debug)]
pub struct Bindings {
    /// The run's id.
    pub run_id: String,
    /// A secret of this run, for the evidence endpoints of services.
    pub token: String,
    /// A path that executes this very binary for as long as the coordinator lives.
    pub chaos: String,
    /// Resolved `allow-env`.
    pub environment: BTreeMap<String, String>,
    /// (service, port) → port number.
    pub ports: BTreeMap<(String, String), u16>,
    /// Link → where its proxy listens.
    pub links: BTreeMap<LinkName, String>,
    /// The folder that holds the services' data folders.
    pub data: PathBuf,
}

impl Bindings {
    /// The address of a service's port, past the proxies.
    pub fn address(&self, service: &str, port: &str) -> Result<String, String> {
        self.ports
            .get(&(service.to_owned(), port.to_owned()))
            .map(|number| format!("127.0.0.1:{number}"))
            .ok_or_else(|| format!("`{service}.{port}` is no port of this run"))
    }

    /// The data folder of a service.
    pub fn data_of(&self, service: &str) -> PathBuf {
        self.data.join(service)
    }

    /// What a symbol stands for, in the text of `service` (none: in a text of the run itself).
    pub fn bind(&self, service: Option<&str>, symbol: &Symbol) -> Result<String, String> {
        let own = || service.ok_or_else(|| format!("`$({symbol})` stands outside of a service"));
        let link = |to: &str| {
            let name = LinkName::new(own()?, to);
            self.links
                .get(&name)
                .cloned()
                .ok_or_else(|| format!("`{name}` has no proxy"))
        };
        Ok(match symbol {
            Symbol::Port(port) => {
                let own = own()?;
                let number = self.ports.get(&(own.to_owned(), port.clone()));
                number
                    .ok_or_else(|| format!("`{own}.{port}` is no port of this run"))?
                    .to_string()
            }
            Symbol::Link(to) => link(to)?,
            Symbol::LinkHost(to) => host_and_port(&link(to)?).0.to_owned(),
            Symbol::LinkPort(to) => host_and_port(&link(to)?).1.to_owned(),
            Symbol::Direct { service, port } => self.address(service, port)?,
            Symbol::Data => self.data_of(own()?).display().to_string(),
            Symbol::DataOf(service) => self.data_of(service).display().to_string(),
            Symbol::RunId => self.run_id.clone(),
            Symbol::RunToken => self.token.clone(),
            Symbol::Env(name) => self
                .environment
                .get(name)
                .cloned()
                .ok_or_else(|| format!("`{name}` is not in `allow-env`"))?,
            Symbol::Chaos => self.chaos.clone(),
            Symbol::Otlp
            | Symbol::Cursor
            | Symbol::Key
            | Symbol::Pick { .. }
            | Symbol::Captured(_) => {
                return Err(format!("`$({symbol})` means nothing here"));
            }
        })
    }

    /// Fills in a template of a service.
    pub fn render(&self, service: &str, template: &Template) -> Result<String, String> {
        template.render(|symbol| self.bind(Some(service), symbol))
    }
}

fn host_and_port(address: &str) -> (&str, &str) {
    address.rsplit_once(':').unwrap_or((address, ""))
}

/// The ports that a plan wants: (service, port, pinned).
pub fn wanted_ports(plan: &Plan) -> Vec<(String, String, Option<u16>)> {
    let services = plan.system.services.iter();
    services
        .flat_map(|service| {
            service
                .ports
                .iter()
                .map(|(port, pinned)| (service.name.to_string(), port.to_string(), *pinned))
        })
        .collect()
}

/// A project path: relative to the folder of the system file. Absolute, because the keeper and
/// the services have working directories of their own.
pub fn in_project(plan: &Plan, path: &str) -> PathBuf {
    let path = Path::new(&plan.system.folder).join(path);
    // It fails only without a working directory; the path as it is will then say what is wrong.
    std::path::absolute(&path).unwrap_or(path)
}
