//! Feeds: values for journeys, written down, read from a file, or filled by `setup`.

use serde_json::Value;

use crate::diagnostic::Span;
use crate::diagnostic::meaning::{self, Noun};
use crate::plan::FeedName;
use crate::plan::load::{FeedEnd, FeedOrder, FeedPlan, FeedRow};
use crate::scenario::stays_inside;
use crate::scenario::system_file::{FeedEndFile, FeedFile, FeedOrderFile};
use crate::scenario::text::{Spanned, Text};

use super::Builder;

/// Rows of a feed: they are part of the plan.
const ROWS_MAX: usize = 100_000;

impl Builder<'_> {
    pub(super) fn feeds(&mut self) -> Vec<FeedPlan> {
        let feeds = self.system_file().feeds.iter();
        feeds.map(|(name, feed)| self.feed(name, feed)).collect()
    }

    fn feed(&mut self, name: &Text, feed: &Spanned<FeedFile>) -> FeedPlan {
        let file = &feed.value;
        let rows = self.feed_rows(name, file).unwrap_or_else(|(span, why)| {
            self.mistake(meaning::bad_feed(span, &why));
            Vec::new()
        });
        if rows.is_empty() && !self.filled_by_setup(&name.value) {
            let why = format!(
                "the feed `{}` has no values and no `setup` fills it",
                name.value
            );
            self.mistake(meaning::bad_feed(name.span, &why));
        }
        FeedPlan {
            name: FeedName::new(&name.value),
            rows,
            order: match file.order {
                Some(FeedOrderFile::Sequence) => FeedOrder::Sequence,
                Some(FeedOrderFile::Random) | None => FeedOrder::Random,
            },
            at_end: match file.at_end {
                Some(FeedEndFile::Stop) => FeedEnd::Stop,
                Some(FeedEndFile::Restart) | None => FeedEnd::Restart,
            },
        }
    }

    fn feed_rows(&mut self, name: &Text, file: &FeedFile) -> Result<Vec<FeedRow>, (Span, String)> {
        let given = [
            file.values.is_some(),
            file.csv.is_some(),
            file.json.is_some(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            return Err((
                name.span,
                "a feed has one of `values:`, `csv:`, `json:`".into(),
            ));
        }
        if let Some(values) = &file.values {
            return Ok(values.iter().map(|value| row(&value.0)).collect());
        }
        let Some(path) = file.csv.as_ref().or(file.json.as_ref()) else {
            return Ok(Vec::new());
        };
        if !stays_inside(&path.value) {
            self.mistake(meaning::outside_folder(path.span, &path.value));
            return Ok(vec![FeedRow::Plain(Value::Null)]);
        }
        let text = match self.files.feed_texts.get(&path.value) {
            Some(Ok(text)) => text,
            Some(Err(why)) => return Err((path.span, why.clone())),
            None => return Err((path.span, format!("`{}` was not read", path.value))),
        };
        let rows = match file.csv {
            Some(_) => csv(text),
            None => serde_json::from_str::<Vec<Value>>(text)
                .map(|values| values.iter().map(row).collect())
                .map_err(|error| format!("this is no JSON list: {error}")),
        };
        let rows = rows.map_err(|why| (path.span, why))?;
        if rows.len() > ROWS_MAX {
            return Err((path.span, format!("a feed has at most {ROWS_MAX} rows")));
        }
        Ok(rows)
    }

    fn filled_by_setup(&self, feed: &str) -> bool {
        let mut setup = self.system_file().setup.iter();
        setup.any(|request| {
            let into = request.value.into_feed.as_ref();
            into.is_some_and(|into| into.value == feed)
        })
    }

    /// `$(pick:FEED.FIELD)`: the feed must exist, and its rows must have the field.
    pub(super) fn picked(&mut self, feed: &str, field: Option<&str>, span: Span) {
        let system = self.system_file();
        let Some(file) = system.feeds.get(feed) else {
            let names = system.feeds.names();
            self.mistake(meaning::unknown(Noun::Feed, span, feed, names));
            return;
        };
        let Some(field) = field else {
            return;
        };
        let captured = system.setup.iter().filter(|request| {
            let into = request.value.into_feed.as_ref();
            into.is_some_and(|into| into.value == feed)
        });
        let mut fields: Vec<String> = captured
            .flat_map(|request| request.value.capture.names().map(str::to_owned))
            .collect();
        match file.value.values.as_ref().and_then(|values| values.first()) {
            Some(value) => {
                let object = value.0.as_object();
                fields.extend(object.into_iter().flat_map(|object| object.keys().cloned()));
            }
            // The fields of a file show when its rows are built.
            None if file.value.csv.is_some() || file.value.json.is_some() => return,
            None => {}
        }
        if !fields.iter().any(|known| known == field) {
            let candidates = fields.iter().map(String::as_str);
            self.mistake(meaning::unknown(Noun::Field, span, field, candidates));
        }
    }
}

fn row(value: &Value) -> FeedRow {
    match value {
        Value::Object(fields) => FeedRow::Fields(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        ),
        plain => FeedRow::Plain(plain.clone()),
    }
}

/// A CSV file whose first line names the fields; a field in double quotes may hold commas.
fn csv(text: &str) -> Result<Vec<FeedRow>, String> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let header = fields_of(lines.next().unwrap_or_default());
    let mut rows = Vec::new();
    for (index, line) in lines.enumerate() {
        let fields = fields_of(line);
        if fields.len() != header.len() {
            let (found, expected) = (fields.len(), header.len());
            let number = index + 2;
            return Err(format!(
                "line {number} has {found} fields, the first has {expected}"
            ));
        }
        let named = header
            .iter()
            .cloned()
            .zip(fields.into_iter().map(Value::String));
        rows.push(FeedRow::Fields(named.collect()));
    }
    Ok(rows)
}

fn fields_of(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let last = fields.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields[last].push(c),
        }
    }
    fields.iter().map(|field| field.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_names_its_fields_in_the_first_line() {
        let rows = csv("sku,name\nA1,\"one, \"\"two\"\"\"\n").unwrap();
        let FeedRow::Fields(fields) = &rows[0] else {
            panic!("fields expected");
        };
        assert_eq!(fields["sku"], "A1");
        assert_eq!(fields["name"], "one, \"two\"");
        assert!(csv("a,b\n1\n").unwrap_err().contains("line 2"));
    }
}
