//! What others got wrong, row by row, and what holds each row here: a case, or a test elsewhere.
//!
//! A case names the hazards that it is about by their numbers, and quotes a bug in the words of
//! [`BUGS`]. A test elsewhere is named with its file, and must be there: whoever renames it is told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::case::Case;
use crate::corpus::case_files;

/// Hazards of distributed compiling, by number. A case names those that it is about.
const HAZARDS: u32 = 45;

/// What holds a row that no command line shows.
struct Elsewhere {
    file: &'static str,
    test: &'static str,
}

/// Hazards that no command line shows.
const HAZARDS_ELSEWHERE: [(u32, &str, Elsewhere); 8] = [
    (
        39,
        "a file that is replaced while it is read",
        test(
            "tests/store.rs",
            "what_is_not_what_it_says_is_refused_and_leaves_nothing",
        ),
    ),
    (
        39,
        "a source that is edited while its job is under way",
        test(
            "tests/cluster/edits.rs",
            "what_is_compiled_is_what_is_there_now",
        ),
    ),
    (
        40,
        "a job that reads what it may not",
        test("tests/sandbox.rs", "attacks_fail"),
    ),
    (
        40,
        "a job that leaves something for the next",
        test("tests/tree.rs", "no_misdeed_reaches_another_job"),
    ),
    (
        41,
        "a compiler that dies by chance",
        test(
            "src/submitter/course.rs",
            "a_compiler_that_dies_twice_dies_at_home_next",
        ),
    ),
    (
        42,
        "a toolchain that a worker can't run",
        test(
            "tests/cluster/failing.rs",
            "a_worker_that_cannot_run_the_toolchain_costs_nothing_but_time",
        ),
    ),
    (
        43,
        "a compiler that is upgraded in the middle of a build",
        test(
            "tests/cluster/edits.rs",
            "a_compiler_that_is_upgraded_while_the_daemon_runs_is_a_new_toolchain",
        ),
    ),
    (
        45,
        "a build that is interrupted",
        test(
            "tests/cluster/failing.rs",
            "an_interrupted_build_leaves_nothing_half_done",
        ),
    ),
];

/// What icecream does wrong with command lines, in the words of the case that holds it here.
const BUGS: [&str; 19] = [
    "icecream bug: -MF without a value crashes",
    "icecream bug: a joined -Wp,-MF,file swallowed the next argument",
    "icecream bug: -Wp,-MD,file got a second -MF",
    "icecream bug: -save-temps= was tested the wrong way round",
    "icecream bug: -s was taken for the beginning of -save-temps=",
    "icecream bug: a lone dash counted as -save-temps=",
    "icecream bug: -fprofile-use=PATH went without the profile",
    "icecream bug: -fprofile-generate=DIR was not recognised",
    "icecream bug: -fauto-profile= went without the profile",
    "icecream bug: a second -arch did not make the job local",
    "icecream bug: only the last piece of -Wa, decided",
    "icecream bug: the standard was never recorded",
    "icecream bug: without -MT the target lost the directory of -o",
    "icecream bug: output larger than a pipe was waited for until both stood still",
    "icecream bug: more than a megabyte of diagnostics could not be sent",
    "icecream bug: a compiler that died by a signal had status 105",
    "peers 4b: any warning was a second, local compile",
    "peers 4b: a header that is not there was a second, local compile",
    "peers 4b: the words of a missing file, said by the source itself",
];

