//! The files of a source job: asks the compiler where it looks, and the scanner what it could open.
//!
//! The compiler is asked once for each distinct set of flags, directory and environment; its
//! answer is kept as long as the compiler is the same and the scanner does not find it stale. When
//! a compiler elsewhere misses a file that is here, the scanner is told, so that it happens once.
//!
//! Scans are done by another thread, since one that reads a library's headers takes a while; but not those that
//! were quick the last time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::compiler;
use super::look::Look;
use super::missing::{self, Finding};
use crate::account::{self, Phase};
use crate::args::{self, ForcedKind, Plan, Profiles, Unit};
use crate::dictionary::JOB_ENTRIES_MAX;
use crate::id::{AbsPath, Bytes, Digest};
use crate::include::{
    Decline, Family, Forced, Language, Limits, Listed, Scan, ScanRequest, Scanner, SearchList,
};
use crate::message::Call;
use crate::threads;

/// Search lists that are kept. A project has a handful; beyond it, all are asked for anew.
const LISTS_MAX: usize = 1024;

/// What a compiler that is asked may print: a search list of ten thousand directories fits.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A scan of headers that are all known takes less; then handing it to another thread, which may have to be made
/// first, costs more than the scan.
const QUICK: Duration = Duration::from_millis(1);
/// Units of which is known that their scan is quick.
const QUICK_MAX: usize = 32 << 10;

/// Why a lock is never found poisoned.
const UNPOISONED: &str = "no holder of this lock panics";

/// Variables that change where a compiler looks, or what it is.
const VARIABLES: [&str; 8] = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "OBJCPLUS_INCLUDE_PATH",
    "SDKROOT",
    "PWD",
    "PATH",
];

/// What a search list depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    toolchain: Digest,
    compiler: Bytes,
    language: &'static str,
    flags: Vec<Bytes>,
    cwd: AbsPath,
    variables: Vec<Option<Bytes>>,
}

impl Question {
    fn new(
        call: &Call,
        cwd: &AbsPath,
        plan: &Plan,
        language: args::Language,
        toolchain: Digest,
    ) -> Self {
        Self {
            toolchain,
            compiler: call.compiler.clone(),
            language: language.name(),
            flags: plan.search.clone(),
            cwd: cwd.clone(),
            variables: VARIABLES
                .iter()
                .map(|name| call.variable(name).cloned())
                .collect(),
        }
    }

    /// Everything in it that could be part of a directory's name.
    fn words(&self) -> impl Iterator<Item = &[u8]> {
        let flags = self.flags.iter().map(|flag| &flag[..]);
        let variables = self.variables.iter().flatten();
        let directories = variables.flat_map(|value| value.split(|&byte| byte == b':'));
        flags.chain(directories).chain([self.cwd.as_bytes()])
    }
}

/// What a compiler told of itself.
struct Told {
    /// Where it looks for headers.
    list: Arc<SearchList>,
    /// Files that it has read, or would look for, because of these flags.
    files: Vec<Bytes>,
}

/// What is behind a compiler's word that a file is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// It is true here as well.
    True,
    /// It can't be true: the sentence says why.
    Untrue(String),
    /// The file is here and was not sent. The scanner knows now; the sentence is for the log.
    Missed(String),
}

/// The scanner and the search lists of a submitter.
pub struct Sources {
    scanner: Arc<Mutex<Scanner>>,
    /// Whose turn it is to have a thread scan.
    turn: smol::lock::Mutex<()>,
    /// The units whose last scan was [`QUICK`], by [`mark`]. Bounded by [`QUICK_MAX`], then forgotten.
    quick: Mutex<BTreeSet<u64>>,
    lists: Mutex<BTreeMap<Question, Arc<Told>>>,
}

/// Why there is no list of files: a stable word and a sentence.
pub type Declined = (String, String);

impl Default for Sources {
    fn default() -> Self {
        Self {
            scanner: Arc::new(Mutex::new(Scanner::new(Limits::default()))),
            turn: smol::lock::Mutex::new(()),
            quick: Mutex::default(),
            lists: Mutex::default(),
        }
    }
}

