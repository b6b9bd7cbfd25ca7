//! A case as a trial: prepare, run three times, compare.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::case::{Case, Family, Need};
use crate::compare::{differences, judge, misplaced, vacuous};
use crate::corpus::{Corpus, case_files};
use crate::ground::Ground;
use crate::harness::{Fault, Trial};
use crate::run::{Way, steps_of};
use crate::user;

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

fn try_case(corpus: &Corpus, name: &str, case: &Case, family: Family) -> Result<(), Fault> {
    if let Some(why) = missing(case, family) {
        return Err(Fault::Skipped(why));
    }
    let ground = Ground::prepare(corpus, name, case, family).map_err(Fault::Failed)?;
    let plain = ground.run(&Way::Plain);
    let mut wrong = vacuous(case, family, &plain);
    let socket = corpus.cluster().socket.clone();
    for (word, way) in [("cluster", Way::Cluster(socket)), ("alone", Way::Alone)] {
        if matches!(way, Way::Alone) && case.cluster_only {
            continue;
        }
        let ours = ground.run(&way);
        let mut found = differences(case, &plain, &ours);
        if let Way::Cluster(_) = way {
            found.extend(misplaced(case, family, &ours));
        }
        let known = corpus.known.aspects(name, family.name(), word);
        let judged = judge(found, &known).into_iter();
        wrong.extend(judged.map(|what| format!("{word}: {what}")));
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
