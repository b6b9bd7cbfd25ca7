//! The per-connection dictionary of entries: what was named once travels as a small number.
//!
//! Both ends count alike: the first entry ever sent is 0. A job's list is ascending, so each
//! number travels as the difference to the one before. When a dictionary is full, the connection
//! is given up and a new one begins with an empty one; nothing is ever forgotten in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::AbsPath;
use crate::message::{Entry, EntryKind};

/// Entries that a dictionary holds at most. At some 150 bytes each, 30 MB.
pub const ENTRIES_MAX: usize = 200_000;

/// Entries of one job at most.
pub const JOB_ENTRIES_MAX: usize = 50_000;

/// An entry under a number of its sender's choosing, which stands for it wherever the sender uses
/// it again: cheaper to look up than the entry.
#[derive(Clone, Debug)]
pub struct Named {
    /// The number. Another content, time or target has another number.
    pub number: u64,
    /// The entry.
    pub entry: Arc<Entry>,
}

/// The sender's end.
#[derive(Debug, Default)]
pub struct Encoder {
    numbers: BTreeMap<u64, u32>,
}

impl Encoder {
    /// The fresh entries to send, and the job's list. None when the dictionary is full.
    pub fn encode(&mut self, entries: &[Named]) -> Option<(Vec<Entry>, Vec<u32>)> {
        let mut fresh = Vec::new();
        let mut numbers = Vec::with_capacity(entries.len());
        for named in entries {
            let next = self.numbers.len() as u32;
            numbers.push(*self.numbers.entry(named.number).or_insert_with(|| {
                fresh.push((*named.entry).clone());
                next
            }));
        }
        if self.numbers.len() > ENTRIES_MAX {
            return None;
        }
        numbers.sort_unstable();
        numbers.dedup();
        let mut before = 0;
        for number in &mut numbers {
            let difference = *number - before;
            before = *number;
            *number = difference;
        }
        Some((fresh, numbers))
    }
}

/// The receiver's end.
#[derive(Debug, Default)]
pub struct Decoder {
    entries: Vec<Entry>,
}

/// A job's list that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DictionaryError {
    /// More entries than any honest submitter sends.
    #[error("{0} entries are too many")]
    TooMany(usize),
    /// A number that was never given.
    #[error("entry {0} was never named")]
    Unknown(u64),
    /// The list has a path twice, or a file above another path.
    #[error("{0} stands in the way of another entry")]
    Contradiction(AbsPath),
}

impl Decoder {
    /// The job's entries, sorted by path, each path once and below directories only.
    pub fn decode(
        &mut self,
        fresh: Vec<Entry>,
        numbers: &[u32],
    ) -> Result<Vec<Entry>, DictionaryError> {
        let named = self.entries.len() + fresh.len();
        if named > ENTRIES_MAX || numbers.len() > JOB_ENTRIES_MAX {
            return Err(DictionaryError::TooMany(named.max(numbers.len())));
        }
        self.entries.extend(fresh);
        let mut entries = Vec::with_capacity(numbers.len());
        let mut number = 0u64;
        for difference in numbers {
            number += u64::from(*difference);
            let entry = usize::try_from(number)
                .ok()
                .and_then(|index| self.entries.get(index));
            entries.push(entry.ok_or(DictionaryError::Unknown(number))?.clone());
        }
        entries.sort();
        // Sorted by bytes, whatever lies below a path need not follow it at once ("/a", "/a.c",
        // "/a/b"), so the files and symlinks are looked up from below.
        let solid: Vec<&AbsPath> = entries
            .iter()
            .filter(|entry| entry.kind != EntryKind::Directory)
            .map(|entry| &entry.path)
            .collect();
        for (index, entry) in entries.iter().enumerate() {
            if entries
                .get(index + 1)
                .is_some_and(|next| next.path == entry.path)
            {
                return Err(DictionaryError::Contradiction(entry.path.clone()));
            }
            let mut above = entry.path.parent();
            while let Some(path) = above {
                if solid.binary_search(&&path).is_ok() {
                    return Err(DictionaryError::Contradiction(path));
                }
                above = path.parent();
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::message::Mtime;

    fn file(path: &str) -> Entry {
        let digest = Digest([path.len() as u8; 32]);
        let kind = EntryKind::File {
            digest,
            size: 1,
            executable: false,
            mtime: Mtime::default(),
        };
        Entry {
            path: AbsPath::parse(path).unwrap(),
            kind,
        }
    }

    #[test]
    fn a_second_job_names_only_what_is_new() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let jobs = [
            vec!["/a", "/b", "/c/d"],
            vec!["/b", "/c/d", "/e"],
            vec!["/e", "/a"],
            vec![],
        ];
        let fresh_expected = [3, 1, 0, 0];
        for (job, expected) in jobs.iter().zip(fresh_expected) {
            let entries: Vec<Entry> = job.iter().map(|path| file(path)).collect();
            let name = |entry: &Entry| Named {
                number: u64::from(entry.path.as_bytes()[1]),
                entry: Arc::new(entry.clone()),
            };
            let named: Vec<Named> = entries.iter().map(name).collect();
            let (fresh, numbers) = encoder.encode(&named).unwrap();
            assert_eq!(fresh.len(), expected);
            let mut sorted = entries.clone();
            sorted.sort();
            assert_eq!(decoder.decode(fresh, &numbers).unwrap(), sorted);
        }
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let mut decoder = Decoder::default();
        assert_eq!(
            decoder.decode(vec![file("/a")], &[1]),
            Err(DictionaryError::Unknown(1))
        );
        assert_eq!(
            decoder.decode(vec![], &[u32::MAX, u32::MAX]),
            Err(DictionaryError::Unknown(u64::from(u32::MAX)))
        );
        assert!(matches!(
            decoder.decode(vec![], &vec![0; JOB_ENTRIES_MAX + 1]),
            Err(DictionaryError::TooMany(_))
        ));
        for pair in [["/x", "/x"], ["/x", "/x/y/z"]] {
            let mut decoder = Decoder::default();
            let fresh = pair.iter().map(|path| file(path)).collect();
            assert!(
                matches!(
                    decoder.decode(fresh, &[0, 1]),
                    Err(DictionaryError::Contradiction(_))
                ),
                "{pair:?}"
            );
        }
    }
}
