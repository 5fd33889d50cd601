//! Reads listening addresses the way Go does, since clients send what Go accepts and compare what Go
//! reports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

/// A name server that is slower than this is as good as none: calls of the API must be answered.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(800);

/// The services that people write instead of a number.
const SERVICES: [(&str, u16); 6] = [
    ("http", 80),
    ("https", 443),
    ("ssh", 22),
    ("domain", 53),
    ("smtp", 25),
    ("ftp", 21),
];

/// Resolves `host:port`. No host, `0.0.0.0` and `::` all mean every interface, both IP versions; a name is
/// resolved to IPv4 if it has it. The error is Go's text.
pub(crate) async fn resolve(text: &str) -> Result<SocketAddr, String> {
    if text.is_empty() {
        return Ok(any(0));
    }
    let (host, port) = split(text)?;
    let port = port_number(port)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Ok(any(port)),
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) if host.is_empty() => Ok(any(port)),
        Err(_) => look_up(host, port).await,
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// The same address for a machine without IPv6.
pub(crate) fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    let any = address.is_ipv6() && address.ip().is_unspecified();
    any.then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
}

fn split(text: &str) -> Result<(&str, &str), String> {
    let bracketed = text.starts_with('[');
    match text.rsplit_once(':') {
        Some((host, _)) if bracketed && !host.ends_with(']') => {
            Err(format!("address {text}: missing port in address"))
        }
        Some((host, _)) if !bracketed && host.contains(':') => {
            Err(format!("address {text}: too many colons in address"))
        }
        Some(parts) => Ok(parts),
        None => Err(format!("address {text}: missing port in address")),
    }
}

fn port_number(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(0);
    }
    if let Ok(number) = text.parse::<i64>() {
        return u16::try_from(number).map_err(|_| format!("address {text}: invalid port"));
    }
    let service = SERVICES
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    service
        .map(|(_, port)| port)
        .ok_or_else(|| format!("lookup tcp/{text}: unknown port"))
}

async fn look_up(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> = match timeout(LOOKUP_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) => Vec::new(),
        Err(_) => return Err(format!("lookup {host}: i/o timeout")),
    };
    let ipv4 = found.iter().find(|address| address.is_ipv4());
    ipv4.or(found.first())
        .copied()
        .ok_or_else(|| format!("lookup {host}: no such host"))
}

/// Go's text for a failed bind.
pub(crate) fn bind_error(address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string().to_lowercase(),
    };
    format!("listen tcp {address}: bind: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(text: &str) -> String {
        resolve(text)
            .await
            .map_or_else(|error| error, |address| address.to_string())
    }

    #[tokio::test]
    async fn addresses_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("", "[::]:0"),
            (":0", "[::]:0"),
            ("0.0.0.0:28112", "[::]:28112"),
            ("[::]:5", "[::]:5"),
            ("[::1]:5", "[::1]:5"),
            ("127.0.0.1:3310", "127.0.0.1:3310"),
            ("127.0.0.1:http", "127.0.0.1:80"),
            ("localhost:0", "127.0.0.1:0"),
            ("local373", "address local373: missing port in address"),
            ("localhost:99999", "address 99999: invalid port"),
            ("a:b:1", "address a:b:1: too many colons in address"),
            ("256.1.1.1:80", "lookup 256.1.1.1: no such host"),
        ] {
            assert_eq!(shown(text).await, expected, "{text}");
        }
    }
}
