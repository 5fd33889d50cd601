//! Evidence from an HTTP endpoint, page by page, past the proxies.

use std::time::Duration;

use serde_json::Value;

use crate::plan::jq::{self, Filter};
use crate::plan::system::HttpFetch;
use crate::plan::template::Symbol;
use crate::run::bindings::Bindings;

/// Bound of one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest page that is read.
const PAGE_BYTES_MAX: usize = 64 << 20;
/// Most pages of one reading.
const PAGES_MAX: usize = 100_000;

/// A client for everything that the harness itself asks services. Never through a proxy of the
/// environment.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(PAGE_TIMEOUT)
        .connect_timeout(Duration::from_secs(1))
        .pool_idle_timeout(Duration::from_secs(2))
        .build()
}

/// A reader of one endpoint, which remembers where it is.
pub(crate) struct Pages<'a> {
    client: &'a reqwest::Client,
    fetch: &'a HttpFetch,
    bindings: &'a Bindings,
    cursor_filter: Option<Filter>,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(
        client: &'a reqwest::Client,
        fetch: &'a HttpFetch,
        bindings: &'a Bindings,
    ) -> Result<Self, String> {
        let cursor_filter = fetch.cursor.as_deref().map(jq::compile).transpose()?;
        Ok(Self {
            client,
            fetch,
            bindings,
            cursor_filter,
        })
    }

    /// Reads from `cursor` on; each answer goes to `page`. Returns the cursor for the next time.
    pub(crate) async fn read(
        &self,
        mut cursor: Option<String>,
        mut page: impl FnMut(Value) -> Result<(), String>,
    ) -> (Option<String>, Result<(), String>) {
        for _ in 0..PAGES_MAX {
            let answer = match self.get(cursor.as_deref()).await {
                Ok(answer) => answer,
                Err(error) => return (cursor, Err(error)),
            };
            let next = match self.next_cursor(&answer) {
                Ok(next) => next,
                Err(error) => return (cursor, Err(error)),
            };
            if let Err(error) = page(answer) {
                return (cursor, Err(error));
            }
            match next {
                Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                _ => return (cursor, Ok(())),
            }
        }
        (cursor, Err(format!("more than {PAGES_MAX} pages")))
    }

    fn next_cursor(&self, answer: &Value) -> Result<Option<String>, String> {
        let Some(filter) = &self.cursor_filter else {
            return Ok(None);
        };
        match jq::run(filter, answer).next().transpose()? {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Ok(Some(other.to_string())),
        }
    }

    /// One GET; the body as JSON.
    pub(crate) async fn get(&self, cursor: Option<&str>) -> Result<Value, String> {
        let address = self
            .bindings
            .address(self.fetch.service.as_str(), self.fetch.port.as_str())?;
        let bind = |symbol: &Symbol| match symbol {
            Symbol::Cursor => Ok(cursor.unwrap_or_default().to_owned()),
            other => self.bindings.bind(None, other),
        };
        let mut url = format!("http://{address}{}", self.fetch.path.render(bind)?);
        if let (Some(after), Some(_)) = (&self.fetch.after, cursor) {
            let separator = if url.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{separator}after={}", after.render(bind)?));
        }
        let mut request = self.client.get(&url);
        for (name, value) in &self.fetch.headers {
            request = request.header(name, value.render(bind)?);
        }
        let answer = request.send().await.map_err(|error| phrase(&error))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!(
                "`{}` answered {}",
                self.fetch.path,
                status.as_u16()
            ));
        }
        let body = bounded_body(answer).await?;
        serde_json::from_slice(&body)
            .map_err(|error| format!("`{}` answered what is no JSON: {error}", self.fetch.path))
    }
}

async fn bounded_body(mut answer: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| phrase(&error))? {
        if body.len() + chunk.len() > PAGE_BYTES_MAX {
            return Err(format!(
                "a page is larger than {} MiB; page it",
                PAGE_BYTES_MAX >> 20
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error of reqwest in a few words, with its innermost cause.
pub(crate) fn phrase(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        "it did not answer in time".to_owned()
    } else if error.is_connect() {
        format!("it could not be reached: {cause}")
    } else {
        cause.to_string()
    }
}
