//! Where calls ran, as the job log says it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::case::Expected;
use crate::user;

/// Where a compiler call ran, in the words that cases use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    word: String,
    tries: u64,
    reason: String,
}

impl Ran {
    /// Whether this is what was expected. A call that is remote at the second try only has hidden
    /// something.
    pub fn is(&self, expected: &Expected) -> bool {
        match expected {
            Expected::Remote => self.word == "remote" && self.tries == 1,
            Expected::Preprocessed => self.word == "preprocessed" && self.tries == 1,
            Expected::Local(reason) => self.word == format!("local {reason}"),
            Expected::Anywhere => true,
            Expected::RemoteUnless(words) => {
                let local = self.word.strip_prefix("local ");
                self.is(&Expected::Remote) || local.is_some_and(|word| words.contains(&word))
            }
        }
    }

    /// For people.
    pub fn told(&self) -> String {
        match self.tries {
            0 | 1 => format!("{} ({})", self.word, self.reason),
            tries => format!("{} ({}, {tries} tries)", self.word, self.reason),
        }
    }
}

/// An empty log, which can be written under any umask.
pub fn make_log(scratch: &Path) -> PathBuf {
    let path = scratch.join("jobs");
    fs::write(&path, "").expect("make a log");
    user::give(&path);
    path
}

/// Takes all lines out of the log at `path`.
pub fn take(path: &Path) -> Vec<Ran> {
    let text = fs::read_to_string(path).expect("read the log");
    fs::write(path, "").expect("empty the log");
    text.lines().map(ran).collect()
}

fn ran(line: &str) -> Ran {
    let job: serde_json::Value = serde_json::from_str(line).expect("a job log of JSON objects");
    let text = |key: &str| job[key].as_str().unwrap_or_default().to_owned();
    let reason = text("reason");
    let word = match (text("place").as_str(), text("mode").as_str()) {
        ("remote", "source") => "remote".to_owned(),
        ("remote", "preprocessed") => "preprocessed".to_owned(),
        ("local", _) => {
            let word = reason.split(':').next().unwrap_or_default();
            format!("local {word}")
        }
        other => format!("{other:?}"),
    };
    Ran {
        word,
        tries: job["tries"].as_u64().unwrap_or_default(),
        reason,
    }
}
