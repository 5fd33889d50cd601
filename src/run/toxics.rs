//! Faults of links in the words of the proxy. Nothing is sent from here: `links.rs` does that.

use std::time::Duration;

use crate::plan::fault::{Distribution, HttpEffect, HttpFault};
use crate::plan::{Direction, FaultName, LinkEffect};
use crate::toxiproxy::wire::{Stream, Toxic};

/// The toxics of a fault on one link, named `FAULT.DIRECTION`.
pub(super) fn toxics(
    fault: &FaultName,
    direction: Direction,
    effect: &LinkEffect,
    is_shared: bool,
) -> Vec<Toxic> {
    let streams: &[(Stream, &str)] = match (effect, direction) {
        // What acts on whole connections or requests needs one side of the pipe alone.
        (effect, _) if effect.is_undirected() => &[(Stream::Upstream, "request")],
        (_, Direction::Request) => &[(Stream::Upstream, "request")],
        (_, Direction::Response) => &[(Stream::Downstream, "response")],
        (_, Direction::Both) => &[
            (Stream::Upstream, "request"),
            (Stream::Downstream, "response"),
        ],
    };
    streams
        .iter()
        .map(|(stream, side)| toxic(&format!("{fault}.{side}"), *stream, effect, is_shared))
        .collect()
}

fn toxic(name: &str, stream: Stream, effect: &LinkEffect, is_shared: bool) -> Toxic {
    let ms = |duration: &Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let new = |kind: &str| Toxic::new(name, kind, stream);
    match effect {
        // A Toxiproxy holds all bytes at a rate of nothing.
        LinkEffect::Stall if is_shared => new("bandwidth").with("rate", 0),
        LinkEffect::Latency {
            latency,
            jitter,
            distribution,
        } => {
            let toxic = new("latency")
                .with("latency", ms(latency))
                .with("jitter", ms(jitter));
            match distribution {
                Distribution::Uniform => toxic,
                other => toxic.with("distribution", other.name()),
            }
        }

        LinkEffect::Stall => new("stall"),
        // A Toxiproxy lets ends through.
        LinkEffect::Blackhole if is_shared => new("timeout").with("timeout", 0),
        LinkEffect::Blackhole => new("timeout").with("timeout", 0).with("silent", true),
        LinkEffect::Bandwidth { bytes_per_s } => new("bandwidth").with("rate", bytes_per_s / 1000),
        LinkEffect::SlowClose { delay } => new("slow_close").with("delay", ms(delay)),
        LinkEffect::ResetPeer { after } => new("reset_peer").with("timeout", ms(after)),
        LinkEffect::Slicer {
            average_size,
            size_variation,
            delay,
        } => new("slicer")
            .with("average_size", *average_size)
            .with("size_variation", *size_variation)
            .with(
                "delay",
                u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
            ),
        LinkEffect::LimitData { bytes } => new("limit_data").with("bytes", *bytes),
        LinkEffect::Reset | LinkEffect::Down { .. } => new("reset"),
        LinkEffect::SlowOpen { delay } => new("slow_open").with("delay", ms(delay)),
        LinkEffect::LimitTime { after } => new("limit_time").with("time", ms(after)),
        LinkEffect::Corrupt { every } => new("corrupt").with("every", *every),
        LinkEffect::Loss { share, timeout } => new("loss")
            .with("share", *share)
            .with("timeout", ms(timeout)),
        LinkEffect::Http(fault) => http_toxic(new("http"), fault),
        LinkEffect::Toxic {
            kind,
            attributes,
            toxicity,
        } => {
            let mut toxic = new(kind);
            toxic.attributes = attributes.clone().into_iter().collect();
            toxic.toxicity = *toxicity as f32;
            toxic
        }
    }
}

