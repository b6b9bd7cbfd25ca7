//! What the client did and why, for a person who asked (`ICECC_DEBUG`, `ICECC_LOGFILE`).
//!
//! Nothing is written that nobody asked for: what is on standard error belongs to the compiler.

use std::fs::{File, OpenOptions};
use std::io::Write;

use super::variables::Variables;

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
