//! The upstream: does what the first byte of a connection says.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::processors::on_processor;

/// Sends everything back.
pub(crate) const ECHO: u8 = b'E';

/// Sends everything back too, from a thread and a processor of its own: for round trips.
pub(crate) const ECHO_APART: u8 = b'A';

/// Sends as many bytes as the next eight bytes say.
pub(crate) const SEND: u8 = b'S';

const BUFFER: usize = 256 * 1024;

/// Serves until the process ends.
pub(crate) async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A caller that has seen enough just goes.
                let _ = answer(socket).await;
            });
        }
    });
    address
}

async fn answer(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    match socket.read_u8().await? {
        SEND => {
            let mut left = usize::try_from(socket.read_u64().await?).unwrap_or(usize::MAX);
            let bytes = vec![7; BUFFER];
            while left > 0 {
                let length = left.min(BUFFER);
                socket.write_all(&bytes[..length]).await?;
                left -= length;
            }
            socket.shutdown().await
        }
        ECHO_APART => {
            let socket = socket.into_std()?;
            socket.set_nonblocking(false)?;
            tokio::task::spawn_blocking(move || on_processor(1, || echo(socket))).await?
        }
        _ => {
            let mut bytes = vec![0; 4096];
            loop {
                let length = socket.read(&mut bytes).await?;
                if length == 0 {
                    return socket.shutdown().await;
                }
                socket.write_all(&bytes[..length]).await?;
            }
        }
    }
}

fn echo(mut socket: std::net::TcpStream) -> std::io::Result<()> {
    use std::io::{Read, Write};
    let mut bytes = [0; 4096];
    loop {
        let length = socket.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        socket.write_all(&bytes[..length])?;
    }
}
