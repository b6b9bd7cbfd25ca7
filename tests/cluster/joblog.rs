//! What `ICE_JOB_LOG` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One compiler call.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct JobLine {
    /// `remote` or `local`.
    pub place: String,
    /// `source`, `preprocessed` or `local`.
    pub mode: String,
    /// The node that compiled it.
    pub node: Option<String>,
    /// Why it stayed here.
    pub reason: Option<String>,
    /// The main file, as it was given.
    pub file: Option<String>,
    /// The exit status.
    pub exit: i32,
    /// How long the call took.
    pub wall_ms: u64,
    /// How many nodes were tried.
    pub tries: u32,
}

impl JobLine {
    /// Whether it was compiled on another node.
    pub fn is_remote(&self) -> bool {
        self.place == "remote"
    }

    /// The stable word of its reason.
    pub fn word(&self) -> &str {
        let reason = self.reason.as_deref().unwrap_or_default();
        reason.split(':').next().unwrap_or_default()
    }
}

/// All lines of the log at `path`; none when nothing was logged.
pub fn read(path: &Path) -> Vec<JobLine> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// How many jobs each node compiled.
pub fn by_node(jobs: &[JobLine]) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.is_remote()) {
        let node = job.node.as_deref().expect("a remote job has a node");
        *count.entry(node).or_default() += 1;
    }
    count
}

/// Panics unless each job was compiled remotely, or has one of these words as its reason not to be.
#[track_caller]
pub fn assert_places(jobs: &[JobLine], words: &[&str]) {
    for job in jobs {
        let is_well = match job.is_remote() {
            true => job.node.is_some() && job.mode != "local" && job.tries > 0 && job.exit == 0,
            false => words.contains(&job.word()) && job.mode == "local",
        };
        assert!(is_well, "{job:?}");
    }
}
