//! Where a worker runs a foreign compiler.
//!
//! ```text
//! daemon ── Zygote ──► zygote (a fresh process per toolchain: namespaces, toolchain, trees)
//!        ◄─ Running ──── init (per job: pid 1 of its own pid namespace, its own view of a tree)
//!                          └─ the compiler: no capabilities, seccomp, limits
//! ```
//!
//! The layers from below: [`spec`] are the words, `view` is what a job sees of the file system,
//! `filter` what it may ask of the kernel, `enter` the two processes, `memory` what a job
//! occupies, [`zygote`] the daemon's side of it, and [`ladder`] finds out whether this machine can
//! do any of it. Only the worker uses this.

pub mod bounds;
mod enter;
mod filter;
pub mod ladder;
mod memory;
pub mod spec;
mod view;
pub mod zygote;

pub use enter::zygote_main;
/// Directories of its own that a job sees, whatever its tree has there.
pub const OWN_DIRECTORIES: [&str; 2] = ["/dev", "/tmp"];

pub use ladder::{own_program, probe, probe_main};
pub use spec::{Consumed, Ended, Launch, Limits, Rung, ZygoteSpec};
pub use zygote::{Running, SandboxError, Starter, Zygote};
