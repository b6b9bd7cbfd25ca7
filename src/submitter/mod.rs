//! The life of a job on the machine that wants it: classify, place, send, commit.
//!
//! Works with the rights of the user who compiles: it reads his sources and writes his objects.
//! Knows no scheduler; [`placement`] asks the node.

pub mod allot;
pub mod attempt;
pub mod choice;
pub mod client;
pub mod compiler;
pub mod course;
pub mod environment;
pub mod explain;
pub mod extra;
pub mod holdings;
pub mod inputs;
pub mod job;
pub mod locale;
pub mod look;
pub mod missing;
pub mod native;
pub mod output;
pub mod parcels;
pub mod placement;
pub mod pool;
pub mod prefixes;
pub mod preprocess;
pub mod race;
pub mod sources;
pub mod spelling;
pub mod stopwatch;
pub mod verification;
pub mod ways;
pub mod wish;
