//! Evidence: sources, backlogs, databases, and what sagas and consumers there are.

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::load::OutcomeClass;
use crate::plan::system::{
    BacklogPlan, ConsumerPlan, DatabasePlan, Fetch, HttpFetch, OPERATIONS, REQUEST_LOG, RecordKind,
    SagaPlan, SourcePlan,
};
use crate::plan::{
    BacklogName, ConsumerName, DatabaseName, OperationName, PortName, SagaName, ServiceName,
    SourceName, Template, jq,
};
use crate::scenario::system_file::{
    EvidenceFile, HttpFile, OperationsFile, OutcomeWord, RecordsFile, SagaFile, SqlFile,
};
use crate::scenario::text::{Spanned, Text};

use super::Builder;
use super::templates::Scope;

impl Builder<'_> {
    pub(super) fn databases(&mut self) -> Vec<DatabasePlan> {
        let mut plans = Vec::new();
        for (name, database) in self.system_file().databases.iter() {
            let url = &database.url;
            if !url.value.starts_with("sqlite:") {
                let what = "a database other than SQLite is";
                self.mistake(meaning::not_supported(url.span, what));
            }
            plans.push(DatabasePlan {
                name: DatabaseName::new(&name.value),
                url: self.text(url, Scope::Database),
            });
        }
        plans
    }

    pub(super) fn sagas(&mut self) -> Vec<SagaPlan> {
        let sagas = self.system_file().sagas.iter();
        sagas.map(|(name, saga)| self.saga(name, saga)).collect()
    }

    fn saga(&mut self, name: &Text, file: &SagaFile) -> SagaPlan {
        let steps: Vec<&str> = file.steps.iter().map(|step| step.value.as_str()).collect();
        let undone = file.undo.iter().map(|(step, _)| step);
        for step in undone.chain(&file.pivot) {
            if !steps.contains(&step.value.as_str()) {
                let candidates = steps.iter().copied();
                let mistake = meaning::unknown(Noun::SagaStep, step.span, &step.value, candidates);
                self.mistake(mistake);
            }
        }
        SagaPlan {
            name: SagaName::new(&name.value),
            steps: steps.iter().map(|step| (*step).to_owned()).collect(),
            undo: file
                .undo
                .iter()
                .map(|(step, undo)| (step.value.clone(), undo.value.clone()))
                .collect(),
            pivot: file.pivot.as_ref().map(|pivot| pivot.value.clone()),
        }
    }

    pub(super) fn consumers(&mut self) -> Vec<ConsumerPlan> {
        let consumers = self.system_file().consumers.iter();
        consumers
            .map(|(name, patterns)| ConsumerPlan {
                name: ConsumerName::new(&name.value),
                patterns: patterns.clone(),
            })
            .collect()
    }

    pub(super) fn evidence(&mut self) -> Vec<SourcePlan> {
        let sources = self.system_file().evidence.iter();
        sources
            .filter_map(|(name, source)| self.evidence_source(name, &source.value))
            .collect()
    }

    fn evidence_source(&mut self, name: &Text, file: &EvidenceFile) -> Option<SourcePlan> {
        if [OPERATIONS, REQUEST_LOG].contains(&name.value.as_str()) {
            let why = "it stands for what the run itself records";
            self.mistake(meaning::bad_name(name.span, &name.value, why));
        }
        let records = self.record_kind(&file.records)?;
        for (part, what) in [
            (&file.otlp, "collecting traces is"),
            (&file.prometheus, "reading Prometheus metrics is"),
        ] {
            if let Some(part) = part {
                self.mistake(meaning::not_supported(part.span, what));
                return None;
            }
        }
        let every = file.every.as_ref().map(|every| self.time(every));
        let at_end = file.at_end.as_ref().filter(|at_end| at_end.value);
        if let (Some(_), Some(at_end)) = (&every, at_end) {
            let keys = ["at-end", "every"];
            self.mistake(meaning::one_of(
                at_end.span,
                "an evidence source",
                &keys,
                &keys,
            ));
        }
        if let Some(written) = file
            .every
            .as_ref()
            .filter(|_| every.is_some_and(|t| t.is_zero()))
        {
            self.mistake(meaning::out_of_range(written.0.span, "`every`", "above 0s"));
        }
        if let (Some(every), Some(word)) = (&file.every, counted(records)) {
            self.mistake(meaning::read_once(every.0.span, word));
        }
        let keys = [
            ("http", file.http.is_some()),
            ("sql", file.sql.is_some()),
            ("log", file.log.is_some()),
            ("operations", file.operations.is_some()),
        ];
        self.choose(name.span, "an evidence source", &keys)?;
        let fetch = self.fetch_of(file)?;
        let rows = match (&file.rows, &fetch) {
            (Some(rows), _) => self.filter(rows),
            (None, Fetch::Http(_)) => ".[]".to_owned(),
            (None, _) => ".".to_owned(),
        };
        let select = file.select.as_ref().map(|select| self.filter(select));
        Some(SourcePlan {
            name: SourceName::new(&name.value),
            source: self.source(name.span),
            records,
            every,
            fetch,
            rows,
            select: select.unwrap_or_else(|| ".".into()),
        })
    }

    fn fetch_of(&mut self, file: &EvidenceFile) -> Option<Fetch> {
        if let Some(http) = &file.http {
            return self.http_fetch(&http.value).map(Fetch::Http);
        }
        if let Some(sql) = &file.sql {
            return self.sql_fetch(&sql.value);
        }
        if let Some(log) = &file.log {
            let service = &log.value.service;
            self.known_service(&service.value, service.span)
                .then_some(())?;
            return Some(Fetch::Log {
                service: ServiceName::new(&service.value),
            });
        }
        let operations = file.operations.as_ref()?;
        self.operations_fetch(&operations.value)
    }

    fn record_kind(&mut self, records: &Spanned<RecordsFile>) -> Option<RecordKind> {
        use RecordsFile as R;
        Some(match records.value {
            R::Call => RecordKind::Call,
            R::Transition => RecordKind::Transition,
            R::Saga => RecordKind::Saga,
            R::Event => RecordKind::Event,
            R::Effect => RecordKind::Effect,
            R::Delivery => RecordKind::Delivery,
            R::DeadLetter => RecordKind::DeadLetter,
            R::Entry => RecordKind::Entry,
            R::Version => RecordKind::Version,
            R::Sample => RecordKind::Sample,
            R::Span => {
                self.mistake(meaning::not_supported(records.span, "collecting traces is"));
                return None;
            }
        })
    }

    fn http_fetch(&mut self, file: &HttpFile) -> Option<HttpFetch> {
        let (address, path) = match file.get.value.split_once('/') {
            Some((address, path)) => (address.to_owned(), format!("/{path}")),
            None => (file.get.value.clone(), "/".to_owned()),
        };
        let address = self.address(&address, file.get.span);
        let path = self.template(&path, file.get.span, Scope::Fetch);
        let headers = file.headers.iter();
        let headers = headers
            .map(|(name, value)| (name.value.clone(), self.scalar(value, Scope::Fetch)))
            .collect();
        let after = file
            .after
            .as_ref()
            .map(|after| self.text(after, Scope::Cursor));
        let cursor = file.cursor.as_ref().map(|cursor| self.filter(cursor));
        if let (Some(after), None) = (&file.after, &cursor) {
            let what = "`cursor:` beside `after:`";
            let help = "add `cursor: .next`, the jq for the next cursor in an answer";
            self.mistake(meaning::not_declared(after.span, what, help));
        }
        let (service, port) = address?;
        Some(HttpFetch {
            service: ServiceName::new(service),
            port: PortName::new(port),
            path,
            headers,
            after: after.or_else(|| {
                let cursor = crate::plan::Part::Symbol(crate::plan::Symbol::Cursor);
                file.cursor.as_ref().map(|_| Template(vec![cursor]))
            }),
            cursor,
        })
    }

    fn sql_fetch(&mut self, file: &SqlFile) -> Option<Fetch> {
        let databases = &self.system_file().databases;
        let name = &file.database;
        if databases.get(&name.value).is_none() {
            let names = databases.names();
            self.mistake(meaning::unknown(
                Noun::Database,
                name.span,
                &name.value,
                names,
            ));
            return None;
        }
        let query = file.query.value.trim_start().to_ascii_lowercase();
        if !(query.starts_with("select") || query.starts_with("with")) {
            let allowed = "a `select` (the harness only reads)";
            self.mistake(meaning::out_of_range(file.query.span, "a query", allowed));
        }
        Some(Fetch::Sql {
            database: DatabaseName::new(&name.value),
            query: file.query.value.clone(),
        })
    }

    fn operations_fetch(&mut self, file: &OperationsFile) -> Option<Fetch> {
        let known = self.operation_known(&file.step.value, file.step.span);
        let outcomes = match &file.outcome {
            Some(outcomes) => outcomes.iter().map(|word| class(word.value)).collect(),
            None => vec![
                OutcomeClass::Done,
                OutcomeClass::Accepted,
                OutcomeClass::Refused,
                OutcomeClass::Unknown,
                OutcomeClass::Unsettled,
            ],
        };
        known.then(|| Fetch::Operations {
            operation: OperationName::new(&file.step.value),
            outcomes,
        })
    }

    /// Whether any journey of the system has a step of that name.
    fn operation_known(&mut self, operation: &str, span: Span) -> bool {
        let journeys = self.system_file().journeys.iter();
        let steps = journeys.flat_map(|(_, journey)| &journey.value.steps);
        let names: Vec<&str> = steps.map(|step| step.value.name.value.as_str()).collect();
        let known = names.contains(&operation);
        if !known {
            self.mistake(meaning::unknown(Noun::Operation, span, operation, names));
        }
        known
    }

    /// A jq filter, which must compile.
    fn filter(&mut self, text: &Text) -> String {
        if let Err(why) = jq::compile(&text.value) {
            self.mistake(meaning::bad_filter(text.span, &why));
        }
        text.value.clone()
    }

    pub(super) fn backlogs(&mut self) -> Vec<BacklogPlan> {
        let mut plans = Vec::new();
        for (name, backlog) in self.system_file().backlogs.iter() {
            let file = &backlog.value;
            let keys = [("http", file.http.is_some()), ("sql", file.sql.is_some())];
            let chosen = self.choose(name.span, "a backlog", &keys);
            let select = self.filter(&file.select);
            let fetch = match (chosen, &file.http, &file.sql) {
                (Some(_), Some(http), _) => self.http_fetch(&http.value).map(Fetch::Http),
                (Some(_), None, Some(sql)) => self.sql_fetch(&sql.value),
                _ => None,
            };
            plans.extend(fetch.map(|fetch| BacklogPlan {
                name: BacklogName::new(&name.value),
                source: self.source(name.span),
                fetch,
                select,
            }));
        }
        plans
    }
}

/// The name of records that are counted row by row, two equal ones for two.
fn counted(records: RecordKind) -> Option<&'static str> {
    match records {
        RecordKind::Effect => Some("effect"),
        RecordKind::Delivery => Some("delivery"),
        RecordKind::Entry => Some("entry"),
        _ => None,
    }
}

fn class(word: OutcomeWord) -> OutcomeClass {
    match word {
        OutcomeWord::Done => OutcomeClass::Done,
        OutcomeWord::Accepted => OutcomeClass::Accepted,
        OutcomeWord::Refused => OutcomeClass::Refused,
        OutcomeWord::Unknown => OutcomeClass::Unknown,
        OutcomeWord::Unsettled => OutcomeClass::Unsettled,
    }
}
