//! What a job consists of: its files, its command, the directories it may write.
//!
//! A source job is its main file, every file the scanner says it could open, and the unchanged
//! command. A preprocessed job is one file of text and a command without the preprocessor's
//! options. From here on both are the same thing.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smol::lock::Semaphore;

use super::attempt::Delivered;
use super::extra;
use super::locale::{Locale, has_errors};
use super::missing;
use super::native::{self, Adapted, Processors};
use super::parcels::Content;
use super::prefixes;
use super::preprocess::{self, Preprocessed};
use super::sources::{Account, Sources};
use super::spelling;
use crate::args::{self, Family, Native, Plan, RESPONSE_BYTES_MAX};
use crate::config::Declined;
use crate::dictionary::Named;
use crate::id::{AbsPath, Bytes, Digest};
use crate::include::Scan;
use crate::masquerade::file_name;
use crate::message::{Call, Entry, EntryKind, Mode, Mtime, Standing};
use crate::threads;

/// Where the text of a preprocessed job lies on the worker. Its own name is in its line markers.
const TEXT_PLACE: &str = "/ice-preprocessed/text";

/// Overlooked files after which a job is not sent as a source job any more.
const MISSES_MAX: u32 = 2;

/// Why a job has to be compiled locally: a stable word and a sentence.
pub type Reason = (String, String);

/// A reason.
pub fn because(word: &str, sentence: impl Into<String>) -> Reason {
    (word.to_owned(), sentence.into())
}

/// Which compiler a job will meet on its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// This machine's own, with this digest.
    Installed(Digest),
    /// One from an archive. What this machine's compiler says of headers is not true for it, so
    /// its jobs travel as text.
    Archived,
}

/// A job, ready to be sent to any worker.
pub struct Inputs {
    /// How it travels.
    pub mode: Mode,
    /// Its command line.
    pub argv: Vec<Bytes>,
    /// Its working directory.
    pub cwd: AbsPath,
    /// Its files.
    pub entries: Vec<Named>,
    /// Where it may write.
    pub writable: Vec<AbsPath>,
    /// What it finds where it writes.
    pub standing: Vec<Standing>,
    /// A file that lies nowhere on this machine: the text of a preprocessed job, or what tells a
    /// compiler about this machine's processor.
    made: Option<(Digest, Arc<Vec<u8>>)>,
    /// Whether the user asked for preprocessed jobs, with what is lost by them.
    asked: bool,
    /// Why it does not travel as a source job.
    pub declined: Option<Reason>,
}

/// What it takes to prepare a job.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The scanner.
    pub sources: &'a Sources,
    /// This machine's processor.
    pub processors: &'a Processors,
    /// Preprocessors that may run at a time.
    pub preprocessing: &'a Semaphore,
    /// What becomes of jobs that the scanner declines.
    pub declined: Declined,
    /// Why this job must not travel as a source job again.
    pub given_up: Option<&'a Reason>,
}

/// Files that the scanner overlooked in one job. What it learns from the first is tried; after the
/// second the job goes another way.
#[derive(Debug, Default)]
pub struct Misses {
    count: u32,
    last: Option<Reason>,
}

impl Misses {
    /// Another one.
    pub fn add(&mut self, sentence: String) {
        self.count += 1;
        self.last = Some(because("missing-file", sentence));
    }

    /// Why the job must not travel as a source job again, if it must not.
    pub fn given_up(&self) -> Option<&Reason> {
        self.last.as_ref().filter(|_| self.count >= MISSES_MAX)
    }
}

impl Inputs {
    /// Where the bytes with this digest are.
    pub fn content(&self, digest: &Digest) -> Option<Content> {
        if let Some((_, text)) = self.made.as_ref().filter(|(name, _)| name == digest) {
            return Some(Content::Memory(text.clone()));
        }
        let is_it = |named: &&Named| match &named.entry.kind {
            EntryKind::File { digest: other, .. } => other == digest,
            _ => false,
        };
        let found = self.entries.iter().find(is_it);
        found.map(|named| Content::File(named.entry.path.as_path().to_owned()))
    }

    /// Tells the compiler elsewhere what this machine's processor is.
    fn adapt(&mut self, plan: &Plan, native: &Native, adapted: Adapted) -> io::Result<()> {
        self.argv = adapted.argv(plan, native);
        if let Adapted::Specs(specs) = adapted {
            let (digest, entry) = made_entry(native::SPECS_PLACE, &specs)?;
            let place = self
                .entries
                .partition_point(|named| named.entry.path < entry.path);
            let named = Named {
                number: made_number(&digest),
                entry: Arc::new(entry),
            };
            self.entries.insert(place, named);
            self.made = Some((digest, specs));
        }
        Ok(())
    }

