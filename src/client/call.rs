//! A compiler call, from the name it was made under to its exit status.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::stat::{Mode as FileMode, umask};

use super::joblog::{self, Place, Reason};
use super::local::{Local, Log};
use super::lookup::{self, Program};
use super::socket::{self, Submitter, SubmitterError};
use super::story::{self, Story};
use super::variables::{LEVEL_OF_A_COMMAND, LEVEL_OF_A_COMPILER, SAFEGUARD, Variables};
use crate::args;
use crate::id::Bytes;
use crate::masquerade::{self, Language};
use crate::message::{Answer, Call, CallKind, PROTOCOL, Report, Terminal};
use crate::sight;
use crate::sys;

/// The daemon has this long, in total, to take a call.
const PATIENCE: Duration = Duration::from_secs(1);

/// The exit status of a call that went in circles, as icecream's.
const RECURSION_STATUS: u8 = 111;

/// The exit status of a call that asks for nothing.
const USAGE_STATUS: u8 = 2;

/// What a client was called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Where the command may run.
    pub kind: CallKind,
    /// The command and its arguments; a masquerade's name is the command.
    pub argv: Vec<Bytes>,
}

/// Serves the call and returns its exit status. Where the program runs here, it takes the place
/// of this process.
pub fn run(invocation: Invocation) -> u8 {
    let began = Instant::now();
    let variables = Variables::of_this_process();
    let Some(command) = invocation.argv.first() else {
        eprintln!("ice: no command is given");
        return USAGE_STATUS;
    };
    if variables.level() >= 2 * LEVEL_OF_A_COMPILER {
        eprintln!(
            "ice: {command}: ice has called itself; what it takes for the compiler leads back to \
             ice (ICECC_CC, ICECC_CXX and PATH say where it looks)"
        );
        return RECURSION_STATUS;
    }
    match masquerade::language(command) {
        Some(language) => compile(&invocation, language, variables, began),
        None => run_command(&invocation, variables),
    }
}

/// Serves a call of a compiler.
fn compile(
    invocation: &Invocation,
    language: Language,
    variables: Variables,
    began: Instant,
) -> u8 {
    let mut story = Story::asked_for(&variables);
    let command = &invocation.argv[0];
    let cwd = std::env::current_dir();
    let here = cwd.as_deref().unwrap_or(Path::new("/"));
    let Some(program) = lookup::compiler(command, language, &variables, here) else {
        return not_found(command);
    };
    story.tell(|| {
        let over: Vec<String> = program.stepped_over.iter().map(Bytes::to_string).collect();
        let over = match over.is_empty() {
            true => String::new(),
            false => format!(", beyond {}", over.join(", ")),
        };
        format!(
            "{command} means {}{over}, in {}",
            program.path,
            here.display()
        )
    });
    story.tell(|| {
        let words: Vec<String> = invocation.argv.iter().map(Bytes::to_string).collect();
        format!("the command: {}", words.join(" "))
    });
    let mut argv = invocation.argv.clone();
    argv[0].clone_from(&program.name);
    let local = Local {
        program: &program,
        argv: &argv,
        level: variables.level() + LEVEL_OF_A_COMPILER,
    };
    let log_path = variables.os("ICE_JOB_LOG").map(PathBuf::from);
    let log = |report| {
        log_path.as_deref().map(|path| Log {
            path,
            report,
            began,
        })
    };
    let at_once = at_once(&variables, &argv);
    // A directory that is gone: the compiler knows best what to say to that.
    let gone = cwd.is_err().then_some(Reason::AtOnce);
    if let Some(reason) = at_once.or(gone) {
        story.tell(|| {
            let (word, sentence) = reason.text();
            format!("runs here at once: {word}: {sentence}")
        });
        return local.run(None, log(reason.report()));
    }
    let asked = kind(&variables, invocation.kind);
    let felt = (asked == CallKind::Compile).then(felt_here).flatten();
    let kind = match felt {
        Some(_) => CallKind::Local,
        None => asked,
    };
    let places = socket::places(&variables);
    story.tell(|| {
        let places: Vec<String> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        format!("asks the daemon at {}", places.join(" or "))
    });
    let call = call(kind, &program, &argv, local.level, here, variables);
    match ask(&places, &call, began) {
        Ok((
            _,
            Outcome::Exit {
                status,
                report,
                printed,
            },
        )) => {
            if let Err(error) = print(&printed) {
                story.warn(|| format!("runs here: can't print: {error}"));
                return local.run(None, log(Reason::FullStream.report()));
            }
            story.tell(|| story::remote(&report, status));
            story.tell(|| story::times(&report, began.elapsed()));
            if let Some(path) = &log_path {
                let wall = began.elapsed();
                let written = joblog::append(path, Place::Remote, &report, i32::from(status), wall);
                if let Err(error) = written {
                    eprintln!("ice: can't write the job log {}: {error}", path.display());
                }
            }
            status
        }
        Ok((slot, Outcome::Local { mut report })) => {
            if let Some(reason) = felt {
                report.reason = reason.report().reason;
            }
            story.tell(|| story::local(&report));
            story.tell(|| story::times(&report, began.elapsed()));
            local.run(Some(slot), log(report))
        }
        Err(error) => {
            story.warn(|| format!("runs here: {error}"));
            local.run(None, log(reason_of(&error).report()))
        }
    }
}

