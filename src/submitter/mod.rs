//! The life of a job on the machine that wants it: classify, place, send, commit.

pub mod attempt;
pub mod course;
pub mod environment;
pub mod output;
pub mod placement;
pub mod pool;
