//! Kill points: named places where a test can make the process die, between two steps that must both
//! survive it.
//!
//! `SHOP_KILLPOINT=NAME:nth[:ACTION]` acts on the nth time that `NAME` is reached: `kill` (the default)
//! is SIGKILL to the own process, `sleep` stops there for ten seconds, and `fail` returns an error,
//! which drops the transaction at hand: the same as dying for a test that has no process to lose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use super::config::ConfigError;

/// The error of a kill point whose action is `fail`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("kill point `{0}` was reached")]
pub struct Killed(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Sleep,
    Fail,
}

#[derive(Debug)]
struct Armed {
    name: String,
    nth: u64,
    action: Action,
    hits: AtomicU64,
}

/// The kill point that is armed in this process, if any.
#[derive(Clone, Debug, Default)]
pub struct KillPoints(Option<Arc<Armed>>);

impl KillPoints {
    /// Reads `NAME:nth[:kill|sleep|fail]`; an empty text arms nothing.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let invalid = || ConfigError::Invalid {
            name: "SHOP_KILLPOINT".to_owned(),
            value: text.to_owned(),
            expected: "`NAME:nth` or `NAME:nth:kill|sleep|fail`",
        };
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let nth = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| invalid())?;
        let action = match parts.next().unwrap_or("kill") {
            "kill" => Action::Kill,
            "sleep" => Action::Sleep,
            "fail" => Action::Fail,
            _ => return Err(invalid()),
        };
        let hits = AtomicU64::new(0);
        Ok(Self(Some(Arc::new(Armed {
            name,
            nth,
            action,
            hits,
        }))))
    }

    /// Passes the place called `name`; dies there when it is armed and due.
    ///
    /// # Errors
    /// [`Killed`] when the action is `fail`.
    pub async fn reach(&self, name: &str) -> Result<(), Killed> {
        let Some(armed) = self.0.as_ref().filter(|armed| armed.name == name) else {
            return Ok(());
        };
        if armed.hits.fetch_add(1, Ordering::SeqCst) + 1 != armed.nth {
            return Ok(());
        }
        tracing::warn!(killpoint = name, action = ?armed.action, "kill point reached");
        match armed.action {
            // The kernel ends the process before the call returns; if it does not, failing is next best.
            Action::Kill => drop(kill_process(getpid(), Signal::KILL)),
            Action::Sleep => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                return Ok(());
            }
            Action::Fail => {}
        }
        Err(Killed(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_nth_passage_of_the_named_place_fails() {
        let points = KillPoints::parse("here:2:fail").unwrap();
        assert_eq!(points.reach("here").await, Ok(()));
        assert_eq!(points.reach("there").await, Ok(()));
        assert_eq!(points.reach("here").await, Err(Killed("here".to_owned())));
        assert_eq!(points.reach("here").await, Ok(()));
    }

    #[test]
    fn a_kill_point_without_a_number_is_refused() {
        assert!(KillPoints::parse("here").is_err());
        assert!(KillPoints::parse("here:1:explode").is_err());
    }
}
