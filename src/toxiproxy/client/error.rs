//! Why a call of the client failed.

use std::error::Error as _;
use std::io;
use std::iter::successors;

use thiserror::Error;

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
    /// Nothing was sent: these attributes end a real Toxiproxy.
    #[error("toxic `{toxic}` would end this proxy server: {reason}")]
    Deadly {
        /// Name of the toxic.
        toxic: String,
        /// Which attribute, and why.
        reason: &'static str,
    },
    /// Nothing was sent: only our own server has toxics of this type, or this attribute.
    #[error("toxic `{toxic}` needs `{what}`, which this proxy server does not have")]
    NeedsExtension {
        /// Name of the toxic.
        toxic: String,
        /// Its type, or one of its attributes.
        what: String,
    },
    /// Every call succeeded, and yet the server is not as it was told to be.
    #[error("the proxy server did as it was told, and proxy `{proxy}` is not so: {what}")]
    NotSo {
        /// Name of the proxy.
        proxy: String,
        /// What is wrong with it.
        what: String,
    },
}

impl ClientError {
    /// Whether nobody listens at the server's address: it is gone, as against out of reach.
    #[must_use]
    pub fn is_connection_refused(&self) -> bool {
        let Self::NoAnswer { source, .. } = self else {
            return false;
        };
        let causes = successors(source.source(), |&cause| cause.source());
        let mut io = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
        io.any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the server has no such call, as against no such proxy.
    pub(super) fn is_unknown_call(&self) -> bool {
        match self {
            Self::Refused { status: 405, .. } => true,
            Self::Refused {
                status: 404,
                message,
                ..
            } => message == "404 page not found",
            _ => false,
        }
    }
}
