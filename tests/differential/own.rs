//! The runner's own trials: that it sees what it is there to see.

use std::path::Path;

use crate::harness::Trial;

/// All of them.
pub fn trials(_here: &Path) -> Vec<Trial> {
    Vec::new()
}
