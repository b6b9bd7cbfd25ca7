//! A case as a trial: prepare, run three times, compare.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::case::{Case, Content, Expected, Family, Need};
use crate::cluster::Cluster;
use crate::harness::{Fault, Trial};
use crate::known::Known;
use crate::mask;
use crate::run::{self, Done, Outcome, Way, World, steps_of};
use crate::snapshot::{Entry, Snapshot};
use crate::user;

/// Lines of what a compiler said that a failure shows.
const LINES_MAX: usize = 8;

/// What all trials share.
#[derive(Debug)]
pub struct Corpus {
    // Dropped, and so stopped, before its files go.
    cluster: OnceLock<Cluster>,
    world: OnceLock<World>,
    known: Known,
    with: PathBuf,
    root: PathBuf,
    _root: Option<TempDir>,
}

impl Corpus {
    /// Reads what is at `here`. The cluster is not started yet.
    pub fn open(here: &Path) -> Self {
        let text = fs::read_to_string(here.join("known.txt")).expect("read known.txt");
        let known = Known::parse(&text).unwrap_or_else(|why| panic!("known.txt: {why}"));
        let root = tempfile::Builder::new().prefix("ice-diff-").tempdir();
        let root = root.expect("make a directory");
        let path = root.path().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("open it");
        let root = match std::env::var_os("ICE_DIFFERENTIAL_KEEP") {
            Some(_) => {
                eprintln!("files are kept in {}", root.keep().display());
                None
            }
            None => Some(root),
        };
        Self {
            cluster: OnceLock::new(),
            world: OnceLock::new(),
            known,
            with: here.join("with"),
            root: path,
            _root: root,
        }
    }

    fn world(&self) -> &World {
        self.world.get_or_init(|| {
            let home = self.directory("home");
            let ice = self.root.join("ice");
            // Another process writes it: a descriptor of ours could be inherited by what another
            // thread is just starting, and then the program would be busy.
            let mut copy = Command::new("cp");
            let copy = copy.arg(env!("CARGO_BIN_EXE_ice")).arg(&ice).status();
            assert!(copy.expect("run cp").success());
            let masquerade = home.join("links");
            let mut links = Command::new(&ice);
            links.arg("symlinks").arg(&masquerade).env("HOME", &home);
            user::become_user(&mut links);
            assert!(
                links
                    .stdout(Stdio::null())
                    .status()
                    .expect("run ice")
                    .success()
            );
            std::os::unix::fs::symlink(&ice, masquerade.join("ice")).expect("make a link");
            World {
                ice,
                masquerade,
                home,
            }
        })
    }

    /// Starts the cluster. The calling thread must outlive all trials: the kernel ends a daemon
    /// when the thread that started it ends.
    pub fn begin(&self) {
        self.cluster.get_or_init(|| {
            let directory = self.directory("cluster");
            Cluster::start(&self.world().ice, &directory)
        });
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.get().expect("it was started")
    }

    /// A new directory of the user.
    fn directory(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
        fs::create_dir_all(&path).expect("make a directory");
        missing.into_iter().for_each(user::give);
        path
    }
}

/// A trial for every case below `here` and every compiler that runs it.
pub fn trials(corpus: &Arc<Corpus>, here: &Path) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut names = BTreeSet::new();
    for (name, text) in case_files(&here.join("cases")) {
        names.insert(name.clone());
        match Case::parse(&text) {
            Ok(case) => trials.extend(of_case(corpus, &name, &case)),
            Err(why) => trials.push(broken(name, why)),
        }
    }
    for case in corpus.known.cases() {
        if !names.contains(case) {
            trials.push(broken(
                format!("known.txt/{case}"),
                "no such case".to_owned(),
            ));
        }
    }
    trials
}

fn broken(name: String, why: String) -> Trial {
    Trial {
        name,
        action: Box::new(|| Err(Fault::Failed(why))),
    }
}

/// A trial for every compiler that runs the case.
pub fn of_case(corpus: &Arc<Corpus>, name: &str, case: &Case) -> Vec<Trial> {
    let is_run = |family: &Family| case.compilers.is_empty() || case.compilers.contains(family);
    let families = Family::ALL.into_iter().filter(is_run);
    let trials = families.map(|family| {
        let (corpus, name, case) = (Arc::clone(corpus), name.to_owned(), case.clone());
        Trial {
            name: format!("{name} [{}]", family.name()),
            action: Box::new(move || try_case(&corpus, &name, &case, family)),
        }
    });
    trials.collect()
}

