//! Compiles for others: the store, the trees, one job from top to bottom.

pub mod inventory;
pub mod tree;
