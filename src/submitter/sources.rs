//! The files of a source job: asks the compiler where it looks, and the scanner what it could open.
//!
//! The compiler is asked once for each distinct set of flags, directory and environment; its
//! answer is kept as long as the compiler is the same and the scanner does not find it stale. When
//! a compiler elsewhere misses a file that is here, the scanner is told, so that it happens once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};

use smol::process::Command;

use super::look::Look;
use super::missing::{self, Finding};
use crate::args::{self, ForcedKind, Plan};
use crate::id::{AbsPath, Bytes, Digest};
use crate::include::{
    Decline, Family, Forced, Language, Limits, Scan, ScanRequest, Scanner, SearchList,
};
use crate::message::Call;

/// Search lists that are kept. A project has a handful; beyond it, all are asked for anew.
const LISTS_MAX: usize = 1024;

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
    fn new(call: &Call, cwd: &AbsPath, plan: &Plan, toolchain: Digest) -> Self {
        Self {
            toolchain,
            compiler: call.compiler.clone(),
            language: plan.language.name(),
            flags: plan.search.clone(),
            cwd: cwd.clone(),
            variables: VARIABLES
                .iter()
                .map(|name| call.variable(name).cloned())
                .collect(),
        }
    }
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
    lists: Mutex<BTreeMap<Question, Arc<SearchList>>>,
}

/// Why there is no list of files: a stable word and a sentence.
pub type Declined = (String, String);

impl Default for Sources {
    fn default() -> Self {
        Self {
            scanner: Arc::new(Mutex::new(Scanner::new(Limits::default()))),
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
        let question = Question::new(call, cwd, plan, toolchain);
        for retry in [true, false] {
            let list = self.list(call, &question).await?;
            match self.scan_with(call, cwd, plan, list).await {
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
        let question = Question::new(call, cwd, plan, toolchain);
        let list = self.list(call, &question).await?;
        let look = Look::new(cwd.clone(), plan.input.clone(), list, &sent);
        let (look, sent, finding) = smol::unblock(move || {
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
            None => plan.input.to_string(),
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
            let mut scanner = self.scanner.lock().expect("no holder of this lock panics");
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
        list: Arc<SearchList>,
    ) -> Result<Scan, Decline> {
        let scanner = self.scanner.clone();
        let (cwd, main) = (cwd.clone(), plan.input.clone());
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
        let extra = plan.extra_inputs.clone();
        let family = match plan.family {
            args::Family::Gcc => Family::Gcc,
            args::Family::Clang => Family::Clang,
        };
        let language = match plan.language {
            args::Language::C | args::Language::ObjC => Language::C,
            args::Language::Cxx | args::Language::ObjCxx => Language::Cxx,
        };
        smol::unblock(move || {
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
            scanner
                .lock()
                .expect("no holder of this lock panics")
                .scan(&request)
        })
        .await
    }

    async fn list(&self, call: &Call, question: &Question) -> Result<Arc<SearchList>, Declined> {
        if let Some(list) = self.lists().get(question) {
            return Ok(list.clone());
        }
        let declined = |error: String| ("search-list".to_owned(), error);
        let output = ask(call, question)
            .await
            .map_err(|error| declined(format!("ask the compiler: {error}")))?;
        let list = SearchList::parse(&output).map_err(|error| declined(error.to_string()))?;
        let list = Arc::new(list);
        let mut lists = self.lists();
        if lists.len() >= LISTS_MAX {
            lists.clear();
        }
        lists.insert(question.clone(), list.clone());
        Ok(list)
    }

    fn lists(&self) -> MutexGuard<'_, BTreeMap<Question, Arc<SearchList>>> {
        self.lists.lock().expect("no holder of this lock panics")
    }
}

/// What the compiler says of its search list.
async fn ask(call: &Call, question: &Question) -> io::Result<Vec<u8>> {
    let mut command = std::process::Command::new(call.compiler.as_os_str());
    command.arg0(call.argv[0].as_os_str());
    command.args(question.flags.iter().map(|flag| flag.as_os_str()));
    command.args([
        "-x",
        question.language,
        "-v",
        "-E",
        "-o",
        "/dev/null",
        "/dev/null",
    ]);
    command.env_clear().envs(
        call.env
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str())),
    );
    command.env("LC_ALL", "C").env_remove("LANGUAGE");
    command.current_dir(call.cwd.as_path());
    let mut command = Command::from(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = command.output().await?;
    if !output.status.success() {
        return Err(io::Error::other(format!("it fails with {}", output.status)));
    }
    Ok(output.stderr)
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
