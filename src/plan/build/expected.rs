//! The arithmetic of properties: how many operations they rest on, and what so many can show.

use crate::plan::property::Expected;
use crate::plan::quantity::share_text;

/// Operations needed before a share this small means anything: 3 / limit, the rule of three.
pub(super) fn share_n_min(limit: f64) -> u64 {
    if limit <= 0.0 {
        return 1;
    }
    (3.0 / limit - 1e-9).ceil() as u64
}

/// Operations needed before a percentile means anything: five of them beyond it.
pub(super) fn quantile_n_min(quantile: f64) -> u64 {
    if quantile >= 1.0 {
        return 1;
    }
    (5.0 / (1.0 - quantile) - 1e-6).ceil() as u64
}

/// The largest share that a count of zero out of `n` leaves possible, with 95 % confidence.
pub(super) fn smallest_share(n: u64) -> f64 {
    3.0 / n.max(1) as f64
}

/// A count with thousands apart: `2,800`.
pub(super) fn count_text(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a share rests on.
pub(super) fn of_share(n: u64, limit: f64) -> Expected {
    let n_min = share_n_min(limit);
    let counted = count_text(n);
    let arithmetic = if limit <= 0.0 {
        let shows = share_text(smallest_share(n));
        format!("about {counted} operations; a count of zero among them shows at most {shows}")
    } else {
        let limit_text = share_text(limit);
        let needed = count_text(n_min);
        let allowed = count_text((n as f64 * limit).floor() as u64);
        format!(
            "about {counted} operations, {needed} needed for a limit of {limit_text} (3 / limit); \
             {allowed} of them may fail"
        )
    };
    Expected {
        n,
        n_min,
        arithmetic,
    }
}

/// What a percentile rests on.
pub(super) fn of_quantile(n: u64, quantile: f64) -> Expected {
    let n_min = quantile_n_min(quantile);
    let (counted, needed) = (count_text(n), count_text(n_min));
    let name = quantile_text(quantile);
    let beyond = count_text((n as f64 * (1.0 - quantile)).floor() as u64);
    let arithmetic = match quantile < 1.0 {
        true => format!(
            "about {counted} operations, {needed} needed for {name} (five beyond it); \
             {beyond} may be slower"
        ),
        false => format!("about {counted} operations; none may be slower"),
    };
    Expected {
        n,
        n_min,
        arithmetic,
    }
}

/// `p99`, `p99.9`, `max`.
pub(super) fn quantile_text(quantile: f64) -> String {
    if quantile >= 1.0 {
        return "max".into();
    }
    let text = format!("{:.1}", quantile * 100.0);
    format!("p{}", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_three_over_its_limit() {
        assert_eq!(share_n_min(0.01), 300);
        assert_eq!(share_n_min(0.05), 60);
        assert_eq!(share_n_min(0.0), 1);
    }

    #[test]
    fn a_percentile_needs_five_beyond_it() {
        assert_eq!(quantile_n_min(0.99), 500);
        assert_eq!(quantile_n_min(0.9), 50);
        assert_eq!(quantile_n_min(0.999), 5000);
        assert_eq!(quantile_n_min(1.0), 1);
    }

    #[test]
    fn counts_show_thousands() {
        assert_eq!(count_text(7), "7");
        assert_eq!(count_text(2800), "2,800");
        assert_eq!(count_text(1_234_567), "1,234,567");
    }

    #[test]
    fn quantiles_read_as_people_say_them() {
        assert_eq!(quantile_text(0.99), "p99");
        assert_eq!(quantile_text(0.999), "p99.9");
        assert_eq!(quantile_text(1.0), "max");
    }
}