    /// A file of the job that the command writes to: what it does then depends on the very file.
    pub fn overwritten(&self) -> Option<&AbsPath> {
        let mut written = self.standing.iter().map(|standing| &standing.path);
        written.find(|path| self.entries.iter().any(|named| named.entry.path == **path))
    }

    /// Why this result can't be the compiler's own, if so.
    pub fn distrusts(
        &self,
        call: &Call,
        plan: &Plan,
        locale: Locale,
        delivered: &Delivered,
    ) -> Option<Reason> {
        let printed = !delivered.printed.is_empty();
        // Preprocessed text has lost its columns and macros, so what a compiler says of it is not
        // what it says of the source.
        if self.mode == Mode::Preprocessed && !self.asked && (printed || delivered.status != 0) {
            let sentence =
                "the compiler has something to say, and says it exactly only of the source";
            return Some(because("diagnostics", sentence));
        }
        if call.terminal.is_some() && plan.family == Family::Clang && printed {
            return Some(because(
                "terminal",
                "the compiler has something to say to a terminal",
            ));
        }
        let errors = |(_, text): &(u8, Vec<u8>)| has_errors(text);
        let foreign = match locale {
            Locale::AsItIs | Locale::Like(_) => false,
            Locale::ButForErrors(_) => delivered.printed.iter().any(errors),
            Locale::Foreign => printed,
        };
        if foreign {
            let sentence =
                "the compiler has something to say, in a language that is spoken only here";
            return Some(because("language", sentence));
        }
        if delivered
            .printed
            .iter()
            .any(|(_, text)| tells_of_a_crash(text))
        {
            let sentence = "the compiler failed of itself, and shows where only on this machine";
            return Some(because("crash", sentence));
        }
        // One that does not fit is an error or nothing, and what it was made from may lie anywhere.
        let precompiled = |named: &Named| is_precompiled(&named.entry.path);
        if delivered.status != 0 && self.entries.iter().any(precompiled) {
            let sentence = "the compile failed, perhaps because of a precompiled header";
            return Some(because("precompiled-header", sentence));
        }
        None
    }

    /// Asks whether the compiler missed a file that is here. The sentence says so, and the job is to
    /// be sent again with what the scanner has learned.
    ///
    /// # Errors
    /// The reason why the job has to be compiled locally instead.
    pub async fn account(
        &self,
        call: &Call,
        plan: &Plan,
        toolchain: Digest,
        sources: &Sources,
        delivered: &Delivered,
    ) -> Result<Option<String>, Reason> {
        let printed = delivered.printed.iter().map(|(_, text)| &text[..]);
        let printed: Vec<u8> = printed.collect::<Vec<_>>().concat();
        if delivered.status == 0 && !missing::says_so(&printed) {
            return Ok(None);
        }
        let files = self.entries.iter().filter_map(|named| {
            let is_file = matches!(named.entry.kind, EntryKind::File { .. });
            is_file.then(|| named.entry.path.clone())
        });
        let sent = files.collect();
        let account = sources
            .account(call, &self.cwd, plan, toolchain, &printed, sent)
            .await?;
        match account {
            Account::True => Ok(None),
            Account::Missed(sentence) if self.mode == Mode::Source => Ok(Some(sentence)),
            // Text says all of headers; what an assembler reads besides was not sent with it.
            Account::Missed(sentence) | Account::Untrue(sentence) => {
                Err(because("missing-file", sentence))
            }
        }
    }
}

/// Whether a compiler prints where it failed: it reads that in `/proc`, which no sandbox has, and
/// clang leaves what led to it in this machine's directory of temporary files.
fn tells_of_a_crash(text: &[u8]) -> bool {
    // The first in gcc's English, the second in whatever language; the last is clang's.
    const SIGNS: [&[u8]; 3] = [
        b"internal compiler error",
        b"libbacktrace could not find",
        b"PLEASE submit a bug report",
    ];
    SIGNS
        .iter()
        .any(|sign| memchr::memmem::find(text, sign).is_some())
}

/// Reads a small file whole.
///
/// # Errors
/// When it is not a regular file, or larger than a response file may be.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(RESPONSE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > RESPONSE_BYTES_MAX {
        return Err(io::Error::other("too large"));
    }
    Ok(bytes)
}

