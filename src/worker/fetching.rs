//! Who fetches which toolchain, and what the node was told of them.
//!
//! Many jobs meet a new toolchain at once: one of them fetches it for all. Those with another toolchain do not wait
//! for it: its submitter may be at the far end of a slow line. Knows no store and no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use smol::lock::MutexGuardArc;

use crate::id::Digest;

/// The toolchains that are being fetched, and those that the node knows of.
#[derive(Debug)]
pub struct Fetching {
    /// As many as jobs that fetch or wait, at most.
    under_way: Mutex<BTreeMap<Digest, Line>>,
    told: Mutex<BTreeSet<Digest>>,
}

/// Those who want the same toolchain, one after the other.
type Line = Arc<smol::lock::Mutex<()>>;

impl Fetching {
    /// Nothing is being fetched, and the node knows of these.
    pub fn new(told: &[Digest]) -> Self {
        Self {
            under_way: Mutex::default(),
            told: Mutex::new(told.iter().copied().collect()),
        }
    }

    /// Waits until nobody else fetches this toolchain. It may have come meanwhile.
    pub async fn turn(&self, digest: Digest) -> Turn<'_> {
        // From here on, dropping this future leaves the line.
        let mut turn = Turn {
            fetching: self,
            digest,
            line: Some(self.lock().entry(digest).or_default().clone()),
            held: None,
        };
        if let Some(line) = &turn.line {
            turn.held = Some(line.lock_arc().await);
        }
        turn
    }

    /// Tells what has come and gone since it was told last, if anything has; `standing` says what there is.
    pub fn tell(
        &self,
        standing: impl FnOnce() -> Vec<Digest>,
        tell: impl FnOnce(Vec<Digest>, Vec<Digest>),
    ) {
        // Held until it is told: two who tell at once would contradict each other.
        let mut told = self.told.lock().expect("no holder of this lock panics");
        let now: BTreeSet<Digest> = standing().into_iter().collect();
        let added: Vec<Digest> = now.difference(&told).copied().collect();
        let removed: Vec<Digest> = told.difference(&now).copied().collect();
        if !(added.is_empty() && removed.is_empty()) {
            tell(added, removed);
        }
        *told = now;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Line>> {
        self.under_way
            .lock()
            .expect("no holder of this lock panics")
    }
}

/// The right to fetch a toolchain; the next one has it when this is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    fetching: &'a Fetching,
    digest: Digest,
    /// It and what holds it count as places in the line, so both are given up before the rest is counted.
    line: Option<Line>,
    held: Option<MutexGuardArc<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut under_way = self.fetching.lock();
        self.held = None;
        self.line = None;
        let is_last = |line: &Line| Arc::strong_count(line) == 1;
        if under_way.get(&self.digest).is_some_and(is_last) {
            under_way.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use smol::future::{block_on, poll_once};

    use super::*;

    const GCC: Digest = Digest([1; 32]);
    const CLANG: Digest = Digest([2; 32]);

    #[test]
    fn one_fetches_a_toolchain_for_all_and_nobody_waits_for_another_one() {
        let fetching = Fetching::new(&[]);
        let first = block_on(fetching.turn(GCC));
        let mut second = Box::pin(fetching.turn(GCC));
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(block_on(poll_once(fetching.turn(CLANG))).expect("it is another one"));
        // One gives up while he waits.
        let mut third = Box::pin(fetching.turn(GCC));
        assert!(block_on(poll_once(&mut third)).is_none());
        drop(third);
        drop(first);
        drop(block_on(poll_once(&mut second)).expect("it is his turn"));
        drop(second);
        assert!(
            fetching.lock().is_empty(),
            "nothing is kept of what is done"
        );
    }

    #[test]
    fn who_gives_up_alone_leaves_nothing_behind() {
        let fetching = Fetching::new(&[]);
        let first = block_on(fetching.turn(GCC));
        let mut second = Box::pin(fetching.turn(GCC));
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(first);
        drop(second);
        assert!(fetching.lock().is_empty());
    }

    #[test]
    fn a_toolchain_that_went_while_nobody_looked_is_told_the_next_time() {
        let fetching = Fetching::new(&[GCC]);
        let tell = |standing: &[Digest]| {
            let mut told = None;
            fetching.tell(
                || standing.to_vec(),
                |added, removed| told = Some((added, removed)),
            );
            told
        };
        assert_eq!(tell(&[GCC]), None, "that is known");
        assert_eq!(tell(&[CLANG]), Some((vec![CLANG], vec![GCC])));
        assert_eq!(tell(&[CLANG]), None);
        assert_eq!(tell(&[]), Some((vec![], vec![CLANG])));
    }
}
