//! Where the log of a process that stays goes, and what a line of it looks like.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target};
use log::LevelFilter;
use nix::sys::signal::{SigSet, Signal};

use crate::config::ProcessConfig;

/// Starts logging as the options say.
pub(super) fn start(process: &ProcessConfig) -> io::Result<()> {
    let mut builder = Builder::new();
    builder.filter_level(match process.verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        2 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    });
    builder.format(|out, record| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let level = record.level().as_str().to_ascii_lowercase();
        writeln!(
            out,
            "{} {level}: {}",
            utc(now.unwrap_or_default()),
            record.args()
        )
    });
    if let Some(path) = &process.log_file {
        let file = LogFile::open(path.clone()).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("can't log to {}: {error}", path.display()),
            )
        })?;
        builder.target(Target::Pipe(Box::new(file)));
        // It reopens by itself; whoever has moved it away may say so, and it does no harm.
        let mut hangup = SigSet::empty();
        hangup.add(Signal::SIGHUP);
        hangup.thread_block()?;
    }
    builder
        .try_init()
        .map_err(|error| io::Error::other(error.to_string()))
}

/// A file for appending that begins anew at its path when it was moved away or removed.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = append_to(&path)?;
        Ok(Self { path, file })
    }

    fn is_in_place(&self) -> io::Result<bool> {
        let here = self.file.metadata()?;
        Ok(std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())))
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.is_in_place()? {
            // Without a new file the old one is better than nothing.
            if let Ok(file) = append_to(&self.path) {
                self.file = file;
            }
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A time since 1970 as `2024-02-29 12:34:56.789`, in UTC.
fn utc(time: Duration) -> String {
    let seconds = time.as_secs();
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!(
        "{year}-{month:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        days + 1,
        second / 3600,
        second / 60 % 60,
        second % 60,
        time.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_people() {
        for (seconds, expect) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400, "2000-02-29 00:00:00.000"),
            (1_709_210_096, "2024-02-29 12:34:56.000"),
            (1_735_689_599, "2024-12-31 23:59:59.000"),
            (4_107_542_400, "2100-03-01 00:00:00.000"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), expect);
        }
    }

    #[test]
    fn a_log_file_that_was_moved_away_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = LogFile::open(path.clone()).unwrap();
        log.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.write_all(b"two\n").unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "two\nthree\n");
    }
}