/// Names, without their suffix, and texts of all cases.
pub fn case_files(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for group in sorted(directory) {
        for file in sorted(&group) {
            let name = file.strip_prefix(directory).expect("it is below");
            let name = name.with_extension("");
            let name = name.to_str().expect("a plain name").to_owned();
            found.push((name, fs::read_to_string(&file).expect("read a case")));
        }
    }
    found
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("list").path()).collect();
    paths.sort();
    paths
}

fn try_case(corpus: &Corpus, name: &str, case: &Case, family: Family) -> Result<(), Fault> {
    if let Some(why) = missing(case, family) {
        return Err(Fault::Skipped(why));
    }
    let ground = Ground::prepare(corpus, name, case, family).map_err(Fault::Failed)?;
    let plain = ground.run(&Way::Plain);
    let mut wrong = vacuous(case, family, &plain);
    let socket = corpus.cluster().socket.clone();
    for (word, way) in [("cluster", Way::Cluster(socket)), ("alone", Way::Alone)] {
        let ours = ground.run(&way);
        let mut found = differences(case, &plain, &ours);
        if let Way::Cluster(_) = way {
            found.extend(misplaced(case, family, &ours));
        }
        let known = corpus.known.aspects(name, family.name(), word);
        for aspect in &known {
            if !found.iter().any(|difference| difference.aspect == *aspect) {
                wrong.push(format!(
                    "{word}: {aspect}: this known difference is gone; take it off the list"
                ));
            }
        }
        found.retain(|difference| !known.contains(&difference.aspect));
        wrong.extend(
            found
                .iter()
                .map(|difference| format!("{word}: {}\n{}", difference.aspect, difference.shown)),
        );
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let lines = steps_of(case, family).enumerate();
    let mut told: Vec<String> = lines
        .map(|(number, step)| format!("command {}: {}", number + 1, step.line))
        .collect();
    told.extend(wrong);
    Err(Fault::Failed(told.join("\n")))
}

/// What a case needs and is not here.
fn missing(case: &Case, family: Family) -> Option<String> {
    let in_path = |name: &str| {
        Path::new("/usr/bin").join(name).exists() || Path::new("/bin").join(name).exists()
    };
    let commands = [family.name(), family.plus()].into_iter();
    let mut absent: Vec<String> = commands
        .filter(|name| !in_path(name))
        .map(|name| format!("{name} is not installed"))
        .collect();
    for need in &case.needs {
        let (is_there, what) = match need {
            Need::Command(name) => (in_path(name), format!("{name} is not installed")),
            Need::File(path) => (Path::new(path).exists(), format!("there is no {path}")),
            Need::Locale(name) => (has_locale(name), format!("there is no locale {name}")),
        };
        if !is_there {
            absent.push(what);
        }
    }
    if !case.tmpfs.is_empty() && !user::is_root() {
        absent.push("mounting needs root".to_owned());
    }
    absent.into_iter().next()
}

fn has_locale(name: &str) -> bool {
    let output = Command::new("locale").arg("-a").output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    let plain = |name: &str| name.to_ascii_lowercase().replace("utf-8", "utf8");
    let all = String::from_utf8_lossy(&output).into_owned();
    all.lines().any(|line| plain(line) == plain(name))
}

/// The directory of one trial.
struct Ground<'a> {
    case: &'a Case,
    family: Family,
    world: &'a World,
    directory: PathBuf,
    template: PathBuf,
    scratch: PathBuf,
}