/// What icecream does wrong beside command lines.
const BUGS_ELSEWHERE: [(&str, Elsewhere); 23] = [
    (
        "client: the lock of a local slot is lost on exec",
        test(
            "tests/client.rs",
            "a_slot_is_held_until_the_local_compiler_ends",
        ),
    ),
    (
        "client: a temporary file is left behind",
        test(
            "tests/cluster/failing.rs",
            "a_killed_client_takes_its_job_with_it_and_leaves_nothing",
        ),
    ),
    (
        "client: an output is there in part",
        test(
            "src/submitter/output.rs",
            "a_file_appears_whole_or_not_at_all",
        ),
    ),
    (
        "daemon: output is cut at a NUL",
        test(
            "tests/client.rs",
            "the_clients_status_and_output_are_the_submitters",
        ),
    ),
    (
        "daemon: the entry of a compiler that was upgraded stays for ever",
        test("tests/toolchain.rs", "a_change_of_the_compiler_is_noticed"),
    ),
    (
        "daemon: toolchains that are evicted stay on the disk",
        test(
            "tests/store.rs",
            "the_longest_unused_goes_first_and_what_is_pinned_stays",
        ),
    ),
    (
        "daemon: eviction crashes on who waits for a toolchain",
        test(
            "tests/store.rs",
            "a_toolchain_goes_as_a_whole_but_not_while_it_is_used",
        ),
    ),
    (
        "daemon: who waits longest is not served first",
        test("src/daemon/slots.rs", "who_is_ready_first_runs_first"),
    ),
    (
        "daemon: a client that is gone while it waits keeps a processor busy",
        test("src/daemon/slots.rs", "a_waiting_claim_can_be_withdrawn"),
    ),
    (
        "daemon: a load that changes slowly is never told",
        test(
            "src/scheduler/chronicle.rs",
            "a_changed_load_is_told_once_a_second_and_only_when_it_differs",
        ),
    ),
    (
        "daemon: a limit of the cache of 2048 MiB overflows",
        test("src/config.rs", "sizes_have_units_and_mib_without_one"),
    ),
    (
        "daemon: only the driver of a cancelled compile is killed",
        test("tests/sandbox.rs", "nothing_outlives_its_job"),
    ),
    (
        "daemon: a compiler that the kernel killed for its memory is a failure of the source",
        test(
            "src/scheduler/suspicion.rs",
            "a_busy_node_pauses_and_a_job_that_was_too_large_is_not_held_against_it",
        ),
    ),
    (
        "daemon: a limit of memory does not hold",
        test(
            "tests/sandbox.rs",
            "memory_is_limited_for_all_processes_together",
        ),
    ),
    (
        "scheduler: messages to monitors have wrong types",
        test("src/scheduler/icecream.rs", "a_job_is_these_bytes"),
    ),
    (
        "scheduler: least_busy and the probing of neglected nodes have no effect",
        test(
            "src/scheduler/policy.rs",
            "icecreams_algorithms_choose_as_they_say",
        ),
    ),
    (
        "scheduler: a silent node holds up everybody",
        test(
            "tests/scheduler.rs",
            "a_peer_that_does_not_read_is_dropped_and_holds_up_nobody",
        ),
    ),
    (
        "scheduler: new connections wait behind idle ones",
        test(
            "tests/scheduler.rs",
            "idle_and_babbling_connections_harm_nobody",
        ),
    ),
    (
        "scheduler: the table of back-off times is read past its end",
        test(
            "src/scheduler/suspicion.rs",
            "repeated_failures_are_avoided_for_longer_up_to_a_minute_and_a_success_clears_them",
        ),
    ),
    (
        "scheduler: a report of load sets the number of jobs to nothing",
        test(
            "src/scheduler/node.rs",
            "local_jobs_and_own_leases_are_one_and_the_same_load",
        ),
    ),
    (
        "scheduler: a vanished peer's job clears another node's state",
        test(
            "src/scheduler/stories/belonging.rs",
            "names_are_unique_and_a_node_that_comes_again_replaces_itself",
        ),
    ),
    (
        "scheduler: statistics of hundreds of jobs are copied for every decision",
        test(
            "src/scheduler/speed.rs",
            "memory_is_bounded_and_what_is_used_survives",
        ),
    ),
    (
        "create-env: paths with blanks are torn",
        test(
            "tests/toolchain.rs",
            "an_archive_of_the_real_compiler_is_its_toolchain",
        ),
    ),
];

const fn test(file: &'static str, test: &'static str) -> Elsewhere {
    Elsewhere { file, test }
}

/// What of the tables nothing holds; empty when all is well. `package` is the package's directory.
pub fn unheld(cases: &Path, package: &Path) -> Vec<String> {
    let texts = case_files(cases);
    let mut wrong = Vec::new();
    let mut held = BTreeSet::new();
    for (name, text) in &texts {
        for number in Case::parse(text)
            .iter()
            .flat_map(|case| hazards(&case.about))
        {
            match number {
                Some(number) if (1..=HAZARDS).contains(&number) => drop(held.insert(number)),
                _ => wrong.push(format!("{name}: no hazard has such a number")),
            }
        }
    }
    held.extend(HAZARDS_ELSEWHERE.iter().map(|(number, ..)| *number));
    let missing = (1..=HAZARDS).filter(|number| !held.contains(number));
    wrong.extend(missing.map(|number| format!("nothing is about hazard {number}")));
    let is_told = |bug: &&&str| texts.iter().any(|(_, text)| text.contains(**bug));
    let untold = BUGS.iter().filter(|bug| !is_told(bug));
    wrong.extend(untold.map(|bug| format!("no case says {bug:?}")));
    let hazards = HAZARDS_ELSEWHERE
        .iter()
        .map(|(_, what, elsewhere)| (what, elsewhere));
    let bugs = BUGS_ELSEWHERE
        .iter()
        .map(|(what, elsewhere)| (what, elsewhere));
    for (what, elsewhere) in hazards.chain(bugs) {
        let text = fs::read_to_string(package.join(elsewhere.file)).unwrap_or_default();
        if !text.contains(&format!("fn {}()", elsewhere.test)) {
            let Elsewhere { file, test } = elsewhere;
            wrong.push(format!("{what}: {file} has no test {test}"));
        }
    }
    wrong
}

/// The numbers in `about` that come after the word, separated by commas; none for what is no number.
fn hazards(about: &str) -> Vec<Option<u32>> {
    let lists = about.split("hazard ").skip(1);
    let numbers = lists.flat_map(|list| {
        list.split(", ").map_while(|piece| {
            let digits = piece.split(|c: char| !c.is_ascii_digit()).next()?;
            (!digits.is_empty()).then(|| digits.parse().ok())
        })
    });
    numbers.collect()
}
