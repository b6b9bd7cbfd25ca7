//! What would become of a call, found out by the same steps as for a job, without a node and without
//! compiling anything.

use std::io;
use std::path::PathBuf;

use smol::lock::Semaphore;

use super::choice;
use super::compiler::{classify, input_obstacle, other_library, place_obstacle};
use super::inputs::{self, Means, Reason, because};
use super::locale::{Locale, Locales};
use super::native::Processors;
use super::sources::Sources;
use crate::args::{Family, Verdict};
use crate::config::Declined;
use crate::id::{AbsPath, Bytes, Digest};
use crate::message::{Call, Mode};
use crate::toolchain::Toolchains;

/// A job as it would be sent.
#[derive(Clone, Debug)]
pub struct Job {
    /// How it would travel.
    pub mode: Mode,
    /// Why not as a source job, when it does not.
    pub declined: Option<Reason>,
    /// The program within the toolchain.
    pub program: AbsPath,
    /// The toolchain.
    pub toolchain: Digest,
    /// For which kind of machine that is.
    pub platform: String,
    /// The toolchain's files.
    pub toolchain_size: Size,
    /// The command line.
    pub argv: Vec<Bytes>,
    /// Its working directory.
    pub cwd: AbsPath,
    /// The files that would travel, with their sizes in bytes.
    pub files: Vec<(AbsPath, u64)>,
    /// Where it may write.
    pub writable: Vec<AbsPath>,
    /// When its result would be thrown away and the call be compiled here nevertheless.
    pub unless: Vec<&'static str>,
}

/// How much some files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub files: usize,
    /// How many bytes.
    pub bytes: u64,
}

impl Size {
    /// Of files with these sizes.
    pub fn of(sizes: impl Iterator<Item = u64>) -> Self {
        sizes.fold(Self::default(), |sum, bytes| Self {
            files: sum.files + 1,
            bytes: sum.bytes.saturating_add(bytes),
        })
    }
}

/// The job that `call` would be. Archives are unpacked below `spool`.
///
/// # Errors
/// The reason why it would be compiled here.
pub async fn explain(
    call: &Call,
    platform: &str,
    declined: Declined,
    spool: PathBuf,
) -> Result<Job, Reason> {
    let Ok(cwd) = AbsPath::parse(call.cwd.0.clone()) else {
        let sentence = "the working directory has no plain name";
        return Err(because("no-directory", sentence));
    };
    let plan = match classify(call, &cwd) {
        Verdict::Distribute(plan) => plan,
        Verdict::Local(reason) => return Err(because(reason.word(), reason.sentence())),
    };
    if let Some(reason) = place_obstacle(&cwd, &plan) {
        return Err(reason);
    }
    let no_spool = |error: io::Error| because("toolchain", error.to_string());
    let toolchains = Toolchains::new(spool).map_err(no_spool)?;
    let mut choices = choice::choices(call, platform)?;
    let (chosen, located) = choice::locate(&toolchains, call, &mut choices).await?;
    let toolchain = &located.toolchain;
    if let Some(reason) = other_library(call, &cwd, toolchain) {
        return Err(reason);
    }
    let compiler = chosen.compiler(&located);
    let means = Means {
        sources: &Sources::default(),
        processors: &Processors::default(),
        preprocessing: &Semaphore::new(1),
        declined,
        given_up: None,
    };
    let inputs = inputs::prepare(call, &cwd, &plan, compiler, means).await?;
    if let Some(reason) = input_obstacle(&inputs, toolchain) {
        return Err(reason);
    }
    let mut unless = Vec::new();
    if Locales::default().of(call, plan.family).await == Locale::Foreign {
        unless.push("the compiler prints something: its language is spoken only here");
    }
    if call.terminal.is_some() && plan.family == Family::Clang {
        unless.push("the compiler prints something: a terminal is described only here");
    }
    let files = inputs.entries.iter().filter_map(|named| {
        let size = named.entry.kind.size()?;
        Some((named.entry.path.clone(), size))
    });
    Ok(Job {
        mode: inputs.mode,
        declined: inputs.declined.clone(),
        program: located.program.clone(),
        toolchain: toolchain.digest,
        platform: toolchain.manifest.platform.clone(),
        toolchain_size: Size::of(
            (toolchain.manifest.entries.iter()).filter_map(|entry| entry.kind.size()),
        ),
        files: files.collect(),
        argv: inputs.argv,
        cwd: inputs.cwd,
        writable: inputs.writable,
        unless,
    })
}
