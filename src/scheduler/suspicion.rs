//! How far a node is trusted after it failed somebody.
//!
//! A failure is the word of one submitter, who may have lost his own network or sent a broken
//! toolchain; so it counts for that submitter only, and for a while only. A node that is dead for
//! everybody falls silent, and the scheduler sees that itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Digest, NodeId, Time};
use crate::message::Failure;

/// Suspicions on one node, at most. Beyond it the one that ends first is forgotten.
const SUSPICIONS_MAX: usize = 1024;
/// However often a node failed, it is tried again after this long.
const LONGEST: Duration = Duration::from_secs(60);
/// However often it was full.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a submitter may expect of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may get the job.
    Good,
    /// It was only busy: a request may wait for it until then.
    Pausing(Time),
    /// Do not count on it before then.
    Avoided(Time),
}

/// Who has reason to avoid one node.
#[derive(Debug, Default)]
pub struct Suspicions {
    /// By submitter and toolchain; without toolchain for all of the submitter's jobs.
    of: BTreeMap<(NodeId, Option<Digest>), Suspicion>,
}

#[derive(Debug)]
struct Suspicion {
    until: Time,
    pausing: bool,
    failures: u32,
}

impl Suspicions {
    /// A job of `submitter` failed on the node.
    pub fn note(
        &mut self,
        submitter: NodeId,
        toolchain: Digest,
        failure: Failure,
        dead: bool,
        now: Time,
    ) {
        let Some(sentence) = sentence(failure, dead) else {
            return;
        };
        let key = (submitter, sentence.one_toolchain.then_some(toolchain));
        // Jobs that were there together fail together, and that is one failure.
        let running = self.of.get(&key).filter(|known| known.until > now);
        let failures = match running {
            Some(known) => known.failures,
            None => self.of.get(&key).map_or(1, |known| known.failures + 1),
        };
        let doubled = sentence.first * 2u32.saturating_pow((failures - 1).min(16));
        let until = now.after(doubled.min(sentence.longest()));
        // A mild sentence does not shorten a hard one.
        let suspicion = Suspicion {
            until: running.map_or(until, |known| known.until.max(until)),
            pausing: sentence.pausing && running.is_none_or(|known| known.pausing),
            failures,
        };
        self.make_room(&key);
        self.of.insert(key, suspicion);
    }

    /// A job of `submitter` was done: what was held against the node is forgotten.
    pub fn clear(&mut self, submitter: NodeId, toolchain: Digest) {
        self.of.remove(&(submitter, None));
        self.of.remove(&(submitter, Some(toolchain)));
    }

    /// Whether a submitter has any on the node.
    pub fn concerns(&self, submitter: NodeId) -> bool {
        self.of
            .range((submitter, None)..)
            .next()
            .is_some_and(|((of, _), _)| *of == submitter)
    }

    /// A submitter is gone, and his opinion with him.
    pub fn forget(&mut self, submitter: NodeId) {
        self.of.retain(|(of, _), _| *of != submitter);
    }

    /// What `submitter` may expect of the node for a job with `toolchain`.
    pub fn standing(&self, submitter: NodeId, toolchain: Digest, now: Time) -> Standing {
        let mut worst = Standing::Good;
        for key in [(submitter, None), (submitter, Some(toolchain))] {
            match self.of.get(&key) {
                Some(found) if found.until > now && !found.pausing => {
                    return Standing::Avoided(found.until);
                }
                Some(found) if found.until > now => worst = Standing::Pausing(found.until),
                _ => {}
            }
        }
        worst
    }

    fn make_room(&mut self, key: &(NodeId, Option<Digest>)) {
        if self.of.len() < SUSPICIONS_MAX || self.of.contains_key(key) {
            return;
        }
        let first = self.of.iter().min_by_key(|(_, found)| found.until);
        if let Some((&first, _)) = first {
            self.of.remove(&first);
        }
    }
}

struct Sentence {
    first: Duration,
    pausing: bool,
    one_toolchain: bool,
}

impl Sentence {
    fn longest(&self) -> Duration {
        match self.pausing {
            true => LONGEST_PAUSE,
            false => LONGEST,
        }
    }
}

