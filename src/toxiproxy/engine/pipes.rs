//! A few pipes for all connections, lent while bytes go from socket to socket inside the kernel.
//!
//! Unprivileged users may have 16,384 pages in pipes, which is 64 pipes of a mebibyte; so a pipe is only
//! held while it holds bytes, and whoever gets none copies in user space instead.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use super::locked;

/// Most pipes at a time, of all connections of a server.
const PIPES_MAX: usize = 32;

/// Bytes of a pipe, where the system allows so many.
#[cfg(target_os = "linux")]
const PIPE_SIZE: usize = 1 << 20;

/// Moved at most at once.
const MOST: usize = 1 << 20;

/// The pipes of a server.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Ends>,
    lent: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe on loan; empty ones go back when they are dropped.
#[derive(Debug)]
pub(crate) struct Pipe {
    ends: Option<Ends>,
    held: usize,
    pipes: Arc<Pipes>,
}

impl Pipes {
    /// Lends a pipe; `None` when all are lent, or there are no descriptors for another, or the system has
    /// no such thing.
    pub(crate) fn lend(self: &Arc<Self>) -> Option<Pipe> {
        let mut pool = locked(&self.pool);
        if pool.lent >= PIPES_MAX {
            return None;
        }
        let ends = match pool.idle.pop() {
            Some(ends) => ends,
            None => make().ok()?,
        };
        pool.lent += 1;
        Some(Pipe {
            ends: Some(ends),
            held: 0,
            pipes: Arc::clone(self),
        })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut pool = locked(&self.pipes.pool);
        pool.lent -= 1;
        // One that holds bytes of a connection that ended is closed, and they with it.
        pool.idle
            .extend(self.ends.take().filter(|_| self.held == 0));
    }
}

impl Pipe {
    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves bytes from a socket into the empty pipe; 0 at the end of the stream.
    pub(crate) fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        self.held = splice(socket, &ends.write, MOST)?;
        Ok(self.held)
    }

    /// Moves bytes from the pipe to a socket.
    pub(crate) fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(&ends.read, socket, self.held)?;
        self.held -= moved;
        Ok(moved)
    }
}

#[cfg(target_os = "linux")]
fn make() -> io::Result<Ends> {
    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Where it is not allowed the pipe keeps its 64 KiB and does, more slowly.
    let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
    Ok(Ends { read, write })
}

#[cfg(target_os = "linux")]
fn splice(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    use rustix::pipe::{SpliceFlags, splice};
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(splice(from, None, to, None, most, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn make() -> io::Result<Ends> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn splice(_: impl AsFd, _: impl AsFd, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn pipes_are_few_and_come_back_empty() {
        let pipes = Arc::new(Pipes::default());
        let mut lent: Vec<Pipe> = std::iter::from_fn(|| pipes.lend()).collect();
        assert_eq!(lent.len(), PIPES_MAX);
        let (mut sender, source) = UnixStream::pair().unwrap();
        sender.write_all(b"left").unwrap();
        assert_eq!(lent[0].fill(&source).unwrap(), 4);
        lent.clear();
        let again: Vec<Pipe> = std::iter::from_fn(|| pipes.lend()).collect();
        assert_eq!(again.len(), PIPES_MAX);
        for mut pipe in again {
            let (destination, mut receiver) = UnixStream::pair().unwrap();
            sender.write_all(b"new").unwrap();
            pipe.fill(&source).unwrap();
            pipe.drain(&destination).unwrap();
            let mut got = [0; 3];
            receiver.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"new");
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut pipe = Arc::new(Pipes::default()).lend().unwrap();
        let (mut sender, source) = UnixStream::pair().unwrap();
        let (destination, mut receiver) = UnixStream::pair().unwrap();
        sender.write_all(b"hello").unwrap();
        assert_eq!(pipe.fill(&source).unwrap(), 5);
        assert_eq!(pipe.drain(&destination).unwrap(), 5);
        let mut got = [0; 5];
        receiver.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(sender);
        assert_eq!(pipe.fill(&source).unwrap(), 0);
    }
}
