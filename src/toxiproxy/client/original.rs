//! What a real Toxiproxy 2.x can do and what it cannot survive, so that nothing of it is sent; and how a
//! set of toxics is reached with its one call per toxic.

use serde_json::{Map, Value};

use super::ClientError;
use crate::toxiproxy::wire::Toxic;

/// The types of toxics of Toxiproxy 2.12, and their attributes.
const KINDS: [(&str, &[&str]); 8] = [
    ("bandwidth", &["rate"]),
    ("latency", &["latency", "jitter"]),
    ("limit_data", &["bytes"]),
    ("noop", &[]),
    ("reset_peer", &["timeout"]),
    ("slicer", &["average_size", "size_variation", "delay"]),
    ("slow_close", &["delay"]),
    ("timeout", &["timeout"]),
];

/// Checks that a real server has all that a toxic needs, and survives it.
pub(super) fn check(toxic: &Toxic) -> Result<(), ClientError> {
    if let Some(what) = extension(toxic) {
        return Err(ClientError::NeedsExtension {
            toxic: toxic.name.clone(),
            what: what.to_owned(),
        });
    }
    match deadly(toxic) {
        None => Ok(()),
        Some(reason) => Err(ClientError::Deadly {
            toxic: toxic.name.clone(),
            reason,
        }),
    }
}

/// The type or attribute that a real server does not have. It would skip an attribute without a word.
pub(crate) fn extension(toxic: &Toxic) -> Option<&str> {
    let Some((_, known)) = KINDS.iter().find(|(kind, _)| *kind == toxic.kind) else {
        return Some(&toxic.kind);
    };
    let is_known = |name: &&String| known.iter().any(|known| known.eq_ignore_ascii_case(name));
    let unknown = toxic.attributes.keys().find(|name| !is_known(name));
    unknown.map(String::as_str)
}

/// Why a toxic ends the process of a real server, if it does.
fn deadly(toxic: &Toxic) -> Option<&'static str> {
    let value = |name: &str| attribute(&toxic.attributes, name);
    match toxic.kind.as_str() {
        "slicer" => {
            let (average, variation) = (value("average_size"), value("size_variation"));
            if average.saturating_add(variation) < 1 {
                Some("`average_size` and `size_variation` leave no piece of a byte")
            } else if variation > average {
                Some("`size_variation` is above `average_size`")
            } else {
                None
            }
        }
        "bandwidth" if value("rate") < 0 => Some("`rate` is negative"),
        "latency" if value("jitter") >= 1 << 62 => Some("`jitter` is too large"),
        _ => None,
    }
}

/// A whole number, in any case of its name, zero unless set: so a server reads it.
fn attribute(attributes: &Map<String, Value>, name: &str) -> i64 {
    let given = attributes.iter().rev();
    let given = given.filter(|(given, _)| given.eq_ignore_ascii_case(name));
    given
        .filter_map(|(_, value)| value.as_i64())
        .next()
        .unwrap_or(0)
}

/// One call that brings a server nearer to a set.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Remove(String),
    /// Changes attributes and toxicity; the toxic goes on running on live connections.
    Update(Toxic),
    Add(Toxic),
}

/// The calls that turn the present set into the wanted one, fewest first disturbed.
pub(super) fn steps(present: &[Toxic], wanted: &[Toxic]) -> Vec<Step> {
    let stays = |old: &&Toxic| wanted.iter().any(|toxic| is_kin(old, toxic));
    let gone = present.iter().filter(|old| !stays(old));
    let mut steps: Vec<Step> = gone.map(|old| Step::Remove(old.name.clone())).collect();
    for toxic in wanted {
        match present.iter().find(|old| is_kin(old, toxic)) {
            None => steps.push(Step::Add(toxic.clone())),
            Some(old) if is_as(old, toxic) => {}
            Some(old) => steps.push(Step::Update(completed(toxic, old))),
        }
    }
    steps
}

/// What an update makes of a toxic: of its type and place nothing, of its attributes those that are given.
pub(super) fn merged(present: &Toxic, update: &Toxic) -> Toxic {
    let mut merged = present.clone();
    let is_given = |name: &str| {
        update
            .attributes
            .keys()
            .any(|key| key.eq_ignore_ascii_case(name))
    };
    merged.attributes.retain(|name, _| !is_given(name));
    merged.attributes.extend(update.attributes.clone());
    merged
}

/// What of the wanted set a server does not have, or has besides.
pub(super) fn unlike(present: &[Toxic], wanted: &[Toxic]) -> Option<String> {
    let lacks = wanted
        .iter()
        .find(|toxic| !present.iter().any(|old| is_as(old, toxic)));
    let besides = present
        .iter()
        .find(|old| !wanted.iter().any(|toxic| is_as(old, toxic)));
    match (lacks, besides) {
        (Some(toxic), _) => Some(format!("toxic `{}` is not as it was set", toxic.name)),
        (None, Some(toxic)) => Some(format!("toxic `{}` was not asked for", toxic.name)),
        (None, None) => None,
    }
}