impl<'a> Ground<'a> {
    fn prepare(
        corpus: &'a Corpus,
        name: &str,
        case: &'a Case,
        family: Family,
    ) -> Result<Self, String> {
        let directory = corpus.directory(&format!("{name}/{}/d", family.name()));
        let scratch = corpus.directory(&format!("{name}/{}/s", family.name()));
        for with in &case.with {
            copy(&corpus.with.join(with), &directory);
        }
        for (path, content) in &case.files {
            write(&directory, path, content);
        }
        give_all(&directory);
        let world = corpus.world();
        if !case.prepare.is_empty() {
            let script = format!("set -e\n{}", case.prepare.join("\n"));
            let script = run::spelled(&script, family, &Way::Plain);
            let output = run::shell(&script, &directory, world)
                .output()
                .expect("run sh");
            if !output.status.success() || !output.stderr.is_empty() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("it can't be prepared: {said}"));
            }
        }
        let template = directory.with_file_name("t");
        fs::rename(&directory, &template).expect("move a directory");
        Ok(Self {
            case,
            family,
            world,
            directory,
            template,
            scratch,
        })
    }

    /// Runs the case in a fresh copy of its directory.
    fn run(&self, way: &Way) -> Outcome {
        copy(&self.template, &self.directory);
        for (name, size) in &self.case.tmpfs {
            let path = self.directory.join(name);
            let options = format!("size={size},mode=777");
            let tmpfs = Some("tmpfs");
            mount(
                tmpfs,
                &path,
                tmpfs,
                MsFlags::empty(),
                Some(options.as_str()),
            )
            .unwrap_or_else(|errno| panic!("mount {name}: {errno}"));
        }
        let (case, family, world) = (self.case, self.family, self.world);
        let outcome = run::run(case, family, way, world, &self.directory, &self.scratch);
        for (name, _) in &self.case.tmpfs {
            umount2(&self.directory.join(name), MntFlags::MNT_DETACH)
                .unwrap_or_else(|errno| panic!("unmount {name}: {errno}"));
        }
        wipe(&self.directory);
        outcome
    }
}

impl Drop for Ground<'_> {
    fn drop(&mut self) {
        if std::env::var_os("ICE_DIFFERENTIAL_KEEP").is_none() {
            let whole = self.directory.parent().expect("it is below the root");
            wipe(whole);
        }
    }
}

/// Copies what is in a directory, with times, modes, owners, links and all.
fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg("-a").arg("-T").args([from, to]);
    assert!(command.status().expect("run cp").success(), "copy {from:?}");
}

fn wipe(directory: &Path) {
    if fs::remove_dir_all(directory).is_err() {
        // A directory that may not be read or written.
        let mut open = Command::new("chmod");
        let _ = open.args(["-R", "u+rwx"]).arg(directory).status();
        fs::remove_dir_all(directory).expect("remove a directory");
    }
}

fn write(directory: &Path, path: &Path, content: &Content) {
    let path = directory.join(path);
    let parent = path.parent().expect("it is below");
    fs::create_dir_all(parent).expect("make a directory");
    let set_mode = |mode: u32| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
    };
    match content {
        Content::Text(text, mode) => {
            fs::write(&path, text).expect("write a file");
            set_mode(*mode);
        }
        Content::Directory(mode) => {
            fs::create_dir_all(&path).expect("make a directory");
            set_mode(*mode);
        }
        Content::Link(target) => {
            std::os::unix::fs::symlink(target, &path).expect("make a link");
        }
        Content::Twin(other) => {
            fs::hard_link(directory.join(other), &path).expect("make a hard link");
        }
        Content::Fifo => {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o644);
            nix::unistd::mkfifo(&path, mode).expect("make a FIFO");
        }
    }
}

fn give_all(path: &Path) {
    user::give(path);
    if path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_dir())
    {
        for path in sorted(path) {
            give_all(&path);
        }
    }
}

/// In what a run differs.
struct Difference {
    /// In a word or two, as the list of known differences has it.
    aspect: String,
    /// How.
    shown: String,
}

/// A case whose commands do not do what it says shows nothing.
fn vacuous(case: &Case, family: Family, plain: &Outcome) -> Vec<String> {
    let steps = steps_of(case, family).zip(&plain.steps).enumerate();
    let wrong = steps.filter(|(_, (step, done))| step.fails(family) != (done.status != 0));
    wrong
        .map(|(number, (_, done))| {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            let said: Vec<_> = said.lines().take(LINES_MAX).collect();
            let status = done.status;
            format!(
                "plain: command {} has status {status}: {}",
                number + 1,
                said.join("\n    ")
            )
        })
        .collect()
}

fn misplaced(case: &Case, family: Family, ours: &Outcome) -> Vec<Difference> {
    let steps = steps_of(case, family).zip(&ours.steps).enumerate();
    let wrong = steps.filter_map(|(number, (step, done))| {
        let expected = step.places(family);
        let as_expected = expected.len() == done.places.len()
            && done
                .places
                .iter()
                .zip(&expected)
                .all(|(ran, place)| ran.is(place));
        let ran: Vec<_> = done.places.iter().map(|ran| ran.told()).collect();
        (!as_expected).then(|| Difference {
            aspect: format!("place {}", number + 1),
            shown: format!(
                "    expected {}\n    ran {}",
                told(&expected),
                ran.join(", ")
            ),
        })
    });
    wrong.collect()
}

