//! `ice doctor`: what is wrong with this machine's part in a cluster, and the command that mends each.
//!
//! `facts` says what can be found out; `examine` finds it out with `peers` (key, daemon, scheduler, nodes),
//! `look` (this machine), `calls` (`PATH`) and `trial` (a compile on each node): each look has a bound, and those
//! that wait run side by side. From there on all is pure: `cluster` and `machine` judge, `report` puts into words.
//! So every illness has a test that needs no ill machine.
//!
//! It stands with the front, above all roles, since it looks at each of them from outside.

mod calls;
mod cluster;
mod examine;
mod facts;
mod finding;
#[cfg(test)]
mod illness;
mod look;
mod machine;
mod peers;
mod report;
mod trial;

pub use examine::{Patient, examine};
pub use finding::{Finding, Grade, Group};
pub use report::{as_json, as_text};
