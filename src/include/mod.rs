//! The include scanner of the submitter: from a compile's main file and search list to the set of
//! every file, symlink and directory that the compiler could open, without running a preprocessor.
//!
//! The set is over-approximated (conditionals are ignored, every branch is taken) and nothing may
//! be missing from it; where that can't be promised the scan is declined with a reason. A superset
//! is harmless: whatever is shipped stands at the same place here, so that a lookup on the worker
//! finds what it would find here, as long as the *first* match of every lookup is among it.
//!
//! [`directives`] says what one file's text asks for, as `reader` finds it; [`search`] reads the compiler's
//! own words about where it looks. [`computed`] expands macros in `#include`s with the help of [`macros`],
//! [`asking`] finds out which macros hide a `__has_include` and [`suspects`] which may. [`disk`] is what is
//! asked of a disk, and [`watch`] the only file here that touches one; [`places`] remembers what stands where,
//! `contents` what files say, and [`graph`] what includes what. `walk` goes through it, and `follow` where
//! macros lead.

pub mod asking;
mod assembly;
pub mod computed;
mod contents;
pub mod definitions;
pub mod directives;
pub mod disk;
mod follow;
pub mod graph;
pub mod macros;
pub mod places;
mod reach;
mod reader;
pub mod request;
pub mod search;
mod splices;
pub mod suspects;
mod walk;
pub mod watch;
pub mod words;

pub use graph::Graph;
pub use request::{Decline, EntryNumber, Family, Forced, Language, Listed, Scan, ScanRequest};
pub use search::SearchList;
pub use watch::{Limits, Scanner};
