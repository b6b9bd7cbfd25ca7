//! The environment as the client got it, in its order.
//!
//! Read once: the submitter wants all of it anyway, and the few variables that steer the client
//! itself are looked up in the same list.

use std::ffi::OsStr;

use crate::id::Bytes;

/// The variable that counts how often ice stands above this process.
pub const SAFEGUARD: &str = "_ICE_SAFEGUARD";

/// What `ice local` adds to the count.
pub const LEVEL_OF_A_COMMAND: u32 = 1;

/// What running a compiler adds to the count. A process at this level was called by what ice took
/// for a compiler, so it calls the next one at once; at twice this level ice goes in circles.
pub const LEVEL_OF_A_COMPILER: u32 = 8;

/// Names and values, in the order of the process's environment.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub Vec<(Bytes, Bytes)>);

impl Variables {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        Self(
            std::env::vars_os()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The value of a variable that is set.
    pub fn value(&self, name: &str) -> Option<&Bytes> {
        let of_that_name = self.0.iter().find(|(n, _)| n.0 == name.as_bytes());
        of_that_name.map(|(_, value)| value)
    }

    /// The value of a variable that is set and not empty.
    pub fn non_empty(&self, name: &str) -> Option<&Bytes> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// The value as the operating system's text.
    pub fn os(&self, name: &str) -> Option<&OsStr> {
        self.non_empty(name).map(Bytes::as_os_str)
    }

    /// Replaces a variable's value where it stands, or adds it at the end.
    pub fn set(&mut self, name: &str, value: Bytes) {
        match self.0.iter_mut().find(|(n, _)| n.0 == name.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// How deep below other ices this process is; what is no number is taken for the depth at
    /// which nothing but the compiler is run.
    pub fn level(&self) -> u32 {
        match self.non_empty(SAFEGUARD) {
            None => 0,
            Some(level) => std::str::from_utf8(level)
                .ok()
                .and_then(|level| level.parse().ok())
                .unwrap_or(LEVEL_OF_A_COMPILER),
        }
    }
}
