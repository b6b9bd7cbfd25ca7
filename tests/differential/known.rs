//! The list of known differences, each with its reason: `known.txt`.
//!
//! ```text
//! group/name gcc cluster: stderr 1, file a.o
//!     The reason, in one or more indented lines.
//! ```
//! The compiler and the run (`cluster`, `alone`) may be `*`. The aspects are those that a failing
//! trial names.

use std::collections::BTreeSet;

/// The list.
#[derive(Debug, Default)]
pub struct Known(Vec<Row>);

#[derive(Debug)]
struct Row {
    case: String,
    family: String,
    run: String,
    aspects: BTreeSet<String>,
    reason: String,
}

impl Known {
    /// Reads the list. An error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rows: Vec<Row> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let told = |why: &str| format!("line {}: {why}", number + 1);
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with(' ') {
                let row = rows
                    .last_mut()
                    .ok_or_else(|| told("a reason for nothing"))?;
                row.reason += line.trim();
                continue;
            }
            let (head, aspects) = line.split_once(": ").ok_or_else(|| told("no aspects"))?;
            let words: Vec<&str> = head.split_whitespace().collect();
            let [case, family, run] = words[..] else {
                return Err(told("not a case, a compiler and a run"));
            };
            rows.push(Row {
                case: case.to_owned(),
                family: family.to_owned(),
                run: run.to_owned(),
                aspects: aspects.split(", ").map(str::to_owned).collect(),
                reason: String::new(),
            });
        }
        match rows.iter().find(|row| row.reason.is_empty()) {
            Some(row) => Err(format!("{} has no reason", row.case)),
            None => Ok(Self(rows)),
        }
    }

    /// The aspects in which this run of this case is known to differ.
    pub fn aspects(&self, case: &str, family: &str, run: &str) -> BTreeSet<String> {
        let fits = |word: &str, pattern: &str| pattern == "*" || pattern == word;
        let rows = self
            .0
            .iter()
            .filter(|row| row.case == case && fits(family, &row.family) && fits(run, &row.run));
        rows.flat_map(|row| row.aspects.iter().cloned()).collect()
    }

    /// The cases that are on the list.
    pub fn cases(&self) -> BTreeSet<&str> {
        self.0.iter().map(|row| row.case.as_str()).collect()
    }
}
