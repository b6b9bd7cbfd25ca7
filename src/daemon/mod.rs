//! One node: joins this machine's submitter and worker, and knows the scheduler.
//!
//! Started by an ordinary user, the daemon is one process that does everything, for that user.
//! Started by root it is a [`broker`] that keeps root's rights and does nothing but hand out
//! sockets: the node itself runs as `--user`, and each user who compiles gets an [`agent`], a
//! submitter with his own rights.

pub mod agent;
pub mod broker;
pub mod link;
pub mod load;
pub mod node;
pub mod process;
pub mod session;
pub mod slots;

use std::error::Error;

use self::process::Reload;
use crate::config::DaemonConfig;

/// Runs the daemon until it is told to stop.
pub fn run(config: DaemonConfig, reload: Reload) -> Result<(), Box<dyn Error + Send + Sync>> {
    if crate::names::is_root() && !broker::is_child() {
        broker::run(&config)
    } else if broker::is_child() {
        process::run_below_broker(config, reload)
    } else {
        process::run_alone(config, reload)
    }
}
