//! Numbers as people read them: three significant digits, a unit, no false precision.

/// `38 ms`, `1.14 s`, `420 µs`, from ns.
pub(super) fn duration(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    match us {
        _ if us < 999.5 => format!("{} µs", digits(us)),
        _ if us < 999_500.0 => format!("{} ms", digits(us / 1e3)),
        _ => seconds(us / 1e6),
    }
}

/// `0.9 s`, `41.2 s`, `2 min 05 s`.
pub(super) fn seconds(s: f64) -> String {
    if s < 100.0 {
        return format!("{} s", digits(s));
    }
    let whole = s.round() as u64;
    match whole / 3600 {
        0 => format!("{} min {:02} s", whole / 60, whole % 60),
        hours => format!("{hours} h {:02} min", whole / 60 % 60),
    }
}

/// An instant relative to the start of the load: `+12.3 s`, `−0.9 s`.
pub(super) fn offset(s: f64) -> String {
    let sign = if s < 0.0 { "−" } else { "+" };
    format!("{sign}{:.1} s", s.abs())
}

/// Three significant digits, without trailing zeros behind the point: `0.38`, `1.14`, `40`.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if !text.contains('.') {
        return thousands(&text);
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `2,800`.
pub(super) fn count(n: u64) -> String {
    thousands(&n.to_string())
}

fn thousands(digits: &str) -> String {
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", digits), |rest| ("−", rest));
    let mut text = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `6.4 %`; what is not nothing never reads as nothing.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.0 => "0 %".into(),
        _ if percent < 0.01 => "< 0.01 %".into(),
        _ => format!("{} %", digits(percent)),
    }
}

/// `1.2 kB`.
pub(super) fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        _ if n < 1e3 => format!("{n} B"),
        _ if n < 1e6 => format!("{} kB", digits(n / 1e3)),
        _ if n < 1e9 => format!("{} MB", digits(n / 1e6)),
        _ => format!("{} GB", digits(n / 1e9)),
    }
}

/// `1 property`, `9 properties`.
pub(super) fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(n as u64), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_say_them() {
        assert_eq!(duration(420_000), "420 µs");
        assert_eq!(duration(38_200_000), "38.2 ms");
        assert_eq!(duration(1_142_000_000), "1.14 s");
        assert_eq!(duration(125_000_000_000), "2 min 05 s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_001), "< 0.01 %");
        assert_eq!(percent(0.064), "6.4 %");
        assert_eq!(bytes(1_200), "1.2 kB");
        assert_eq!(offset(-0.9), "−0.9 s");
        assert_eq!(digits(-1234.0), "−1,234");
    }
}