fn http_toxic(toxic: Toxic, fault: &HttpFault) -> Toxic {
    let delay = u64::try_from(fault.delay.as_millis()).unwrap_or(u64::MAX);
    let toxic = match &fault.effect {
        HttpEffect::Delay => toxic,
        HttpEffect::Status { status, body } => {
            toxic.with("status", *status).with("body", body.as_str())
        }
        HttpEffect::Abort => toxic.with("abort", true),
        HttpEffect::DropResponse => toxic.with("drop_response", true),
        HttpEffect::Body { body } => toxic.with("body", body.as_str()),
    };
    let mut pattern = serde_json::Map::new();
    let parts = [("method", &fault.method), ("path", &fault.path)];
    for (name, text) in parts {
        pattern.extend(
            text.iter()
                .map(|text| (name.to_owned(), text.as_str().into())),
        );
    }
    if !fault.header.is_empty() {
        pattern.insert("header".to_owned(), serde_json::json!(fault.header));
    }
    toxic
        .with("match", pattern)
        .with("delay", delay)
        .with("share", fault.share)
        .with("first", fault.first.unwrap_or(0))
        .with("every", fault.every.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toxiproxy::client::original;
    use crate::toxiproxy::toxics::KINDS;

    fn black_hole(is_shared: bool) -> Vec<Toxic> {
        let fault = FaultName::new("silence");
        let effect = LinkEffect::Blackhole;
        toxics(&fault, Direction::Response, &effect, is_shared)
    }

    #[test]
    fn directions_are_the_streams_of_a_proxy() {
        let effect = LinkEffect::SlowClose {
            delay: Duration::from_secs(2),
        };
        let set = |direction| {
            let fault = FaultName::new("slow");
            let toxics = toxics(&fault, direction, &effect, false).into_iter();
            let shown = toxics.map(|toxic| (toxic.name, toxic.stream));
            shown.collect::<Vec<_>>()
        };
        let request = ("slow.request".to_owned(), "upstream".to_owned());
        let response = ("slow.response".to_owned(), "downstream".to_owned());
        assert_eq!(set(Direction::Request), std::slice::from_ref(&request));
        assert_eq!(set(Direction::Response), std::slice::from_ref(&response));
        assert_eq!(set(Direction::Both), [request, response]);
    }

    #[test]
    fn faults_have_the_units_of_their_toxics() {
        let time = Duration::from_millis(1_500);
        let shown = |effect: &LinkEffect| {
            let toxic = toxic("t", Stream::Upstream, effect, false);
            format!("{} {}", toxic.kind, serde_json::json!(toxic.attributes))
        };
        for (effect, expected) in [
            (
                LinkEffect::Latency {
                    latency: time,
                    jitter: Duration::from_millis(20),
                    distribution: Distribution::Uniform,
                },
                r#"latency {"latency":1500,"jitter":20}"#,
            ),
            (LinkEffect::Stall, "stall {}"),
            (
                LinkEffect::Bandwidth {
                    bytes_per_s: 64_000,
                },
                r#"bandwidth {"rate":64}"#,
            ),
            (
                LinkEffect::SlowClose { delay: time },
                r#"slow_close {"delay":1500}"#,
            ),
            (
                LinkEffect::ResetPeer { after: time },
                r#"reset_peer {"timeout":1500}"#,
            ),
            (
                LinkEffect::Slicer {
                    average_size: 100,
                    size_variation: 10,
                    delay: Duration::from_millis(2),
                },
                r#"slicer {"average_size":100,"size_variation":10,"delay":2000}"#,
            ),
            (
                LinkEffect::LimitData { bytes: 4096 },
                r#"limit_data {"bytes":4096}"#,
            ),
            (
                LinkEffect::SlowOpen { delay: time },
                r#"slow_open {"delay":1500}"#,
            ),
            (
                LinkEffect::LimitTime { after: time },
                r#"limit_time {"time":1500}"#,
            ),
            (LinkEffect::Corrupt { every: 9 }, r#"corrupt {"every":9}"#),
            (
                LinkEffect::Loss {
                    share: 0.25,
                    timeout: Duration::from_millis(200),
                },
                r#"loss {"share":0.25,"timeout":200}"#,
            ),
        ] {
            assert_eq!(shown(&effect), expected);
        }
        let held = toxic("t", Stream::Upstream, &LinkEffect::Stall, true);
        assert_eq!(
            (held.kind.as_str(), &held.attributes["rate"]),
            ("bandwidth", &0.into())
        );
    }

    #[test]
    fn plan_and_client_know_the_same_toxiproxy() {
        for kind in KINDS {
            let extras = kind.extras.iter().map(|extra| extra.name);
            let names = kind.attributes.iter().copied().chain(extras);
            for name in names.map(Some).chain([None]) {
                let attribute = name.map(|name| (name.to_owned(), 1.into()));
                let effect = LinkEffect::Toxic {
                    kind: kind.name.to_owned(),
                    attributes: attribute.into_iter().collect(),
                    toxicity: 1.0,
                };
                let toxic = toxic("both", Stream::Upstream, &effect, true);
                assert_eq!(
                    effect.beyond_toxiproxy().is_some(),
                    original::extension(&toxic).is_some(),
                    "{toxic:?}"
                );
            }
        }
    }

    #[test]
    fn black_hole_is_silent_where_the_proxy_can_be() {
        let own = Toxic::new("silence.response", "timeout", Stream::Downstream).with("timeout", 0);
        assert_eq!(black_hole(true), std::slice::from_ref(&own));
        assert_eq!(black_hole(false), [own.with("silent", true)]);
    }
}
