//! The async client: drives our own server and a real Toxiproxy by the same calls.
//!
//! Every call has a time-out; every refusal keeps its status and text. It never retries and never caches:
//! whoever calls it decides. What only our server can do says so in its name's documentation and fails
//! with the other server's 404 or 405.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::wire::{
    AllStats, ErrorBody, Populated, Proxy, ProxyUpdate, RequestRows, Toxic, ToxicsSet, Version,
};

/// No call takes longer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Below the 60 s after which a server closes an idle connection.
const IDLE: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The client itself could not be made.
    #[error("cannot make an HTTP client")]
    Setup(#[source] reqwest::Error),
    /// No answer: not reachable, cut off, or later than two seconds.
    #[error("no answer from the proxy server to `{call}`")]
    NoAnswer {
        /// Method and URL.
        call: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("the proxy server refused `{call}` with {status}: {message}")]
    Refused {
        /// Method and URL.
        call: String,
        /// HTTP status.
        status: u16,
        /// The server's text.
        message: String,
    },
    /// The answer is not what the call promises.
    #[error("the proxy server answered `{call}` with something else")]
    Unreadable {
        /// Method and URL.
        call: String,
        /// What does not fit.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A client of one server. Cloning shares its connections.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8474`. Nothing is sent yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .pool_idle_timeout(IDLE)
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            http,
        })
    }

    /// The server's version.
    ///
    /// # Errors
    /// As every call: no answer, a refusal, or an unreadable answer.
    pub async fn version(&self) -> Result<String, ClientError> {
        Ok(self.get::<Version>("/version").await?.version)
    }

    /// Whether the server is ours, so that the extensions are there.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn is_embedded(&self) -> Result<bool, ClientError> {
        Ok(self.version().await?.ends_with("-chaos"))
    }

    /// All proxies by name.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn proxies(&self) -> Result<BTreeMap<String, Proxy>, ClientError> {
        self.get("/proxies").await
    }

    /// One proxy.
    ///
    /// # Errors
    /// As [`Client::version`]; 404 when there is none.
    pub async fn proxy(&self, name: &str) -> Result<Proxy, ClientError> {
        self.get(&proxy_path(name)).await
    }

    /// Creates a proxy. A real server ignores its toxics and extensions.
    ///
    /// # Errors
    /// As [`Client::version`]; 409 when the name is taken, 500 when the address is.
    pub async fn create(&self, proxy: &Proxy) -> Result<Proxy, ClientError> {
        self.send(Method::POST, "/proxies", Some(proxy)).await
    }

    /// Creates or replaces several proxies.
    ///
    /// # Errors
    /// As [`Client::create`]; those before the failing one stay.
    pub async fn populate(&self, proxies: &[Proxy]) -> Result<Vec<Proxy>, ClientError> {
        let populated: Populated = self.send(Method::POST, "/populate", Some(&proxies)).await?;
        Ok(populated.proxies.unwrap_or_default())
    }

    /// Changes a proxy. Sent as POST, which old servers know too.
    ///
    /// # Errors
    /// As [`Client::version`]; 404, 500.
    pub async fn update(&self, name: &str, update: &ProxyUpdate) -> Result<Proxy, ClientError> {
        self.send(Method::POST, &proxy_path(name), Some(update))
            .await
    }

    /// Extension: says whether the upstream of a proxy with `when_down: refuse` listens.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn set_upstream_up(&self, name: &str, up: bool) -> Result<Proxy, ClientError> {
        self.update(
            name,
            &ProxyUpdate {
                upstream_up: Some(up),
                ..ProxyUpdate::default()
            },
        )
        .await
    }

    /// Deletes a proxy.
    ///
    /// # Errors
    /// As [`Client::version`]; 404.
    pub async fn delete(&self, name: &str) -> Result<(), ClientError> {
        self.order(Method::DELETE, &proxy_path(name)).await
    }

    /// Adds one toxic.
    ///
    /// # Errors
    /// As [`Client::version`]; 400, 404, 409.
    pub async fn add_toxic(&self, proxy: &str, toxic: &Toxic) -> Result<Toxic, ClientError> {
        self.send(
            Method::POST,
            &format!("{}/toxics", proxy_path(proxy)),
            Some(toxic),
        )
        .await
    }

    /// Removes one toxic.
    ///
    /// # Errors
    /// As [`Client::version`]; 404.
    pub async fn remove_toxic(&self, proxy: &str, toxic: &str) -> Result<(), ClientError> {
        let path = format!("{}/toxics/{}", proxy_path(proxy), encoded(toxic));
        self.order(Method::DELETE, &path).await
    }

    /// Makes these the toxics of a proxy. Ours does it at once and answers the generation; on a real
    /// server those that differ are removed and added one by one, and there is no generation.
    ///
    /// # Errors
    /// As [`Client::add_toxic`]; on a real server a part may be done.
    pub async fn set_toxics(
        &self,
        proxy: &str,
        toxics: &[Toxic],
    ) -> Result<Option<u64>, ClientError> {
        let path = format!("{}/toxics", proxy_path(proxy));
        match self
            .send::<_, ToxicsSet>(Method::PUT, &path, Some(&toxics))
            .await
        {
            Ok(set) => Ok(Some(set.generation)),
            Err(error) if error.status() == Some(StatusCode::METHOD_NOT_ALLOWED.as_u16()) => {
                self.set_one_by_one(proxy, toxics).await.map(|()| None)
            }
            Err(error) => Err(error),
        }
    }

    async fn set_one_by_one(&self, proxy: &str, wanted: &[Toxic]) -> Result<(), ClientError> {
        let present: Vec<Toxic> = self.get(&format!("{}/toxics", proxy_path(proxy))).await?;
        let stays = |toxic: &Toxic| wanted.iter().any(|other| same(toxic, other));
        for toxic in present.iter().filter(|toxic| !stays(toxic)) {
            self.remove_toxic(proxy, &toxic.name).await?;
        }
        let is_there = |toxic: &Toxic| present.iter().any(|other| same(other, toxic));
        for toxic in wanted.iter().filter(|toxic| !is_there(toxic)) {
            self.add_toxic(proxy, toxic).await?;
        }
        Ok(())
    }

    /// Enables every proxy and removes all toxics.
    ///
    /// # Errors
    /// As [`Client::version`]; 500 when one cannot listen.
    pub async fn reset(&self) -> Result<(), ClientError> {
        self.order(Method::POST, "/reset").await
    }

    /// Extension: live statistics of all proxies.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn stats(&self) -> Result<AllStats, ClientError> {
        self.get("/stats").await
    }

    /// Extension: logged requests after a position, of all proxies; `flush` adds those that are open.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub async fn requests(&self, after: u64, flush: bool) -> Result<RequestRows, ClientError> {
        self.get(&format!("/requests?after={after}&flush={flush}"))
            .await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send::<(), T>(Method::GET, path, None).await
    }

    /// A call that answers nothing.
    async fn order(&self, method: Method, path: &str) -> Result<(), ClientError> {
        let (call, request) = self.request(method, path);
        answer(call, request).await.map(drop)
    }

    async fn send<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        let (call, request) = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let text = answer(call.clone(), request).await?;
        serde_json::from_slice(&text).map_err(|source| ClientError::Unreadable { call, source })
    }

    fn request(&self, method: Method, path: &str) -> (String, RequestBuilder) {
        let url = format!("{}{path}", self.base);
        (format!("{method} {url}"), self.http.request(method, url))
    }
}

