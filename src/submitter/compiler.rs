//! Which compiler a call means, what it says of the command line, and how it is run or asked here.
//!
//! These are the steps that need no node; `ice explain` takes them too.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::environment;
use super::extra;
use super::inputs::{self, Inputs, Reason, because};
use super::output;
use crate::args::{self, Invocation, Plan, Verdict};
use crate::child::{self, Printed};
use crate::id::{AbsPath, Bytes};
use crate::masquerade::file_name;
use crate::message::Call;
use crate::toolchain::Toolchain;

/// The compiler of a call, told that it is called `name`, in the client's directory and environment.
pub fn command(call: &Call, name: &Bytes) -> Command {
    let mut command = Command::new(call.compiler.as_os_str());
    command.arg0(name.as_os_str());
    let variables = call.env.iter();
    command
        .env_clear()
        .envs(variables.map(|(name, value)| (name.as_os_str(), value.as_os_str())));
    command.current_dir(call.cwd.as_path());
    command
}

/// What the compiler of a call says, in English, when it is given these words: `most` bytes of each stream.
///
/// # Errors
/// When it can't be run, fails, or prints more.
pub async fn ask(
    call: &Call,
    words: impl IntoIterator<Item: AsRef<OsStr>>,
    most: u64,
) -> io::Result<Printed> {
    let mut command = command(call, &call.argv[0]);
    command.args(words);
    command.env("LC_ALL", "C").env_remove("LANGUAGE");
    let printed = child::run(command, most).await?;
    if !printed.status.success() {
        let status = printed.status;
        return Err(io::Error::other(format!("it fails with {status}")));
    }
    Ok(printed)
}

/// The verdict on a call in the directory `cwd`.
pub fn classify(call: &Call, cwd: &AbsPath) -> Verdict {
    // What `cc` is, is told by where it leads.
    let mut program = Bytes::from(file_name(&call.compiler));
    if matches!(&program[..], b"cc" | b"c++") {
        let real = std::fs::canonicalize(call.compiler.as_path()).ok();
        program = real
            .and_then(|path| path.file_name().map(|name| Bytes::from(name.to_owned())))
            .unwrap_or(program);
    }
    let invocation = Invocation {
        program: &program,
        argv: &call.argv,
        cwd,
        env: &call.env,
    };
    let mut verdict = args::classify(&invocation, &mut |path| {
        let path = Path::new(call.cwd.as_os_str()).join(Bytes::from(path).as_path());
        inputs::read_bounded(&path).ok()
    });
    if let Verdict::Distribute(plan) = &mut verdict {
        plan.extra_inputs.extend(extra::named(call));
    }
    verdict
}

/// What the user's variables would load into the compiler instead of its own libraries, or fail to.
pub fn other_library(call: &Call, cwd: &AbsPath, toolchain: &Toolchain) -> Option<Reason> {
    let is_library = |name: &&[u8]| memchr::memmem::find(name, b".so").is_some();
    let names = toolchain.manifest.entries.iter();
    let names = names.map(|entry| entry.path.file_name()).filter(is_library);
    let here = |path: &[u8]| cwd.as_path().join(Bytes::from(path).as_path());
    let exists = |path: &[u8]| here(path).exists();
    let is_own = |path: &Path| {
        let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
        let place = directory.zip(path.file_name());
        let place = place.map(|(directory, name)| directory.join(name));
        let mut entries = toolchain.manifest.entries.iter();
        place.is_some_and(|place| entries.any(|entry| entry.path.as_path() == place))
    };
    let is_other = |path: &[u8]| exists(path) && !is_own(&here(path));
    let word = args::Cause::Environment.word();
    if let Some(library) = environment::overridden(&call.env, names, &is_other) {
        let sentence = format!("LD_LIBRARY_PATH: the compiler would load {library}");
        return Some(because(word, sentence));
    }
    // The dynamic linker says of every process that it can't be loaded.
    let library = environment::not_loaded(&call.env, &exists)?;
    let sentence = format!("LD_PRELOAD: {library} may not be there");
    Some(because(word, sentence))
}

/// Why a result of the command can't be put where it belongs as the compiler would do it.
pub fn place_obstacle(cwd: &AbsPath, plan: &Plan) -> Option<Reason> {
    plan.places().find_map(|place| {
        let obstacle = output::obstacle(&cwd.as_path().join(place.as_path()))?;
        Some(because("output-place", format!("{place}: {obstacle}")))
    })
}

/// Why no worker could run a job of these inputs as the compiler here would run.
pub fn input_obstacle(inputs: &Inputs, toolchain: &Toolchain) -> Option<Reason> {
    if let Some(place) = inputs.overwritten() {
        let sentence = format!("{place}: the compile reads what it writes");
        return Some(because("output-place", sentence));
    }
    let place = shared_place(inputs, toolchain)?;
    let sentence = format!("{place}: the compiler itself is below it");
    Some(because("toolchain-place", sentence))
}

/// A directory that the command may write to and that holds a part of the toolchain: no worker lets
/// a job write where its compiler is.
fn shared_place<'a>(inputs: &'a Inputs, toolchain: &Toolchain) -> Option<&'a AbsPath> {
    let entries = &toolchain.manifest.entries;
    inputs
        .writable
        .iter()
        .find(|place| entries.iter().any(|entry| entry.path.is_within(place)))
}