/// Finds out what the job consists of.
///
/// # Errors
/// The reason why it has to be compiled locally.
pub async fn prepare(
    call: &Call,
    cwd: &AbsPath,
    plan: &Plan,
    compiler: Compiler,
    means: Means<'_>,
) -> Result<Inputs, Reason> {
    let no_place = |error: io::Error| because("output-place", error.to_string());
    if !plan.prefixes.is_empty() {
        let (base, prefixes) = (cwd.clone(), plan.prefixes.clone());
        let found = threads::unblock(move || prefixes::program_of_its_own(&base, &prefixes)).await;
        if let Some(program) = found {
            let reason = args::Reason::about(
                args::Cause::CompilerLookup,
                program.as_os_str().as_encoded_bytes(),
            );
            return Err(because(reason.word(), reason.sentence()));
        }
    }
    let asked = wants_text(call, plan.family) || compiler == Compiler::Archived;
    let mut declined = means.given_up.cloned();
    if let (Compiler::Installed(toolchain), false, None) = (compiler, asked, &declined) {
        match means.sources.scan(call, cwd, plan, toolchain).await {
            // A clock and a time zone are not part of a job.
            Ok(scan) if scan.uses_time && call.variable("SOURCE_DATE_EPOCH").is_none() => {
                let sentence = "__DATE__, __TIME__ or __TIMESTAMP__ may be used, and this machine's clock counts";
                let reason = because("time-of-day", sentence);
                if means.declined == Declined::Local {
                    return Err(reason);
                }
                declined = Some(reason);
            }
            Ok(scan) => {
                let mut inputs = source(cwd, plan, &scan).map_err(no_place)?;
                if let Some(native) = &plan.native {
                    let adapted = means.processors.adapt(call, plan, toolchain).await;
                    let adapted = adapted.map_err(|why| native_cpu(native, &why))?;
                    inputs.adapt(plan, native, adapted).map_err(no_place)?;
                }
                return Ok(inputs);
            }
            Err(reason) => declined = Some(reason),
        }
    }
    // Text knows nothing of precompiled headers, nor of the warnings about them.
    let precompiled = args::Cause::PrecompiledHeader.word();
    if let Some(reason) = declined.take_if(|(word, _)| word == precompiled) {
        return Err(reason);
    }
    if let Some(native) = &plan.native {
        return Err(native_cpu(native, "only source jobs say what it is"));
    }
    // Preprocessed text is for those who asked for it, and for what the scanner declines where
    // nothing is lost by it.
    let steps = plan.preprocessed.as_ref();
    let accepted = asked || means.declined == Declined::Preprocessed;
    let Some(steps) = steps.filter(|steps| steps.exact || accepted) else {
        let sentence = "source and preprocessed text would give different objects";
        return Err(declined.unwrap_or_else(|| because("inexact", sentence)));
    };
    let _turn = means.preprocessing.acquire().await;
    let text = match preprocess::run(call, &steps.preprocess).await {
        Ok(Preprocessed::Text(text)) => text,
        Ok(Preprocessed::Spoke) => {
            let sentence = "the preprocessor has something to say, and the compiler says it best";
            return Err(declined.unwrap_or_else(|| because("diagnostics", sentence)));
        }
        Err(error) => {
            return Err(because(
                "preprocess",
                format!("run the preprocessor: {error}"),
            ));
        }
    };
    let files = extra::named(call);
    let base = cwd.clone();
    let extra = threads::unblock(move || extra::entries(&base, &files)).await;
    let extra = extra.map_err(|error| because("extra-files", error.to_string()))?;
    preprocessed(cwd, plan, steps, text, extra, asked, declined).map_err(no_place)
}

/// Whether the user wants his sources preprocessed here.
fn wants_text(call: &Call, family: Family) -> bool {
    let older = (family == Family::Clang).then_some("ICECC_CLANG_REMOTE_CPP");
    let mut names = [Some("ICECC_REMOTE_CPP"), older].into_iter().flatten();
    names
        .find_map(|name| call.variable(name))
        .is_some_and(|value| value.is_empty() || value[0] == b'0')
}

fn source(cwd: &AbsPath, plan: &Plan, scan: &Scan) -> io::Result<Inputs> {
    let entries = scan.entries.iter().map(|listed| Named {
        number: listed.number.0,
        entry: listed.entry.clone(),
    });
    Ok(Inputs {
        mode: Mode::Source,
        argv: plan.argv.clone(),
        cwd: cwd.clone(),
        entries: entries.collect(),
        // The scanner was told of these directories and has listed the symlinks on the way.
        writable: canonical(cwd, plan, &mut Vec::new())?,
        standing: standing(cwd, plan)?,
        made: None,
        asked: false,
        declined: None,
    })
}

