//! Services: what is started, how, and when it counts as ready.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::system::{FileHow, FilePlan, Ready};
use crate::plan::{LOAD, PortName, ServiceName, ServicePlan, Template};
use crate::scenario::ports::Ports;
use crate::scenario::stays_inside;
use crate::scenario::system_file::{FileFile, ReadyFile, ServiceFile};
use crate::scenario::text::{Spanned, Text};

use super::Builder;
use super::templates::Scope;

const READY_WITHIN_DEFAULT: Duration = Duration::from_secs(10);
const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// Signals that ask a process to stop.
pub(super) const SIGNALS: [&str; 5] = ["TERM", "INT", "QUIT", "HUP", "KILL"];

impl Builder<'_> {
    pub(super) fn services(&mut self) -> Vec<ServicePlan> {
        let services = &self.system_file().services;
        let plans = services
            .iter()
            .map(|(name, service)| self.service(name, service))
            .collect();
        self.check_needs();
        plans
    }

    fn service(&mut self, name: &Text, service: &Spanned<ServiceFile>) -> ServicePlan {
        self.service_name(name);
        let file = &service.value;
        let scope = Scope::Service(&name.value);
        if file.command.is_empty() {
            let what = "the command";
            self.mistake(meaning::out_of_range(name.span, what, "at least one word"));
        }
        if let Some(replicas) = file
            .replicas
            .as_ref()
            .filter(|replicas| replicas.value != 1)
        {
            self.mistake(meaning::not_supported(
                replicas.span,
                "more than one replica is",
            ));
        }
        let dir = file.dir.as_ref().map_or(".", |dir| self.inside(dir));
        let prepare = file.prepare.iter();
        let stop = file.stop.as_ref();
        let ready_within = file
            .ready
            .as_ref()
            .and_then(|ready| ready.value.within.as_ref());
        ServicePlan {
            name: ServiceName::new(&name.value),
            source: self.source(name.span),
            command: self.argv(&file.command, scope),
            dir: dir.to_owned(),
            prepare: prepare.map(|argv| self.argv(argv, scope)).collect(),
            once: file.once,
            needs: self.needs(&file.needs),
            ports: self.ports(&file.ports),
            env: file
                .env
                .iter()
                .map(|(name, value)| (name.value.clone(), self.scalar(value, scope)))
                .collect(),
            files: file
                .files
                .iter()
                .map(|(name, file)| self.file(name, file, scope))
                .collect(),
            ready: self.ready(name, file, scope),
            ready_within: self.time_or(ready_within, READY_WITHIN_DEFAULT),
            stop_signal: stop
                .and_then(|stop| stop.signal.as_ref())
                .map_or_else(|| "TERM".into(), |signal| self.signal(signal)),
            stop_grace: self.time_or(
                stop.and_then(|stop| stop.grace.as_ref()),
                STOP_GRACE_DEFAULT,
            ),
        }
    }

    fn service_name(&mut self, name: &Text) {
        let sound = name
            .value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if name.value == LOAD {
            let why = "it stands for the load itself";
            self.mistake(meaning::bad_name(name.span, &name.value, why));
        } else if !sound || name.value.is_empty() {
            let why = "letters, digits, `-` and `_` only";
            self.mistake(meaning::bad_name(name.span, &name.value, why));
        }
    }

    fn argv(&mut self, words: &[Text], scope: Scope<'_>) -> Vec<Template> {
        words.iter().map(|word| self.text(word, scope)).collect()
    }

    fn needs(&mut self, needs: &[Text]) -> Vec<ServiceName> {
        let known = needs
            .iter()
            .filter(|need| self.known_service(&need.value, need.span));
        known.map(|need| ServiceName::new(&need.value)).collect()
    }

    /// `needs` that lead back to where they started would wait for ever.
    fn check_needs(&mut self) {
        let services = &self.system_file().services;
        for (name, service) in services.iter() {
            let mut reached: Vec<&str> = Vec::new();
            let mut queue: Vec<&Text> = service.value.needs.iter().collect();
            while let Some(need) = queue.pop() {
                if need.value == name.value {
                    self.mistake(meaning::needs_itself(name.span, &name.value));
                    break;
                }
                if !reached.contains(&need.value.as_str()) {
                    reached.push(&need.value);
                    let next = services.get(&need.value);
                    queue.extend(next.iter().flat_map(|next| &next.value.needs));
                }
            }
        }
    }

    fn ports(&mut self, ports: &Ports) -> BTreeMap<PortName, Option<u16>> {
        let mut plan = BTreeMap::new();
        for (name, pin) in &ports.0 {
            let number = match pin {
                None => None,
                Some(pin) if pin.value.0 == "auto" => None,
                Some(pin) => match pin.value.0.parse::<u16>() {
                    Ok(number) if number > 0 => Some(number),
                    _ => {
                        let allowed = "`auto` or a number from 1 to 65535";
                        self.mistake(meaning::out_of_range(pin.span, "a port", allowed));
                        None
                    }
                },
            };
            if plan.insert(PortName::new(&name.value), number).is_some() {
                self.mistake(meaning::duplicate_name(Noun::Port, name.span, &name.value));
            }
        }
        plan
    }

    fn file(&mut self, name: &Text, file: &FileFile, scope: Scope<'_>) -> FilePlan {
        let keys = [
            ("from", file.from.is_some()),
            ("template", file.template.is_some()),
        ];
        self.choose(name.span, "a file", &keys);
        self.inside(name);
        let from = file.from.as_ref().or(file.template.as_ref());
        let how = match &file.template {
            Some(_) => FileHow::Template,
            None => FileHow::Set(
                file.set
                    .iter()
                    .map(|(path, value)| (path.value.clone(), self.scalar(value, scope)))
                    .collect(),
            ),
        };
        FilePlan {
            name: name.value.clone(),
            from: from.map_or("", |from| self.inside(from)).to_owned(),
            how,
        }
    }

    /// A path that stays in the folder of the system file.
    fn inside<'t>(&mut self, path: &'t Text) -> &'t str {
        if !stays_inside(&path.value) {
            self.mistake(meaning::outside_folder(path.span, &path.value));
        }
        &path.value
    }

    pub(super) fn signal(&mut self, signal: &Text) -> String {
        let name = signal.value.trim_start_matches("SIG").to_owned();
        if !SIGNALS.contains(&name.as_str()) {
            let allowed = "TERM, INT, QUIT, HUP or KILL";
            self.mistake(meaning::out_of_range(signal.span, "a signal", allowed));
        }
        name
    }

    fn ready(&mut self, name: &Text, service: &ServiceFile, scope: Scope<'_>) -> Ready {
        let nothing = || Ready::Log(String::new());
        let Some(ready) = &service.ready else {
            return match service.ports.0.first() {
                _ if service.once => Ready::Exit,
                Some((port, _)) => Ready::Tcp(PortName::new(&port.value)),
                None => {
                    let keys = ["http", "tcp", "log", "command"];
                    self.mistake(meaning::one_of(name.span, "`ready`", &keys, &[]));
                    nothing()
                }
            };
        };
        let file = &ready.value;
        let keys = [
            ("http", file.http.is_some()),
            ("tcp", file.tcp.is_some()),
            ("log", file.log.is_some()),
            ("command", file.command.is_some()),
        ];
        // A job may say only how long it may take.
        if service.once && keys.iter().all(|(_, given)| !given) {
            return Ready::Exit;
        }
        self.choose(ready.span, "`ready`", &keys);
        match file {
            ReadyFile {
                http: Some(path), ..
            } => Ready::Http {
                path: path.value.clone(),
                port: self.ready_port(file.port.as_ref(), path.span, service),
            },
            ReadyFile {
                tcp: Some(port), ..
            } => Ready::Tcp(self.ready_port(Some(port), port.span, service)),
            ReadyFile {
                log: Some(text), ..
            } => Ready::Log(text.value.clone()),
            ReadyFile {
                command: Some(argv),
                ..
            } => Ready::Command(self.argv(argv, scope)),
            _ => nothing(),
        }
    }

    fn ready_port(&mut self, port: Option<&Text>, span: Span, service: &ServiceFile) -> PortName {
        let names = service.ports.names();
        match port {
            Some(port) => {
                if !names.clone().any(|name| name == port.value) {
                    self.mistake(meaning::unknown(Noun::Port, port.span, &port.value, names));
                }
                PortName::new(&port.value)
            }
            None => {
                let mut names = names;
                match (names.next(), names.next()) {
                    (Some(only), None) => PortName::new(only),
                    (first, _) => {
                        let why = "`port:` of `ready` with several ports";
                        self.mistake(meaning::not_declared(span, why, "add `port: http`"));
                        PortName::new(first.unwrap_or_default())
                    }
                }
            }
        }
    }
}
