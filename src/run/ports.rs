//! Ports that nobody else takes while the run lasts.
//!
//! Free ones lie below the range from which the system draws the local ports of outgoing
//! connections, so that no connection ever sits on one. Each is tested by binding it, and held by
//! a locked file that every run of this user respects; the kernel lets go of the lock when the
//! process ends, however it ends. A port is a number until its service binds it: somebody else
//! may still be faster, which the service then reports as "address in use".

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::keeper::listening_on;

/// Where the search starts; below are the ports that people choose for themselves.
const FIRST: u16 = 20_000;
/// Fewer free candidates than this below the ephemeral range, and the search starts lower.
const CANDIDATES_MIN: u16 = 2_000;
/// Below are the ports of well-known services.
const LOWEST: u16 = 10_000;
/// Where the ephemeral range starts when the system does not say (Linux's default).
const EPHEMERAL_DEFAULT: u16 = 32_768;

/// Descriptors a run may want: a few per connection. More would make programs that close every
/// possible descriptor slow.
const DESCRIPTORS: u64 = 65_536;

/// Why there is no such port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody else uses a pinned port.
    #[error("port {port} is taken{}", by(holder.as_deref()))]
    Taken {
        /// The port.
        port: u16,
        /// Who, as far as the system tells: ``pid 17 (`redis-server`)`` or `another run`.
        holder: Option<String>,
    },
    /// A pinned port cannot be bound for another reason (below 1024 without the right to).
    #[error("cannot bind port {port}")]
    Bind {
        /// The port.
        port: u16,
        /// The system's reason.
        source: io::Error,
    },
    /// Every candidate is in use.
    #[error("no free port between {first} and {last}")]
    NoneFree {
        /// First candidate.
        first: u16,
        /// Last candidate.
        last: u16,
    },
    /// The folder of the lock files cannot be used.
    #[error("cannot use `{}` to hold ports", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

fn by(holder: Option<&str>) -> String {
    holder.map_or(String::new(), |holder| format!(" by {holder}"))
}

/// Hands out ports.
#[derive(Debug)]
pub struct Ports {
    folder: PathBuf,
    candidates: Range<u16>,
    next: u16,
}

/// A port that is held until this value goes.
#[derive(Debug)]
pub struct HeldPort {
    port: u16,
    lock: PathBuf,
    /// Locked; closing it lets go.
    _file: File,
}

impl Ports {
    /// Ports for one run. Lock files lie in a folder of this user in `temp_dir`.
    ///
    /// # Errors
    ///
    /// [`PortError::Folder`].
    pub fn new(temp_dir: &Path) -> Result<Ports, PortError> {
        let uid = rustix::process::getuid();
        let folder = temp_dir.join(format!("chaos-ports-{}", uid.as_raw()));
        let setting = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let candidates = below_ephemeral(setting.as_deref().unwrap_or_default());
        // Somewhere else for each process: a port that was just let go may still get late packets.
        let spread = rustix::process::getpid()
            .as_raw_pid()
            .unsigned_abs()
            .wrapping_mul(61);
        let span = u32::from(candidates.end - candidates.start);
        let start = u16::try_from(spread % span).unwrap_or(0);
        let next = candidates.start + start;
        let ports = Ports {
            folder,
            candidates,
            next,
        };
        ports.make_folder()?;
        Ok(ports)
    }

    /// Takes a free port.
    ///
    /// # Errors
    ///
    /// [`PortError::NoneFree`] or [`PortError::Folder`].
    pub fn free(&mut self) -> Result<HeldPort, PortError> {
        for _ in self.candidates.clone() {
            let port = self.next;
            self.next = if port + 1 < self.candidates.end {
                port + 1
            } else {
                self.candidates.start
            };
            if let Some(held) = self.hold(port)?
                && can_bind(port).is_ok()
            {
                return Ok(held);
            }
        }
        Err(PortError::NoneFree {
            first: self.candidates.start,
            last: self.candidates.end - 1,
        })
    }

