//! gcc's own test suite: its sources are what nobody would think of.
//!
//! They come with a Debian package, as an archive that is unpacked once. A fixed sample of them is
//! tried, or as many as `ICE_TORTURE` says, without their own options: most compile, and what does
//! not has to fail in the same words.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::case::{Case, Expected, Family, Step};
use crate::corpus::{Corpus, sorted};
use crate::harness::{Fault, Trial};
use crate::trial;

/// Where the package puts its archive.
const PACKAGE: &str = "/usr/src/gcc-12";

/// The parts of the suite that are used.
const PARTS: [&str; 3] = ["gcc.c-torture/compile", "gcc.dg", "g++.dg"];

/// Files of the sample.
const FILES: usize = 300;

/// What each file is compiled with.
const OPTIONS: [&str; 3] = ["-O0 -g", "-O2", "-O2 -g"];

/// Sources of nothing but size: minutes and gigabytes say nothing here.
const TOO_LARGE: &str = "limits-";

/// Why some of these sources stay here.
const REASONS: &[&str] = &["module", "diagnostics", "crash"];

/// What differs from run to run by nature: the assembler names its input, and a compiler that fails of
/// itself prints where it lay in memory.
const MASKS: [&str; 2] = ["temporary-names", "addresses"];

/// A trial for every file of the sample.
pub fn trials(corpus: &Arc<Corpus>) -> Vec<Trial> {
    let Some(suite) = suite() else {
        return vec![Trial {
            name: "torture".to_owned(),
            action: Box::new(|| {
                Err(Fault::Skipped(format!(
                    "{PACKAGE} has no archive: install gcc-12-source"
                )))
            }),
        }];
    };
    let wanted = std::env::var("ICE_TORTURE").ok();
    let wanted = wanted.map_or(FILES, |number| {
        number.parse().expect("ICE_TORTURE is a number")
    });
    let mut all = Vec::new();
    for part in PARTS {
        sources(&suite.join(part), &mut all);
    }
    let count = wanted.min(all.len());
    // Evenly over all of them.
    let sample = (0..count).map(|index| &all[index * all.len() / count]);
    sample
        .flat_map(|source| {
            let name = source.strip_prefix(&suite).expect("it is below");
            let name = format!("torture/{}", name.to_str().expect("a plain name"));
            trial::of_case(corpus, &name, &case(source))
        })
        .collect()
}

fn case(source: &Path) -> Case {
    let compiler = match source.extension().is_some_and(|suffix| suffix == "C") {
        true => "CXX",
        false => "CC",
    };
    let source = source.to_str().expect("a plain name");
    let steps = OPTIONS.iter().enumerate().map(|(number, options)| {
        let line = format!("{compiler} {options} -c {source} -o {number}.o");
        Step::trying(line, Expected::RemoteUnless(REASONS))
    });
    Case {
        about: "gcc's own test suite".to_owned(),
        compilers: vec![Family::Gcc],
        commands: steps.collect(),
        cluster_only: true,
        masks: MASKS.map(|mask| (mask.to_owned(), Vec::new())).into(),
        ..Case::default()
    }
}

/// The directory of the suite, unpacked when it was not yet.
fn suite() -> Option<PathBuf> {
    let names = fs::read_dir(PACKAGE).ok()?;
    let mut archives: Vec<_> = names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("gcc-") && name.ends_with(".tar.xz"))
        .collect();
    archives.sort();
    let archive = archives.first()?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gcc-suite");
    let done = place.join(format!("{archive}.done"));
    if !done.exists() {
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).expect("make a directory");
        let mut tar = Command::new("tar");
        tar.arg("-xJf")
            .arg(Path::new(PACKAGE).join(archive))
            .arg("-C")
            .arg(&place);
        tar.args(["--strip-components=3", "--wildcards"]);
        tar.args(PARTS.map(|part| format!("*/gcc/testsuite/{part}/*")));
        assert!(tar.status().expect("run tar").success(), "unpack {archive}");
        fs::write(&done, "").expect("make a file");
    }
    Some(place)
}

/// All sources below `directory`, in order.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for path in sorted(directory) {
        if path.is_dir() {
            sources(&path, found);
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && (name.ends_with(".c") || name.ends_with(".C"))
            && !name.starts_with(TOO_LARGE)
        {
            found.push(path);
        }
    }
}
