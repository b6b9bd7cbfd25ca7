//! The job log (`ICE_JOB_LOG`): one JSON object a line for every compiler call, and why it went
//! where it went.
//!
//! The client writes it and not the daemon, because the client is there even when no daemon is,
//! and because it is the user who asks for it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::message::{Mode, Report};

/// Why the client itself ran the compiler. The words are stable; scripts may count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `ICECC=disable`.
    Disabled,
    /// The call compiles nothing, or a build system waits for it to learn about the machine.
    AtOnce,
    /// What called us is itself run by ice.
    Nested,
    /// No daemon listens.
    NoDaemon,
    /// A daemon listens and does not answer in time.
    SilentDaemon,
    /// The daemon went away before it answered.
    LostDaemon,
    /// The daemon's answer is not one.
    GarbledDaemon,
    /// What the compiler said elsewhere could not be printed here.
    FullStream,
    /// The process has a limit that its compiler is to feel.
    Limited,
    /// Standard output or error is closed.
    ClosedStream,
}

impl Reason {
    /// The word and the sentence.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Disabled => ("disabled", "ICECC=disable is set"),
            Self::AtOnce => ("at-once", "the call compiles nothing, or is a probe"),
            Self::Nested => ("nested", "another ice runs what made this call"),
            Self::NoDaemon => ("no-daemon", "no daemon listens on this machine"),
            Self::SilentDaemon => ("silent-daemon", "the daemon did not answer in time"),
            Self::LostDaemon => ("lost-daemon", "the daemon ended before it answered"),
            Self::GarbledDaemon => ("garbled-daemon", "the daemon's answer makes no sense"),
            Self::FullStream => (
                "full-stream",
                "what the compiler said could not be printed, and it knows what to do then",
            ),
            Self::Limited => (
                "limits",
                "this process has a limit on memory, time or the size of files",
            ),
            Self::ClosedStream => (
                "closed-stream",
                "standard output or error is closed, which the compiler takes amiss",
            ),
        }
    }

    /// The report of a call that no submitter reports on.
    pub fn report(self) -> Report {
        let (word, sentence) = self.text();
        Report {
            reason: Some((word.to_owned(), sentence.to_owned())),
            tries: 1,
            ..Report::default()
        }
    }
}

/// The report as of a call that began `before` the submitter took it in.
pub fn since_the_call(mut report: Report, before: Duration) -> Report {
    let before_us = before.as_micros() as u64;
    for span in &mut report.phases {
        span.from_us = span.from_us.saturating_add(before_us);
        span.to_us = span.to_us.saturating_add(before_us);
    }
    report
}

/// Where the compiler ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On another node, or in this node's worker.
    Remote,
    /// As a child of this client.
    Local,
}

/// Appends a line to the log at `path`. `exit` is as in a shell: 128 and the signal's number when
/// the compiler died by one.
pub fn append(
    path: &Path,
    place: Place,
    report: &Report,
    exit: i32,
    wall: Duration,
) -> io::Result<()> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let began = since_1970.unwrap_or_default().saturating_sub(wall);
    let line = line(place, report, exit, began, wall);
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // A single write to a file opened for appending: the kernel keeps the lines of parallel
    // clients apart.
    if file.write(line.as_bytes())? < line.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

fn line(place: Place, report: &Report, exit: i32, began: Duration, wall: Duration) -> String {
    let place = match place {
        Place::Remote => "remote",
        Place::Local => "local",
    };
    let mode = match report.mode {
        Mode::Local => "local",
        Mode::Preprocessed => "preprocessed",
        Mode::Source => "source",
    };
    let reason = report
        .reason
        .as_ref()
        .map(|(word, sentence)| format!("{word}: {sentence}"));
    let node = (!report.node.is_empty()).then_some(report.node.as_str());
    let file = String::from_utf8_lossy(&report.file);
    let file = (!file.is_empty()).then_some(&*file);
    let phases: Vec<String> = report
        .phases
        .iter()
        .map(|span| {
            let name = span.phase.name();
            format!("[\"{name}\",{},{}]", span.from_us, span.to_us)
        })
        .collect();
    format!(
        "{{\"place\":\"{place}\",\"mode\":\"{mode}\",\"node\":{},\"reason\":{},\"file\":{},\
         \"exit\":{exit},\"wall_ms\":{},\"tries\":{},\"files\":{},\"began_us\":{},\"wall_us\":{},\
         \"phases\":[{}]}}\n",
        json(node),
        json(reason.as_deref()),
        json(file),
        wall.as_millis(),
        report.tries,
        report.files,
        began.as_micros(),
        wall.as_micros(),
        phases.join(",")
    )
}

/// A JSON string or null.
fn json(text: Option<&str>) -> String {
    text.map_or_else(
        || "null".to_owned(),
        |text| serde_json::Value::from(text).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CallPhase, Span};

    #[test]
    fn a_line_is_one_json_object_whatever_the_names_hold() {
        let report = Report {
            mode: Mode::Source,
            node: "a \"node\"".to_owned(),
            reason: Some(("word".to_owned(), "two\nlines".to_owned())),
            file: b"d\xff/\n.c".as_slice().into(),
            tries: 2,
            files: 7,
            phases: vec![Span {
                phase: CallPhase::Scan,
                from_us: 3,
                to_us: 9,
            }],
        };
        let report = since_the_call(report, Duration::from_micros(5));
        let took = Duration::from_micros(12_900);
        let line = line(Place::Remote, &report, 1, Duration::from_micros(77), took);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "place": "remote", "mode": "source", "node": "a \"node\"",
                "reason": "word: two\nlines", "file": "d\u{fffd}/\n.c",
                "exit": 1, "wall_ms": 12, "tries": 2, "files": 7,
                "began_us": 77, "wall_us": 12900, "phases": [["scan", 8, 14]]
            })
        );
    }

    #[test]
    fn what_is_unknown_is_null() {
        let line = line(
            Place::Local,
            &Report::default(),
            0,
            Duration::ZERO,
            Duration::from_millis(1),
        );
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for key in ["node", "reason", "file"] {
            assert!(value[key].is_null(), "{key}");
        }
        assert_eq!(value["mode"], "local");
    }
}
