//! `ice …`: which role is meant, by name or by word, and with which options.
//!
//! `entry` decides and is the only file here that a compile passes through; whatever needs the
//! grammar of `options` comes after it.

mod dispatch;
mod doctor;
mod entry;
mod explain;
mod icecream;
mod in_force;
mod log_output;
mod options;
mod private;
mod resolve;
mod run;
mod settings;
mod symlinks;
mod tally;
mod trace;

pub use entry::run;
