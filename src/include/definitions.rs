//! The macro definitions of one file, packed: a header may have thousands, and few are ever looked at.
//!
//! They are kept as they were written, each as `NAME(a, b) body`; what they mean is for others to find out.

use memchr::memmem;

use super::words::{identifier, name_hash};

/// The longest macro definition that is kept; a longer one makes what depends on it unknown.
const DEFINITION_BYTES_MAX: usize = 4096;

/// Stands for the body of a definition that was too long to keep. No source line can contain it,
/// since a line ends there.
pub const OPAQUE: &[u8] = b"\n";

/// Macro definitions, packed: a header may have thousands, and few are ever looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    text: Vec<u8>,
    /// Hash of the name, start and end in `text`; sorted.
    index: Vec<(u32, u32, u32)>,
}

impl Definitions {
    /// The text of every definition of `name` that follows `#define`, as `NAME(a, b) body`.
    pub fn of<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let hash = name_hash(name);
        let start = self.index.partition_point(|entry| entry.0 < hash);
        self.index[start..]
            .iter()
            .take_while(move |entry| entry.0 == hash)
            .map(|&(_, start, end)| &self.text[start as usize..end as usize])
            .filter(move |text| identifier(text) == name)
    }

    /// Adds a definition, as it follows `#define`.
    pub fn add(&mut self, text: &[u8]) {
        let start = self.text.len() as u32;
        let name = identifier(text);
        if text.len() <= DEFINITION_BYTES_MAX {
            self.text.extend_from_slice(text);
        } else {
            self.text.extend_from_slice(name);
            self.text.extend_from_slice(OPAQUE);
        }
        self.index
            .push((name_hash(name), start, self.text.len() as u32));
    }

    /// Definitions whose text contains these bytes.
    pub fn mentioning(&self, word: &[u8]) -> impl Iterator<Item = &[u8]> {
        let found = memmem::find(&self.text, word).is_some();
        let mention = move |text: &&[u8]| memmem::find(text, word).is_some();
        self.all().filter(move |_| found).filter(mention)
    }

    /// The text of every definition.
    pub fn all(&self) -> impl Iterator<Item = &[u8]> {
        let range = |&(_, start, end): &(u32, u32, u32)| start as usize..end as usize;
        self.index.iter().map(move |entry| &self.text[range(entry)])
    }

    /// Hashes of the names, as [`name_hash`] makes them.
    pub fn hashes(&self) -> impl Iterator<Item = u32> {
        self.index.iter().map(|entry| entry.0)
    }

    /// The memory that it holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.capacity() + 12 * self.index.capacity()
    }

    /// Puts them in order; [`Definitions::of`] finds nothing before that.
    pub fn finish(&mut self) {
        self.index.sort_unstable();
        let text = &self.text;
        let body = |&(_, start, end): &(u32, u32, u32)| &text[start as usize..end as usize];
        self.index.dedup_by(|a, b| a.0 == b.0 && body(a) == body(b));
        self.index.shrink_to_fit();
        self.text.shrink_to_fit();
    }
}