impl Sources {
    /// Every file that the compile of `plan` could open.
    pub async fn scan(
        &self,
        call: &Call,
        cwd: &AbsPath,
        plan: &Plan,
        toolchain: Digest,
    ) -> Result<Scan, Declined> {
        let (first, others) = plan.units.split_first().expect("a plan has an input");
        let mut scan = self.scan_unit(call, cwd, plan, first, toolchain).await?;
        for unit in others {
            let another = self.scan_unit(call, cwd, plan, unit, toolchain).await?;
            scan = united(&scan, &another);
        }
        bounded(scan)
    }

    /// Every file that the compile could open for one of its inputs.
    async fn scan_unit(
        &self,
        call: &Call,
        cwd: &AbsPath,
        plan: &Plan,
        unit: &Unit,
        toolchain: Digest,
    ) -> Result<Scan, Declined> {
        let question = Question::new(call, cwd, plan, unit.language, toolchain);
        for retry in [true, false] {
            let told = self.told(call, &question).await?;
            match self.scan_with(call, cwd, plan, unit, told).await {
                Err(Decline::Stale(_)) if retry => {
                    self.lists().remove(&question);
                }
                other => {
                    return other
                        .map_err(|decline| (decline.word().to_owned(), decline.to_string()));
                }
            }
        }
        unreachable!("the second round returns")
    }

    /// Finds out why a compiler elsewhere said that a file is missing, and tells the scanner when it
    /// was its fault. `printed` is what the compiler said; `sent` tells what was part of the job, whose
    /// main file is `main`.
    ///
    /// # Errors
    /// When the compiler here does not say where it looks.
    pub async fn account(
        &self,
        call: &Call,
        cwd: &AbsPath,
        plan: &Plan,
        toolchain: Digest,
        printed: &[u8],
        sent: BTreeSet<AbsPath>,
    ) -> Result<Account, Declined> {
        let complaints = missing::complaints(printed);
        if complaints.is_empty() {
            return Ok(Account::True);
        }
        let language = plan.units[0].language;
        let question = Question::new(call, cwd, plan, language, toolchain);
        let told = self.told(call, &question).await?;
        let look = Look::new(cwd.clone(), plan.name().clone(), told.list.clone(), &sent);
        let (look, sent, finding) = threads::unblock(move || {
            let finding = look.judge(&complaints, &sent);
            (look, sent, finding)
        })
        .await;
        let missed = match finding {
            Finding::Nothing => return Ok(Account::True),
            Finding::Contradiction(file) => {
                return Ok(Account::Untrue(format!(
                    "the compiler misses {file}, which it had"
                )));
            }
            Finding::Missed(missed) => missed,
        };
        let place = match &missed.place {
            Some((file, line)) => format!("{file}:{line}"),
            None => plan.name().to_string(),
        };
        // What a rule of the build has made since the scan is no miss.
        let lists = |scan: Result<Scan, Declined>| {
            scan.is_ok_and(|scan| {
                scan.entries
                    .iter()
                    .any(|one| one.entry.path == missed.there.file)
            })
        };
        if lists(self.scan(call, cwd, plan, toolchain).await) {
            let sentence = format!("{} has appeared since the job was sent", missed.there.file);
            log::info!("{place}: {sentence}");
            return Ok(Account::Missed(sentence));
        }
        let includer = look.includer(missed.place.as_ref(), &sent);
        let directive = (missed.place.as_ref())
            .and_then(|(file, line)| look.line(file, *line))
            .map_or_else(|| "the command line".to_owned(), |text| text.to_string());
        let sentence = format!(
            "{place}: the scanner overlooked {} ({directive}); it will not do so again",
            missed.there.file
        );
        log::warn!("{sentence}");
        if let Some(includer) = includer {
            let mut scanner = self.scanner.lock().expect(UNPOISONED);
            scanner.learn(&includer, &missed.name);
            scanner.learn(&includer, &missed.there.spelled);
        }
        Ok(Account::Missed(sentence))
    }

