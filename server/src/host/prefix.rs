//! KV caches of conversations that are over, kept for requests that begin with the same tokens: the next turn of the same
//! conversation, or another one with the same system prompt.
//!
//! What is kept is bounded in bytes; beyond that, what was used longest ago goes. Where a cache lies in pages, whoever goes on from
//! it shares them (each counts them as its own, so that the bound holds whoever leaves first). Where a request names a salt, only requests
//! with the same one share with it: how soon the first token comes tells whether somebody has written the same beginning
//! before. What is shared changes no answer: the kernels give a token the same bits whatever it is computed with.

use engine::backend::Snapshot;

/// Fewest tokens that are worth sharing.
pub const FEWEST: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Prefixes {
    /// The one that was used last comes last.
    kept: Vec<Kept>,
    bytes: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    salt: Option<String>,
    tokens: Vec<u32>,
    cache: Snapshot,
    bytes: usize,
}

/// Tokens that two texts begin with.
#[must_use]
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Prefixes {
    /// Nothing yet, and at most so many bytes later.
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        Self { kept: Vec::new(), bytes: 0, most_bytes }
    }

    /// Memory that is taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The cache that has most of the beginning of `tokens`, and how much of it, where that is more than `least` tokens.
    pub fn longest(&mut self, salt: Option<&str>, tokens: &[u32], least: usize) -> Option<(&Snapshot, usize)> {
        let ours = self.kept.iter().enumerate().filter(|(_, kept)| kept.salt.as_deref() == salt);
        let (at, shared) =
            ours.map(|(at, kept)| (at, common(&kept.tokens, tokens))).max_by_key(|(_, shared)| *shared)?;
        if shared <= least || shared < FEWEST {
            return None;
        }
        let used = self.kept.remove(at);
        self.kept.push(used);
        self.kept.last().map(|kept| (&kept.cache, shared))
    }

    /// Keeps the cache of these tokens. One that says no more than another takes no room.
    pub fn keep(&mut self, salt: Option<String>, tokens: Vec<u32>, cache: Snapshot) {
        let bytes = cache.state.bytes() + size_of_val(tokens.as_slice());
        if tokens.len() < FEWEST || bytes > self.most_bytes {
            return;
        }
        let ours = |kept: &Kept| kept.salt == salt;
        if self.kept.iter().any(|kept| ours(kept) && kept.tokens.starts_with(&tokens)) {
            return;
        }
        self.kept.retain(|kept| !(ours(kept) && tokens.starts_with(&kept.tokens)));
        self.kept.push(Kept { salt, tokens, cache, bytes });
        self.bytes = self.kept.iter().map(|kept| kept.bytes).sum();
        while self.bytes > self.most_bytes {
            self.bytes -= self.kept.remove(0).bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use engine::backend::SnapshotState;

    use super::*;

    struct Weight(usize);

    impl SnapshotState for Weight {
        fn as_any(&self) -> &dyn Any {
            self
        }

        fn bytes(&self) -> usize {
            self.0
        }
    }

    fn text(name: u32, len: usize) -> Vec<u32> {
        // Twenty tokens that all begin with, then its own.
        (0..len as u32).map(|at| if at < 20 { at } else { name * 1000 + at }).collect()
    }

    fn keep(prefixes: &mut Prefixes, salt: Option<&str>, tokens: Vec<u32>) {
        let cache = Snapshot { len: tokens.len(), state: Box::new(Weight(1000)) };
        prefixes.keep(salt.map(str::to_owned), tokens, cache);
    }

    #[test]
    fn the_longest_beginning_of_the_same_salt_is_found() {
        let mut prefixes = Prefixes::new(10_000);
        keep(&mut prefixes, None, text(1, 30));
        keep(&mut prefixes, None, text(2, 40));
        keep(&mut prefixes, Some("a"), text(3, 50));
        for (salt, tokens, least, expect) in [
            (None, text(1, 60), 0, Some(30)),
            (None, text(2, 35), 0, Some(35)),
            (None, text(3, 60), 0, Some(20)),
            (None, text(3, 60), 20, None),
            (None, text(1, 12), 0, None),
            (Some("a"), text(3, 60), 0, Some(50)),
            (Some("a"), text(1, 60), 0, Some(20)),
            (Some("b"), text(1, 60), 0, None),
        ] {
            let found = prefixes.longest(salt, &tokens, least).map(|(_, shared)| shared);
            assert_eq!(found, expect, "{salt:?} {}", tokens.len());
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_and_nothing_is_kept_twice() {
        let mut prefixes = Prefixes::new(3_500);
        for name in 1..=3 {
            keep(&mut prefixes, None, text(name, 30));
        }
        assert!(prefixes.longest(None, &text(1, 60), 20).is_some());
        keep(&mut prefixes, None, text(4, 30));
        let is_there = |prefixes: &mut Prefixes, name| prefixes.longest(None, &text(name, 60), 20).is_some();
        assert_eq!([1, 2, 3, 4].map(|name| is_there(&mut prefixes, name)), [true, false, true, true]);
        assert!(prefixes.bytes() <= 3_500);
        // The next turn of a conversation takes the place of the last.
        let before = prefixes.kept.len();
        keep(&mut prefixes, None, text(4, 50));
        keep(&mut prefixes, None, text(4, 45));
        assert_eq!((prefixes.kept.len(), prefixes.longest(None, &text(4, 60), 0).unwrap().1), (before, 50));
        let mut none = Prefixes::new(0);
        keep(&mut none, None, text(1, 30));
        assert_eq!((none.bytes(), none.kept.len()), (0, 0));
    }
}
