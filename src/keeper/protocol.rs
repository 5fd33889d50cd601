//! What the coordinator and the keeper say to each other: one JSON document per line, at most
//! [`LINE_MAX_BYTES`] each, over a socket pair.
//!
//! The coordinator sends [`Call`]s and gets exactly one [`Report::Answer`] for each, in order;
//! [`Report::Changed`] arrives whenever a process changes. Both ends are the same binary, so
//! there is no version to agree on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest line either side accepts. An environment is the largest thing ever sent.
pub const LINE_MAX_BYTES: usize = 1 << 20;

/// What the coordinator calls a process, like `orders` or `orders#2`; unique among the living.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub String);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ProcessId {
    fn from(id: &str) -> ProcessId {
        ProcessId(id.to_owned())
    }
}

/// A request and the number that its answer will carry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Call {
    /// Counts up; chosen by the coordinator.
    pub seq: u64,
    /// What to do.
    pub request: Request,
}

/// What the coordinator can ask for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Start a process. Answer: `Spawned` or `Failed`.
    Spawn(Box<SpawnSpec>),
    /// Send a signal. Answer: `Done` or `NotRunning`.
    Signal {
        /// To whom.
        process: ProcessId,
        /// Which.
        signal: Signal,
        /// To its whole process group, or to it alone.
        group: bool,
    },
    /// Close a [`Stdin::Held`]. Answer: `Done` or `NotRunning`.
    CloseStdin {
        /// Whose.
        process: ProcessId,
    },
    /// Kill every child and every descendant, adopted ones too. Answer: `Down`.
    KillAll,
    /// `KillAll`, then end the keeper without its at-EOF command. Answer: `Down`.
    Quit,
}

/// How to start a process. It becomes the leader of its own process group, with no signal ignored
/// or blocked and no descriptor inherited but the three standard streams. When it ends, what is
/// left of its group is killed, so that a restart finds its ports free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SpawnSpec {
    /// What to call it.
    pub process: ProcessId,
    /// Program and arguments. A program without a `/` is looked up in the `PATH` of `env`, a
    /// relative one is relative to `dir`. `/proc/self/exe` is this very binary.
    pub argv: Vec<String>,
    /// Its complete environment; the keeper adds only [`super::RUN_VARIABLE`].
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub dir: PathBuf,
    /// Standard output and standard error are appended to this file (mode 0600).
    pub log: PathBuf,
    /// Niceness, -20 to 19; 0 is normal.
    pub nice: i32,
    /// Its standard input.
    pub stdin: Stdin,
}

/// Where a process reads its standard input from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdin {
    /// Nothing: end of file at once.
    Null,
    /// A pipe on which nothing ever comes and which ends with `CloseStdin` or the keeper's end.
    Held,
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// First of all: the keeper is up.
    Ready {
        /// The keeper's own pid.
        pid: i32,
    },
    /// The answer to a call.
    Answer {
        /// Of which call.
        seq: u64,
        /// The answer.
        answer: Answer,
    },
    /// A process changed.
    Changed(Change),
}

/// What came of a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The process executes its program.
    Spawned(Spawned),
    /// It was not done.
    Failed {
        /// What was attempted, like ``execute `./shop` ``.
        what: String,
        /// Why it failed, in the system's words.
        error: String,
    },
    /// It was done.
    Done,
    /// No such process is running (any more).
    NotRunning,
    /// Everything was killed.
    Down {
        /// Processes that survived even SIGKILL until the deadline; empty unless the kernel holds
        /// them (a dead disk) or they belong to another user.
        left: Vec<i32>,
    },
}

/// A process that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spawned {
    /// Which.
    pub process: ProcessId,
    /// Its pid, also the id of its process group.
    pub pid: i32,
    /// 1 for the first process of this id, 2 for the next …
    pub incarnation: u32,
    /// `CLOCK_MONOTONIC` after its program was loaded, in nanoseconds.
    pub at_mono_ns: u64,
}