fn told(places: &[Expected]) -> String {
    let words: Vec<_> = places
        .iter()
        .map(|place| match place {
            Expected::Remote => "remote".to_owned(),
            Expected::Preprocessed => "preprocessed".to_owned(),
            Expected::Local(reason) => format!("local {reason}"),
            Expected::Anywhere => "anywhere".to_owned(),
        })
        .collect();
    words.join(", ")
}

fn differences(case: &Case, plain: &Outcome, ours: &Outcome) -> Vec<Difference> {
    let mut found = Vec::new();
    for (number, (plain, ours)) in plain.steps.iter().zip(&ours.steps).enumerate() {
        found.extend(in_step(case, number + 1, plain, ours));
    }
    found.extend(in_files(case, &plain.files, &ours.files));
    found
}

fn in_step(case: &Case, number: usize, plain: &Done, ours: &Done) -> Vec<Difference> {
    let mut found = Vec::new();
    if plain.status != ours.status {
        found.push(Difference {
            aspect: format!("status {number}"),
            shown: format!("    plain {}\n    ours  {}", plain.status, ours.status),
        });
    }
    for (stream, plain, ours) in [
        ("stdout", &plain.stdout, &ours.stdout),
        ("stderr", &plain.stderr, &ours.stderr),
    ] {
        let masks = case.masks.iter().map(|(name, _)| name.as_str());
        let [plain, ours] = [plain, ours].map(|said| {
            let masked = masks.clone();
            masked.fold(said.clone(), |said, name| mask::masked(name, &said))
        });
        if plain != ours {
            found.push(Difference {
                aspect: format!("{stream} {number}"),
                shown: shown(&plain, &ours),
            });
        }
    }
    found
}

fn in_files(case: &Case, plain: &Snapshot, ours: &Snapshot) -> Vec<Difference> {
    let names: BTreeSet<_> = plain.keys().chain(ours.keys()).collect();
    let wrong = names.into_iter().filter_map(|name| {
        let shown = match (plain.get(name), ours.get(name)) {
            (Some(plain), Some(ours)) => in_file(case, name, plain, ours)?,
            (None, _) => "    only ours".to_owned(),
            (_, None) => "    only the plain compiler's".to_owned(),
        };
        Some(Difference {
            aspect: format!("file {}", String::from_utf8_lossy(name)),
            shown,
        })
    });
    wrong.collect()
}

fn in_file(case: &Case, name: &[u8], plain: &Entry, ours: &Entry) -> Option<String> {
    let masks = case.masks.iter().filter(|(_, files)| {
        let is_this = |file: &String| file == "*" || file.as_bytes() == name;
        files.iter().any(is_this)
    });
    let [plain, ours] = [plain, ours].map(|entry| {
        let mut entry = entry.clone();
        for (mask, _) in masks.clone() {
            entry.content = entry.content.map(|content| mask::masked(mask, &content));
        }
        entry
    });
    if plain == ours {
        return None;
    }
    let kind = |entry: &Entry| {
        let same_as = entry.same_as.as_deref().map(String::from_utf8_lossy);
        let same_as = same_as.map_or(String::new(), |name| format!(", the same as {name}"));
        format!("{} {:o}{same_as}", entry.kind, entry.mode)
    };
    if kind(&plain) != kind(&ours) {
        return Some(format!(
            "    plain {}\n    ours  {}",
            kind(&plain),
            kind(&ours)
        ));
    }
    let content = |entry: &Entry| entry.content.clone().unwrap_or_default();
    Some(shown(&content(&plain), &content(&ours)))
}

/// Where two byte strings begin to differ, for people.
fn shown(plain: &[u8], ours: &[u8]) -> String {
    let (Ok(plain_text), Ok(our_text)) = (std::str::from_utf8(plain), std::str::from_utf8(ours))
    else {
        let at = plain.iter().zip(ours).take_while(|(a, b)| a == b).count();
        let sizes = (plain.len(), ours.len());
        return format!(
            "    {} and {} bytes, not the same from byte {at}",
            sizes.0, sizes.1
        );
    };
    let [plain, ours] = [plain_text, our_text].map(|text| text.split('\n').collect::<Vec<_>>());
    let same = plain.iter().zip(&ours).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str]| {
        let lines = lines.iter().skip(same).take(LINES_MAX);
        lines
            .map(|line| format!("      {line:?}\n"))
            .collect::<String>()
    };
    format!(
        "    plain, from line {}:\n{}    ours:\n{}",
        same + 1,
        part(&plain),
        part(&ours)
    )
    .trim_end()
    .to_owned()
}
