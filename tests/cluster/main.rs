//! Whole clusters on networks of simulated machines: real builds, everything that may fail in
//! them, several users, and who may take part.
//!
//! Needs root and `ip`, for namespaces; where these are impossible every test says so aloud, and fails
//! when `CI` is set.

mod builds;
mod cluster;
mod compiles;
mod containers;
mod doctor;
mod edits;
mod failing;
mod failover;
mod guide;
mod joblog;
mod keys;
mod misses;
mod netns;
mod node;
#[path = "../support/peer.rs"]
mod peer;
mod project;
mod stopping;
mod sundae;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod trace;
mod tree;
mod users;
mod wait;
mod written;
