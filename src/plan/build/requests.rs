//! Requests of journeys and setup, and what their answers mean.

use serde_json::Value;

use crate::diagnostic::Span;
use crate::diagnostic::meaning;
use crate::plan::load::{JsonPath, OutcomeMap, Request, StatusRange};
use crate::scenario::system_file::{OutcomeFile, RequestFile};
use crate::scenario::text::{Scalar, Spanned};

use super::Builder;
use super::templates::Scope;

impl Builder<'_> {
    pub(super) fn request(&mut self, file: &RequestFile, span: Span, scope: Scope<'_>) -> Request {
        let methods = [
            ("get", &file.get),
            ("post", &file.post),
            ("put", &file.put),
            ("patch", &file.patch),
            ("delete", &file.delete),
        ];
        let keys = methods.map(|(name, path)| (name, path.is_some()));
        let chosen = self.choose(span, "the request", &keys);
        let (method, path) = chosen
            .and_then(|index| Some((methods[index].0, methods[index].1.as_ref()?)))
            .map_or(("get", None), |(method, path)| (method, Some(path)));
        if let Some(path) = path.filter(|path| !path.value.starts_with('/')) {
            let what = "the path of a request";
            self.mistake(meaning::out_of_range(
                path.span,
                what,
                "one that starts with `/`",
            ));
        }
        if let Some(json) = &file.json {
            self.body(&json.value.0, json.span, scope);
        }
        Request {
            method: method.to_ascii_uppercase(),
            path: path.map(|path| self.text(path, scope)).unwrap_or_default(),
            headers: file
                .headers
                .iter()
                .map(|(name, value)| (name.value.clone(), self.scalar(value, scope)))
                .collect(),
            json: file.json.as_ref().map(|json| json.value.0.clone()),
        }
    }

    /// Checks every string of a body as a template.
    fn body(&mut self, value: &Value, span: Span, scope: Scope<'_>) {
        match value {
            Value::String(text) => {
                self.template(text, span, scope);
            }
            Value::Array(items) => items.iter().for_each(|item| self.body(item, span, scope)),
            Value::Object(fields) => {
                fields
                    .values()
                    .for_each(|field| self.body(field, span, scope));
            }
            _ => {}
        }
    }

    pub(super) fn outcome(&mut self, file: &OutcomeFile) -> OutcomeMap {
        let done = match &file.done {
            Some(done) => self.statuses(done),
            None => vec![StatusRange(200, 299)],
        };
        let body_null = file.body.as_ref().and_then(|body| {
            let path = body.value.strip_suffix("null").map(str::trim_end);
            let path = path.and_then(|rest| rest.strip_suffix("==")).map(str::trim);
            let path = path.and_then(|path| JsonPath::parse(path).ok());
            if path.is_none() {
                let what = "a condition on the body";
                self.mistake(meaning::out_of_range(
                    body.span,
                    what,
                    "of the form `.errors == null`",
                ));
            }
            path
        });
        OutcomeMap {
            done,
            accepted: self.statuses(&file.accepted),
            refused: self.statuses(&file.refused),
            body_null,
        }
    }

    fn statuses(&mut self, statuses: &[Spanned<Scalar>]) -> Vec<StatusRange> {
        let mut ranges = Vec::new();
        for status in statuses {
            match status_range(&status.value.0) {
                Some(range) => ranges.push(range),
                None => {
                    let allowed = "a number from 100 to 599, `2xx` or `200-204`";
                    self.mistake(meaning::out_of_range(status.span, "a status", allowed));
                }
            }
        }
        ranges
    }
}

/// `201`, `2xx`, `200-204`.
fn status_range(text: &str) -> Option<StatusRange> {
    let text = text.trim();
    let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => {
            let class: u16 = class.parse().ok()?;
            (class.checked_mul(100)?, class.checked_mul(100)? + 99)
        }
        (None, Some((first, last))) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
        (None, None) => (text.parse().ok()?, text.parse().ok()?),
    };
    (100..=599).contains(&first).then_some(())?;
    (first <= last && last <= 599).then_some(StatusRange(first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_classes_and_ranges() {
        assert_eq!(status_range("201"), Some(StatusRange(201, 201)));
        assert_eq!(status_range("2xx"), Some(StatusRange(200, 299)));
        assert_eq!(status_range("200-204"), Some(StatusRange(200, 204)));
        for bad in ["", "20", "9xx", "204-200", "ok", "999xx"] {
            assert_eq!(status_range(bad), None, "{bad}");
        }
    }
}
