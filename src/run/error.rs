//! The world would not cooperate: why a run could not be carried out (exit 4).

use thiserror::Error;

/// Why a run could not be carried out: what was attempted, and what came of it.
#[derive(Debug, Error)]
#[error("{attempt}: {kind}")]
pub struct RunError {
    /// What was attempted: "start service `orders`".
    pub attempt: String,
    /// What came of it.
    pub kind: RunErrorKind,
    /// What would help, if anything is known to.
    pub help: Option<String>,
}

/// What came of an attempt.
#[derive(Debug, Error)]
pub enum RunErrorKind {
    /// A port, a lock, a file.
    #[error("{0}")]
    World(String),
    /// A service did not do what it must.
    #[error("{what}{}", tail(log_tail))]
    Service {
        /// "exited with code 1 before it was ready".
        what: String,
        /// The last lines of its log.
        log_tail: Vec<String>,
    },
    /// The proxy did not answer as it must.
    #[error("{0}")]
    Proxy(#[from] crate::toxiproxy::client::ClientError),
    /// The run folder could not be written.
    #[error("{0}")]
    Folder(#[from] crate::evidence::folder::FolderError),
}

fn tail(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("\n  log: {line}"))
        .collect()
}

impl RunError {
    /// An error without help.
    pub fn new(attempt: impl Into<String>, kind: impl Into<RunErrorKind>) -> Self {
        Self {
            attempt: attempt.into(),
            kind: kind.into(),
            help: None,
        }
    }

    /// An error in words.
    pub fn world(attempt: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(attempt, RunErrorKind::World(what.into()))
    }

    /// The same with a command or edit that would help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
