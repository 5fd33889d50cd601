//! The async client: drives our own server and a real Toxiproxy by the same calls.
//!
//! Every call has a time-out; every refusal keeps its status and text. It never retries and never caches:
//! whoever calls it decides. It reads what servers from 2.1 on say. What only our server can do says so in
//! its documentation and fails with the other server's 404 or 405; what would end a real server is
//! refused before it is sent (`original.rs`).

mod error;
pub(crate) mod original;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::ClientError;

use self::original::Step;
use super::wire::{
    AllStats, ErrorBody, Populated, Proxy, ProxyUpdate, RequestRows, Toxic, ToxicsSet, Version,
};

/// No call takes longer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Below the 60 s after which a server closes an idle connection.
const IDLE: Duration = Duration::from_secs(30);

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

    /// The server's version. Old servers send it as plain text, new ones as JSON.
    ///
    /// # Errors
    /// As every call: no answer, a refusal, or an unreadable answer.
    pub async fn version(&self) -> Result<String, ClientError> {
        let (call, request) = self.request(Method::GET, "/version");
        let text = answer(call, request).await?;
        Ok(read_version(&text))
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

    /// The toxics of a proxy, upstream first.
    ///
    /// # Errors
    /// As [`Client::version`]; 404.
    pub async fn toxics(&self, proxy: &str) -> Result<Vec<Toxic>, ClientError> {
        self.get(&format!("{}/toxics", proxy_path(proxy))).await
    }

    /// Adds one toxic.
    ///
    /// # Errors
    /// As [`Client::version`]; 400, 404, 409; on a real server [`ClientError::NeedsExtension`] and
    /// [`ClientError::Deadly`], before anything is sent.
    pub async fn add_toxic(&self, proxy: &str, toxic: &Toxic) -> Result<Toxic, ClientError> {
        self.refuse(toxic).await?;
        self.send(
            Method::POST,
            &format!("{}/toxics", proxy_path(proxy)),
            Some(toxic),
        )
        .await
    }

    /// Changes the attributes that are given, and the toxicity, of a toxic. Sent as POST, which old servers
    /// know too.
    ///
    /// # Errors
    /// As [`Client::add_toxic`]. When the server refuses an attribute, it may have taken others.
    pub async fn update_toxic(&self, proxy: &str, toxic: &Toxic) -> Result<Toxic, ClientError> {
        let path = format!("{}/toxics/{}", proxy_path(proxy), encoded(&toxic.name));
        if !self.is_embedded().await? {
            let present: Toxic = self.get(&path).await?;
            original::check(&original::merged(&present, toxic))?;
        }
        self.send(Method::POST, &path, Some(toxic)).await
    }

    /// Refuses what a real server lacks or would not survive. Only asks what the server is when it matters.
    async fn refuse(&self, toxic: &Toxic) -> Result<(), ClientError> {
        match original::check(toxic) {
            Err(error) if !self.is_embedded().await? => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes one toxic.
    ///
    /// # Errors
    /// As [`Client::version`]; 404.
    pub async fn remove_toxic(&self, proxy: &str, toxic: &str) -> Result<(), ClientError> {
        let path = format!("{}/toxics/{}", proxy_path(proxy), encoded(toxic));
        self.order(Method::DELETE, &path).await
    }

    /// Makes these the toxics of a proxy, and sees that they are. Ours does it at once and answers the
    /// generation; on a real server those that differ are removed, changed and added one by one, and there
    /// is no generation.
    ///
    /// # Errors
    /// As [`Client::add_toxic`]; [`ClientError::NeedsExtension`] and [`ClientError::Deadly`] before anything
    /// is changed on a real server; a part may be done after other errors there; [`ClientError::NotSo`].
    pub async fn set_toxics(
        &self,
        proxy: &str,
        toxics: &[Toxic],
    ) -> Result<Option<u64>, ClientError> {
        let path = format!("{}/toxics", proxy_path(proxy));
        let set: Result<ToxicsSet, _> = self.send(Method::PUT, &path, Some(&toxics)).await;
        let (generation, present) = match set {
            Ok(set) => (Some(set.generation), set.toxics),
            Err(error) if error.is_unknown_call() => {
                self.set_one_by_one(proxy, toxics).await?;
                (None, self.toxics(proxy).await?)
            }
            Err(error) => return Err(error),
        };
        match original::unlike(&present, toxics) {
            None => Ok(generation),
            Some(what) => Err(not_so(proxy, what)),
        }
    }

    async fn set_one_by_one(&self, proxy: &str, wanted: &[Toxic]) -> Result<(), ClientError> {
        wanted.iter().try_for_each(original::check)?;
        for step in original::steps(&self.toxics(proxy).await?, wanted) {
            match step {
                Step::Remove(name) => self.remove_toxic(proxy, &name).await?,
                Step::Update(toxic) => drop(self.update_toxic(proxy, &toxic).await?),
                Step::Add(toxic) => drop(self.add_toxic(proxy, &toxic).await?),
            }
        }
        Ok(())
    }

    /// Enables every proxy and removes all toxics, and sees that it is so.
    ///
    /// # Errors
    /// As [`Client::version`]; 500 when one cannot listen, and others may be as before; [`ClientError::NotSo`].
    pub async fn reset(&self) -> Result<(), ClientError> {
        self.order(Method::POST, "/reset").await?;
        for (name, proxy) in self.proxies().await? {
            if !proxy.enabled {
                return Err(not_so(&name, "it is disabled".to_owned()));
            }
            if let Some(toxic) = proxy.toxics.first() {
                return Err(not_so(&name, format!("it has toxic `{}`", toxic.name)));
            }
        }
        Ok(())
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

fn not_so(proxy: &str, what: String) -> ClientError {
    ClientError::NotSo {
        proxy: proxy.to_owned(),
        what,
    }
}

fn read_version(text: &[u8]) -> String {
    match serde_json::from_slice::<Version>(text) {
        Ok(version) => version.version,
        Err(_) => String::from_utf8_lossy(text).trim().to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_old_and_new_servers() {
        assert_eq!(read_version(b"2.1.4"), "2.1.4");
        assert_eq!(read_version(b"{\"version\": \"2.12.0\"}\n"), "2.12.0");
    }

    #[test]
    fn proxies_are_read_with_and_without_the_fields_of_newer_servers() {
        let toxic = r#"{"attributes":{"latency":5,"jitter":0},"name":"t","type":"latency","stream":"upstream","toxicity":0.5}"#;
        let old = format!(
            r#"{{"name":"a","listen":"127.0.0.1:1","upstream":"u","enabled":true,"toxics":[{toxic}]}}"#
        );
        let new = old.replace(r#""toxics""#, r#""Logger":{},"toxics""#);
        let read = |text: &str| serde_json::from_str::<Proxy>(text).unwrap();
        assert_eq!(read(&old), read(&new));
        assert_eq!(read(&old).toxics[0].toxicity, 0.5);
    }

    #[test]
    fn names_are_one_segment_of_a_path() {
        assert_eq!(proxy_path("a b/ü"), "/proxies/a%20b%2F%C3%BC");
    }
}
