//! Shows a job's files at their paths: a pool of exact hard-link trees in one tmpfs.
//!
//! One tmpfs per submitter and toolchain, in the sandbox's mount namespace, reached by a descriptor
//! of its root: `store/N` is one inode per item, `treeN` are views of them, and `trash` is what is
//! about to be gone. A job takes the idle tree that is nearest to what it declared; the differences
//! are linked and unlinked, and the tree is then its own. Which tree, and which differences, is
//! decided in [`crate::worker::inventory`]; [`pool`] does it, [`scan`] looks at what a job left
//! behind, [`beneath`] has the calls that never leave the tmpfs and never follow a symlink, and [`mod@verify`] doubts it all.
//!
//! **A foreign job may have written anything into its writable directories**, and what it wrote is
//! still there when the next job's files are linked. So (a) nothing is shared where a job may
//! write: files there are private copies of the tree; (b) after each job these directories are
//! walked, and whatever is not what it was is removed; (c) a tree that resists is thrown away.

pub mod beneath;
pub mod pool;
pub mod scan;
pub mod verify;

pub use crate::worker::inventory::Limits as TreeLimits;
pub use pool::{Tree, TreeError, Trees};
pub use scan::{Written, WrittenKind};
pub use verify::{Inexact, verify};