    /// Takes a port without a look at who listens there: it may be pinned on one address alone, and
    /// whoever binds it finds out.
    ///
    /// # Errors
    ///
    /// [`PortError::Taken`] by another run, or [`PortError::Folder`].
    pub fn reserved(&self, port: u16) -> Result<HeldPort, PortError> {
        self.hold(port)?.ok_or_else(|| PortError::Taken {
            port,
            holder: Some("another run of `chaos`".into()),
        })
    }

    /// Takes the port that a file pins.
    ///
    /// # Errors
    ///
    /// [`PortError::Taken`], [`PortError::Bind`] or [`PortError::Folder`].
    pub fn pinned(&self, port: u16) -> Result<HeldPort, PortError> {
        let held = self.reserved(port)?;
        match can_bind(port) {
            Ok(()) => Ok(held),
            Err(Errno::ADDRINUSE) => {
                let holder = listening_on(port).map(|(pid, name)| format!("pid {pid} (`{name}`)"));
                Err(PortError::Taken { port, holder })
            }
            Err(errno) => Err(PortError::Bind {
                port,
                source: errno.into(),
            }),
        }
    }

    /// Removes the lock files of runs that were killed.
    pub fn clear_stale(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let ports = entries.filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".lock")?
                .parse()
                .ok()
        });
        for port in ports {
            // Taking the lock of a dead run and letting it go removes its file.
            drop(self.hold(port));
        }
        // Fails while other runs hold ports in it, as it should.
        let _ = fs::remove_dir(&self.folder);
    }

    fn error(&self, source: impl Into<io::Error>) -> PortError {
        PortError::Folder {
            path: self.folder.clone(),
            source: source.into(),
        }
    }

    /// The folder, ours alone: in a shared temp dir anybody could have put something else there.
    fn make_folder(&self) -> Result<(), PortError> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(self.error(error)),
            _ => {
                let found =
                    fs::symlink_metadata(&self.folder).map_err(|error| self.error(error))?;
                let ours = found.is_dir() && found.uid() == rustix::process::getuid().as_raw();
                if ours {
                    Ok(())
                } else {
                    Err(self.error(io::ErrorKind::PermissionDenied))
                }
            }
        }
    }

    /// Locks a port; `None` when another run has it.
    fn hold(&self, port: u16) -> Result<Option<HeldPort>, PortError> {
        /// Each repetition means that another run removed its file or the folder just now.
        const ATTEMPTS: usize = 100;
        let path = self.folder.join(format!("{port}.lock"));
        for _ in 0..ATTEMPTS {
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_folder()?;
                    continue;
                }
                opened => opened.map_err(|error| self.error(error))?,
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                locked => locked.map_err(|errno| self.error(errno))?,
            }
            // Its former holder may have removed the file between our open and our lock; a lock
            // on a removed file keeps nobody out.
            let still_there = fs::metadata(&path).map(|found| found.ino()).ok();
            if still_there == Some(file.metadata().map_err(|error| self.error(error))?.ino()) {
                return Ok(Some(HeldPort {
                    port,
                    lock: path,
                    _file: file,
                }));
            }
        }
        Ok(None)
    }
}

impl HeldPort {
    /// The port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.port
    }
}

impl Drop for HeldPort {
    fn drop(&mut self) {
        // Removed while still locked, so that nobody's lock file is removed but our own. The
        // folder goes with the last of them.
        let _ = fs::remove_file(&self.lock);
        let _ = self.lock.parent().map(fs::remove_dir);
    }
}

/// The candidates, from what `/proc/sys/net/ipv4/ip_local_port_range` says (`LOW HIGH`).
fn below_ephemeral(setting: &str) -> Range<u16> {
    let low = setting
        .split_ascii_whitespace()
        .next()
        .and_then(|low| low.parse().ok());
    let low: u16 = low.unwrap_or(EPHEMERAL_DEFAULT);
    if low >= FIRST + CANDIDATES_MIN {
        FIRST..low
    } else if low >= LOWEST + CANDIDATES_MIN {
        LOWEST..low
    } else {
        // Nearly everything is ephemeral here; what is tested by bind will have to do.
        FIRST..EPHEMERAL_DEFAULT
    }
}

