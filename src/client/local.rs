//! Running the program here: in place of this process, or as its child when its end is to be
//! written down.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::child::{self, HeldSignals};
use super::joblog::{self, Place};
use super::lookup::Program;
use super::socket::Submitter;
use super::variables::SAFEGUARD;
use crate::id::Bytes;
use crate::message::{CallPhase, Report, Span};
use crate::sys;

/// A program to run here.
#[derive(Debug)]
pub struct Local<'a> {
    /// Which.
    pub program: &'a Program,
    /// Its command line, its name included.
    pub argv: &'a [Bytes],
    /// Its level below ice.
    pub level: u32,
}

/// A job log to write when the program has ended.
#[derive(Debug)]
pub struct Log<'a> {
    /// Its file.
    pub path: &'a Path,
    /// What is known of the call.
    pub report: Report,
    /// When the call began.
    pub began: Instant,
}

impl Local<'_> {
    /// Runs the program and returns its exit status. Without a log it takes the place of this
    /// process, and returns only when it can't be run. `slot` is held until the program ends.
    pub fn run(&self, slot: Option<Submitter>, log: Option<Log<'_>>) -> u8 {
        sys::leave_closed_streams_closed();
        let mut command = self.command();
        let Some(mut log) = log else {
            if let Some(slot) = slot {
                slot.hand_over();
            }
            return self.failed(&command.exec());
        };
        let spawned_us = log.began.elapsed().as_micros() as u64;
        let attended = HeldSignals::hold().and_then(|signals| {
            let mut child = signals.spawn(&mut command)?;
            signals.attend(&mut child)
        });
        let status = match attended {
            Ok(status) => status,
            Err(error) => return self.failed(&error),
        };
        let exit = child::shell_status(status);
        let wall = log.began.elapsed();
        log.report.phases.push(Span {
            phase: CallPhase::Compile,
            from_us: spawned_us,
            to_us: wall.as_micros() as u64,
        });
        if let Err(error) = joblog::append(log.path, Place::Local, &log.report, exit, wall) {
            eprintln!(
                "ice: can't write the job log {}: {error}",
                log.path.display()
            );
        }
        drop(slot);
        child::end_as(status)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program.path.as_os_str());
        let (name, arguments) = self
            .argv
            .split_first()
            .map_or((None, &[][..]), |(n, a)| (Some(n), a));
        if let Some(name) = name {
            command.arg0(name.as_os_str());
        }
        command.args(arguments.iter().map(Bytes::as_os_str));
        command.env(SAFEGUARD, self.level.to_string());
        if let Some(path) = &self.program.search_path {
            command.env("PATH", path.as_os_str());
        }
        command
    }

    /// Says as a shell does that the program can't be run.
    fn failed(&self, error: &io::Error) -> u8 {
        eprintln!("ice: {}: {error}", self.program.path);
        match error.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}