fn preprocessed(
    cwd: &AbsPath,
    plan: &Plan,
    steps: &args::Preprocessed,
    text: Arc<Vec<u8>>,
    extra: Vec<Entry>,
    asked: bool,
    declined: Option<Reason>,
) -> io::Result<Inputs> {
    let mut argv = steps.compile.clone();
    argv[steps.compile_input] = Bytes::from(TEXT_PLACE);
    let (digest, entry) = made_entry(TEXT_PLACE, &text)?;
    let mut entries = extra;
    entries.push(entry);
    let writable = canonical(cwd, plan, &mut entries)?;
    // Directories come into being with what is in them; the symlinks have to be told.
    entries.retain(|entry| entry.kind != EntryKind::Directory);
    entries.sort();
    entries.dedup();
    let named = |entry| Named {
        number: fresh_number(),
        entry: Arc::new(entry),
    };
    Ok(Inputs {
        mode: Mode::Preprocessed,
        argv,
        cwd: cwd.clone(),
        entries: entries.into_iter().map(named).collect(),
        writable,
        standing: standing(cwd, plan)?,
        made: Some((digest, text)),
        asked,
        declined,
    })
}

/// Whether a file is, or stands among, precompiled headers.
fn is_precompiled(path: &AbsPath) -> bool {
    let is = |name: &[u8]| name.ends_with(b".gch") || name.ends_with(b".pch");
    is(path.file_name()) || path.parent().is_some_and(|parent| is(parent.file_name()))
}

/// The reason for a processor that can't be told elsewhere.
fn native_cpu(native: &Native, why: &str) -> Reason {
    let option = native.options.first().map(|&at| &native.words[at]);
    let option = option.map(ToString::to_string).unwrap_or_default();
    because(
        args::Cause::NativeCpu.word(),
        format!("{option} means the processor of this machine: {why}"),
    )
}

/// The entry of a file that lies nowhere on this machine.
fn made_entry(place: &str, content: &[u8]) -> io::Result<(Digest, Entry)> {
    let digest = Digest(*blake3::hash(content).as_bytes());
    let kind = EntryKind::File {
        digest,
        size: content.len() as u64,
        executable: false,
        mtime: Mtime::default(),
    };
    let path = AbsPath::parse(place).map_err(io::Error::other)?;
    Ok((digest, Entry { path, kind }))
}

/// The canonical places of the directories that the command may write.
fn canonical(cwd: &AbsPath, plan: &Plan, on_the_way: &mut Vec<Entry>) -> io::Result<Vec<AbsPath>> {
    let resolve = |place: &Bytes| spelling::resolve(cwd, place, on_the_way);
    let mut writable = plan
        .writable
        .iter()
        .map(resolve)
        .collect::<io::Result<Vec<_>>>()?;
    writable.sort();
    writable.dedup();
    Ok(writable)
}

/// The files that are where the command writes its output and its dependency file.
fn standing(cwd: &AbsPath, plan: &Plan) -> io::Result<Vec<Standing>> {
    let mut standing: Vec<Standing> = Vec::new();
    let places = plan.units.iter().flat_map(|unit| {
        let dependencies = unit.dependencies.as_ref().map(|file| &file.path);
        dependencies.into_iter().chain([&unit.output])
    });
    for place in places {
        let name = file_name(place);
        let directory = &place[..place.len() - name.len()];
        let directory = spelling::resolve(cwd, directory, &mut Vec::new())?;
        let path = directory.join(name).map_err(io::Error::other)?;
        match std::fs::symlink_metadata(path.as_path()) {
            Ok(found) if standing.iter().all(|other| other.path != path) => {
                standing.push(Standing {
                    path,
                    mode: found.mode() & 0o777,
                    is_empty: found.len() == 0,
                });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(standing)
}

/// A number for specs that is the same as long as they are: a project has one or two of them, and
/// names them in every job. Those of the scanner count from 0, those of texts from the middle.
fn made_number(digest: &Digest) -> u64 {
    let mut start = [0; 8];
    start.copy_from_slice(&digest.0[..8]);
    u64::from_le_bytes(start) | (3 << 62)
}

/// A number that no entry of the scanner has: those count from 0.
fn fresh_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
