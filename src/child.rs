//! Programs that are run for what they print: preprocessors, and compilers that are asked something.
//!
//! They are waited for by the [`reactor`](crate::reactor), like sockets. What they print is bounded and kept in
//! memory; they read nothing. Knows nothing of what they are asked.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{self, Command, ExitStatus, Stdio};

use smol::io::AsyncReadExt;

use crate::executor;
use crate::reactor::Async;
use crate::sys;

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct Printed {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on standard output.
    pub output: Vec<u8>,
    /// What it said on standard error.
    pub errors: Vec<u8>,
}

/// Runs `command` to its end and takes what it prints, `most` bytes of each stream at most. The program is
/// killed when the future is dropped.
///
/// # Errors
/// When it can't be started, or prints more.
pub async fn run(mut command: Command, most: u64) -> io::Result<Printed> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn()?;
    let output = process.stdout.take().map(OwnedFd::from);
    let errors = process.stderr.take().map(OwnedFd::from);
    let child = Child::watch(process)?;
    let (output, errors) = smol::future::try_zip(read(output, most), read(errors, most)).await?;
    Ok(Printed {
        status: child.end().await?,
        output,
        errors,
    })
}

async fn read(pipe: Option<OwnedFd>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = Async::new(File::from(pipe))?.take(most + 1);
        pipe.read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!(
            "it prints more than {most} bytes"
        )));
    }
    Ok(bytes)
}

/// A process of ours. One that is dropped while it runs is killed, and buried when it is dead.
struct Child(Option<Running>);

struct Running {
    process: process::Child,
    /// Readable once the process has ended.
    end: Async<OwnedFd>,
}

impl Running {
    async fn end(&mut self) -> io::Result<ExitStatus> {
        let process = &mut self.process;
        // What the reactor takes for "wait".
        let still_runs = || Err(io::ErrorKind::WouldBlock.into());
        let look = |_: &OwnedFd| process.try_wait()?.map_or_else(still_runs, Ok);
        self.end.read_with(look).await
    }
}

impl Child {
    fn watch(mut process: process::Child) -> io::Result<Self> {
        let end = sys::watch_process(process.id()).map_err(io::Error::from);
        match end.and_then(Async::new) {
            Ok(end) => Ok(Self(Some(Running { process, end }))),
            Err(error) => {
                // Nobody would hear of its end: it gets one now.
                process.kill()?;
                process.wait()?;
                Err(error)
            }
        }
    }

    /// Waits for its end.
    async fn end(mut self) -> io::Result<ExitStatus> {
        match &mut self.0 {
            Some(running) => running.end().await,
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(mut running) = self.0.take() else {
            return;
        };
        if matches!(running.process.try_wait(), Ok(None)) {
            let _ = running.process.kill();
            // It dies soon, but not at once.
            executor::spawn(async move { running.end().await }).detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smol::future::FutureExt;

    use super::*;
    use crate::executor::block_on;
    use crate::reactor::Timer;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_program_prints_and_how_it_ends_is_told() {
        let printed = block_on(run(shell("echo out; echo err >&2; exit 7"), 100)).unwrap();
        assert_eq!(printed.status.code(), Some(7));
        assert_eq!(printed.output, b"out\n");
        assert_eq!(printed.errors, b"err\n");
    }

    #[test]
    fn a_program_that_closes_its_streams_is_waited_for_nevertheless() {
        let script = "exec >&- 2>&-; sleep 0.2; exit 3";
        let printed = block_on(run(shell(script), 100)).unwrap();
        assert_eq!(printed.status.code(), Some(3));
    }

    #[test]
    fn a_program_that_prints_without_end_is_an_error_and_not_a_full_memory() {
        let error = block_on(run(shell("yes"), 1 << 20)).unwrap_err();
        assert_eq!(error.to_string(), "it prints more than 1048576 bytes");
    }

    #[test]
    fn a_program_whose_future_is_dropped_is_killed_and_leaves_no_corpse() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("pid");
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600",
            place.display()
        );
        block_on(async {
            let gone = async {
                let _ = run(shell(&script), 100).await;
                panic!("it sleeps");
            };
            let started = async {
                while !place.exists() {
                    Timer::after(Duration::from_millis(5)).await;
                }
            };
            gone.or(started).await;
            let pid = std::fs::read_to_string(&place).unwrap();
            let process = std::path::Path::new("/proc").join(pid.trim());
            while process.exists() {
                Timer::after(Duration::from_millis(5)).await;
            }
        });
    }
}
