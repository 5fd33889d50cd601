//! A listening socket that can be closed from anywhere, at once: when `close` returns, connects are
//! refused and the port can be bound again.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::address::without_ipv6;
use super::locked;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The open door of a proxy.
pub(crate) struct Door {
    listener: Mutex<Option<TcpListener>>,
    waker: AtomicWaker,
}

impl Door {
    /// Starts to listen on a bound socket.
    pub(crate) fn open(socket: TcpSocket) -> io::Result<(Self, SocketAddr)> {
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((
            Self {
                listener: Mutex::new(Some(listener)),
                waker: AtomicWaker::new(),
            },
            address,
        ))
    }

    /// Stops to listen.
    pub(crate) fn close(&self) {
        locked(&self.listener).take();
        self.waker.wake();
    }

    /// Waits for the next connection and gives it to `admit` before the door can be closed; `None` when it
    /// is closed.
    pub(crate) async fn accept(&self, mut admit: impl FnMut(TcpStream)) -> Option<io::Result<()>> {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            let listener = locked(&self.listener);
            let Some(open) = listener.as_ref() else {
                return Poll::Ready(None);
            };
            open.poll_accept(cx)
                .map(|accepted| Some(accepted.map(|(stream, _)| admit(stream))))
        })
        .await
    }
}

/// A socket bound to this address that does not listen: it keeps the port while connects are refused. Falls
/// back to IPv4 where there is no IPv6.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    match (bind_to(address), without_ipv6(address)) {
        (Err(error), Some(ipv4)) if error.kind() != io::ErrorKind::AddrInUse => bind_to(ipv4),
        (bound, _) => bound,
    }
}

fn bind_to(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
