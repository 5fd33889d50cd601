//! Exact percentiles, and what a share can show.

/// The q-quantile of a sorted slice: the smallest value that at least `q` of them do not exceed.
pub(crate) fn quantile(sorted: &[u64], q: f64) -> Option<u64> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The 95 % Wilson interval of `hits` of `n`.
pub(crate) fn wilson(hits: u64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (z, n) = (1.959_964_f64, n as f64);
    let p = hits as f64 / n;
    let scale = 1.0 + z * z / n;
    let middle = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), Some(50));
        assert_eq!(quantile(&values, 0.99), Some(99));
        assert_eq!(quantile(&values, 1.0), Some(100));
        assert_eq!(quantile(&[7], 0.0), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn nothing_in_2400_shows_at_most_sixteen_in_10000() {
        let (low, high) = wilson(0, 2400);
        assert_eq!(low, 0.0);
        assert!((0.0012..0.0017).contains(&high), "{high}");
    }
}
