//! One job for another node: what it needs is fetched, shown, run, and sent back.

pub mod store;
