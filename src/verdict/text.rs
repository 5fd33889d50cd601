//! Numbers as engineers write them.

/// A share: `6.4%`, `0.13%`, `100%`; one that is not nothing never reads as nothing: `<0.01%`.
pub(crate) fn share(value: f64) -> String {
    // The sum of nothing is a negative zero.
    let percent = value * 100.0 + 0.0;
    if percent != 0.0 && percent.abs() < 0.005 {
        return if percent > 0.0 { "<0.01%" } else { ">-0.01%" }.into();
    }
    let digits = if percent != 0.0 && percent.abs() < 1.0 {
        2
    } else {
        1
    };
    let text = format!("{percent:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}%")
}

/// A duration in ns: `38ms`, `2.31s`, `0.4ms`.
pub(crate) fn span(ns: u64) -> String {
    match ns {
        0 => "0s".into(),
        1..1_000_000 => format!("{:.1}ms", ns as f64 / 1e6),
        1_000_000..1_000_000_000 => format!("{}ms", ns / 1_000_000),
        _ => {
            let text = format!("{:.2}", ns as f64 / 1e9);
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// The same with a sign.
pub(crate) fn signed_span(ns: i128) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    format!(
        "{sign}{}",
        span(u64::try_from(ns.unsigned_abs()).unwrap_or(u64::MAX))
    )
}

/// An instant from another one: `+0.4s`.
pub(crate) fn after(at_ns: u64, origin_ns: u64) -> String {
    let seconds = (at_ns as f64 - origin_ns as f64) / 1e9;
    format!("{seconds:+.1}s")
}

/// `1 event`, `3 events`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    let stem = noun.strip_suffix('y').filter(|stem| !stem.ends_with('e'));
    match (n, stem) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        (_, None) => format!("{n} {noun}s"),
    }
}

/// At most three of a list, the rest counted: `a, b, c and 7 more`.
pub(crate) fn some_of<'t>(all: impl IntoIterator<Item = &'t str>) -> String {
    let all: Vec<&str> = all.into_iter().collect();
    let shown = all.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    match all.len() {
        0..=3 => shown,
        more => format!("{shown} and {} more", more - 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_engineers_write_them() {
        assert_eq!(share(0.06375), "6.4%");
        assert_eq!(share(0.0013), "0.13%");
        assert_eq!(share(1.0), "100%");
        assert_eq!(share(0.0), "0%");
        assert_eq!(share(-0.0), "0%");
        assert_eq!(share(0.000_038), "<0.01%");
        assert_eq!(share(-0.000_038), ">-0.01%");
        assert_eq!(span(2_310_000_000), "2.31s");
        assert_eq!(span(38_400_000), "38ms");
        assert_eq!(signed_span(-1_000_000_000), "-1s");
        assert_eq!(after(1_400_000_000, 1_000_000_000), "+0.4s");
        assert_eq!(count(2, "entry"), "2 entries");
        assert_eq!(count(2, "key"), "2 keys");
        assert_eq!(some_of(["a", "b", "c", "d"]), "a, b, c and 1 more");
    }
}
