//! Evidence from an HTTP endpoint, page by page, past the proxies.

use std::time::Duration;

use serde_json::Value;

use crate::plan::system::HttpFetch;
use crate::plan::template::Symbol;
use crate::run::bindings::Bindings;

/// Bound of one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest page that is read.
const PAGE_BYTES_MAX: usize = 64 << 20;

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

/// The pages of one endpoint.
pub(crate) struct Pages<'a> {
    client: &'a reqwest::Client,
    fetch: &'a HttpFetch,
    bindings: &'a Bindings,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(
        client: &'a reqwest::Client,
        fetch: &'a HttpFetch,
        bindings: &'a Bindings,
    ) -> Self {
        Self {
            client,
            fetch,
            bindings,
        }
    }

    /// One GET, from a cursor on; the body as JSON.
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
