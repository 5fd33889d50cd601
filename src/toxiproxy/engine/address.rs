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

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// What is bound.
    pub(crate) address: SocketAddr,
    /// What Go prints for it. `:80`, `0.0.0.0:80` and `[::]:80` are bound alike and printed differently.
    pub(crate) text: String,
}

/// Resolves `host:port`. No host, `0.0.0.0` and `::` all mean every interface, both IP versions; a name is
/// resolved to IPv4 if it has it. The error is Go's text.
pub(crate) async fn resolve(text: &str) -> Result<Resolved, String> {
    let (host, port) = if text.is_empty() {
        ("", "")
    } else {
        split(text)?
    };
    let port = port_number(port)?;
    if host.is_empty() {
        return Ok(any(port, format!(":{port}")));
    }
    let address = match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip.to_canonical(), port),
        Err(_) => look_up(host, port).await?,
    };
    let text = address.to_string();
    Ok(if address.ip().is_unspecified() {
        any(port, text)
    } else {
        Resolved { address, text }
    })
}

fn any(port: u16, text: String) -> Resolved {
    Resolved {
        address: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
        text,
    }
}

/// The same address for a machine without IPv6.
pub(crate) fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    let any = address.is_ipv6() && address.ip().is_unspecified();
    any.then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
}

/// Host, without brackets, and port.
fn split(text: &str) -> Result<(&str, &str), String> {
    let wrong = |what: &str| format!("address {text}: {what} in address");
    let (host, port) = text.rsplit_once(':').ok_or(wrong("missing port"))?;
    let Some(inner) = text.strip_prefix('[') else {
        return match host.contains(':') {
            true => Err(wrong("too many colons")),
            false => Ok((host, port)),
        };
    };
    let (inner, after) = inner.split_once(']').ok_or(wrong("missing ']'"))?;
    match after.strip_prefix(':') {
        Some(rest) if rest == port => Ok((inner, port)),
        Some(_) => Err(wrong("too many colons")),
        None => Err(wrong("missing port")),
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
pub(crate) fn bind_error(address: &str, error: &io::Error) -> String {
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
            .map_or_else(|error| error, |resolved| resolved.text)
    }

    #[tokio::test]
    async fn addresses_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("", ":0"),
            (":0", ":0"),
            ("0.0.0.0:28112", "0.0.0.0:28112"),
            ("[::]:5", "[::]:5"),
            ("[::ffff:127.0.0.1]:5", "127.0.0.1:5"),
            ("127.0.0.1:", "127.0.0.1:0"),
            ("[::1]:5", "[::1]:5"),
            ("127.0.0.1:3310", "127.0.0.1:3310"),
            ("127.0.0.1:http", "127.0.0.1:80"),
            ("localhost:0", "127.0.0.1:0"),
            ("local373", "address local373: missing port in address"),
            ("localhost:99999", "address 99999: invalid port"),
            ("a:b:1", "address a:b:1: too many colons in address"),
            ("[::1", "address [::1: missing ']' in address"),
            ("[::1]", "address [::1]: missing port in address"),
            ("[::1]80", "address [::1]80: missing port in address"),
            ("256.1.1.1:80", "lookup 256.1.1.1: no such host"),
        ] {
            assert_eq!(shown(text).await, expected, "{text}");
        }
    }

    #[tokio::test]
    async fn every_interface_is_bound_alike_however_it_is_written() {
        for text in ["", ":0", "0.0.0.0:0", "[::]:0"] {
            let address = resolve(text).await.unwrap().address;
            assert_eq!(address.to_string(), "[::]:0", "{text}");
        }
    }
}
