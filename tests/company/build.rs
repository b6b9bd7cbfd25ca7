//! One build, done plainly and with ice at the same place, and what is compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{World, give_tree};

/// What is built, and how.
pub struct Build<'a> {
    /// Its name; the directory is called so.
    pub name: &'a str,
    /// Makes the sources in the directory.
    pub prepare: &'a dyn Fn(&Path),
    /// A script for the shell. In it `$ICE` is in front of compilers: `ice`, or nothing.
    pub script: &'a str,
    /// Variables of the build with ice alone.
    pub with: &'a [(&'a str, &'a str)],
    /// So many calls must have compiled something.
    pub compiles_min: usize,
}

/// What came of a build.
pub struct Outcome {
    /// The job log of the build with ice.
    pub jobs: Vec<Job>,
    /// Calls that compile and are no probes.
    pub compiles: usize,
    /// So many of them ran elsewhere.
    pub remote: usize,
    /// So many files were compared, and are the same.
    pub files: usize,
}

/// A line of the job log.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Job {
    /// `remote` or `local`.
    pub place: String,
    /// A word, a colon and a sentence.
    pub reason: Option<String>,
    /// The main file.
    pub file: Option<String>,
}

/// So often a build is done with ice, when the cluster is starved.
const TURNS_MAX: u32 = 3;

/// Reasons of calls that compile no object: links, questions, preprocessors, the probes of configure,
/// and headers that are precompiled.
const NO_COMPILE: [&str; 7] = [
    "at-once",
    "information",
    "link",
    "no-input",
    "precompiled-header",
    "preprocess-only",
    "syntax-only",
];

impl Job {
    /// Whether it ran elsewhere.
    pub fn is_remote(&self) -> bool {
        self.place == "remote"
    }

    /// Why it did not.
    pub fn word(&self) -> &str {
        let reason = self.reason.as_deref().unwrap_or_default();
        reason.split(':').next().unwrap_or_default()
    }

    /// Whether the cluster was not there in time.
    fn is_starved(&self) -> bool {
        ["no-node", "silent-daemon", "lost-daemon"].contains(&self.word())
    }

    fn is_compile(&self) -> bool {
        self.is_remote() || !NO_COMPILE.contains(&self.word())
    }
}

impl Build<'_> {
    /// Builds twice and compares.
    #[track_caller]
    pub fn check(&self, world: &World) -> Outcome {
        let directory = world.path("work").join(self.name);
        let run = |mut command: Command, what: &str| {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir(&directory).expect("make a directory");
            (self.prepare)(&directory);
            give_tree(&directory);
            let output = command.output().expect("run a shell");
            assert!(
                output.status.success(),
                "{} {what}: {}\n{}\n{}",
                self.name,
                output.status,
                end_of(&output.stdout),
                end_of(&output.stderr)
            );
            made(&directory)
        };
        let script = format!("cd {}\n{}", self.name, self.script);
        let mut plainly = world.shell(&script);
        plainly.env("ICE", "");
        let plain = run(plainly, "plainly");
        for turn in 1.. {
            let mut with_ice = world.shell_with_ice(&script);
            with_ice.env("ICE", "ice").envs(self.with.iter().copied());
            let _ = fs::remove_file(world.path("jobs"));
            self.compare(&plain, &run(with_ice, "with ice"));
            let jobs = jobs(world);
            // A machine that others keep from running for seconds looks dead to its own daemons, and
            // they are right to go home. What came of it was compared; where it ran says nothing.
            let starved: Vec<_> = jobs.iter().filter(|job| job.is_starved()).collect();
            if turn < TURNS_MAX && !starved.is_empty() {
                let _ = writeln!(
                    std::io::stderr(),
                    "{}: once more, the cluster was starved: {starved:?}",
                    self.name
                );
                continue;
            }
            return self.count(jobs, plain.len());
        }
        unreachable!("the last turn returns")
    }

    /// The same files, with the same content.
    #[track_caller]
    fn compare(&self, plain: &BTreeMap<PathBuf, Vec<u8>>, ours: &BTreeMap<PathBuf, Vec<u8>>) {
        let names = |made: &BTreeMap<PathBuf, Vec<u8>>| made.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(ours), names(plain), "{}", self.name);
        let different: Vec<_> = plain
            .iter()
            .filter(|(path, content)| ours[*path] != **content)
            .map(|(path, _)| path)
            .collect();
        assert!(
            different.is_empty(),
            "{}: other files: {different:?}",
            self.name
        );
    }

    /// 98 of a hundred compiles are remote.
    fn count(&self, jobs: Vec<Job>, files: usize) -> Outcome {
        let compiles = jobs.iter().filter(|job| job.is_compile()).count();
        let remote = jobs.iter().filter(|job| job.is_remote()).count();
        let _ = writeln!(
            std::io::stderr(),
            "{}: {remote} of {compiles} compiles remote, {} other calls, {files} files the same",
            self.name,
            jobs.len() - compiles,
        );
        let local: Vec<_> = jobs
            .iter()
            .filter(|job| job.is_compile() && !job.is_remote())
            .collect();
        assert!(compiles >= self.compiles_min, "{}: {jobs:#?}", self.name);
        assert!(
            remote * 100 >= compiles * 98,
            "{}: only {remote} of {compiles} were remote: {local:#?}",
            self.name
        );
        Outcome {
            jobs,
            compiles,
            remote,
            files,
        }
    }
}

/// The job log.
pub fn jobs(world: &World) -> Vec<Job> {
    let text = fs::read_to_string(world.path("jobs")).unwrap_or_default();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

/// What compilers and linkers have written below a directory.
fn made(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut made = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("it is there");
            if metadata.is_dir() {
                directories.push(path);
            } else if metadata.is_file() {
                let content = fs::read(&path).expect("read a file");
                if is_made(&path, &content) {
                    let name = path.strip_prefix(directory).expect("it is below");
                    made.insert(name.to_owned(), content);
                }
            }
        }
    }
    made
}

/// Objects, archives, programs and dependencies. gcc itself never makes the same precompiled header
/// twice. What the tools write for themselves (logs, caches, times) and probes have left differs
/// between any two builds.
fn is_made(path: &Path, content: &[u8]) -> bool {
    const SUFFIXES: [&str; 7] = ["o", "obj", "d", "Po", "Plo", "su", "s"];
    let is_probe = path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part.starts_with("CompilerId")
            || part.starts_with("conftest")
            || part == "CMakeScratch"
            || part == "CMakeTmp"
    });
    let is_named = path
        .extension()
        .is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known));
    let is_binary = content.starts_with(b"\x7fELF") || content.starts_with(b"!<arch>");
    !is_probe && (is_named || is_binary)
}

fn end_of(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Writes files, each with its directories.
pub fn write(directory: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("make it");
        fs::write(path, content).expect("write a file");
    }
}
