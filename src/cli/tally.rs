//! How many compiles went where, counted from lines of the job log.

use std::collections::BTreeMap;
use std::fmt;

use crate::client::joblog::Reason;

/// The counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    by_node: BTreeMap<String, u64>,
    by_reason: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts the lines of a job log. A call that compiles nothing does not count; a line that is
    /// none of ours is passed over.
    pub(super) fn of(log: &[u8]) -> Self {
        let mut tally = Self::default();
        for line in log.split(|&b| b == b'\n') {
            let Ok(call) = serde_json::from_slice::<serde_json::Value>(line) else {
                continue;
            };
            let text = |key: &str| call[key].as_str();
            match text("place") {
                Some("remote") => {
                    let node = text("node").unwrap_or("unknown").to_owned();
                    *tally.by_node.entry(node).or_default() += 1;
                }
                Some("local") => {
                    let reason = text("reason").unwrap_or("unknown");
                    let word = reason.split(':').next().unwrap_or(reason);
                    if word != Reason::AtOnce.text().0 {
                        *tally.by_reason.entry(word.to_owned()).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = self.by_node.values().sum::<u64>();
        let local = self.by_reason.values().sum::<u64>();
        let nodes = self.by_node.len() as u64;
        match remote + local {
            0 => return f.write_str("no compiles"),
            1 => f.write_str("1 compile: ")?,
            all => write!(f, "{all} compiles: ")?,
        }
        let mut separator = "";
        if remote > 0 {
            let plural = if nodes == 1 { "" } else { "s" };
            let counts = counts(&self.by_node);
            write!(f, "{remote} on {nodes} node{plural} ({counts})")?;
            separator = ", ";
        }
        if local > 0 {
            write!(f, "{separator}{local} local ({})", counts(&self.by_reason))?;
        }
        Ok(())
    }
}

/// The counts with their names, the largest first.
fn counts(by_name: &BTreeMap<String, u64>) -> String {
    let mut counts = by_name.iter().collect::<Vec<_>>();
    counts.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    let counts = counts
        .iter()
        .map(|(name, count)| format!("{name}: {count}"));
    counts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_are_counted_by_node_and_by_reason() {
        let remote = |node: &str| format!("{{\"place\":\"remote\",\"node\":\"{node}\"}}\n");
        let local = |reason: &str| format!("{{\"place\":\"local\",\"reason\":\"{reason}\"}}\n");
        for (log, expect) in [
            (String::new(), "no compiles"),
            (local("at-once: nothing"), "no compiles"),
            (local("link: it links"), "1 compile: 1 local (link: 1)"),
            (
                remote("host").repeat(22) + &local("link: it links").repeat(2),
                "24 compiles: 22 on 1 node (host: 22), 2 local (link: 2)",
            ),
            (
                remote("a") + &remote("b").repeat(2) + "{}\nnoise\n" + &local("x: y"),
                "4 compiles: 3 on 2 nodes (b: 2, a: 1), 1 local (x: 1)",
            ),
            (
                "{\"place\":\"local\",\"reason\":null}".to_owned(),
                "1 compile: 1 local (unknown: 1)",
            ),
        ] {
            assert_eq!(Tally::of(log.as_bytes()).to_string(), expect);
        }
    }
}
