//! Compiles a small file on one node, as a build would, and compares the object with the plain compiler's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::facts::Trial;
use crate::sandbox::ladder;
use crate::threads;

/// What is compiled: with a header, so that the way of headers is tried, too.
const SOURCE: &str = "#include <stddef.h>\n\
                      size_t ice_doctor(const char *text)\n\
                      {\n    size_t n = 0;\n    while (text[n])\n        n++;\n    return n;\n}\n";
/// The name of that.
const SOURCE_NAME: &str = "trial.c";
/// A node that has no toolchain yet is sent one, over whatever network there is.
const BOUND: Duration = Duration::from_secs(20);
/// How often a child is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Variables of a build that would lead a trial astray.
const ASTRAY: [&str; 7] = [
    "ICECC",
    "ICECC_VERSION",
    "ICECC_DEBUG",
    "ICECC_LOGFILE",
    "ICECC_REPEAT_RATE",
    "ICECC_CC",
    "_ICE_SAFEGUARD",
];

/// A directory with a source and the object that the plain compiler makes of it; gone with its last owner.
#[derive(Clone, Debug)]
pub(super) struct Bench(Arc<Prepared>);

#[derive(Debug)]
struct Prepared {
    directory: PathBuf,
    compiler: String,
    plain: Vec<u8>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Bench {
    /// With this compiler; none when it can't compile the source by itself, for then nobody can.
    pub(super) async fn new(compiler: String) -> Option<Self> {
        threads::unblock(move || {
            prepare(compiler)
                .ok()
                .map(|prepared| Self(Arc::new(prepared)))
        })
        .await
    }

    /// What comes of a compile on the node of this name; `number` tells trials apart.
    pub(super) async fn compile_on(self, number: usize, node: &str) -> Trial {
        let node = node.to_owned();
        threads::unblock(move || self.0.compile_on(number, &node)).await
    }
}

fn prepare(compiler: String) -> io::Result<Prepared> {
    let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("ice-doctor-XXXXXX"))?;
    let mut prepared = Prepared {
        directory,
        compiler,
        plain: Vec::new(),
    };
    fs::write(prepared.directory.join(SOURCE_NAME), SOURCE)?;
    let compiler = prepared.compiler.clone();
    let mut command = prepared.command(Path::new(&compiler), "plain");
    match run(&mut command)? {
        Some(status) if status.success() => {}
        _ => return Err(io::Error::other("the compiler does not work")),
    }
    prepared.plain = fs::read(prepared.directory.join("plain.o"))?;
    Ok(prepared)
}

impl Prepared {
    /// A compile by `program`, which leaves all that it says and makes in files of this name.
    fn command(&self, program: &Path, name: &str) -> Command {
        let mut command = Command::new(program);
        if program != Path::new(&self.compiler) {
            command.arg(&self.compiler);
        }
        command.args(["-O1", "-c", SOURCE_NAME, "-o", &format!("{name}.o")]);
        command.current_dir(&self.directory).stdin(Stdio::null());
        for variable in ASTRAY {
            command.env_remove(variable);
        }
        let said = fs::File::create(self.directory.join(format!("{name}.said")));
        match said.and_then(|said| Ok((said.try_clone()?, said))) {
            Ok((out, err)) => command.stdout(out).stderr(err),
            Err(_) => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        command
    }

    fn compile_on(&self, number: usize, node: &str) -> Trial {
        let name = number.to_string();
        let log = self.directory.join(format!("{name}.jobs"));
        let mut command = self.command(&ladder::own_program(), &name);
        command.env("ICECC_PREFERRED_HOST", node);
        command.env("ICE_JOB_LOG", &log);
        let began = Instant::now();
        let status = match run(&mut command) {
            Ok(Some(status)) => status,
            Ok(None) => return Trial::Failed(format!("it took longer than {BOUND:?}")),
            Err(error) => return Trial::Failed(error.to_string()),
        };
        let took = began.elapsed();
        if !status.success() {
            let said = self.directory.join(format!("{name}.said"));
            let said = fs::read(said).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let line = said.lines().next().unwrap_or_default();
            return Trial::Failed(format!("{status}: {line}"));
        }
        let log = fs::read_to_string(&log).unwrap_or_default();
        let job: serde_json::Value = log
            .lines()
            .next_back()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_default();
        if job["place"] != "remote" || job["node"] != node {
            let reason = job["reason"].as_str().map(str::to_owned);
            let elsewhere = || format!("{} compiled it", job["node"].as_str().unwrap_or("nobody"));
            return Trial::Elsewhere(reason.unwrap_or_else(elsewhere));
        }
        match fs::read(self.directory.join(format!("{name}.o"))) {
            Ok(object) if object == self.plain => Trial::Same(took.as_millis() as u64),
            Ok(_) => Trial::Differs,
            Err(error) => Trial::Failed(format!("there is no object: {error}")),
        }
    }
}

/// How a command ends; none when it takes too long, and is killed.
fn run(command: &mut Command) -> io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}
