//! The differential corpus: whatever the command line, ice's result is the plain compiler's.
//!
//! A case (`cases/GROUP/NAME.case`, see [`case`]) is a directory of files, commands, and where each
//! of their compiler calls is to run. Every case is run by gcc and by clang, and by each three
//! times in fresh copies of the same directory at the same absolute path: plainly, through a
//! cluster, and through ice without any daemon. Compared are exit statuses, both streams and every
//! file: kind, mode, content, link target, and which names are one file.
//!
//! Differences that are known are in `known.txt`, each with its reason. A difference that is not
//! there fails, and so does one that is there and is gone.
//!
//! `cargo test --test differential -- dependencies/` runs what has this in its name.
//! `ICE_TORTURE=N` takes N files of gcc's own test suite instead of the usual sample, and
//! `ICE_DIFFERENTIAL_KEEP=1` keeps all files, logs of the daemons included.

mod case;
mod cluster;
mod compare;
mod corpus;
mod ground;
mod harness;
mod known;
mod mask;
mod own;
mod place;
#[path = "../support/role.rs"]
mod role;
mod run;
mod snapshot;
mod torture;
mod traps;
mod trial;
mod user;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use corpus::Corpus;
use harness::Trial;

fn main() -> ExitCode {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential");
    let corpus = Arc::new(Corpus::open(&here));
    let mut trials: Vec<Trial> = own::trials(&corpus, &here);
    trials.extend(trial::trials(&corpus, &here));
    trials.extend(torture::trials(&corpus));
    harness::run(trials, || corpus.begin())
}