    async fn scan_with(
        &self,
        call: &Call,
        cwd: &AbsPath,
        plan: &Plan,
        unit: &Unit,
        told: Arc<Told>,
    ) -> Result<Scan, Decline> {
        let (cwd, main) = (cwd.clone(), unit.input.clone());
        let list = with_assembler_search(&told.list, &cwd, &plan.assembler_search);
        let forced: Vec<(Forced, Bytes)> = plan.forced.iter().map(forced_of).collect();
        let defines: Vec<Bytes> = plan
            .defines
            .iter()
            .filter_map(|define| definition(define))
            .collect();
        let mut named: Vec<Bytes> = [&list.quote, &list.angle, &list.absent, &list.duplicate]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        named.extend(
            call.variable("PWD")
                .filter(|pwd| pwd.first() == Some(&b'/'))
                .cloned(),
        );
        named.extend(plan.writable.iter().cloned());
        let mut extra = plan.extra_inputs.clone();
        extra.extend(told.files.iter().cloned());
        let profiles = plan.profiles.clone();
        let family = match plan.family {
            args::Family::Gcc => Family::Gcc,
            args::Family::Clang => Family::Clang,
        };
        let language = match unit.language {
            args::Language::C | args::Language::ObjC => Language::C,
            args::Language::Cxx | args::Language::ObjCxx => Language::Cxx,
            args::Language::Assembler => Language::Assembler,
        };
        let mark = mark(&cwd, &main);
        let mut scan = move |scanner: &mut Scanner| {
            let began = Instant::now();
            for wanted in &profiles {
                extra.extend(profiles_here(&cwd, wanted));
            }
            let request = ScanRequest {
                cwd: &cwd,
                main: &main,
                search: &list,
                named_dirs: &named,
                forced: &forced,
                defines: &defines,
                extra: &extra,
                family,
                language,
            };
            let scan = account::during(Phase::Scan, || scanner.scan(&request));
            (scan, began.elapsed() < QUICK)
        };
        let was_quick = self.quick().contains(&mark);
        let held = was_quick.then(|| self.scanner.try_lock().ok()).flatten();
        // On a file system that can't be watched, each file is asked for, and its server may not answer.
        let held = held.filter(|scanner| scanner.is_watched());
        let done = held.map(|mut scanner| scan(&mut scanner));
        let (scan, is_quick) = match done {
            Some(done) => done,
            None => {
                // One at a time: those that wait for the scanner are not to wait in the threads, which others need.
                let _turn = self.turn.lock().await;
                let scanner = self.scanner.clone();
                threads::unblock(move || scan(&mut scanner.lock().expect(UNPOISONED))).await
            }
        };
        let mut quick = self.quick();
        match is_quick {
            true if quick.len() >= QUICK_MAX => quick.clear(),
            true => drop(quick.insert(mark)),
            false => drop(quick.remove(&mark)),
        }
        scan
    }

    fn quick(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.quick.lock().expect(UNPOISONED)
    }

    async fn told(&self, call: &Call, question: &Question) -> Result<Arc<Told>, Declined> {
        if let Some(told) = self.lists().get(question) {
            return Ok(told.clone());
        }
        let declined = |error: String| ("search-list".to_owned(), error);
        let output = ask(call, question)
            .await
            .map_err(|error| declined(format!("ask the compiler: {error}")))?;
        let list = SearchList::parse_given(&output, question.words())
            .map_err(|error| declined(error.to_string()))?;
        let told = Arc::new(Told {
            list: Arc::new(list),
            files: files_told(&output),
        });
        let mut lists = self.lists();
        if lists.len() >= LISTS_MAX {
            lists.clear();
        }
        lists.insert(question.clone(), told.clone());
        Ok(told)
    }

    fn lists(&self) -> MutexGuard<'_, BTreeMap<Question, Arc<Told>>> {
        self.lists.lock().expect(UNPOISONED)
    }
}

/// A number for a unit. Two units with the same one cost a thread's time now and then.
fn mark(cwd: &AbsPath, main: &Bytes) -> u64 {
    let mut hasher = DefaultHasher::new();
    (cwd, main).hash(&mut hasher);
    hasher.finish()
}

/// What the compiler says of its search list.
async fn ask(call: &Call, question: &Question) -> io::Result<Vec<u8>> {
    let flags = question.flags.iter().map(|flag| flag.as_os_str());
    let rest = [
        "-x",
        question.language,
        "-v",
        "-E",
        "-o",
        "/dev/null",
        "/dev/null",
    ];
    let words = flags.chain(rest.map(OsStr::new));
    Ok(compiler::ask(call, words, ANSWER_BYTES_MAX).await?.errors)
}