/// What a failure leads to the first time; it doubles with each that follows.
fn sentence(failure: Failure, dead: bool) -> Option<Sentence> {
    let sentence = |first_ms, pausing, one_toolchain| {
        Some(Sentence {
            first: Duration::from_millis(first_ms),
            pausing,
            one_toolchain,
        })
    };
    if dead {
        return sentence(5_000, false, false);
    }
    match failure {
        Failure::Busy => sentence(100, true, false),
        Failure::NoRemote => sentence(30_000, false, false),
        Failure::Toolchain => sentence(30_000, false, true),
        Failure::Full => sentence(5_000, false, true),
        Failure::Internal => sentence(1_000, false, true),
        // These say more about the job than about the node; the job's next request excludes it.
        Failure::Signal
        | Failure::Memory
        | Failure::Time
        | Failure::Cancelled
        | Failure::Invalid
        | Failure::Outdated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const GCC: Digest = Digest([1; 32]);
    const CLANG: Digest = Digest([2; 32]);

    #[test]
    fn a_dead_node_is_avoided_by_the_one_who_saw_it_and_tried_again_later() {
        let mut suspicions = Suspicions::default();
        suspicions.note(ME, GCC, Failure::Internal, true, Time(0));
        let until = Time(5_000_000);
        assert_eq!(
            suspicions.standing(ME, CLANG, Time(1)),
            Standing::Avoided(until)
        );
        assert_eq!(suspicions.standing(NodeId(2), GCC, Time(1)), Standing::Good);
        assert_eq!(suspicions.standing(ME, GCC, until), Standing::Good);
    }

    #[test]
    fn a_toolchain_that_is_refused_says_nothing_about_another() {
        let mut suspicions = Suspicions::default();
        suspicions.note(ME, GCC, Failure::Toolchain, false, Time(0));
        assert!(matches!(
            suspicions.standing(ME, GCC, Time(1)),
            Standing::Avoided(_)
        ));
        assert_eq!(suspicions.standing(ME, CLANG, Time(1)), Standing::Good);
    }

    #[test]
    fn repeated_failures_are_avoided_for_longer_up_to_a_minute_and_a_success_clears_them() {
        let mut suspicions = Suspicions::default();
        let mut waits = Vec::new();
        let mut now = Time(0);
        for _ in 0..6 {
            suspicions.note(ME, GCC, Failure::Internal, true, now);
            match suspicions.standing(ME, GCC, now) {
                Standing::Avoided(until) => {
                    waits.push(until.since(now).as_secs());
                    now = until;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        suspicions.clear(ME, GCC);
        assert_eq!(suspicions.standing(ME, GCC, now), Standing::Good);
    }

    #[test]
    fn jobs_that_fail_together_are_one_failure() {
        let mut suspicions = Suspicions::default();
        for _ in 0..8 {
            suspicions.note(ME, GCC, Failure::Busy, false, Time(0));
        }
        let pausing = Standing::Pausing(Time(100_000));
        assert_eq!(suspicions.standing(ME, GCC, Time(0)), pausing);
    }

    #[test]
    fn a_node_that_was_dead_and_is_full_is_avoided_as_a_dead_one() {
        let mut suspicions = Suspicions::default();
        suspicions.note(ME, GCC, Failure::Internal, true, Time(0));
        suspicions.note(ME, GCC, Failure::Busy, false, Time(1));
        let avoided = Standing::Avoided(Time(5_000_000));
        assert_eq!(suspicions.standing(ME, GCC, Time(1)), avoided);
    }

    #[test]
    fn a_busy_node_pauses_and_a_job_that_was_too_large_is_not_held_against_it() {
        let mut suspicions = Suspicions::default();
        suspicions.note(ME, GCC, Failure::Memory, false, Time(0));
        assert_eq!(suspicions.standing(ME, GCC, Time(0)), Standing::Good);
        suspicions.note(ME, GCC, Failure::Busy, false, Time(0));
        assert_eq!(
            suspicions.standing(ME, GCC, Time(0)),
            Standing::Pausing(Time(100_000))
        );
    }

    #[test]
    fn suspicions_are_bounded() {
        let mut suspicions = Suspicions::default();
        for submitter in 0..5000 {
            suspicions.note(NodeId(submitter), GCC, Failure::Internal, true, Time(0));
        }
        assert_eq!(suspicions.of.len(), SUSPICIONS_MAX);
    }
}
