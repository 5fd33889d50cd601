//! The keeper's end of the channel: lines in and out of a socket that never blocks it, with a
//! bound on what either side may pile up.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::protocol::{Call, LINE_MAX_BYTES, Report};

/// A coordinator that leaves this much unread will never read again.
const UNSENT_MAX_BYTES: usize = 4 * LINE_MAX_BYTES;

/// Lines over a non-blocking socket.
pub(super) struct Channel {
    socket: UnixStream,
    received: Vec<u8>,
    unsent: VecDeque<u8>,
}

/// Whether the other side is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Present,
    Gone,
}

impl Channel {
    pub(super) fn new(socket: UnixStream) -> io::Result<Channel> {
        socket.set_nonblocking(true)?;
        Ok(Channel {
            socket,
            received: Vec::new(),
            unsent: VecDeque::new(),
        })
    }

    /// Reads what is there. Whole calls come back in order; the peer is gone at end of file, at
    /// any error, and when it says something that is no call.
    pub(super) fn receive(&mut self) -> (Vec<Call>, Peer) {
        let mut buffer = [0_u8; 64 * 1024];
        let mut calls = Vec::new();
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return (calls, Peer::Gone),
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return (calls, Peer::Present);
                }
                Err(_) => return (calls, Peer::Gone),
            }
            if self.take_calls(&mut calls) == Peer::Gone {
                return (calls, Peer::Gone);
            }
        }
    }

    fn take_calls(&mut self, calls: &mut Vec<Call>) -> Peer {
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(call) => calls.push(call),
                Err(_) => return Peer::Gone,
            }
        }
        if self.received.len() > LINE_MAX_BYTES {
            Peer::Gone
        } else {
            Peer::Present
        }
    }

    /// Queues a report and sends what the socket takes.
    pub(super) fn send(&mut self, report: &Report) -> Peer {
        let Ok(line) = serde_json::to_vec(report) else {
            return Peer::Gone;
        };
        self.unsent.extend(line);
        self.unsent.push_back(b'\n');
        self.flush()
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Peer {
        while !self.unsent.is_empty() {
            match self.socket.write(self.unsent.as_slices().0) {
                Ok(0) => return Peer::Gone,
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Peer::Gone,
            }
        }
        if self.unsent.len() > UNSENT_MAX_BYTES {
            Peer::Gone
        } else {
            Peer::Present
        }
    }

    /// Whether a flush waits for the socket.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> (UnixStream, Channel) {
        let (peer, socket) = UnixStream::pair().expect("a socket pair");
        (peer, Channel::new(socket).expect("a channel"))
    }

    #[test]
    fn calls_arrive_whole_however_they_were_cut() {
        let (mut peer, mut channel) = channel();
        peer.write_all(br#"{"seq":1,"request":"kill-all"}"#)
            .expect("written");
        let (calls, state) = channel.receive();
        assert_eq!((calls.len(), state), (0, Peer::Present));
        peer.write_all(b"\n{\"seq\":2,\"request\":\"quit\"}\n{\"se")
            .expect("written");
        let (calls, state) = channel.receive();
        assert_eq!(
            calls.iter().map(|call| call.seq).collect::<Vec<_>>(),
            [1, 2]
        );
        assert_eq!(state, Peer::Present);
    }

    #[test]
    fn calls_before_the_end_of_file_still_count() {
        let (mut peer, mut channel) = channel();
        peer.write_all(b"{\"seq\":1,\"request\":\"quit\"}\n")
            .expect("written");
        drop(peer);
        let (calls, state) = channel.receive();
        assert_eq!((calls.len(), state), (1, Peer::Gone));
    }

    #[test]
    fn nonsense_and_endless_lines_end_the_channel() {
        let (mut peer, mut channel_a) = channel();
        peer.write_all(b"hello\n").expect("written");
        assert_eq!(channel_a.receive().1, Peer::Gone);

        let (mut peer, mut channel_b) = channel();
        let writer = std::thread::spawn(move || {
            // Fails once the other end is closed, which is the point.
            let _ = peer.write_all(&vec![b' '; 4 * LINE_MAX_BYTES]);
        });
        while channel_b.receive().1 == Peer::Present {}
        drop(channel_b);
        writer.join().expect("the writer ends");
    }

    #[test]
    fn peer_that_never_reads_is_gone_after_a_bound() {
        let (_peer, mut channel) = channel();
        let report = Report::Ready { pid: 1 };
        let mut sent = 0_usize;
        while channel.send(&report) == Peer::Present {
            sent += 1;
            assert!(sent < UNSENT_MAX_BYTES, "the queue has no bound");
        }
        assert!(channel.has_unsent());
    }
}
