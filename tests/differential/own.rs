//! The runner's own trials: that it sees what it is there to see, and that every known trap has a
//! case.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::case::{Case, Family};
use crate::compare::{self, Difference};
use crate::corpus::{Corpus, case_files};
use crate::ground::Ground;
use crate::harness::{Fault, Trial};
use crate::known::Known;
use crate::mask;
use crate::run::Way;
use crate::user;

/// There are at least so many cases.
const CASES_MIN: usize = 250;

/// Hazards of distributed compiling, by number. A case names those that it is about.
const HAZARDS: u32 = 45;

/// Hazards that no command line shows, and what holds them.
const HELD_ELSEWHERE: [(u32, &str); 6] = [
    (
        39,
        "a source that is replaced while it is read: tests/store.rs and tests/cluster/edits.rs",
    ),
    (
        40,
        "a job that reads what it may not: tests/sandbox.rs and tests/tree.rs",
    ),
    (
        41,
        "a compiler that dies by chance: src/submitter/course.rs",
    ),
    (
        42,
        "a toolchain that a worker can't run: tests/toolchain.rs and tests/cluster",
    ),
    (
        43,
        "a compiler that is upgraded in the middle of a build: tests/toolchain.rs",
    ),
    (45, "a build that is interrupted: tests/cluster/failing.rs"),
];

/// What icecream does wrong with command lines, in the words of the case that holds it here.
const BUGS: [&str; 13] = [
    "icecream bug: -MF without a value crashes",
    "icecream bug: a joined -Wp,-MF,file swallowed the next argument",
    "icecream bug: -save-temps= was tested the wrong way round",
    "icecream bug: -s was taken for the beginning of -save-temps=",
    "icecream bug: a lone dash counted as -save-temps=",
    "icecream bug: -fprofile-use=PATH went without the profile",
    "icecream bug: -fprofile-generate=DIR was not recognised",
    "icecream bug: a second -arch did not make the job local",
    "icecream bug: only the last piece of -Wa, decided",
    "icecream bug: the standard was never recorded",
    "icecream bug: without -MT the target lost the directory of -o",
    "peers 4b: any warning was a second, local compile",
    "peers 4b: a header that is not there was a second, local compile",
];

/// All of them.
pub fn trials(corpus: &Arc<Corpus>, here: &Path) -> Vec<Trial> {
    let cases = here.join("cases");
    let [all, hazards, bugs] = [cases.clone(), cases.clone(), cases];
    let corpus = Arc::clone(corpus);
    vec![
        trial("there are enough cases", move || {
            let count = case_files(&all).len();
            check(count >= CASES_MIN, &format!("only {count} cases"))
        }),
        trial("every hazard has a case", move || every_hazard(&hazards)),
        trial("every bug of icecream has a case", move || {
            let texts = case_files(&bugs);
            let is_told = |bug: &&&str| texts.iter().any(|(_, text)| text.contains(**bug));
            let untold: Vec<_> = BUGS.iter().filter(|bug| !is_told(bug)).collect();
            check(untold.is_empty(), &format!("no case says {untold:?}"))
        }),
        trial(
            "a compiler that is not quite the compiler is found out",
            move || found_out(&corpus),
        ),
        trial("a known difference that is gone fails", || {
            let difference = |aspect: &str| Difference {
                aspect: aspect.to_owned(),
                shown: String::new(),
            };
            let known = BTreeSet::from(["stderr 1".to_owned()]);
            let same = compare::judge(vec![difference("stderr 1")], &known);
            let gone = compare::judge(vec![], &known);
            let other = compare::judge(vec![difference("file a.o")], &known);
            let counts = [same.len(), gone.len(), other.len()];
            check(counts == [0, 1, 2], &format!("{counts:?}"))
        }),
        trial("what is malformed is refused", malformed),
        trial("masks hide what they are for, and nothing else", masks),
    ]
}

fn trial(name: &str, action: impl FnOnce() -> Result<(), Fault> + Send + 'static) -> Trial {
    Trial {
        name: format!("own/{name}"),
        action: Box::new(action),
    }
}

fn check(is_well: bool, otherwise: &str) -> Result<(), Fault> {
    match is_well {
        true => Ok(()),
        false => Err(Fault::Failed(otherwise.to_owned())),
    }
}

