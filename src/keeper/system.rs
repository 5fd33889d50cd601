//! What std and rustix do not offer safely: signals as a descriptor, and what a child must set
//! between fork and exec. All `unsafe` of the keeper is here.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Pid, Signal};
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds: the same clock in every process of this machine.
pub(super) fn now_mono_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The kernel counts up from boot: never negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Holds all signals back for good and returns a descriptor that becomes readable when a child
/// changes. So neither Ctrl-C nor SIGTERM ends the keeper before its children, and a write to a
/// vanished coordinator is an error instead of SIGPIPE.
#[expect(
    unsafe_code,
    reason = "neither std nor rustix offers signal masks or signalfd"
)]
pub(super) fn hold_signals() -> io::Result<OwnedFd> {
    reset_dispositions();
    // SAFETY: the sets are plain data that sigemptyset and sigfillset initialise before use; a
    // descriptor that signalfd returns belongs to nobody else.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut child: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut child);
        libc::sigaddset(&raw mut child, libc::SIGCHLD);
        let fd = libc::signalfd(-1, &raw const child, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

/// No signal ignored: an ignored one stays ignored across exec, and an ignored SIGCHLD would hide
/// how children end. Only calls what a forked child may call.
#[expect(unsafe_code, reason = "std has no way to reset a disposition")]
fn reset_dispositions() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: installs no handler; those that cannot be set fail harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

#[expect(unsafe_code, reason = "std has no way to empty the signal mask")]
fn release_signals() -> io::Result<()> {
    // SAFETY: the set is plain data that sigemptyset initialises before use.
    let status = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps whatever descriptors this process was started with, above the standard streams, from
/// its children: a leaked one can hold a port, a lock or the end of a pipe.
#[expect(unsafe_code, reason = "inherited descriptors are known by number only")]
pub(super) fn keep_descriptors_private() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if fd > 2 {
            // SAFETY: the number is only used for this one call; should it have been closed since
            // it was listed (the listing's own is), the call fails and nothing is lost.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

/// What a child does between fork and exec, after any change of user: die with the keeper, take
/// its niceness, and start with signals as the system hands them out.
#[expect(
    unsafe_code,
    reason = "a hook between fork and exec is unsafe to register"
)]
pub(super) fn prepare_child(command: &mut Command, nice: i32) {
    let keeper = rustix::process::getpid();
    // SAFETY: the hook only makes system calls that are async-signal-safe, allocates nothing on
    // its way to success and touches no state of the parent.
    unsafe {
        command.pre_exec(move || {
            die_with(keeper)?;
            if nice != 0 {
                rustix::process::setpriority_process(None, nice)?;
            }
            reset_dispositions();
            release_signals()
        });
    }
}

/// For a command that this process becomes rather than starts.
#[expect(unsafe_code, reason = "a hook before exec is unsafe to register")]
pub(super) fn prepare_exec(command: &mut Command) {
    // SAFETY: as in `prepare_child`.
    unsafe {
        command.pre_exec(|| {
            reset_dispositions();
            release_signals()
        });
    }
}

fn die_with(keeper: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The keeper may have died before the signal was set; then nobody would ever send it.
    if rustix::process::getppid() == Some(keeper) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Empties a descriptor of [`hold_signals`]; how many signals arrived is of no interest.
pub(super) fn drain(signals: &OwnedFd) {
    let mut buffer = [0_u8; 1024];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|read| read > 0) {}
}
