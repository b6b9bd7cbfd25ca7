//! Stories of a cluster, by what they are about.

mod anything;
mod belonging;
mod choosing;
mod dying;
mod lending;
mod sharing;
mod story;
