//! The process that was called as `gcc`: blocking, one thread, gone as soon as the status is known.
//!
//! It finds the real compiler beyond every masquerade, hands the command line to the submitter,
//! waits, and prints what the compiler printed. It knows nothing of jobs, nodes or headers, and
//! whatever goes wrong between it and the submitter ends in the real compiler being run here.
//!
//! It is started once per compiler call, so neither clap nor smol nor a logger nor a cipher is
//! touched on its way: see the budgets of the design.

mod call;
pub mod child;
pub mod joblog;
mod local;
pub mod lookup;
pub mod socket;
mod story;
mod variables;

pub use call::{Invocation, Preview, preview, run};
pub use variables::Variables;
