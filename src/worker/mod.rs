//! Compiles for others: takes a job, shows its files to its compiler in a sandbox, returns what it
//! wrote.
//!
//! Knows nothing of schedulers and submitters; whoever has the cluster key and finds a free slot
//! is served. Shares nothing with this machine's submitter but the process.

pub mod conversation;
pub mod fetching;
pub mod inventory;
pub mod job;
pub mod server;
pub mod store;
pub mod tenancy;
pub mod tree;
