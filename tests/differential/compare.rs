//! In what two runs of a case differ, and what is wrong with that.

use std::collections::BTreeSet;

use crate::case::{Case, Expected, Family};
use crate::mask;
use crate::run::{Done, Outcome, steps_of};
use crate::snapshot::{Entry, Snapshot};

/// Lines of what a compiler said that a failure shows.
const LINES_MAX: usize = 8;

/// In what a run differs.
pub struct Difference {
    /// In a word or two, as the list of known differences has it.
    pub aspect: String,
    /// How.
    pub shown: String,
}

/// What is wrong with these differences, when those on the list are known.
pub fn judge(found: Vec<Difference>, known: &BTreeSet<String>) -> Vec<String> {
    let is_found = |aspect: &&String| found.iter().any(|one| one.aspect == **aspect);
    let gone = known.iter().filter(|aspect| !is_found(aspect));
    let gone =
        gone.map(|aspect| format!("{aspect}: this known difference is gone; take it off the list"));
    let mut wrong: Vec<String> = gone.collect();
    let unknown = found.iter().filter(|one| !known.contains(&one.aspect));
    wrong.extend(unknown.map(|one| format!("{}\n{}", one.aspect, one.shown)));
    wrong
}

/// A case whose commands do not do what it says shows nothing.
pub fn vacuous(case: &Case, family: Family, plain: &Outcome) -> Vec<String> {
    let steps = steps_of(case, family).zip(&plain.steps).enumerate();
    let wrong = steps
        .filter(|(_, (step, done))| !step.may_fail && step.fails(family) != (done.status != 0));
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

/// Where calls ran that were to run elsewhere.
pub fn misplaced(case: &Case, family: Family, ours: &Outcome) -> Vec<Difference> {
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
            Expected::RemoteUnless(words) => format!("remote unless {words:?}"),
        })
        .collect();
    words.join(", ")
}

/// All differences but those of the place.
pub fn differences(case: &Case, plain: &Outcome, ours: &Outcome) -> Vec<Difference> {
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
