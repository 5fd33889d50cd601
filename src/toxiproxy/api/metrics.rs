//! `GET /metrics`: the text format of Prometheus, with the names and labels of Toxiproxy.
//!
//! Numbers are read when they are asked for, so they count connections that are still open; nothing is
//! kept here. What Toxiproxy does not have begins with `chaos_`.

use std::fmt::{Display, Write as _};

use super::process::Process;
use crate::toxiproxy::VERSION;
use crate::toxiproxy::engine::Engine;
use crate::toxiproxy::wire::{Proxy, ProxyStats, ToxicStats};

/// The type of the answer, as the original sends it.
pub(super) const CONTENT_TYPE: &str =
    "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Which metrics are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offered {
    /// Those of proxies.
    pub(crate) proxies: bool,
    /// Those of the process.
    pub(crate) runtime: bool,
}

impl Offered {
    /// Whether there is such a page at all.
    pub(super) fn any(self) -> bool {
        self.proxies || self.runtime
    }
}

/// The page.
pub(super) fn page(engine: &Engine, offered: Offered) -> String {
    let mut page = Page::default();
    if offered.runtime {
        of_process(&mut page, &Process::read());
    }
    if offered.proxies {
        of_proxies(&mut page, engine);
    }
    page.0
}

fn of_process(page: &mut Page, process: &Process) {
    page.family("chaos_build_info", "gauge", "Version of this server.");
    page.line("chaos_build_info", &[("version", VERSION)], 1);
    let mut one = |name, kind, help, value: Option<f64>| {
        if let Some(value) = value {
            page.family(name, kind, help);
            page.line(name, &[], value);
        }
    };
    one(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds,
    );
    one(
        "process_max_fds",
        "gauge",
        "Maximum number of open file descriptors.",
        process.max_fds,
    );
    one(
        "process_open_fds",
        "gauge",
        "Number of open file descriptors.",
        process.open_fds,
    );
    one(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        process.resident_bytes,
    );
    one(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        process.started_seconds,
    );
    one(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory size in bytes.",
        process.virtual_bytes,
    );
}

fn of_proxies(page: &mut Page, engine: &Engine) {
    let stats = engine.stats().proxies;
    let proxies: Vec<(Proxy, ProxyStats)> = engine
        .list()
        .into_values()
        .filter_map(|proxy| {
            let stats = stats.get(&proxy.name)?.clone();
            Some((proxy, stats))
        })
        .collect();
    bytes(
        page,
        "toxiproxy_proxy_received_bytes_total",
        &proxies,
        |stats| {
            [
                stats.bytes.upstream_received,
                stats.bytes.downstream_received,
            ]
        },
    );
    bytes(
        page,
        "toxiproxy_proxy_sent_bytes_total",
        &proxies,
        |stats| [stats.bytes.upstream_sent, stats.bytes.downstream_sent],
    );
    connections(page, &proxies);
    toxics(page, &proxies);
}

fn bytes(
    page: &mut Page,
    name: &str,
    proxies: &[(Proxy, ProxyStats)],
    read: impl Fn(&ProxyStats) -> [u64; 2],
) {
    page.family(name, "counter", "");
    for (proxy, stats) in proxies {
        for (direction, value) in ["upstream", "downstream"].into_iter().zip(read(stats)) {
            let labels = [
                ("direction", direction),
                ("listener", &proxy.listen),
                ("proxy", &proxy.name),
                ("upstream", &proxy.upstream),
            ];
            page.line(name, &labels, value);
        }
    }
}

fn connections(page: &mut Page, proxies: &[(Proxy, ProxyStats)]) {
    const OPEN: &str = "chaos_proxy_connections_open";
    page.family(OPEN, "gauge", "Connections that are open now.");
    for (proxy, stats) in proxies {
        page.line(OPEN, &[("proxy", &proxy.name)], stats.connections.open);
    }
    const ALL: &str = "chaos_proxy_connections_total";
    page.family(ALL, "counter", "Connections accepted, and how some ended.");
    for (proxy, stats) in proxies {
        let connections = &stats.connections;
        for (event, value) in [
            ("accepted", connections.accepted),
            ("refused", connections.refused),
            ("reset", connections.reset),
            ("cut", connections.cut),
        ] {
            page.line(ALL, &[("event", event), ("proxy", &proxy.name)], value);
        }
    }
}

fn toxics(page: &mut Page, proxies: &[(Proxy, ProxyStats)]) {
    let of_each = |page: &mut Page, name, effects: fn(&ToxicStats) -> [(&'static str, u64); 3]| {
        for (proxy, stats) in proxies {
            for (toxic, stats) in &stats.toxics {
                for (effect, value) in effects(stats) {
                    let labels = [
                        ("effect", effect),
                        ("proxy", &*proxy.name),
                        ("toxic", toxic),
                    ];
                    page.line(name, &labels, value);
                }
            }
        }
    };
    const BYTES: &str = "chaos_toxic_bytes_total";
    page.family(BYTES, "counter", "Bytes that a toxic acted on.");
    of_each(page, BYTES, |stats| {
        [
            ("delayed", stats.delayed_bytes),
            ("held", stats.held_bytes),
            ("dropped", stats.dropped_bytes),
        ]
    });
    const CONNECTIONS: &str = "chaos_toxic_connections_total";
    page.family(CONNECTIONS, "counter", "Connections that a toxic acted on.");
    of_each(page, CONNECTIONS, |stats| {
        [
            ("touched", stats.touched),
            ("closed", stats.closed),
            ("reset", stats.reset),
        ]
    });
}

/// The page being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
            .collect();
        match labels.is_empty() {
            true => self.write(format_args!("{name} {value}\n")),
            false => self.write(format_args!("{name}{{{}}} {value}\n", labels.join(","))),
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a `String` cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

/// A text inside of the quotes of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted_as_prometheus_reads_them() {
        let mut page = Page::default();
        page.line("a", &[("b", "x\"y\\z\n")], 5);
        page.line("c", &[], 0.5);
        assert_eq!(page.0, "a{b=\"x\\\"y\\\\z\\n\"} 5\nc 0.5\n");
    }

    #[tokio::test]
    async fn proxies_are_shown_with_the_names_and_labels_of_toxiproxy() {
        let engine = Engine::new(0);
        let mut proxy = Proxy::new("a", "x:1", "u:2");
        proxy.enabled = false;
        engine.create(&proxy).await.unwrap();
        let offered = Offered {
            proxies: true,
            runtime: false,
        };
        let page = page(&engine, offered);
        let line = "toxiproxy_proxy_sent_bytes_total{direction=\"downstream\",listener=\"x:1\",proxy=\"a\",upstream=\"u:2\"} 0\n";
        assert!(page.contains(line), "{page}");
        assert!(!page.contains("process_"));
    }
}