/// A process changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Change {
    /// Which.
    pub process: ProcessId,
    /// Its pid.
    pub pid: i32,
    /// Which process of this id.
    pub incarnation: u32,
    /// `CLOCK_MONOTONIC` when the keeper learnt of it, in nanoseconds.
    pub at_mono_ns: u64,
    /// To what.
    pub kind: ChangeKind,
}

/// What a process can change to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It ended; its pid is free again.
    Exited(End),
    /// It no longer runs until continued: a pause is confirmed.
    Stopped,
    /// It runs again.
    Continued,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// Killed by a signal.
    Signal {
        /// Its number.
        number: i32,
        /// A core was dumped.
        core: bool,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal { number, core } => {
                match Signal::ALL
                    .iter()
                    .find(|signal| signal.raw().as_raw() == *number)
                {
                    Some(signal) => write!(f, "SIG{signal}")?,
                    None => write!(f, "signal {number}")?,
                }
                f.write_str(if *core { " (core dumped)" } else { "" })
            }
        }
    }
}

/// The signals that can be sent, or that a process commonly dies of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "signal(7) is their documentation")]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Ill,
    Abrt,
    Bus,
    Fpe,
    Kill,
    Usr1,
    Segv,
    Usr2,
    Pipe,
    Alrm,
    Term,
    Cont,
    Stop,
    Winch,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 17] = [
        Signal::Hup,
        Signal::Int,
        Signal::Quit,
        Signal::Ill,
        Signal::Abrt,
        Signal::Bus,
        Signal::Fpe,
        Signal::Kill,
        Signal::Usr1,
        Signal::Segv,
        Signal::Usr2,
        Signal::Pipe,
        Signal::Alrm,
        Signal::Term,
        Signal::Cont,
        Signal::Stop,
        Signal::Winch,
    ];

    /// The system's signal.
    pub(super) fn raw(self) -> rustix::process::Signal {
        use rustix::process::Signal as Raw;
        match self {
            Signal::Hup => Raw::HUP,
            Signal::Int => Raw::INT,
            Signal::Quit => Raw::QUIT,
            Signal::Ill => Raw::ILL,
            Signal::Abrt => Raw::ABORT,
            Signal::Bus => Raw::BUS,
            Signal::Fpe => Raw::FPE,
            Signal::Kill => Raw::KILL,
            Signal::Usr1 => Raw::USR1,
            Signal::Segv => Raw::SEGV,
            Signal::Usr2 => Raw::USR2,
            Signal::Pipe => Raw::PIPE,
            Signal::Alrm => Raw::ALARM,
            Signal::Term => Raw::TERM,
            Signal::Cont => Raw::CONT,
            Signal::Stop => Raw::STOP,
            Signal::Winch => Raw::WINCH,
        }
    }
}

impl fmt::Display for Signal {
    /// Without the `SIG`: `TERM`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_uppercase())
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// `TERM` or `SIGTERM`.
    fn from_str(text: &str) -> Result<Signal, UnknownSignal> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        let named = Signal::ALL
            .into_iter()
            .find(|signal| signal.to_string() == name);
        named.ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

/// A signal name that [`Signal`] does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal `{0}`")]
pub struct UnknownSignal(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_found_by_its_name_with_and_without_sig() {
        for signal in Signal::ALL {
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(format!("SIG{signal}").parse(), Ok(signal));
        }
        assert_eq!("term".parse::<Signal>(), Err(UnknownSignal("term".into())));
    }

    #[test]
    fn ends_read_as_people_say_them() {
        assert_eq!(End::Code(3).to_string(), "exit code 3");
        assert_eq!(
            End::Signal {
                number: 9,
                core: false
            }
            .to_string(),
            "SIGKILL"
        );
        assert_eq!(
            End::Signal {
                number: 11,
                core: true
            }
            .to_string(),
            "SIGSEGV (core dumped)"
        );
        assert_eq!(
            End::Signal {
                number: 40,
                core: false
            }
            .to_string(),
            "signal 40"
        );
    }
}
