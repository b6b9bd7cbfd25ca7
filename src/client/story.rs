//! What the client did and why, for a person who asked (`ICECC_DEBUG`, `ICECC_LOGFILE`).
//!
//! Nothing is written that nobody asked for: what is on standard error belongs to the compiler.

use std::fs::{File, OpenOptions};
use std::io::Write;

use std::time::Duration;

use super::variables::Variables;
use crate::message::{Mode, Report};

/// Where the story goes, and how much of it.
#[derive(Debug, Default)]
pub struct Story {
    to: Option<Box<dyn WriteDebug>>,
    whole: bool,
}

trait WriteDebug: Write + std::fmt::Debug {}
impl<T: Write + std::fmt::Debug> WriteDebug for T {}

impl Story {
    /// The story that the variables ask for.
    pub fn asked_for(variables: &Variables) -> Self {
        let whole = variables.non_empty("ICECC_DEBUG").is_some();
        let file = variables.os("ICECC_LOGFILE");
        if !whole && file.is_none() {
            return Self::default();
        }
        let append = |path: &std::path::Path| -> Option<File> {
            OpenOptions::new().create(true).append(true).open(path).ok()
        };
        let file = match file {
            Some(file) => append(file.as_ref()),
            // ccache keeps what is on standard error, and says where else to write.
            None => variables.value("UNCACHED_ERR_FD").and_then(|descriptor| {
                let descriptor: u32 = std::str::from_utf8(descriptor).ok()?.parse().ok()?;
                append(format!("/proc/self/fd/{descriptor}").as_ref())
            }),
        };
        let to: Box<dyn WriteDebug> = match file {
            Some(file) => Box::new(file),
            None => Box::new(std::io::stderr()),
        };
        Self {
            to: Some(to),
            whole,
        }
    }

    /// A step on the way; told when all is asked for.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.whole {
            self.warn(what);
        }
    }

    /// Something that should not be; told when anything is asked for.
    pub fn warn(&mut self, what: impl FnOnce() -> String) {
        if let Some(to) = &mut self.to {
            // One write, so that the lines of parallel compiles don't mix.
            let line = format!("ice[{}] {}\n", std::process::id(), what());
            // A story that can't be told must not stop the compile.
            let _ = to.write_all(line.as_bytes());
        }
    }
}

/// What came of a job that another node compiled.
pub fn remote(report: &Report, status: u8) -> String {
    let how = match report.mode {
        Mode::Source => format!("with its {} files", report.files),
        Mode::Preprocessed => "as preprocessed text".to_owned(),
        Mode::Local => "in no way that is known".to_owned(),
    };
    let why = match &report.reason {
        Some((word, sentence)) => format!(" (since: {word}: {sentence})"),
        None => String::new(),
    };
    let node = &report.node;
    format!(
        "{} went to {node} {how}{why}, try {}: exit status {status}",
        report.file, report.tries
    )
}

/// Why a job is compiled here.
pub fn local(report: &Report) -> String {
    let (word, sentence) = report.reason.clone().unwrap_or_default();
    let tried = match report.tries {
        0 => String::new(),
        tries => format!(", after {tries} tries elsewhere"),
    };
    format!("runs here under a slot{tried}: {word}: {sentence}")
}

/// Where the time of a call went.
pub fn times(report: &Report, wall: Duration) -> String {
    let ms = |us: u64| us as f64 / 1000.0;
    let phases: Vec<String> = report
        .phases
        .iter()
        .map(|span| {
            let took = ms(span.to_us.saturating_sub(span.from_us));
            format!("{} {took:.1}", span.phase.name())
        })
        .collect();
    format!(
        "took {:.1} ms so far: {}",
        ms(wall.as_micros() as u64),
        phases.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CallPhase, Span};

    #[test]
    fn a_story_is_made_of_readable_sentences() {
        let span = |phase, from_us, to_us| Span {
            phase,
            from_us,
            to_us,
        };
        let report = Report {
            mode: Mode::Source,
            node: "anvil".into(),
            file: "a.c".into(),
            tries: 1,
            files: 12,
            phases: vec![
                span(CallPhase::Scan, 100, 2100),
                span(CallPhase::Wait, 2100, 2150),
            ],
            ..Report::default()
        };
        assert_eq!(
            remote(&report, 0),
            "a.c went to anvil with its 12 files, try 1: exit status 0"
        );
        assert_eq!(
            times(&report, Duration::from_micros(12_340)),
            "took 12.3 ms so far: scan 2.0, wait 0.1"
        );
        let report = Report {
            reason: Some(("link".into(), "it links".into())),
            ..Report::default()
        };
        assert_eq!(local(&report), "runs here under a slot: link: it links");
    }
}