/// What a client would do with a call.
#[derive(Debug)]
pub enum Preview {
    /// Run the compiler here at once.
    AtOnce(Reason),
    /// Ask the submitter.
    Ask(Box<Call>),
    /// Run it here, under a slot: it is no compiler.
    Command,
    /// Say that there is no such program.
    NotFound,
}

/// What a client would do if it were called with `argv`.
pub fn preview(argv: &[Bytes]) -> Preview {
    let variables = Variables::of_this_process();
    let Some(command) = argv.first() else {
        return Preview::NotFound;
    };
    let Some(language) = masquerade::language(command) else {
        return Preview::Command;
    };
    let Ok(here) = std::env::current_dir() else {
        return Preview::AtOnce(Reason::AtOnce);
    };
    let Some(program) = lookup::compiler(command, language, &variables, &here) else {
        return Preview::NotFound;
    };
    let mut argv = argv.to_vec();
    argv[0].clone_from(&program.name);
    if let Some(reason) = at_once(&variables, &argv) {
        return Preview::AtOnce(reason);
    }
    let kind = kind(&variables, CallKind::Compile);
    let level = variables.level() + LEVEL_OF_A_COMPILER;
    Preview::Ask(Box::new(call(
        kind, &program, &argv, level, &here, variables,
    )))
}

/// Why a compiler's call is none of the submitter's business, if so.
fn at_once(variables: &Variables, argv: &[Bytes]) -> Option<Reason> {
    let mode = variables.value("ICECC");
    if variables.level() >= LEVEL_OF_A_COMPILER {
        Some(Reason::Nested)
    } else if mode.is_some_and(|mode| mode.eq_ignore_ascii_case(b"disable")) {
        Some(Reason::Disabled)
    } else {
        args::runs_at_once(argv).then_some(Reason::AtOnce)
    }
}

/// Where a compiler's call may run.
fn kind(variables: &Variables, asked: CallKind) -> CallKind {
    match variables.value("ICECC") {
        Some(mode) if mode.eq_ignore_ascii_case(b"no") => CallKind::Local,
        _ => asked,
    }
}

/// Runs a command that is no compiler, under a local slot.
fn run_command(invocation: &Invocation, variables: Variables) -> u8 {
    let mut story = Story::asked_for(&variables);
    let command = &invocation.argv[0];
    let cwd = std::env::current_dir();
    let here = cwd.as_deref().unwrap_or(Path::new("/"));
    let Some(program) = lookup::command(command, &variables, here) else {
        return not_found(command);
    };
    let local = Local {
        program: &program,
        argv: &invocation.argv,
        level: variables.level() + LEVEL_OF_A_COMMAND,
    };
    let disabled = variables
        .value("ICECC")
        .is_some_and(|mode| mode.eq_ignore_ascii_case(b"disable"));
    if disabled || cwd.is_err() {
        return local.run(None, None);
    }
    let began = Instant::now();
    let places = socket::places(&variables);
    let argv = &invocation.argv;
    let call = call(
        CallKind::Local,
        &program,
        argv,
        local.level,
        here,
        variables,
    );
    let slot = match ask(&places, &call, began) {
        Ok((slot, Outcome::Local { .. })) => Some(slot),
        // A status of something that was to run here can't be true.
        Ok((_, Outcome::Exit { .. })) => None,
        Err(error) => {
            story.warn(|| format!("runs here without a slot: {error}"));
            None
        }
    };
    local.run(slot, None)
}

