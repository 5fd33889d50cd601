//! The server as a whole: binds the API, loads the configuration, says where it is, ends.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::VERSION;
use super::api::{Api, Offered, decode_proxies};
use super::engine::{Engine, bind};

/// Calls that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How a server is started.
pub struct ServerOptions {
    /// Host of the API; loopback unless told otherwise.
    pub host: String,
    /// Port of the API; 0 takes a free one.
    pub port: u16,
    /// A file with the same JSON as `POST /populate`. If it cannot be used, that is logged and the server
    /// runs without it, as the original does.
    pub config: Option<PathBuf>,
    /// Decides every random draw.
    pub seed: u64,
    /// Offers the metrics of proxies.
    pub proxy_metrics: bool,
    /// Offers the metrics of the process.
    pub runtime_metrics: bool,
    /// Calls of the API must carry this as a bearer token. Proxies are not concerned.
    pub token: Option<String>,
    /// Ends when standard input does: for a server whose parent must not leave it behind.
    pub end_at_eof: bool,
    /// Gets one line of JSON when the API is bound, before anything is logged:
    /// `{"address":"127.0.0.1:41234","version":"…"}`. Calls are answered once the configuration is loaded.
    pub announce: Option<Box<dyn Write + Send>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 8474,
            config: None,
            seed: 0,
            proxy_metrics: false,
            runtime_metrics: false,
            token: None,
            end_at_eof: false,
            announce: None,
        }
    }
}

/// Why a server could not start or go on.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The host or port is none.
    #[error("cannot listen on `{address}`: {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address is in use or not ours.
    #[error(
        "cannot listen on `{address}`; another server may be there: choose a port with `--port`"
    )]
    Bind {
        /// As it was resolved.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let us hear of SIGINT and SIGTERM.
    #[error("cannot hear signals")]
    Signals(#[source] io::Error),
    /// The announcement could not be written.
    #[error("cannot announce the address")]
    Announce(#[source] io::Error),
}

#[derive(Serialize)]
struct Announcement {
    address: SocketAddr,
    version: &'static str,
}

/// Runs a server until it is told to end (SIGINT, SIGTERM), or until standard input ends if that is asked for;
/// then closes every proxy and connection.
///
/// # Errors
/// When signals cannot be heard, or the API not be bound or announced.
pub async fn serve(options: ServerOptions) -> Result<(), ServerError> {
    let end_at_eof = options.end_at_eof;
    let told = told_to_end().map_err(ServerError::Signals)?;
    let server = Server::bind(options).await?;
    let end = async move {
        tokio::select! {
            () = told => {}
            () = end_of_input(), if end_at_eof => {}
        }
    };
    server.run_until(end).await;
    Ok(())
}

/// A server whose API is bound and not yet answering.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    api: Api,
    engine: Arc<Engine>,
}

impl Server {
    /// Binds the API, announces it, and loads the configuration.
    ///
    /// # Errors
    /// When the address is wrong or taken, or cannot be announced.
    pub async fn bind(options: ServerOptions) -> Result<Self, ServerError> {
        let text = host_port(&options.host, options.port);
        let engine = Arc::new(Engine::new(options.seed));
        let resolved = engine.resolve(&text).await;
        let resolved = resolved.map_err(|reason| ServerError::Address {
            address: text,
            reason,
        })?;
        let address = resolved.address;
        let bind_error = |source| ServerError::Bind { address, source };
        let listener = bind(address).and_then(|socket| socket.listen(BACKLOG));
        let listener = listener.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        if let Some(writer) = options.announce {
            announce(writer, address).map_err(ServerError::Announce)?;
        }
        if !address.ip().is_loopback() && options.token.is_none() {
            tracing::warn!(%address, "Whoever reaches this address can drive the API; a token would keep them out");
        }
        if let Some(path) = options.config {
            load(&engine, path).await;
        }
        let offered = Offered {
            proxies: options.proxy_metrics,
            runtime: options.runtime_metrics,
        };
        let token = options.token.map(Arc::from);
        Ok(Self {
            listener,
            address,
            api: Api::new(Arc::clone(&engine), offered, token),
            engine,
        })
    }

    /// Where the API is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `end`, then closes every proxy and connection.
    pub async fn run_until(self, end: impl Future<Output = ()> + Send + 'static) {
        tokio::select! {
            never = self.api.serve(self.listener) => match never {},
            () = end => {}
        }
        self.engine.stop();
    }
}

fn announce(mut writer: Box<dyn Write + Send>, address: SocketAddr) -> io::Result<()> {
    let announcement = Announcement {
        address,
        version: VERSION,
    };
    let mut line = serde_json::to_vec(&announcement)?;
    line.push(b'\n');
    writer.write_all(&line)?;
    writer.flush()
}

async fn load(engine: &Engine, path: PathBuf) {
    let text = match tokio::fs::read(&path).await {
        Ok(text) => text,
        Err(error) => {
            return tracing::error!(config = %path.display(), %error, "Error reading config file");
        }
    };
    let populated = match decode_proxies(&text) {
        Ok(proxies) => engine
            .populate(&proxies)
            .await
            .map_err(|(_, refusal)| refusal),
        Err(refusal) => Err(refusal),
    };
    match populated {
        Ok(proxies) => {
            tracing::info!(proxies = proxies.len(), "Populated proxies from file")
        }
        Err(refusal) => {
            tracing::error!(error = %refusal, "Failed to populate proxies from file")
        }
    }
}

/// `host:port`; an IPv6 address in brackets.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Ready when SIGINT or SIGTERM comes; both are heard from now on.
#[expect(
    clippy::disallowed_methods,
    reason = "a server of its own; a run asks its proxy to end in the keeper's way"
)]
fn told_to_end() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ready when standard input ends. A thread reads it, because a read of a pipe cannot be called off; it
/// ends with the process at the latest.
async fn end_of_input() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let mut input = io::stdin().lock();
        loop {
            match input.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        // The receiver is gone only when the server has ended by itself.
        let _ = sender.send(());
    });
    // A sender that vanished means that the thread could not go on: end as well.
    let _ = receiver.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn api_listens_on_every_form_of_host() {
        for host in [
            "127.0.0.1",
            "localhost",
            "",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
        ] {
            let options = ServerOptions {
                host: host.to_owned(),
                port: 0,
                ..ServerOptions::default()
            };
            let server = Server::bind(options).await.unwrap();
            let here = (std::net::Ipv4Addr::LOCALHOST, server.address().port());
            assert!(tokio::net::TcpStream::connect(here).await.is_ok(), "{host}");
        }
    }
}
