//! The macro definitions in reach of one scan, and the evaluation of its computed includes.
//!
//! It grows as the walk reaches more files, and says on what an evaluation depended, so that it is
//! repeated only when one of those names gained a definition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::Bytes;
use crate::include::computed::{self, MacroTable, Target};
use crate::include::directives::{self, Definitions};
use crate::include::graph::Digested;

/// The definitions in reach of a scan.
pub(super) struct Macros {
    pub(super) line: Definitions,
    pub(super) contents: Vec<Arc<Digested>>,
    pub(super) wrappers: BTreeSet<Vec<u8>>,
    /// Definitions by name, and how many contents they were looked for in.
    pub(super) found: BTreeMap<Vec<u8>, (BTreeSet<Vec<u8>>, usize)>,
    /// The names of all macros on the command line and in the first [`Self::sorted`] contents; made
    /// when it is needed.
    pub(super) names: BTreeSet<Vec<u8>>,
    pub(super) sorted: usize,
}

/// An evaluated operand.
pub(super) struct Evaluated {
    pub(super) result: Result<Arc<BTreeSet<Target>>, computed::Unknown>,
    /// How many definitions each name had that was looked at.
    pub(super) names: Vec<(Vec<u8>, usize)>,
    /// How many files had been read, if it depends on all of them.
    pub(super) contents: Option<usize>,
}

/// [`Macros`] during one evaluation.
struct Asked<'a> {
    macros: &'a mut Macros,
    defined: &'a BTreeSet<u32>,
    names: BTreeMap<Vec<u8>, usize>,
    all: bool,
}

impl MacroTable for Asked<'_> {
    fn definitions(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        let count = self.macros.count(name, self.defined);
        self.names.insert(name.to_vec(), count);
        match self.macros.found.get(name) {
            Some((texts, _)) => texts.iter().cloned().collect(),
            None => Vec::new(),
        }
    }

    fn longer(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        self.all = true;
        let macros = &mut *self.macros;
        for content in &macros.contents[macros.sorted..] {
            let names = content.definitions.all().map(directives::identifier);
            macros.names.extend(names.map(<[u8]>::to_vec));
        }
        macros.sorted = macros.contents.len();
        let names = macros.names.range(name.to_vec()..);
        let longer = names.take_while(|other| other.starts_with(name));
        longer
            .filter(|other| other.len() > name.len())
            .cloned()
            .collect()
    }
}

impl Macros {
    pub(super) fn new(defines: &[Bytes]) -> Self {
        let mut line = Definitions::default();
        for define in defines {
            let text = match memchr::memchr(b'=', define) {
                Some(equals) => [&define[..equals], b" ", &define[equals + 1..]].concat(),
                None => [&define[..], b" 1"].concat(),
            };
            line.add(&text);
        }
        line.finish();
        let names = line.all().map(directives::identifier).map(<[u8]>::to_vec);
        Self {
            names: names.collect(),
            line,
            contents: Vec::new(),
            wrappers: BTreeSet::new(),
            found: BTreeMap::new(),
            sorted: 0,
        }
    }

    /// How many different definitions a name has in the files read so far; [`Self::found`] has them.
    pub(super) fn count(&mut self, name: &[u8], defined: &BTreeSet<u32>) -> usize {
        let somewhere = defined.contains(&directives::name_hash(name));
        let (texts, seen) = match self.found.get_mut(name) {
            Some(found) => found,
            None => {
                let line: BTreeSet<Vec<u8>> = self.line.of(name).map(<[u8]>::to_vec).collect();
                if line.is_empty() && !somewhere {
                    return 0;
                }
                self.found.entry(name.to_vec()).or_insert((line, 0))
            }
        };
        if somewhere {
            for content in &self.contents[*seen..] {
                for text in content.definitions.of(name) {
                    if !texts.contains(text) {
                        texts.insert(text.to_vec());
                    }
                }
            }
            *seen = self.contents.len();
        }
        texts.len()
    }
}

/// Every name that an operand can expand to, with what that depends on.
pub(super) fn evaluate(
    operand: &[u8],
    macros: &mut Macros,
    defined: &BTreeSet<u32>,
    wide: &mut BTreeSet<Vec<u8>>,
) -> Evaluated {
    let mut asked = Asked {
        macros,
        defined,
        names: BTreeMap::new(),
        all: false,
    };
    let result = computed::targets(operand, &mut asked, wide);
    let (names, all) = (asked.names, asked.all);
    Evaluated {
        result: result.map(Arc::new),
        names: names.into_iter().collect(),
        contents: all.then_some(macros.contents.len()),
    }
}