/// The submitter's last word.
enum Outcome {
    Exit {
        status: u8,
        report: Report,
        printed: Vec<(u8, Bytes)>,
    },
    Local {
        report: Report,
    },
}

/// Makes the call and waits for its outcome; only the acknowledgement has a deadline.
fn ask(
    places: &[PathBuf],
    call: &Call,
    began: Instant,
) -> Result<(Submitter, Outcome), SubmitterError> {
    let deadline = began + PATIENCE;
    let mut submitter = socket::reach(places, deadline)?;
    submitter.send(call, deadline)?;
    // The submitter counts from when it has read the call, which is later than this, and so no phase seems to end after
    // the call.
    let before = began.elapsed();
    match submitter.answer(Some(deadline))? {
        Answer::Accepted => {}
        _ => {
            return Err(SubmitterError::Garbage(
                "an outcome before the acknowledgement".to_owned(),
            ));
        }
    }
    // What was printed waits for the last word: should that never come, the compiler runs here and
    // prints it itself.
    let mut printed = Vec::new();
    loop {
        match submitter.answer(None)? {
            Answer::Output { stream, data } => printed.push((stream, data)),
            Answer::Exit { status, report } => {
                let report = joblog::since_the_call(report, before);
                let outcome = Outcome::Exit {
                    status,
                    report,
                    printed,
                };
                return Ok((submitter, outcome));
            }
            Answer::Local { report } => {
                let report = joblog::since_the_call(report, before);
                return Ok((submitter, Outcome::Local { report }));
            }
            Answer::Accepted => {
                return Err(SubmitterError::Garbage(
                    "a second acknowledgement".to_owned(),
                ));
            }
        }
    }
}

/// Prints what the compiler printed elsewhere. What a compiler does when it can't print, gcc and
/// clang see differently, so after an error it has to run here.
fn print(printed: &[(u8, Bytes)]) -> io::Result<()> {
    for (stream, data) in printed {
        match stream {
            1 => {
                io::stdout().write_all(data)?;
                // In its turn, should both streams lead to the same place.
                io::stdout().flush()?;
            }
            _ => io::stderr().write_all(data)?,
        }
    }
    Ok(())
}

/// What of this process a compiler on another machine would not feel, and nobody has unless he asked
/// for it.
fn felt_here() -> Option<Reason> {
    if sys::has_closed_output() {
        return Some(Reason::ClosedStream);
    }
    let asked_for = [
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_AS,
        Resource::RLIMIT_DATA,
        Resource::RLIMIT_CPU,
    ];
    let is_limited = |resource| getrlimit(resource).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    (asked_for.into_iter().any(is_limited)).then_some(Reason::Limited)
}

fn call(
    kind: CallKind,
    program: &Program,
    argv: &[Bytes],
    level: u32,
    cwd: &Path,
    mut variables: Variables,
) -> Call {
    // The environment is the one that the compiler would get here.
    variables.set(SAFEGUARD, Bytes(level.to_string().into_bytes()));
    if let Some(path) = &program.search_path {
        variables.set("PATH", path.clone());
    }
    Call {
        protocol: PROTOCOL,
        kind,
        compiler: program.path.clone(),
        argv: argv.to_vec(),
        cwd: cwd.into(),
        env: variables.0,
        umask: current_umask(),
        terminal: terminal(),
        niceness: sys::niceness(),
        sight: sight::look(cwd, program.path.as_path()),
    }
}

/// What the compiler would find out about the user's terminal.
fn terminal() -> Option<Terminal> {
    sys::terminal(io::stderr().as_fd())?;
    Some(sys::terminal(io::stdin().as_fd()).unwrap_or(Terminal {
        rows: 0,
        columns: 0,
    }))
}

/// The umask can only be read by setting it; there is no other thread that could notice.
fn current_umask() -> u32 {
    let mask = umask(FileMode::from_bits_truncate(0o077));
    umask(mask);
    mask.bits()
}

fn reason_of(error: &SubmitterError) -> Reason {
    match error {
        SubmitterError::Nobody(_) => Reason::NoDaemon,
        SubmitterError::Silent => Reason::SilentDaemon,
        SubmitterError::Lost | SubmitterError::Io(_) => Reason::LostDaemon,
        SubmitterError::Garbage(_) => Reason::GarbledDaemon,
    }
}

fn not_found(command: &Bytes) -> u8 {
    eprintln!("ice: {command}: command not found");
    127
}
