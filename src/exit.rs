//! The exit codes: what a CI gate reads. The only file that knows numbers.
//!
//! It never decides whether a run was good; verdicts do. A panic (101, a bug in `chaos`) needs no
//! help from here: it is what Rust's runtime exits with when `main` unwinds.

use std::process::ExitCode;

/// How an invocation of `chaos` ended.
///
/// Ordered by how much the person at the other end must hear of it when several scenarios ran: a
/// violated property is never hidden by a run that could not start, and a verdict never hides
/// that the rest was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// Every property held (or the command did what it was asked to).
    Held,
    /// The run ended but does not prove that every property held.
    Inconclusive,
    /// The run could not be carried out: a port taken, a service never ready, a lost worker.
    NotCarriedOut,
    /// A property was violated.
    Violated,
    /// Wrong usage or a wrong scenario; nothing was started.
    Usage,
    /// Ended by SIGINT; teardown finished.
    Interrupted,
    /// Ended by SIGTERM or SIGHUP; teardown finished.
    Terminated,
    /// A bug in `chaos`.
    Bug,
}

impl Exit {
    /// The process exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Held => 0,
            Exit::Violated => 1,
            Exit::Usage => 2,
            Exit::Inconclusive => 3,
            Exit::NotCarriedOut => 4,
            Exit::Bug => 101,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// The one exit of several runs; [`Exit::Held`] when there were none.
    #[must_use]
    pub fn combine(exits: impl IntoIterator<Item = Exit>) -> Exit {
        exits.into_iter().max().unwrap_or(Exit::Held)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn several_runs_exit_with_the_code_that_must_not_be_hidden() {
        // Each exit hides all that come after it.
        let order = [101, 143, 130, 2, 1, 4, 3, 0];
        let mut exits = [
            Exit::Held,
            Exit::Inconclusive,
            Exit::NotCarriedOut,
            Exit::Violated,
            Exit::Usage,
            Exit::Interrupted,
            Exit::Terminated,
            Exit::Bug,
        ];
        exits.sort_by(|a, b| b.cmp(a));
        assert_eq!(exits.map(Exit::code), order);
        for (place, strong) in exits.iter().enumerate() {
            for weak in &exits[place..] {
                assert_eq!(Exit::combine([*weak, *strong, *weak]), *strong);
            }
        }
    }

    #[test]
    fn no_run_at_all_is_not_a_failure() {
        assert_eq!(Exit::combine([]), Exit::Held);
    }
}
