//! Prometheus' text format 0.0.4: families of samples with labels.
//!
//! Knows no metric. Names of families and labels are ours; texts of labels come from other machines.

use std::fmt::Write;

use crate::scheduler::tally::{BUCKETS_MS, Histogram};

#[cfg(test)]
pub(super) mod reader;

/// What Prometheus is told that it gets.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What has been written so far.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// The whole page.
    pub(super) fn text(self) -> String {
        self.0
    }

    /// Begins a family, whose samples follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// A sample of the family that was begun last. Labels may be any text.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, text)| format!("{label}=\"{}\"", escaped(text)))
            .collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    /// A family of its own: counts up to each bound, in seconds.
    pub(super) fn histogram(&mut self, name: &str, help: &str, of: &Histogram) {
        self.family(name, "histogram", help);
        let mut so_far = 0;
        let bucket = format!("{name}_bucket");
        for (count, bound_ms) in of.counts.iter().zip(BUCKETS_MS) {
            so_far += count;
            let bound = (bound_ms as f64 / 1000.0).to_string();
            self.sample(&bucket, &[("le", &bound)], so_far as f64);
        }
        so_far += of.counts[BUCKETS_MS.len()];
        self.sample(&bucket, &[("le", "+Inf")], so_far as f64);
        self.sample(&format!("{name}_sum"), &[], of.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], so_far as f64);
    }

    fn line(&mut self, of: std::fmt::Arguments<'_>) {
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "{of}");
    }
}

/// A label's text: names come from other machines, and one with a quote must not make up a series.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => safe.push_str("\\\\"),
            '"' => safe.push_str("\\\""),
            '\n' => safe.push_str("\\n"),
            c => safe.push(c),
        }
    }
    safe
}
