//! What computed includes expand to with the definitions in reach of one compile.
//!
//! Evaluations are kept from scan to scan and dropped when a file comes or goes that defines one of
//! the names on which they depend: units of a project share all but a few of their files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::include::computed::{self, MacroTable, Target};
use crate::include::contents::Contents;
use crate::include::words::name_hash;

/// Sets of definitions that are kept for other compiles.
const REACHES_MAX: usize = 16;

/// So many other files are no reason to keep two sets apart.
const NEAR: usize = 8;

/// Every name that an operand can expand to.
pub(super) type Names = Result<Arc<BTreeSet<Target>>, computed::Unknown>;

/// The definitions in reach of a compile.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// When it was last used.
    used: u64,
    /// Slots of contents that define something, sorted.
    slots: Vec<u32>,
    /// By the operand's number.
    evaluated: BTreeMap<u32, Arc<Evaluated>>,
}

/// An evaluated operand.
#[derive(Debug)]
struct Evaluated {
    names: Names,
    /// Hashes of the names that it depends on, sorted.
    on: Vec<u32>,
}

impl Reach {
    /// The nearest of those that are kept, brought up to date: `slots` are in reach now.
    pub(super) fn of(
        kept: &mut Vec<Self>,
        mut slots: Vec<u32>,
        contents: &Contents,
        scan: u64,
    ) -> Self {
        slots.retain(|&slot| contents.get(slot).definitions.bytes() > 0);
        slots.sort_unstable();
        slots.dedup();
        let nearest = (kept.iter().enumerate())
            .map(|(at, reach)| (differences(&reach.slots, &slots).count(), at))
            .min()
            .filter(|(distance, _)| *distance <= slots.len());
        let mut reach = match nearest {
            Some((distance, at)) if distance <= NEAR => kept.swap_remove(at),
            Some((_, at)) => kept[at].clone(),
            None => Self::default(),
        };
        while kept.len() >= REACHES_MAX {
            let oldest = kept.iter().enumerate().min_by_key(|(_, reach)| reach.used);
            if let Some((at, _)) = oldest {
                kept.swap_remove(at);
            }
        }
        reach.used = scan;
        reach.become_of(slots, contents);
        reach
    }

    fn become_of(&mut self, slots: Vec<u32>, contents: &Contents) {
        let changed: BTreeSet<u32> = differences(&self.slots, &slots)
            .flat_map(|slot| contents.get(slot).definitions.hashes())
            .collect();
        if !changed.is_empty() {
            self.evaluated.retain(|_, one| {
                if changed.len() < one.on.len() {
                    !changed
                        .iter()
                        .any(|hash| one.on.binary_search(hash).is_ok())
                } else {
                    !one.on.iter().any(|hash| changed.contains(hash))
                }
            });
        }
        self.slots = slots;
    }

    /// Every name that an operand can expand to. The contents in reach must be marked as such for
    /// this scan.
    pub(super) fn names(&mut self, operand: u32, contents: &Contents, scan: u64) -> Names {
        if let Some(evaluated) = self.evaluated.get(&operand) {
            return evaluated.names.clone();
        }
        let mut asked = Asked {
            contents,
            scan,
            on: BTreeSet::new(),
        };
        let names = computed::targets(contents.spelled(operand), &mut asked).map(Arc::new);
        let on = asked.on.into_iter().collect();
        let evaluated = Evaluated {
            names: names.clone(),
            on,
        };
        self.evaluated.insert(operand, Arc::new(evaluated));
        names
    }
}

/// What is in one of two sorted lists only.
fn differences<'a>(one: &'a [u32], other: &'a [u32]) -> impl Iterator<Item = u32> + use<'a> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            match (one.peek(), other.peek()) {
                (Some(a), Some(b)) if a == b => {
                    one.next();
                    other.next();
                }
                (Some(a), Some(b)) if a > b => return other.next().copied(),
                (None, _) => return other.next().copied(),
                (Some(_), _) => return one.next().copied(),
            }
        }
    })
}

/// The definitions in reach during one evaluation.
struct Asked<'a> {
    contents: &'a Contents,
    scan: u64,
    on: BTreeSet<u32>,
}

impl MacroTable for Asked<'_> {
    fn definitions(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        self.on.insert(name_hash(name));
        self.contents.definitions(name, self.scan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_what_only_one_list_has() {
        for (one, other, expect) in [
            (&[][..], &[][..], &[][..]),
            (&[1, 2], &[], &[1, 2]),
            (&[], &[3], &[3]),
            (&[1, 3, 5], &[2, 3, 6], &[1, 2, 5, 6]),
            (&[4], &[4], &[]),
        ] {
            let found: Vec<u32> = differences(one, other).collect();
            assert_eq!(found, expect);
        }
    }
}
