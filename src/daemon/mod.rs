//! One node: joins a submitter and a worker.

pub mod slots;
