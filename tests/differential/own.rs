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
use crate::traps;
use crate::user;

/// There are at least so many cases.
const CASES_MIN: usize = 250;

/// All of them.
pub fn trials(corpus: &Arc<Corpus>, here: &Path) -> Vec<Trial> {
    let cases = here.join("cases");
    let [all, traps] = [cases.clone(), cases];
    let corpus = Arc::clone(corpus);
    vec![
        trial("there are enough cases", move || {
            let count = case_files(&all).len();
            check(count >= CASES_MIN, &format!("only {count} cases"))
        }),
        trial("every known trap has what holds it", move || {
            let unheld = traps::unheld(&traps, Path::new(env!("CARGO_MANIFEST_DIR")));
            check(unheld.is_empty(), &unheld.join("\n"))
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
