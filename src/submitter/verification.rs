//! `ICECC_REPEAT_RATE`: compiling the same job on a second node, and what to make of the answers.
//!
//! A compiler need not give the same bytes twice: it may draw random names or read a clock. So two
//! different answers accuse nobody yet. The first node is asked again; only when it repeats itself
//! have two nodes made different things of the same job, and one of them is wrong. That is an
//! error which ends the build, since it was asked for and nobody can say which object is the good one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::attempt::Delivered;
use super::course::{self, Course};
use super::inputs::because;
use super::job::{Ending, Job, Submitter};
use super::placement::Word;
use super::wish::want;
use crate::id::NodeId;
use crate::message::{Call, Outcome, OwnNode, Report, Want};

/// The rate is so many of this many jobs.
const WHOLE: u64 = 1000;

/// The exit status of a call whose job came out differently on two nodes, as icecream's.
pub const DIFFERENT_STATUS: u8 = 255;

/// Counts jobs, so that as many are verified as the user asked for. Evenly and not by chance: ten
/// of a thousand are every hundredth.
#[derive(Debug, Default)]
pub struct Rota(AtomicU64);

impl Rota {
    /// Whether it is this job's turn, where `rate` of a thousand are verified.
    pub fn is_due(&self, rate: u64) -> bool {
        if rate == 0 {
            return false;
        }
        let before = self.0.fetch_add(rate.min(WHOLE), Ordering::Relaxed);
        before / WHOLE != (before + rate.min(WHOLE)) / WHOLE
    }
}

/// How many of a thousand jobs the user wants to be verified; what is no number is none.
pub fn rate(call: &Call) -> u64 {
    call.variable("ICECC_REPEAT_RATE")
        .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok())
        .unwrap_or(0)
}

impl Submitter {
    /// Has a job that `node` did done again, by another one, and compares.
    pub(super) async fn verify(
        &self,
        job: Job<'_>,
        node: NodeId,
        delivered: Delivered,
        report: Report,
    ) -> Ending {
        let first = report.node.clone();
        let mut want = want(
            job.call,
            job.cwd,
            job.plan,
            &job.located.toolchain,
            &Course::default(),
        );
        want.own = OwnNode::Nothing;
        let mut again = want.clone();
        again.terms.preferred.clone_from(&first);
        want.terms.preferred.clear();
        want.except = vec![node];
        let verdict = async {
            let (second, other) = self.once_more(job, want).await?;
            let compared = difference(&delivered, &other);
            let Some(what) = compared.map_err(|error| error.to_string())? else {
                return Ok(Verified::Same(second));
            };
            // A compiler that never gives the same twice accuses nobody.
            let (_, repeated) = self.once_more(job, again).await?;
            let compared = difference(&delivered, &repeated);
            Ok(
                match compared.map_err(|error: io::Error| error.to_string())? {
                    Some(_) => Verified::Varies(what),
                    None => Verified::Differs(second, other, what),
                },
            )
        };
        let verdict: Result<Verified, String> = verdict.await;
        let (word, sentence) = match verdict {
            Ok(Verified::Same(second)) => ("verified", format!("{second} made the same")),
            Ok(Verified::Varies(what)) => (
                "not-repeatable",
                format!("the compiler never makes the same: {what}"),
            ),
            Err(why) => ("not-verified", why),
            Ok(Verified::Differs(second, other, what)) => {
                return different(report, delivered, second, other, &what);
            }
        };
        log::info!("{}: {word}: {sentence}", report.file);
        let reason = Some(because(word, sentence));
        Ending::Remote(Box::new(delivered), Report { reason, ..report })
    }

    /// Has a job done by a node of this kind: its name and what it delivered, or why there is nothing.
    async fn once_more(&self, job: Job<'_>, want: Want) -> Result<(String, Delivered), String> {
        // It is held as long as the job runs: to let go of it is to give the job up.
        let ticket = self.placement.ask(want);
        let lease = match ticket.word().await {
            Word::Lease(lease) => lease,
            Word::Recall(_) => return Err("the slot was taken back".to_owned()),
            Word::Denied(why) => return Err(why),
        };
        let name = lease.grant().name.clone();
        match self.attempt(lease.progress(), job).await {
            Ok(delivered) => {
                lease.end(Outcome::Done {
                    usage: delivered.usage,
                    output_bytes: delivered.file_bytes,
                });
                Ok((name, delivered))
            }
            Err(failure) => {
                lease.end(course::outcome(&failure));
                Err(format!("{name}: {failure}"))
            }
        }
    }
}

