//! Which compiler calls are compiled elsewhere, and what such a compile reads and writes.
//!
//! [`classify`] is a pure function of a command line, its environment and the names in it: it
//! looks at no file but the response files that it is handed. Whatever is not understood stays
//! local, with a [`Reason`] that the job log tells.

#[cfg(test)]
mod cases;
mod compiler;
mod inner;
mod options;
mod parse;
mod plan;
mod probe;
mod reason;
mod response;
mod table;
mod verdict;

pub use compiler::{Compiler, Family, Language};
pub use plan::{DependencyFile, Forced, Native, Plan, Preprocessed, Profiles, Unit};
pub use reason::{Cause, Reason};
pub use response::{RESPONSE_BYTES_MAX, RESPONSE_FILES_MAX};
pub use table::{ForcedKind, Headers, Stage};
pub use verdict::{Invocation, Verdict, classify, runs_at_once};
