//! Mistakes of meaning.
