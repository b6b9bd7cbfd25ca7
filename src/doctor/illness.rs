//! How the judges are tested: a machine that is as it should be has nothing wrong, and one that has a
//! single illness has a single finding that asks for something, with its cure.

use super::facts::{Facts, healthy};
use super::finding::{Finding, Grade, Group};

/// What is broken and how, in which group it is said, how bad it is, and words of the finding and of
/// what mends it.
pub(super) type Illness = (
    &'static str,
    fn(&mut Facts),
    Group,
    Grade,
    &'static str,
    &'static str,
);

/// A judge: `findings` of [`super::cluster`] or [`super::machine`].
type Judge = fn(&Facts) -> Vec<Finding>;

/// Asserts that `judge` finds nothing wrong with what is healthy.
#[track_caller]
pub(super) fn assert_healthy(judge: Judge) {
    for finding in judge(&healthy()) {
        assert_eq!(finding.grade, Grade::Fine, "{finding:?}");
    }
}

/// Asserts that `judge` names each illness with what mends it, and nothing else.
#[track_caller]
pub(super) fn assert_each_is_named(judge: Judge, illnesses: &[Illness]) {
    for (name, broken, group, grade, what, mend) in illnesses {
        let mut facts = healthy();
        broken(&mut facts);
        let found: Vec<Finding> = judge(&facts)
            .into_iter()
            .filter(|finding| finding.mend.is_some())
            .collect();
        let [finding] = &found[..] else {
            panic!("{name}: {found:#?}");
        };
        assert_eq!((finding.group, finding.grade), (*group, *grade), "{name}");
        assert!(finding.what.contains(what), "{name}: {finding:?}");
        let said = finding.mend.as_deref().unwrap();
        assert!(said.contains(mend), "{name}: {finding:?}");
    }
}