/// The files that a compiler names with `-v` besides directories: specs and configuration that it has
/// read, and the mark by which clang recognises an installation of gcc.
fn files_told(output: &[u8]) -> Vec<Bytes> {
    let mut files = Vec::new();
    for line in output.split(|&b| b == b'\n') {
        if let Some(path) = line.strip_prefix(b"Reading specs from ") {
            files.push(Bytes::from(path));
        } else if let Some(path) = line.strip_prefix(b"Configuration file: ") {
            files.push(Bytes::from(path));
        } else if let Some(place) = line.strip_prefix(b"Found candidate GCC installation: ") {
            for variant in [
                &b"/crtbegin.o"[..],
                b"/32/crtbegin.o",
                b"/x32/crtbegin.o",
                b"/64/crtbegin.o",
            ] {
                files.push(Bytes([place, variant].concat()));
            }
        }
    }
    files
}

/// The profiles that are there, as the command could spell them.
fn profiles_here(cwd: &AbsPath, wanted: &Profiles) -> Vec<Bytes> {
    let Ok(entries) = std::fs::read_dir(cwd.as_path().join(wanted.directory.as_path())) else {
        return Vec::new();
    };
    let mut found: Vec<Bytes> = entries
        .flatten()
        .map(|entry| Bytes::from(entry.file_name()))
        .filter(|name| name.ends_with(&wanted.suffix))
        .map(|name| Bytes([&wanted.directory[..], b"/", &name].concat()))
        .collect();
    found.sort();
    found
}

/// The search list with directories where the assembler alone looks. Like those for `#embed`, they
/// have no order to keep: whatever is found in one of them travels.
fn with_assembler_search(
    list: &Arc<SearchList>,
    cwd: &AbsPath,
    directories: &[Bytes],
) -> Arc<SearchList> {
    if directories.is_empty() {
        return list.clone();
    }
    let mut list = SearchList::clone(list);
    for directory in directories {
        if cwd.as_path().join(directory.as_path()).is_dir() {
            list.embed.push(directory.clone());
        } else {
            list.absent.push(directory.clone());
        }
    }
    Arc::new(list)
}

/// The files of two scans, by path.
fn united(one: &Scan, other: &Scan) -> Scan {
    let mut entries: Vec<Listed> = one
        .entries
        .iter()
        .chain(other.entries.iter())
        .cloned()
        .collect();
    // The sort is stable: of a file that has changed in between, the first scan's stays.
    entries.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    entries.dedup_by(|a, b| a.entry.path == b.entry.path);
    Scan {
        entries: entries.into(),
        uses_time: one.uses_time || other.uses_time,
        main: one.main.clone(),
    }
}

/// A scan that a job can carry. The scanner has a bound for one input; several together may lie above what a
/// worker accepts, and it would be blamed for that.
fn bounded(scan: Scan) -> Result<Scan, Declined> {
    if scan.entries.len() > JOB_ENTRIES_MAX {
        let sentence = format!("more than {JOB_ENTRIES_MAX} files and directories");
        return Err((Decline::Budget.word().to_owned(), sentence));
    }
    Ok(scan)
}

fn forced_of(forced: &args::Forced) -> (Forced, Bytes) {
    let kind = match forced.kind {
        ForcedKind::Include => Forced::Include,
        ForcedKind::Macros => Forced::Macros,
    };
    (kind, forced.name.clone())
}

/// The value of a `-D`; a `-U` takes nothing away from what could be included.
fn definition(define: &[u8]) -> Option<Bytes> {
    define.strip_prefix(b"-D").map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::include::EntryNumber;
    use crate::message::{Entry, EntryKind};

    /// A scan of so many directories, which begin at this number.
    fn scan(first: usize, count: usize) -> Scan {
        let listed = |number: usize| Listed {
            number: EntryNumber(number as u64),
            entry: Arc::new(Entry {
                path: AbsPath::parse(&format!("/{number:06}")[..]).unwrap(),
                kind: EntryKind::Directory,
            }),
        };
        Scan {
            entries: (first..first + count).map(listed).collect(),
            uses_time: false,
            main: AbsPath::parse("/a.c").unwrap(),
        }
    }

    #[test]
    fn inputs_that_are_too_much_together_are_declined_and_no_worker_is_blamed() {
        let half = JOB_ENTRIES_MAX / 2;
        for (first, count, is_accepted) in [
            (half, half, true),
            (half, half + 1, false),
            // What is read for both counts once.
            (half - 1, half + 1, true),
        ] {
            let both = bounded(united(&scan(0, half), &scan(first, count)));
            assert_eq!(both.is_ok(), is_accepted, "{first} {count}");
            if let Err((word, _)) = both {
                assert_eq!(word, "too-many-files");
            }
        }
    }
}
