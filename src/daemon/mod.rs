//! One node: joins a submitter and a worker.

pub mod link;
pub mod session;
pub mod slots;