/// What came of a second compile.
enum Verified {
    /// This node made the same.
    Same(String),
    /// The same node does not make the same twice.
    Varies(String),
    /// This node made something else, in this respect.
    Differs(String, Delivered, String),
}

/// Two nodes made different things of a job: nothing is put in place, both are kept beside it, and
/// the user is told.
fn different(
    report: Report,
    one: Delivered,
    second: String,
    other: Delivered,
    what: &str,
) -> Ending {
    let places: Vec<PathBuf> = one.files().iter().map(|f| f.place().to_owned()).collect();
    let kept = clear(&places).and_then(|()| {
        let mut kept = keep(one, &report.node)?;
        kept.extend(keep(other, &second)?);
        Ok(kept)
    });
    let kept = match kept {
        Ok(kept) => {
            let names = kept.iter().map(|path| path.display().to_string());
            format!("kept as {}", names.collect::<Vec<_>>().join(" and "))
        }
        Err(error) => format!("not kept: {error}"),
    };
    let (file, first) = (&report.file, &report.node);
    let sentence = format!("{first} and {second} differ: {what}; {kept}");
    log::error!("{file}: {sentence}");
    let said = format!("ice: {file}: ICECC_REPEAT_RATE: {sentence}\n");
    let reason = Some(because("nodes-differ", sentence));
    Ending::Different(said, Report { reason, ..report })
}

/// In what two answers differ; none when they are the same.
///
/// # Errors
/// When a file can't be read.
fn difference(one: &Delivered, other: &Delivered) -> io::Result<Option<String>> {
    if one.status != other.status {
        return Ok(Some(format!(
            "exit status {} or {}",
            one.status, other.status
        )));
    }
    if one.printed != other.printed {
        return Ok(Some("the compiler's messages".to_owned()));
    }
    if !one.is_like(other) {
        return Ok(Some("the set of files that were written".to_owned()));
    }
    for (mine, theirs) in one.files().iter().zip(other.files()) {
        let [mine_read, theirs_read] = [mine, theirs].map(|file| fs::read(file.temporary()));
        if mine_read? != theirs_read? {
            return Ok(Some(mine.place().display().to_string()));
        }
    }
    Ok(None)
}

/// Keeps the files of an answer beside their places, as `FILE.NODE.caught`, and returns where.
///
/// # Errors
/// When one can't be renamed.
fn keep(delivered: Delivered, node: &str) -> io::Result<Vec<PathBuf>> {
    let node: String = node
        .chars()
        .map(|c| if c == '/' { '_' } else { c })
        .collect();
    let mut kept = Vec::new();
    for pending in delivered.into_files() {
        let mut name = pending.place().file_name().unwrap_or_default().to_owned();
        name.push(format!(".{node}.caught"));
        let place = pending.place().with_file_name(name);
        pending.commit_as(&place)?;
        kept.push(place);
    }
    Ok(kept)
}

/// Removes what stands where the job's files would be, as a compiler that fails does.
///
/// # Errors
/// When something stands there and can't be removed.
fn clear(places: &[PathBuf]) -> io::Result<()> {
    let remove = |place: &Path| match fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    places.iter().try_for_each(|place| remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_jobs_are_verified_as_were_asked_for() {
        for (rate, of, expect) in [
            (0, 5000, 0),
            (1, 5000, 5),
            (10, 1000, 10),
            (333, 1000, 333),
            (1000, 7, 7),
            (4000, 7, 7),
        ] {
            let rota = Rota::default();
            let due = (0..of).filter(|_| rota.is_due(rate)).count();
            assert_eq!(due, expect, "{rate} of {of}");
        }
    }

    #[test]
    fn the_turns_are_spread_evenly() {
        let rota = Rota::default();
        let turns: Vec<bool> = (0..8).map(|_| rota.is_due(250)).collect();
        assert_eq!(
            turns,
            [false, false, false, true, false, false, false, true]
        );
    }
}