/// Whether a service could listen here, on any address. Nothing ever listens.
fn can_bind(port: u16) -> rustix::io::Result<()> {
    bind(
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        AddressFamily::INET,
    )?;
    match bind(
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        AddressFamily::INET6,
    ) {
        // No IPv6 on this machine.
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => Ok(()),
        bound => bound,
    }
}

fn bind(address: SocketAddr, family: AddressFamily) -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As services do: connections of an earlier run that still linger are no hindrance.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)
}

/// Raises this process's limit on open descriptors as far as it may and a run may want; processes
/// started later inherit it. Returns the limit in force.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    match limit.current {
        Some(current) if current < wanted => {
            let raised = Rlimit {
                current: Some(wanted),
                maximum: limit.maximum,
            };
            // Within the hard limit it cannot fail; if it does, the old limit stands.
            if setrlimit(Resource::Nofile, raised).is_ok() {
                wanted
            } else {
                current
            }
        }
        Some(current) => current,
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> (tempfile::TempDir, Ports) {
        let temp = tempfile::tempdir().expect("a folder");
        let ports = Ports::new(temp.path()).expect("a folder for locks");
        (temp, ports)
    }

    #[test]
    fn candidates_lie_below_the_ephemeral_range() {
        assert_eq!(below_ephemeral("32768\t60999\n"), 20_000..32_768);
        assert_eq!(below_ephemeral("16000 65535"), 10_000..16_000);
        assert_eq!(below_ephemeral("1024 65535"), 20_000..32_768);
        assert_eq!(below_ephemeral(""), 20_000..32_768);
    }

    #[test]
    fn no_port_is_handed_out_twice_not_even_to_another_run() {
        let (temp, mut one) = ports();
        let mut other = Ports::new(temp.path()).expect("the same folder");
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(one.free().expect("a port"));
            held.push(other.free().expect("a port"));
        }
        let mut numbers: Vec<_> = held.iter().map(HeldPort::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 40);
        let taken = other
            .pinned(numbers[0])
            .expect_err("it is held")
            .to_string();
        assert_eq!(
            taken,
            format!("port {} is taken by another run of `chaos`", numbers[0])
        );
    }

    #[test]
    fn nothing_is_left_when_ports_are_let_go() {
        let (temp, mut ports) = ports();
        let held = ports.free().expect("a port");
        let number = held.number();
        drop(held);
        assert_eq!(fs::read_dir(temp.path()).expect("a folder").count(), 0);
        // And the folder comes back when it is needed.
        assert_eq!(ports.pinned(number).expect("free again").number(), number);
    }

    #[test]
    fn taken_pinned_port_names_who_has_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (_temp, ports) = ports();
        let error = ports.pinned(port).expect_err("it is taken").to_string();
        let pid = std::process::id();
        assert!(
            error.starts_with(&format!("port {port} is taken by pid {pid} (`")),
            "{error}"
        );
    }

    #[test]
    fn locks_of_killed_runs_are_cleared_and_those_of_others_stay() {
        let (_temp, mut ports) = ports();
        let held = ports.free().expect("a port");
        let stale = ports.folder.join("29999.lock");
        fs::write(&stale, "").expect("written");
        ports.clear_stale();
        assert!(!stale.exists());
        assert!(held.lock.exists());
    }

    #[test]
    fn folder_of_somebody_else_is_refused() {
        let temp = tempfile::tempdir().expect("a folder");
        let uid = rustix::process::getuid().as_raw();
        let planted = temp.path().join(format!("chaos-ports-{uid}"));
        std::os::unix::fs::symlink("/", &planted).expect("a link");
        let error = Ports::new(temp.path()).expect_err("a link is not our folder");
        assert!(matches!(error, PortError::Folder { .. }), "{error}");
    }

    #[test]
    fn descriptor_limit_is_at_least_what_it_was() {
        let before = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        assert!(raise_descriptor_limit() >= before.unwrap_or(u64::MAX));
    }
}
