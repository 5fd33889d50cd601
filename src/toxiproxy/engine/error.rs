//! Why a call is refused, in the words and with the status of Toxiproxy: clients compare both.

use thiserror::Error;

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// The body is not what it should be.
    #[error("bad request body: {0}")]
    Body(String),
    /// A field that must be given was not.
    #[error("missing required field: {0}")]
    MissingField(String),
    /// No such proxy.
    #[error("proxy not found")]
    ProxyNotFound,
    /// The name is taken.
    #[error("proxy already exists")]
    ProxyExists,
    /// No such toxic on this proxy.
    #[error("toxic not found")]
    ToxicNotFound,
    /// The name is taken, on either stream.
    #[error("toxic already exists")]
    ToxicExists,
    /// No such type.
    #[error("invalid toxic type")]
    ToxicType,
    /// No such stream.
    #[error("stream was invalid, can be either upstream or downstream")]
    Stream,
    /// No such lease, or it has ended.
    #[error("lease not found")]
    LeaseNotFound,
    /// One more than the server keeps.
    #[error("too many leases")]
    TooManyLeases,
    /// The call does not carry the server's token.
    #[error("missing or wrong bearer token")]
    Unauthorized,
    /// The address cannot be listened on.
    #[error("{0}")]
    Listen(String),
}

impl Refusal {
    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Body(_) | Self::MissingField(_) | Self::ToxicType | Self::Stream => 400,
            Self::Unauthorized => 401,
            Self::ProxyNotFound | Self::ToxicNotFound | Self::LeaseNotFound => 404,
            Self::TooManyLeases => 429,
            Self::ProxyExists | Self::ToxicExists => 409,
            Self::Listen(_) => 500,
        }
    }
}
