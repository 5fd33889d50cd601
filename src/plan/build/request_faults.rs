//! Faults of single requests, of segments and of bits: what the embedded proxy alone can do.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::{Span, meaning};
use crate::plan::fault::{HttpEffect, HttpFault};
use crate::plan::{LinkEffect, LinkName};
use crate::scenario::fault_file::{CorruptFile, FaultFile, HttpFile, LossFile};
use crate::scenario::system_file::ProtocolFile;
use crate::scenario::text::Spanned;

use super::Builder;

/// A bit in about this many bytes.
const CORRUPT_EVERY: u64 = 1000;
/// A bad day of a mobile network.
const LOSS_SHARE: f64 = 0.01;
/// Linux' shortest retransmission time-out.
const LOSS_TIMEOUT: Duration = Duration::from_millis(200);

impl Builder<'_> {
    pub(super) fn corrupt(&mut self, span: Span, file: &CorruptFile) -> LinkEffect {
        let every = file.every.as_ref();
        let every = every.map_or(CORRUPT_EVERY, |every| self.size(every));
        if every == 0 {
            self.mistake(meaning::out_of_range(span, "`every`", "above 0B"));
        }
        LinkEffect::Corrupt { every }
    }

    pub(super) fn loss(&mut self, span: Span, file: &LossFile) -> LinkEffect {
        let share = file.share.as_ref();
        let share = share.map_or(LOSS_SHARE, |share| self.share(share));
        if !(share > 0.0 && share <= 1.0) {
            let allowed = "above 0% and at most 100%";
            self.mistake(meaning::out_of_range(span, "`share`", allowed));
        }
        let timeout = self.time_or(file.timeout.as_ref(), LOSS_TIMEOUT);
        LinkEffect::Loss { share, timeout }
    }

    pub(super) fn http_fault(&mut self, http: &Spanned<HttpFile>) -> HttpFault {
        let file = &http.value;
        let share = file.share.as_ref().map_or(1.0, |share| self.share(share));
        if !(share > 0.0 && share <= 1.0) {
            let allowed = "above 0% and at most 100%";
            self.mistake(meaning::out_of_range(http.span, "`share`", allowed));
        }
        for (name, count) in [("`first`", &file.first), ("`every`", &file.every)] {
            if let Some(zero) = count.as_ref().filter(|count| count.value == 0) {
                self.mistake(meaning::out_of_range(zero.span, name, "above 0"));
            }
        }
        let matches = file.matches.as_ref();
        let header = matches
            .into_iter()
            .flat_map(|matches| matches.header.iter());
        HttpFault {
            effect: self.http_effect(http),
            delay: self.time_or(file.delay.as_ref(), Duration::ZERO),
            method: matches.and_then(|matches| matches.method.clone()),
            path: matches.and_then(|matches| matches.path.clone()),
            header: header
                .map(|(name, value)| (name.value.clone(), value.clone()))
                .collect::<BTreeMap<_, _>>(),
            share,
            first: file.first.as_ref().map(|count| count.value),
            every: file.every.as_ref().map(|count| count.value),
        }
    }

    fn http_effect(&mut self, http: &Spanned<HttpFile>) -> HttpEffect {
        let file = &http.value;
        let body = file.body.clone();
        let [status, abort, drop] = [file.status.is_some(), file.abort, file.drop_response];
        let alone = !(status || abort || drop || body.is_some());
        let keys = [
            ("status", status),
            ("abort", abort),
            ("drop-response", drop),
            ("body", body.is_some() && !status),
            ("delay", alone && file.delay.is_some()),
        ];
        self.choose(http.span, "an http fault", &keys);
        match (&file.status, body) {
            (Some(status), body) => {
                if !(200..600).contains(&status.value) {
                    let allowed = "from 200 to 599";
                    self.mistake(meaning::out_of_range(status.span, "`status`", allowed));
                }
                HttpEffect::Status {
                    status: status.value,
                    body: body.unwrap_or_default(),
                }
            }
            _ if abort => HttpEffect::Abort,
            _ if drop => HttpEffect::DropResponse,
            (None, Some(body)) => HttpEffect::Body { body },
            (None, None) => HttpEffect::Delay,
        }
    }

    /// Requests are found only where the proxy reads HTTP.
    pub(super) fn check_http_links(&mut self, file: &FaultFile, links: &[LinkName]) {
        let declared = &self.system_file().links;
        let speaks_http = |link: &LinkName| {
            let mut same = declared
                .iter()
                .filter(|(name, _)| LinkName::parse(&name.value).as_ref() == Some(link));
            let protocol = same
                .next()
                .and_then(|(_, file)| file.value.protocol.as_ref());
            protocol.is_none_or(|protocol| protocol.value == ProtocolFile::Http)
        };
        if let Some(other) = links.iter().find(|link| !speaks_http(link)) {
            let needs = format!("requests, and `{other}` is not declared `protocol: http`");
            self.mistake(meaning::wrong_target(file.inject.span, "http", &needs));
        }
    }
}
