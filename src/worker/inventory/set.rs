//! Sets of items as bits: what a tree holds is compared with what a job wants in a few dozen words.
//!
//! Knows numbers only. A sorted vector would be smaller for a small set, but the distance between
//! two sets is asked for once per tree and job, and a population count is the fastest answer.

use super::ItemId;

/// A set of [`ItemId`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemSet {
    words: Vec<u64>,
}

impl ItemSet {
    /// Adds `id`; whether it was not there before.
    pub fn insert(&mut self, id: ItemId) -> bool {
        let (word, bit) = position(id);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Removes `id`; whether it was there.
    pub fn remove(&mut self, id: ItemId) -> bool {
        let (word, bit) = position(id);
        match self.words.get_mut(word) {
            Some(bits) if *bits & bit != 0 => {
                *bits &= !bit;
                true
            }
            _ => false,
        }
    }

    /// Whether `id` is in it.
    pub fn contains(&self, id: ItemId) -> bool {
        let (word, bit) = position(id);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Adds all of `other`.
    pub fn insert_all(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&w| w == 0)
    }

    /// How many are in exactly one of the two.
    pub fn distance(&self, other: &Self) -> usize {
        self.pairs(other)
            .map(|(_, a, b)| (a ^ b).count_ones() as usize)
            .sum()
    }

    /// Those that are in it and not in `other`, ascending.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = ItemId> + 'a {
        self.pairs(other).flat_map(|(at, a, b)| bits(at, a & !b))
    }

    /// Those that are in it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(at, &w)| bits(at, w))
    }

    fn pairs<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (usize, u64, u64)> + 'a {
        let word = |words: &[u64], at: usize| words.get(at).copied().unwrap_or(0);
        (0..self.words.len().max(other.words.len()))
            .map(move |at| (at, word(&self.words, at), word(&other.words, at)))
    }
}

impl FromIterator<ItemId> for ItemSet {
    fn from_iter<T: IntoIterator<Item = ItemId>>(ids: T) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

fn position(id: ItemId) -> (usize, u64) {
    (id.0 as usize / 64, 1 << (id.0 % 64))
}

fn bits(at: usize, mut word: u64) -> impl Iterator<Item = ItemId> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros();
        word &= word - 1;
        Some(ItemId(at as u32 * 64 + bit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u32]) -> ItemSet {
        ids.iter().map(|&id| ItemId(id)).collect()
    }

    #[test]
    fn sets_of_different_lengths_compare_as_if_padded() {
        for (a, b, distance, without) in [
            (&[][..], &[][..], 0, &[][..]),
            (&[1, 63, 64], &[1], 2, &[63, 64]),
            (&[1], &[1, 500], 1, &[]),
            (&[700, 3], &[3, 9], 2, &[700]),
        ] {
            let (a, b) = (set(a), set(b));
            assert_eq!(a.distance(&b), distance);
            assert_eq!(b.distance(&a), distance);
            assert_eq!(a.without(&b).map(|id| id.0).collect::<Vec<_>>(), without);
            let mut union = a.clone();
            union.insert_all(&b);
            assert_eq!(union.len(), a.len() + b.without(&a).count());
        }
    }

    #[test]
    fn what_was_removed_is_not_there() {
        let mut a = set(&[5, 64]);
        assert!(!a.insert(ItemId(5)));
        assert!(a.remove(ItemId(5)));
        assert!(!a.remove(ItemId(5)));
        assert!(!a.remove(ItemId(99_999)));
        assert!(!a.contains(ItemId(5)) && a.contains(ItemId(64)));
        assert_eq!(a.iter().collect::<Vec<_>>(), [ItemId(64)]);
        assert!(!a.is_empty() && ItemSet::default().is_empty());
    }
}
