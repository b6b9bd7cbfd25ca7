//! The leases that a submitter holds and the jobs that it has: what runs where, what goes where next. Pure.
//!
//! The scheduler is told of each job and lends slots for as many as wait; each lease then serves job after job
//! without another word from it, so a running build waits for no round trip. What ran is told afterwards. A lease
//! without a job goes back after a short while, or at once when it is asked back.
//!
//! Where a round trip is not negligible, the next job is sent to its worker while the one before still runs
//! there, so that the slot is idle for neither way. To the scheduler such a job still waits, so that it may
//! come to run elsewhere: when another lease is free first, the job is called back.
//!
//! At the end of a build, when leases are idle and a job lags, it is started a second time elsewhere. Whichever
//! result comes first is taken.
//!
//! `state` takes in what happens, `placing` and `seconds` draw the conclusions; `held` and `waiting` are
//! what they look at, kept such that an event costs little however many leases there are.

mod foresight;
mod held;
mod placing;
mod seconds;
mod state;
#[cfg(test)]
mod stories;
mod waiting;

pub use state::{Action, Event, Holdings};
