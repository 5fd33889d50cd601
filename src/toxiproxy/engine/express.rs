//! The way of bytes that nobody looks at: from socket to socket through a pipe, never in user space.
//!
//! A direction goes over to it at most once and back at most once, when a toxic arrives; the pipe is then
//! emptied into the destination first, so nothing is lost or overtaken. Where no pipe can be had, or the
//! system refuses, bytes are copied in user space as before.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pipes::{Pipe, Pipes};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Express {
    lane: Lane,
    pipe: Option<Pipe>,
    used: bool,
    received: u64,
    sent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Lane {
    /// Toxics look at the bytes, or may soon.
    #[default]
    Barred,
    /// Nobody looks.
    Open,
    /// It was used; then a toxic came, or the system refused. Not again.
    Left,
}

/// What became of a ride.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ride {
    /// Bytes moved, so there may be more.
    Moved,
    /// A peer must be waited for, and will wake the task.
    Waits,
    /// The pipe is empty, and the rest is to be done in user space.
    Empty,
    /// The source was reset.
    Broken,
    /// The pipe is empty, and a pipe may be had as soon as nothing is left in user space.
    Ready,
}

/// The destination is gone.
#[derive(Debug)]
pub(crate) struct DestinationGone;

impl Express {
    /// Opens or bars the lane. What is in the pipe still goes.
    pub(crate) fn allow(&mut self, allowed: bool) {
        self.lane = match (self.lane, allowed) {
            (Lane::Barred, true) => Lane::Open,
            (Lane::Open, false) if self.used => Lane::Left,
            (Lane::Open, false) => Lane::Barred,
            (lane, _) => lane,
        };
    }

    /// Whether it may be used, now or soon.
    pub(crate) fn is_open(&self) -> bool {
        self.lane == Lane::Open
    }

    /// Bytes moved since the last call: into the pipe, and out of it.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.received),
            std::mem::take(&mut self.sent),
        )
    }

    /// Empties the pipe, then fills it again if `pipes` are given and the lane is open.
    pub(crate) fn ride(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        destination: &TcpStream,
        pipes: Option<&Arc<Pipes>>,
    ) -> Result<Ride, DestinationGone> {
        if self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty()) {
            return self.drain(cx, destination);
        }
        match pipes {
            Some(pipes) if self.lane == Lane::Open => Ok(self.fill(cx, source, pipes)),
            _ => Ok(Ride::Empty),
        }
    }

    fn drain(
        &mut self,
        cx: &mut Context<'_>,
        destination: &TcpStream,
    ) -> Result<Ride, DestinationGone> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(Ride::Empty);
        };
        loop {
            match destination.poll_write_ready(cx) {
                Poll::Pending => return Ok(Ride::Waits),
                Poll::Ready(Err(_)) => return Err(DestinationGone),
                Poll::Ready(Ok(())) => {}
            }
            match destination.try_io(Interest::WRITABLE, || pipe.drain(destination)) {
                Ok(moved) => {
                    self.sent += moved as u64;
                    if pipe.is_empty() {
                        self.pipe = None;
                    }
                    return Ok(Ride::Moved);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(DestinationGone),
            }
        }
    }

    /// The end of the source is left to the reader in user space, who meets it again. Its errors are
    /// told: the kernel reports each once, and a reader would see an orderly end.
    fn fill(&mut self, cx: &mut Context<'_>, source: &TcpStream, pipes: &Arc<Pipes>) -> Ride {
        loop {
            match source.poll_read_ready(cx) {
                Poll::Pending => return Ride::Waits,
                Poll::Ready(Err(_)) => return Ride::Empty,
                Poll::Ready(Ok(())) => {}
            }
            let Some(mut pipe) = pipes.lend() else {
                return Ride::Empty;
            };
            match source.try_io(Interest::READABLE, || pipe.fill(source)) {
                Ok(0) => return Ride::Empty,
                Ok(moved) => {
                    self.received += moved as u64;
                    self.pipe = Some(pipe);
                    self.used = true;
                    return Ride::Moved;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_refusal(&error) => {
                    self.lane = Lane::Left;
                    return Ride::Empty;
                }
                Err(_) => return Ride::Broken,
            }
        }
    }
}

/// Whether it was the system that refused, and not the source that broke.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::InvalidInput | E::Unsupported | E::PermissionDenied | E::OutOfMemory
    )
}
