//! Reads addresses the way Go does, since clients send what Go accepts and compare what Go reports.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::lookups::Lookups;

/// A name server that is slower than this is as good as none: calls of the API must be answered.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(800);

/// The services that Go knows also where there is no list of them.
const SERVICES: [(&str, u16); 8] = [
    ("domain", 53),
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("imap2", 143),
    ("telnet", 23),
];

/// The list of services: lines of `name port/protocol aliases… # comment`.
const SERVICES_FILE: &str = "/etc/services";

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
pub(super) async fn resolve(text: &str, lookups: &Lookups) -> Result<Resolved, String> {
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
        Err(_) => look_up(host, port, lookups).await?,
    };
    let text = address.to_string();
    Ok(if address.ip().is_unspecified() {
        any(port, text)
    } else {
        Resolved { address, text }
    })
}

/// Connects to `host:port`. No host means this machine; a port may be the name of a service.
pub(super) async fn connect(text: &str, lookups: &Lookups) -> io::Result<TcpStream> {
    let (host, port) = split(text).map_err(io::Error::other)?;
    let port = port_number(port).map_err(io::Error::other)?;
    if host.is_empty() {
        let here: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return TcpStream::connect(&here.map(|ip| SocketAddr::new(ip, port))[..]).await;
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await,
        Err(_) => TcpStream::connect(&lookups.find(host, port).await?[..]).await,
    }
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
    let known = SERVICES.into_iter();
    let known = known.map(|(name, port)| (name.eq_ignore_ascii_case(text), port));
    let mut known = known.filter_map(|(is_it, port)| is_it.then_some(port));
    known
        .next()
        .or_else(|| listed_service(text, &fs::read_to_string(SERVICES_FILE).ok()?))
        .ok_or_else(|| format!("lookup tcp/{text}: unknown port"))
}

fn listed_service(wanted: &str, list: &str) -> Option<u16> {
    let lines = list.lines().filter_map(|line| line.split('#').next());
    let mut ports = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        let mut names = words.chain([name]);
        let is_it = names.any(|name| name.eq_ignore_ascii_case(wanted));
        is_it.then(|| port.parse().ok())?
    });
    ports.next()
}

async fn look_up(host: &str, port: u16, lookups: &Lookups) -> Result<SocketAddr, String> {
    let found = match timeout(LOOKUP_TIMEOUT, lookups.find(host, port)).await {
        Ok(found) => found.unwrap_or_default(),
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
        resolve(text, &Lookups::default())
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
    async fn upstreams_are_dialled_as_go_dials_them() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lookups = Lookups::default();
        for host in ["127.0.0.1", "localhost", "", "[::ffff:127.0.0.1]"] {
            let upstream = format!("{host}:{port}");
            assert!(connect(&upstream, &lookups).await.is_ok(), "{upstream}");
        }
        for upstream in ["", "localhost", "127.0.0.1:no-such-service", "a:b:1"] {
            assert!(connect(upstream, &lookups).await.is_err(), "{upstream}");
        }
    }

    #[test]
    fn services_are_found_by_name_and_by_alias() {
        let list = "# a list\nmysql\t3306/udp\nmysql 3306/tcp db # d\nbroken\n";
        for name in ["mysql", "DB"] {
            assert_eq!(listed_service(name, list), Some(3306));
        }
        assert_eq!(listed_service("d", list), None);
    }

    #[tokio::test]
    async fn every_interface_is_bound_alike_however_it_is_written() {
        for text in ["", ":0", "0.0.0.0:0", "[::]:0"] {
            let address = resolve(text, &Lookups::default()).await.unwrap().address;
            assert_eq!(address.to_string(), "[::]:0", "{text}");
        }
    }
}
