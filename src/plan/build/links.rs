//! Links: every declared arrow, and those that carry the load into the system.

use crate::diagnostic::meaning::{self, Noun};
use crate::plan::system::{BreakerPlan, Protocol};
use crate::plan::{LOAD, LinkName, LinkPlan, Plan, PortName, ServiceName, Template};
use crate::scenario::fault_file::{DownHowFile, InjectFile};
use crate::scenario::property_file::ExpectFile;
use crate::scenario::system_file::{
    BreakerFile, LinkFile, ProtocolFile, RecordsFile, WhenDownFile,
};
use crate::scenario::text::{Spanned, Text};

use super::Builder;

impl Builder<'_> {
    pub(super) fn links(&mut self) -> Vec<LinkPlan> {
        let links = &self.system_file().links;
        let mut plans: Vec<LinkPlan> = Vec::new();
        for (name, link) in links.iter() {
            let Some(plan) = self.link(name, &link.value) else {
                continue;
            };
            if plans.iter().any(|other| other.name == plan.name) {
                self.mistake(meaning::duplicate_name(Noun::Link, name.span, &name.value));
            }
            self.check_used(name, &plan);
            plans.push(plan);
        }
        for plan in self.load_links() {
            if !plans.iter().any(|other| other.name == plan.name) {
                plans.push(plan);
            }
        }
        plans
    }

    fn link(&mut self, name: &Text, file: &LinkFile) -> Option<LinkPlan> {
        let Some(link) = LinkName::parse(&name.value) else {
            self.mistake(meaning::bad_link(name.span, &name.value));
            return None;
        };
        let known = self.known_service(&link.from, name.span);
        let (service, port) = self.address(&file.to.value, file.to.span)?;
        if service != link.to {
            let shown = link.to_string();
            self.mistake(meaning::link_leads_elsewhere(
                file.to.span,
                &shown,
                &service,
            ));
        }
        let protocol = self.protocol(file.protocol.as_ref());
        if let (Protocol::Tcp, Some(header)) = (protocol, &file.correlate) {
            let what = "the protocol of a link with `correlate:`";
            self.mistake(meaning::out_of_range(header.span, what, "http"));
        }
        known.then(|| LinkPlan {
            source: self.source(name.span),
            name: link,
            service: ServiceName::new(service),
            port: PortName::new(port),
            protocol,
            correlate: file.correlate.as_ref().map(|header| header.value.clone()),
            listen: file.listen.as_ref().map(|listen| self.listen(listen)),
            calls: file
                .calls
                .iter()
                .map(|(route, calls)| (route.value.clone(), *calls))
                .collect(),
            probe: file.probe.as_ref().map(|probe| probe.get.value.clone()),
            refuse_when_down: file.when_down != Some(WhenDownFile::Accept),
            breaker: file.breaker.as_ref().map(|breaker| self.breaker(breaker)),
        })
    }

    fn protocol(&mut self, protocol: Option<&Spanned<ProtocolFile>>) -> Protocol {
        let Some(protocol) = protocol else {
            return Protocol::Http;
        };
        match protocol.value {
            ProtocolFile::Http => Protocol::Http,
            ProtocolFile::Tcp => Protocol::Tcp,
            _ => {
                let what = "speaking this protocol (use `tcp`, which counts connections) is";
                self.mistake(meaning::not_supported(protocol.span, what));
                Protocol::Tcp
            }
        }
    }

    fn listen(&mut self, listen: &Text) -> String {
        let address = listen.value.parse::<std::net::SocketAddr>();
        // Whoever knows a pinned address by other means cannot know which port 0 became.
        if !address.is_ok_and(|address| address.port() > 0) {
            let allowed = "an address with a port above 0, like 127.0.0.1:26379";
            self.mistake(meaning::out_of_range(listen.span, "`listen`", allowed));
        }
        listen.value.clone()
    }

    fn breaker(&mut self, file: &BreakerFile) -> BreakerPlan {
        let threshold = self.share(&file.threshold);
        if !(threshold > 0.0 && threshold <= 1.0) {
            let span = file.threshold.0.span;
            self.mistake(meaning::out_of_range(
                span,
                "the threshold",
                "above 0% and up to 100%",
            ));
        }
        BreakerPlan {
            threshold,
            window: file.window,
            min_calls: file.min_calls,
            open_for: self.time(&file.open_for),
            probes: file.probes,
            instances: 1,
        }
    }

    /// A declared link that its caller is never told about would be bypassed. A pinned one may be
    /// known by other means.
    fn check_used(&mut self, name: &Text, link: &LinkPlan) {
        let Some(service) = self.system_file().services.get(&link.name.from) else {
            return;
        };
        let file = &service.value;
        let env = file.env.iter().map(|(_, value)| value.value.0.as_str());
        let set = file.files.iter().flat_map(|(_, file)| file.set.iter());
        let set = set.map(|(_, value)| value.value.0.as_str());
        let words = file.command.iter().chain(file.prepare.iter().flatten());
        let mut texts = env.chain(set).chain(words.map(|word| word.value.as_str()));
        let named = |text: &str| {
            let template = Template::parse(text).unwrap_or_default();
            template.symbols().any(|symbol| match symbol {
                crate::plan::Symbol::Link(to)
                | crate::plan::Symbol::LinkHost(to)
                | crate::plan::Symbol::LinkPort(to) => *to == link.name.to,
                _ => false,
            })
        };
        // What a template file holds is not known here.
        let templates = file.files.iter().any(|(_, file)| file.template.is_some());
        if link.listen.is_none() && !templates && !texts.any(named) {
            let LinkName { from, to } = &link.name;
            self.mistake(meaning::bypassed_link(name.span, from, to));
        }
    }

    /// The link of each journey that is driven: `load -> gateway`.
    fn load_links(&mut self) -> Vec<LinkPlan> {
        let system = self.system_file();
        let driven = &self.scenario_file().load.value.journeys;
        let mut plans: Vec<LinkPlan> = Vec::new();
        for (name, journey) in system.journeys.iter() {
            let target = &journey.value.target;
            if driven.get(&name.value).is_none() {
                continue;
            }
            let Some((service, port)) = self.address(&target.value, target.span) else {
                continue;
            };
            let link = LinkName::new(LOAD, &service);
            match plans.iter().find(|plan| plan.name == link) {
                Some(same) if same.port.as_str() == port => {}
                Some(_) => {
                    let what = "journeys to several ports of one service are";
                    self.mistake(meaning::not_supported(target.span, what));
                }
                None => plans.push(LinkPlan {
                    source: self.source(target.span),
                    name: link,
                    service: ServiceName::new(service),
                    port: PortName::new(port),
                    protocol: Protocol::Http,
                    correlate: None,
                    listen: None,
                    calls: std::collections::BTreeMap::new(),
                    probe: None,
                    refuse_when_down: true,
                    breaker: None,
                }),
            }
        }
        plans
    }

    /// The services that a service has declared links to.
    pub(super) fn callees(&self, from: &str) -> Vec<String> {
        let links = self.system_file().links.names();
        links
            .filter_map(LinkName::parse)
            .filter(|link| link.from == from)
            .map(|link| link.to)
            .collect()
    }

    /// The names of all links of the plan, for suggestions.
    pub(super) fn link_names(&self) -> Vec<String> {
        let links = self.system_file().links.names().filter_map(LinkName::parse);
        let mut names: Vec<String> = links.map(|link| link.to_string()).collect();
        let driven = &self.scenario_file().load.value.journeys;
        for (name, journey) in self.system_file().journeys.iter() {
            if driven.get(&name.value).is_some()
                && let Some((service, _)) = journey.value.target.value.split_once('.')
            {
                let link = LinkName::new(LOAD, service).to_string();
                if !names.contains(&link) {
                    names.push(link);
                }
            }
        }
        names
    }

    /// A link that the user names, if it exists.
    pub(super) fn link_named(&mut self, text: &Text) -> Option<LinkName> {
        let Some(link) = LinkName::parse(&text.value) else {
            self.mistake(meaning::bad_link(text.span, &text.value));
            return None;
        };
        let shown = link.to_string();
        let names = self.link_names();
        if names.contains(&shown) {
            return Some(link);
        }
        let candidates = names.iter().map(String::as_str);
        self.mistake(meaning::unknown(Noun::Link, text.span, &shown, candidates));
        None
    }

    /// What a breaker keeps off a link can only be counted where attempts arrive.
    pub(super) fn check_breaker_links(&mut self, plan: &Plan) {
        let evidence = &self.system_file().evidence;
        let counted = evidence
            .iter()
            .any(|(_, source)| source.value.records.value == RecordsFile::Call);
        if counted {
            return;
        }
        for (_, property) in self.scenario_file().expect.iter() {
            let ExpectFile::Breaker(breaker) = &property.value else {
                continue;
            };
            let Some(during) = &breaker.during else {
                continue;
            };
            let refuses = self.scenario_file().faults.get(&during.value);
            let refuses = refuses.is_some_and(|fault| match &fault.value.inject.value {
                InjectFile::Down(down) => down.how != Some(DownHowFile::Reset),
                _ => false,
            });
            let link = LinkName::parse(&breaker.link.value);
            let on_it = plan.faults.iter().any(|fault| {
                fault.name.as_str() == during.value
                    && link
                        .as_ref()
                        .is_some_and(|link| fault.effect.targets().contains(&link.to_string()))
            });
            if refuses && on_it {
                let link = &breaker.link.value;
                self.mistake(meaning::cannot_count(during.span, link, &during.value));
            }
        }
    }
}
