//! Places jobs; never sees sources or objects.
//!
//! [`state`] is the pure core: events in, actions out. The rules lie beside it, one noun a file.
//! Around it `dispatcher` is the task that turns what comes in into events, `peers` are those who are
//! connected, and [`server`] has the ports.

pub mod admission;
pub mod audience;
pub mod chronicle;
pub mod control;
mod dispatcher;
mod door;
pub mod election;
pub mod fairness;
pub mod herald;
pub mod http;
pub mod icecream;
pub mod icecream_port;
pub mod lease;
mod lending;
mod line;
pub mod memory;
pub mod metrics;
pub mod node;
mod outbox;
mod peers;
pub mod policy;
pub mod queue;
pub mod roster;
pub mod server;
pub mod speed;
pub mod state;
#[cfg(test)]
mod stories;
pub mod suspicion;
pub mod tally;
pub mod text_port;
pub mod ways;

pub use policy::Algorithm;
pub use server::{Server, ServerConfig, serve};
pub use state::{Action, Core, Event, PeerId, Rules};