async fn answer(call: String, request: RequestBuilder) -> Result<Vec<u8>, ClientError> {
    let no_answer = |source| ClientError::NoAnswer {
        call: call.clone(),
        source,
    };
    let response = request.send().await.map_err(no_answer)?;
    let status = response.status();
    let text = response.bytes().await.map_err(no_answer)?.to_vec();
    if status.is_success() {
        return Ok(text);
    }
    // The type of an error's body says nothing: it is JSON sent as text.
    let message = match serde_json::from_slice::<ErrorBody>(&text) {
        Ok(body) => body.error,
        Err(_) => String::from_utf8_lossy(&text).trim().to_owned(),
    };
    Err(ClientError::Refused {
        call,
        status: status.as_u16(),
        message,
    })
}

/// Whether a server's toxic is the wanted one: it lists attributes that were not given.
fn same(present: &Toxic, wanted: &Toxic) -> bool {
    let given = |(name, value)| present.attributes.get(name) == Some(value);
    present.name == wanted.name
        && present.kind == wanted.kind
        && present.stream == wanted.stream
        && present.toxicity == wanted.toxicity
        && wanted.attributes.iter().all(given)
}

fn proxy_path(name: &str) -> String {
    format!("/proxies/{}", encoded(name))
}

/// A name as one segment of a path.
fn encoded(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    name.bytes()
        .map(|byte| {
            if plain(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
