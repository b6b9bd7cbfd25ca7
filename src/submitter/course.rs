//! What a job does next: another node, or the local compiler. Pure.
//!
//! The cluster costs time at most, so a job visits few nodes before it comes home; a node that
//! failed it is not visited again by it. What a failure says of the *job* (it needs more memory or
//! time than there was) is believed sooner than what it says of a node.

use super::attempt::Undelivered;
use crate::id::NodeId;
use crate::message::{Failure, Outcome};

/// Nodes that a job tries at most.
const TRIES_MAX: u32 = 3;

/// Refusals for which nobody is to blame that a job outlives without coming closer to its end: the lease came to
/// nothing, or the node was full. The scheduler spares a full node for a while, so that asking again is to wait.
const BLAMELESS_MAX: u32 = 6;

/// The way of one job.
#[derive(Debug, Default)]
pub struct Course {
    tries: u32,
    except: Vec<NodeId>,
    hard: u32,
    blameless: u32,
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Ask for another lease, with [`Course::except`].
    Another,
    /// Compile locally: the reason's word and sentence.
    Local(&'static str, String),
}

impl Course {
    /// Nodes that were tried so far.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Nodes that are not to be tried again.
    pub fn except(&self) -> &[NodeId] {
        &self.except
    }

    /// A node was tried to the end, good or bad.
    pub fn depart(&mut self) {
        self.tries += 1;
    }

    /// The node did not deliver.
    pub fn on_failure(&mut self, node: NodeId, name: &str, failure: &Undelivered) -> Step {
        let sentence = format!("{name}: {failure}");
        match failure {
            Undelivered::Write(_) => return Step::Local("result-not-written", sentence),
            Undelivered::Refused {
                failure: Failure::Outdated | Failure::Busy,
                ..
            } if self.blameless < BLAMELESS_MAX => {
                self.blameless += 1;
                self.tries -= 1;
                return Step::Another;
            }
            // The file is read anew for the next try; the node is not to blame.
            Undelivered::Changed(_) => {}
            Undelivered::Refused {
                failure: Failure::Signal | Failure::Memory | Failure::Time,
                ..
            } => {
                self.hard += 1;
                self.except.push(node);
                if self.hard >= 2 {
                    return Step::Local("compiler-killed", sentence);
                }
            }
            Undelivered::Refused { .. } | Undelivered::Dead(_) | Undelivered::Misbehaves(_) => {
                self.except.push(node)
            }
        }
        if self.tries >= TRIES_MAX {
            return Step::Local(
                "nodes-failed",
                format!("{TRIES_MAX} nodes did not deliver, the last one {sentence}"),
            );
        }
        Step::Another
    }
}

/// What the scheduler is told of a lease that brought nothing.
pub fn outcome(failure: &Undelivered) -> Outcome {
    match failure {
        Undelivered::Refused {
            failure: Failure::Outdated,
            ..
        } => Outcome::Unused,
        Undelivered::Refused { failure, .. } => Outcome::Failed {
            failure: *failure,
            dead: false,
        },
        Undelivered::Dead(_) => Outcome::Failed {
            failure: Failure::Internal,
            dead: true,
        },
        Undelivered::Misbehaves(_) => Outcome::Failed {
            failure: Failure::Invalid,
            dead: true,
        },
        Undelivered::Changed(_) | Undelivered::Write(_) => Outcome::Unused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(failure: Failure) -> Undelivered {
        Undelivered::Refused {
            failure,
            detail: "no".to_owned(),
        }
    }

    #[test]
    fn a_job_visits_three_nodes_and_comes_home() {
        let mut course = Course::default();
        for node in [1, 2] {
            course.depart();
            assert_eq!(
                course.on_failure(NodeId(node), "w", &Undelivered::Dead("gone".to_owned())),
                Step::Another
            );
        }
        assert_eq!(course.except(), [NodeId(1), NodeId(2)]);
        course.depart();
        let step = course.on_failure(NodeId(3), "w", &refused(Failure::Internal));
        assert!(matches!(step, Step::Local("nodes-failed", _)), "{step:?}");
    }

    #[test]
    fn a_compiler_that_dies_twice_dies_at_home_next() {
        let mut course = Course::default();
        course.depart();
        assert_eq!(
            course.on_failure(NodeId(1), "w", &refused(Failure::Memory)),
            Step::Another
        );
        course.depart();
        let step = course.on_failure(NodeId(2), "w", &refused(Failure::Signal));
        assert!(
            matches!(step, Step::Local("compiler-killed", _)),
            "{step:?}"
        );
    }

    #[test]
    fn a_change_of_the_scheduler_and_a_full_node_are_no_tries() {
        for failure in [Failure::Outdated, Failure::Busy] {
            let mut course = Course::default();
            for _ in 0..BLAMELESS_MAX {
                course.depart();
                let step = course.on_failure(NodeId(1), "w", &refused(failure));
                assert_eq!(step, Step::Another);
            }
            assert_eq!((course.tries(), course.except()), (0, &[][..]));
            // It does not go on for ever.
            course.depart();
            let _ = course.on_failure(NodeId(1), "w", &refused(failure));
            assert_eq!(course.except(), [NodeId(1)]);
        }
    }

    #[test]
    fn the_scheduler_hears_that_a_node_is_full_and_nothing_of_a_lease_without_worth() {
        assert_eq!(outcome(&refused(Failure::Outdated)), Outcome::Unused);
        let busy = Outcome::Failed {
            failure: Failure::Busy,
            dead: false,
        };
        assert_eq!(outcome(&refused(Failure::Busy)), busy);
    }

    #[test]
    fn a_full_disk_here_is_not_the_nodes_fault() {
        let mut course = Course::default();
        course.depart();
        let error = Undelivered::Write(std::io::Error::from_raw_os_error(28));
        assert_eq!(outcome(&error), Outcome::Unused);
        assert!(matches!(
            course.on_failure(NodeId(1), "w", &error),
            Step::Local("result-not-written", _)
        ));
    }
}
