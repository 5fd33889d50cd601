//! Finding processes in `/proc`: by descent, by the run they carry, by the port they hold. Never
//! by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::RUN_VARIABLE;
use super::system::now_mono_ns;

/// All descendants of `ancestor` that have not ended, adopted ones included.
pub(super) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut zombies = BTreeSet::new();
    for pid in all_pids() {
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
            if stat.is_zombie {
                zombies.insert(pid);
            }
        }
    }
    let mut found = Vec::new();
    let mut frontier = vec![ancestor.as_raw_pid()];
    // Every pid is the child of one parent, so this visits each at most once.
    while let Some(parent) = frontier.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            frontier.push(child);
            if !zombies.contains(&child) {
                found.extend(Pid::from_raw(child));
            }
        }
    }
    found
}

/// What a [`sweep`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many processes were killed.
    pub killed: usize,
    /// Pids that were still there at the deadline; empty unless the kernel or another user holds
    /// them.
    pub left: Vec<i32>,
}

/// Kills every process that carries this run's `CHAOS_RUN`, itself and its own ancestors excepted,
/// and waits for their end. For when the keeper is gone: what it had adopted is found no other
/// way. Blocks for at most `deadline`.
#[must_use]
pub fn sweep(run_id: &str, deadline: Duration) -> Swept {
    let end = now_mono_ns().saturating_add(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
    let mut killed = 0;
    loop {
        let strays = carrying(run_id);
        for (_, handle) in &strays {
            // Fails only for one that just ended or is not ours to kill; the next look tells.
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
        let all_ended = wait_for_ends(&strays, end);
        if strays.is_empty() || !all_ended || now_mono_ns() > end {
            let left = strays
                .into_iter()
                .map(|(pid, _)| pid.as_raw_pid())
                .collect();
            return Swept { killed, left };
        }
        killed += strays.len();
    }
}

/// The living that carry the run, each with a handle that cannot come to mean another process.
fn carrying(run_id: &str) -> Vec<(Pid, OwnedFd)> {
    let spared = own_line();
    let wanted = format!("{RUN_VARIABLE}={run_id}");
    let carries = |pid: Pid| {
        let environ = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    };
    let candidates = all_pids()
        .filter(|pid| !spared.contains(pid))
        .filter_map(Pid::from_raw);
    candidates
        .filter(|pid| carries(*pid))
        .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        // Again, now that the handle pins it: the pid may have changed hands in between.
        .filter(|(pid, _)| carries(*pid))
        .collect()
}

/// This process and its ancestors.
fn own_line() -> BTreeSet<i32> {
    let mut line = BTreeSet::new();
    let mut pid = rustix::process::getpid().as_raw_pid();
    while line.insert(pid) {
        match Stat::read(pid) {
            Some(stat) => pid = stat.parent,
            None => break,
        }
    }
    line
}

/// Whether all ended before `end`.
fn wait_for_ends(strays: &[(Pid, OwnedFd)], end: u64) -> bool {
    for (_, handle) in strays {
        let mut fds = [PollFd::new(handle, PollFlags::IN)];
        loop {
            let left = end.saturating_sub(now_mono_ns());
            match rustix::event::poll(&mut fds, Some(&timespec(Duration::from_nanos(left)))) {
                Ok(0) => return false,
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
    true
}

/// A time-out in the shape of `poll`.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The two fields of `/proc/PID/stat` that matter here.
struct Stat {
    parent: i32,
    is_zombie: bool,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `PID (COMMAND) STATE PPID …`, where the command may contain anything, `)` too.
    fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let is_zombie = matches!(fields.next()?, "Z" | "X");
        Some(Stat {
            parent: fields.next()?.parse().ok()?,
            is_zombie,
        })
    }
}

/// Who listens on a TCP port of this machine: pid and command, as far as `/proc` tells us.
#[must_use]
pub fn listening_on(port: u16) -> Option<(i32, String)> {
    let sockets: BTreeSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    let holds = |pid: &i32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| {
                target
                    .to_str()
                    .is_some_and(|target| sockets.contains(target))
            })
    };
    let pid = if sockets.is_empty() {
        None
    } else {
        all_pids().find(holds)
    }?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, command.trim_end().to_owned()))
}

/// The sockets, as `/proc/PID/fd` names them, that listen on the port.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let local = format!(":{port:04X}");
    let rows = table
        .lines()
        .skip(1)
        .map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&local) && row[3] == LISTEN)
        .map(|row| format!("socket:[{}]", row[9]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_parentheses_and_spaces_in_a_command() {
        let stat = Stat::parse("42 (a) R 7) (x) Z 17 42 42 0 -1").expect("a stat line");
        assert_eq!((stat.parent, stat.is_zombie), (17, true));
        assert!(Stat::parse("42 (a").is_none());
    }

    #[test]
    fn listener_of_a_port_is_found_by_its_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (pid, command) = listening_on(port).expect("this process listens");
        assert_eq!(pid, rustix::process::getpid().as_raw_pid());
        assert!(!command.is_empty());
        drop(listener);
        assert_eq!(listening_on(port), None);
    }

    #[test]
    fn sweep_of_a_run_that_nobody_carries_ends_at_once() {
        assert_eq!(
            sweep("no-such-run", Duration::from_secs(5)),
            Swept::default()
        );
    }

    #[test]
    fn own_line_contains_this_process_and_its_parent() {
        let line = own_line();
        assert!(line.contains(&rustix::process::getpid().as_raw_pid()));
        let parent = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
        assert!(line.contains(&parent));
    }
}
