//! Who listens to what: the queues of the shop, known to everybody before the first event.
//!
//! `busd` declares them when it starts, so an event can never be published before the queue that wants
//! it exists, whatever starts first. Consumers declare theirs again, which changes nothing.

/// One durable queue and the routing keys it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The queue, named after its consumer.
    pub queue: &'static str,
    /// Topic patterns: `*` is one word, `#` any number of words.
    pub patterns: &'static [&'static str],
}

/// All queues of the core system.
pub const QUEUES: [Binding; 3] = [
    Binding {
        queue: "orders",
        patterns: &["payment.*", "inventory.*", "user.created"],
    },
    Binding {
        queue: "inventory",
        patterns: &["product.*", "order.cancelled"],
    },
    Binding {
        queue: "notifications",
        patterns: &["order.*", "payment.*", "user.created"],
    },
];

/// Whether a topic pattern wants a routing key: words separated by dots, `*` stands for exactly one
/// word, `#` for none or more.
pub fn matches(pattern: &str, key: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let key: Vec<&str> = key.split('.').collect();
    words_match(&pattern, &key)
}

fn words_match(pattern: &[&str], key: &[&str]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|skipped| words_match(rest, &key[skipped..])),
        Some((&word, rest)) => key.split_first().is_some_and(|(&first, others)| {
            (word == "*" || word == first) && words_match(rest, others)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_one_word_and_a_hash_is_any_number() {
        assert!(matches("order.*", "order.placed"));
        assert!(!matches("order.*", "order"));
        assert!(!matches("order.*", "order.item.added"));
        assert!(matches("order.#", "order"));
        assert!(matches("order.#", "order.item.added"));
        assert!(matches("#", "anything.at.all"));
        assert!(matches("#.placed", "order.placed"));
        assert!(matches("*.placed", "order.placed"));
        assert!(!matches("order.placed", "order.cancelled"));
    }
}
