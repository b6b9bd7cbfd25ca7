//! Jobs as the monitor remembers them: those of the moment, and those that ended.

use std::rc::Rc;
use std::time::Duration;

use crate::id::{NodeId, Time};
use crate::news::{Ending, JobNumber};

/// A job that waits or runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// Its number.
    pub number: JobNumber,
    /// Whose it is.
    pub submitter: NodeId,
    /// Where it runs; none while it waits.
    pub worker: Option<NodeId>,
    /// The row among its worker's slots.
    pub lane: u16,
    /// What is compiled, printable.
    pub file: Rc<str>,
    /// Since when it runs, or waits.
    pub since: Time,
    /// How long it waited before it ran.
    pub waited: Duration,
}

/// A job that ended.
#[derive(Clone, Debug)]
pub struct Past {
    /// What it was before.
    pub job: Live,
    /// When it ended.
    pub end: Time,
    /// How.
    pub ending: Ending,
}

impl Past {
    /// Whether it was compiled on another node than its submitter's.
    pub fn is_remote(&self) -> bool {
        matches!(self.ending, Ending::Done { .. }) && !self.is_own()
    }

    /// Whether it ran on its submitter's machine.
    pub fn is_own(&self) -> bool {
        self.job.worker == Some(self.job.submitter)
    }

    /// Whether something went wrong with it that is not its compiler's.
    pub fn is_failure(&self) -> bool {
        matches!(self.ending, Ending::Failed { .. } | Ending::Lost)
    }

    /// From its start to its end.
    pub fn lasted(&self) -> Duration {
        self.end.since(self.job.since)
    }
}

/// Jobs that ran on their submitter's machine without asking, as they were told together.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which, among all that was told so.
    pub serial: u64,
    /// Whose.
    pub submitter: NodeId,
    /// Why: a stable word, printable.
    pub reason: Rc<str>,
    /// How many.
    pub jobs: u32,
    /// What the last of them compiled, printable; empty when that is unknown.
    pub file: Rc<str>,
    /// When that was told.
    pub at: Time,
}

/// Something that is over.
#[derive(Clone, Debug)]
pub enum Recent {
    /// A job that the scheduler knew.
    Job(Rc<Past>),
    /// Jobs that it did not.
    Local(Rc<Told>),
}

/// How an ending is called: a word of at most nine characters, and whether it is bad news.
pub fn word(ending: &Ending) -> (&'static str, bool) {
    match ending {
        Ending::Done { .. } => ("done", false),
        Ending::Own => ("own node", false),
        Ending::Unused => ("unused", false),
        Ending::Failed { dead: true, .. } => ("node dead", true),
        Ending::Failed { .. } => ("failed", true),
        Ending::Lost => ("lost", true),
        Ending::Withdrawn => ("withdrawn", false),
        Ending::Denied(_) => ("denied", false),
    }
}
