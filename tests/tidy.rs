//! Holds the architecture: layers, purity, where `unsafe` lives, that files introduce themselves.
//!
//! The rules are tables of names, so that a change of the architecture is a change of a table and
//! is seen in review. Text is searched, nothing is parsed: a rule that could be cheated by spelling
//! is still a rule that nobody breaks by accident.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, the lowest first. A file belongs to the longest name that fits it.
const LAYERS: [(&str, &[&str]); 5] = [
    ("words", &["id", "message", "news"]),
    (
        "cores",
        &[
            "args",
            "compress",
            "config",
            "daemon/slots",
            "dictionary",
            "doctor/cluster",
            "doctor/facts",
            "doctor/finding",
            "doctor/machine",
            "doctor/report",
            "frame",
            "include/asking",
            "include/assembly",
            "include/computed",
            "include/contents",
            "include/definitions",
            "include/directives",
            "include/disk",
            "include/follow",
            "include/graph",
            "include/macros",
            "include/places",
            "include/reach",
            "include/reader",
            "include/request",
            "include/search",
            "include/splices",
            "include/suspects",
            "include/walk",
            "include/words",
            "masquerade",
            "monitor/demo",
            "monitor/history",
            "monitor/job",
            "monitor/json",
            "monitor/model",
            "monitor/node",
            "monitor/text",
            "monitor/theme",
            "monitor/ui",
            "monitor/views",
            "sandbox/bounds",
            "sandbox/spec",
            "daemon/session",
            "scheduler/admission",
            "scheduler/chronicle",
            "scheduler/control",
            "scheduler/election",
            "scheduler/icecream",
            "scheduler/lease",
            "scheduler/metrics",
            "scheduler/fairness",
            "scheduler/lending",
            "scheduler/node",
            "scheduler/policy",
            "scheduler/queue",
            "scheduler/roster",
            "scheduler/speed",
            "scheduler/state",
            "scheduler/stories",
            "scheduler/suspicion",
            "scheduler/tally",
            "scheduler/ways",
            "submitter/allot",
            "submitter/environment",
            "submitter/holdings",
            "submitter/holdings/foresight",
            "submitter/holdings/held",
            "submitter/holdings/placing",
            "submitter/holdings/seconds",
            "submitter/holdings/state",
            "submitter/holdings/stories",
            "submitter/holdings/waiting",
            "submitter/missing",
            "submitter/ways",
            "toolchain/closure",
            "toolchain/elf",
            "toolchain/manifest",
            "worker/inventory",
        ],
    ),
    (
        "effects",
        &[
            "account",
            "background",
            "child",
            "clock",
            "connection",
            "discover",
            "executor",
            "greetings",
            "include",
            "include/watch",
            "key",
            "names",
            "reactor",
            "sandbox",
            "signal",
            "sys",
            "threads",
            "toolchain",
            "whereabouts",
            "worker/store",
            "worker/tree",
        ],
    ),
    (
        "roles",
        &[
            "client",
            "daemon",
            "monitor",
            "scheduler",
            "status",
            "submitter",
            "worker",
        ],
    ),
    ("front", &["cli", "doctor", "lib", "main"]),
];

/// Roles know each other only through messages; the daemon alone joins two of them.
const ROLES: [&str; 5] = ["client", "monitor", "scheduler", "submitter", "worker"];

/// What no core and no word may mention: the world, and what makes a run differ from the last.
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::env",
    "std::thread",
    "std::os::fd",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "nix::",
    "smol::",
    "async ",
];

/// Files that may say `unsafe`.
const UNSAFE: [&str; 2] = ["sandbox/enter", "sys"];

/// Files whose types go over a wire or a pipe, or into a file that another version reads.
const SERIALIZED: [&str; 5] = ["id", "message", "news", "sandbox/spec", "scheduler/speed"];

struct Source {
    name: String,
    text: String,
}

impl Source {
    fn layer(&self) -> usize {
        let fits =
            |module: &str| self.name == module || self.name.starts_with(&format!("{module}/"));
        let named = LAYERS.iter().enumerate().flat_map(|(layer, (_, modules))| {
            modules
                .iter()
                .filter(|module| fits(module))
                .map(move |module| (module.len(), layer))
        });
        named
            .max()
            .unwrap_or_else(|| panic!("{} is in no layer: add it to the table", self.name))
            .1
    }