fn every_hazard(cases: &Path) -> Result<(), Fault> {
    let mut held: BTreeSet<u32> = HELD_ELSEWHERE.iter().map(|(number, _)| *number).collect();
    for (name, text) in case_files(cases) {
        let Ok(case) = Case::parse(&text) else {
            continue;
        };
        for told in case.about.split("hazard ").skip(1) {
            for number in told.split(", ") {
                let digits = number
                    .trim_end()
                    .split(|c: char| !c.is_ascii_digit())
                    .next();
                let Some(Ok(number)) = digits.map(str::parse::<u32>) else {
                    break;
                };
                if !(1..=HAZARDS).contains(&number) {
                    return Err(Fault::Failed(format!(
                        "{name}: no hazard has number {number}"
                    )));
                }
                held.insert(number);
            }
        }
    }
    let missing: Vec<u32> = (1..=HAZARDS)
        .filter(|number| !held.contains(number))
        .collect();
    check(
        missing.is_empty(),
        &format!("no case is about the hazards {missing:?}"),
    )
}

/// What a false compiler does besides, and the aspects that tell.
const MISCHIEF: [(&str, &[&str]); 9] = [
    ("true", &[]),
    ("printf x >> a.o", &["file a.o"]),
    ("chmod 755 a.o", &["file a.o"]),
    ("touch more", &["file more"]),
    ("rm a.c", &["file a.c"]),
    (
        "ln a.o twin; rm link; ln -s a.o link",
        &["file a.o", "file link", "file twin"],
    ),
    ("echo said", &["stdout 1"]),
    ("echo said >&2", &["stderr 1"]),
    ("exit 3", &["status 1"]),
];

fn found_out(corpus: &Corpus) -> Result<(), Fault> {
    let text = "about: mischief\n$ CC -c a.c\n\n--- a.c\nint a;\n--- link -> a.c\n";
    let case = Case::parse(text).map_err(Fault::Failed)?;
    for (number, (mischief, aspects)) in MISCHIEF.iter().enumerate() {
        let name = format!("own/mischief-{number}");
        let mut ground =
            Ground::prepare(corpus, &name, &case, Family::Gcc).map_err(Fault::Failed)?;
        let plain = ground.run(&Way::Plain);
        let links = ground.world.home.join(format!("mischief-{number}"));
        fs::create_dir_all(&links).expect("make a directory");
        let script = format!("#!/bin/sh\n/usr/bin/gcc \"$@\"\n{mischief}\n");
        let compiler = links.join("gcc");
        fs::write(&compiler, script).expect("write a script");
        fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).expect("set a mode");
        user::give(&compiler);
        ground.world.masquerade = links;
        let found = compare::differences(&case, &plain, &ground.run(&Way::Alone));
        let found: Vec<_> = found.iter().map(|one| one.aspect.as_str()).collect();
        check(
            found == *aspects,
            &format!("{mischief}: found {found:?}, expected {aspects:?}"),
        )?;
    }
    Ok(())
}

fn malformed() -> Result<(), Fault> {
    for text in [
        "$ CC -c a.c\nremote\n",
        "about: x\n",
        "about: x\nremote\n$ CC\n",
        "about: x\n$ CC -c a.c\nremot\n",
        "about: x\n$ CC -c a.c\ntcc: remote\n",
        "about: x\nmask: everything\n$ CC -c a.c\n",
        "about: x\nneeds: patience\n$ CC -c a.c\n",
        "about: x\n$ CC -c a.c\n--- link -> a.c\na text\n",
        "about: x\n$ CC -c a.c \\",
    ] {
        check(Case::parse(text).is_err(), &format!("accepted: {text}"))?;
    }
    for text in [
        "a/b gcc cluster: stderr 1\n",
        "a/b gcc: stderr 1\n    why\n",
        "    why\n",
    ] {
        check(Known::parse(text).is_err(), &format!("accepted: {text}"))?;
    }
    Ok(())
}

fn masks() -> Result<(), Fault> {
    for (name, text, expect) in [
        (
            "temporary-names",
            "as /tmp/ccAb12Cd.s: x",
            "as /tmp/cc??????.s: x",
        ),
        (
            "temporary-names",
            "/tmp/a-0f1e2d.o /tmp/a-b",
            "/tmp/a-??????.o /tmp/a-b",
        ),
        (
            "temporary-names",
            "/tmp/other.s /tmp/cc",
            "/tmp/other.s /tmp/cc",
        ),
        ("numbers", "took 1.25 s, 12", "took# s,#"),
        ("addresses", "@0x7f00ab12cd34 0x80", "@0x? 0x80"),
    ] {
        let masked = mask::masked(name, text.as_bytes());
        let masked = String::from_utf8_lossy(&masked).into_owned();
        check(masked == expect, &format!("{name}: {text} became {masked}"))?;
    }
    Ok(())
}
