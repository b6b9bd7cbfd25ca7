//! What a worker's trees hold and how the next job's tree is come by; pure.
//!
//! [`catalogue`] numbers everything that was ever declared, [`set`] holds such numbers as bits,
//! [`declaration`] reads what a job declares, and [`holdings`] knows which tree holds what, which is nearest to a job, what must change in it, and
//! what leaves when room is short. None of them touches a file: [`crate::worker::tree`] does.

pub mod catalogue;
pub mod declaration;
pub mod holdings;
pub mod set;

pub use catalogue::{Catalogue, ItemId, PlaceId};
pub use declaration::{Refusal, WRITABLE_MAX};
pub use holdings::{Change, Holdings, Limits, Placing, Room, TreeId, Wanted};
pub use set::ItemSet;