    /// The code without comments and tests.
    fn code(&self) -> String {
        let code = self
            .text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        code.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The modules of this crate that the code names.
    fn uses(&self, all: &BTreeSet<String>) -> BTreeSet<String> {
        let mut uses = BTreeSet::new();
        for part in self.code().split("crate::").skip(1) {
            let path: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || "_:".contains(*c))
                .collect();
            let words: Vec<&str> = path.split("::").collect();
            let long = words.iter().take(2).copied().collect::<Vec<_>>().join("/");
            let name = if all.contains(&long) {
                long
            } else {
                words[0].to_owned()
            };
            if name != "Error" {
                uses.insert(name);
            }
        }
        uses
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let name = |path: &Path| {
        let path = path
            .strip_prefix(&root)
            .expect("below src")
            .with_extension("");
        let name = path.to_str().expect("plain names").to_owned();
        name.strip_suffix("/mod")
            .map_or(name.clone(), str::to_owned)
    };
    found
        .into_iter()
        .map(|path| Source {
            name: name(&path),
            text: fs::read_to_string(&path).expect("a readable source"),
        })
        .collect()
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether the code has these words, not as the end of a longer one.
fn says(code: &str, words: &str) -> bool {
    code.match_indices(words)
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn arrows_point_down() {
    let sources = sources();
    let names: BTreeSet<String> = sources.iter().map(|source| source.name.clone()).collect();
    let mut problems = Vec::new();
    for source in &sources {
        for used in source.uses(&names) {
            if !names.contains(&used) {
                continue;
            }
            let target = Source {
                name: used.clone(),
                text: String::new(),
            };
            let same_directory = source.name.split('/').next() == used.split('/').next();
            if target.layer() > source.layer() && !same_directory {
                problems.push(format!("{} uses {used}, which lies above it", source.name));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn roles_meet_only_in_messages() {
    let sources = sources();
    let names: BTreeSet<String> = sources.iter().map(|source| source.name.clone()).collect();
    let role = |name: &str| {
        ROLES
            .into_iter()
            .find(|role| name == *role || name.starts_with(&format!("{role}/")))
    };
    let mut problems = Vec::new();
    for source in &sources {
        let Some(own) = role(&source.name) else {
            continue;
        };
        for used in source.uses(&names) {
            if role(&used).is_some_and(|other| other != own) {
                problems.push(format!("{} uses {used}", source.name));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn words_and_cores_are_pure() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.layer() <= 1) {
        let code = source.code();
        for impure in IMPURE.iter().filter(|impure| says(&code, impure)) {
            problems.push(format!("{} says {impure}", source.name));
        }
    }
    assert_none(problems);
}

#[test]
fn unsafe_lives_in_marked_files() {
    let said = |source: &Source| source.code().contains("unsafe ");
    let sources = sources();
    let found: Vec<&str> = sources
        .iter()
        .filter(|source| said(source))
        .map(|source| &source.name[..])
        .collect();
    assert_none(
        found
            .iter()
            .filter(|name| !UNSAFE.contains(name))
            .map(|name| format!("{name} is unsafe"))
            .collect(),
    );
}

#[test]
fn only_words_are_serialized() {
    let derives = |source: &Source| {
        source
            .code()
            .lines()
            .any(|line| line.contains("derive(") && line.contains("Serialize"))
    };
    let sources = sources();
    let found = sources
        .iter()
        .filter(|source| derives(source) && !SERIALIZED.contains(&&source.name[..]));
    assert_none(
        found
            .map(|source| format!("{} derives Serialize", source.name))
            .collect(),
    );
}

#[test]
fn every_file_introduces_itself() {
    let silent =
        |source: &&Source| !source.text.starts_with("//! ") && !source.text.starts_with("//!\n");
    assert_none(
        sources()
            .iter()
            .filter(silent)
            .map(|source| format!("{} begins without //!", source.name))
            .collect(),
    );
}

#[test]
fn the_tables_name_what_exists() {
    let names: BTreeSet<String> = sources().into_iter().map(|source| source.name).collect();
    let named = LAYERS
        .iter()
        .flat_map(|(_, modules)| modules.iter())
        .chain(&UNSAFE)
        .chain(&SERIALIZED);
    assert_none(
        named
            .filter(|name| !names.contains(**name))
            .map(|name| format!("there is no {name}"))
            .collect(),
    );
}