/// Whether one can be changed into the other.
fn is_kin(old: &Toxic, wanted: &Toxic) -> bool {
    let name = match wanted.name.as_str() {
        "" => format!("{}_{}", wanted.kind, wanted.stream),
        name => name.to_owned(),
    };
    old.name == name && old.kind == wanted.kind && old.stream == wanted.stream
}

/// Whether a server's toxic is the wanted one. It lists attributes that were not given: those are zero.
fn is_as(present: &Toxic, wanted: &Toxic) -> bool {
    let is_set = |(name, value): (&String, &Value)| match wanted.attributes.get(name) {
        Some(wanted) => wanted == value,
        None => value == &Value::from(0),
    };
    let is_known = |(name, value): (&String, &Value)| {
        present.attributes.contains_key(name) || value == &Value::from(0)
    };
    is_kin(present, wanted)
        && present.toxicity == wanted.toxicity
        && present.attributes.iter().all(is_set)
        && wanted.attributes.iter().all(is_known)
}

/// The wanted toxic with a zero for what the server would else keep.
fn completed(wanted: &Toxic, old: &Toxic) -> Toxic {
    let zeros = old.attributes.keys().map(|name| (name.clone(), 0.into()));
    let mut attributes: Map<String, Value> = zeros.collect();
    attributes.extend(wanted.attributes.clone());
    Toxic {
        attributes,
        name: old.name.clone(),
        ..wanted.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toxiproxy::wire::Stream;

    fn toxic(kind: &str) -> Toxic {
        Toxic::new("t", kind, Stream::Upstream)
    }

    #[test]
    fn what_ends_a_real_server_is_refused() {
        for deadly in [
            toxic("slicer"),
            toxic("slicer").with("average_size", -1),
            toxic("slicer")
                .with("average_size", 10)
                .with("size_variation", 11),
            toxic("slicer")
                .with("average_size", 1)
                .with("size_variation", -1),
            toxic("bandwidth").with("RATE", -1),
            toxic("latency").with("jitter", i64::MAX),
            toxic("latency").with("jitter", 1_i64 << 62),
        ] {
            let refused = check(&deadly).unwrap_err();
            assert!(matches!(refused, ClientError::Deadly { .. }), "{deadly:?}");
        }
        for harmless in [
            toxic("slicer").with("average_size", 1),
            toxic("slicer")
                .with("average_size", 10)
                .with("size_variation", 10),
            toxic("bandwidth"),
            toxic("latency").with("jitter", (1_i64 << 62) - 1),
            toxic("latency").with("latency", -5),
        ] {
            check(&harmless).unwrap();
        }
    }

    #[test]
    fn what_a_real_server_does_not_have_is_refused_by_its_name() {
        for (toxic, what) in [
            (toxic("stall"), "stall"),
            (toxic("bandwidth").with("shared", true), "shared"),
        ] {
            assert_eq!(
                check(&toxic).unwrap_err().to_string(),
                format!("toxic `t` needs `{what}`, which this proxy server does not have")
            );
        }
        check(&toxic("latency").with("LATENCY", 5)).unwrap();
    }

    #[test]
    fn update_is_judged_with_what_it_leaves_as_it_is() {
        let sizes = |average| toxic("slicer").with("average_size", average);
        let present = sizes(100).with("size_variation", 50);
        check(&sizes(10)).unwrap();
        assert!(check(&merged(&present, &sizes(10))).is_err());
        check(&merged(&present, &sizes(60))).unwrap();
        let other_case = toxic("slicer").with("AVERAGE_SIZE", 10);
        assert!(check(&merged(&present, &other_case)).is_err());
    }

    #[test]
    fn toxic_that_is_as_wanted_is_left_alone_and_another_is_changed_or_replaced() {
        let present = [
            toxic("latency").with("latency", 5).with("jitter", 3),
            Toxic::new("old", "noop", Stream::Upstream),
        ];
        assert_eq!(steps(&present, &present), []);
        let wanted = toxic("latency").with("latency", 6);
        let changed = toxic("latency").with("latency", 6).with("jitter", 0);
        assert_eq!(
            steps(&present, std::slice::from_ref(&wanted)),
            [Step::Remove("old".to_owned()), Step::Update(changed)]
        );
        let other = toxic("timeout");
        assert_eq!(
            steps(&present[..1], std::slice::from_ref(&other)),
            [Step::Remove("t".to_owned()), Step::Add(other)]
        );
    }

    #[test]
    fn set_is_compared_both_ways_and_unset_attributes_are_zero() {
        let shown = toxic("latency").with("latency", 5).with("jitter", 0);
        let wanted = toxic("latency").with("latency", 5);
        let (present, asked) = ([shown.clone()], [wanted]);
        assert_eq!(unlike(&present, &asked), None);
        assert!(unlike(&[], &asked).is_some());
        assert!(unlike(&present, &[]).is_some());
        let mut half = shown;
        half.toxicity = 0.5;
        assert!(unlike(&[half], &asked).is_some());
    }

    #[test]
    fn unnamed_toxic_has_the_name_the_server_gives_it() {
        let unnamed = Toxic::new("", "noop", Stream::Upstream);
        let named = Toxic::new("noop_upstream", "noop", Stream::Upstream);
        assert_eq!(unlike(&[named], &[unnamed]), None);
    }
}
