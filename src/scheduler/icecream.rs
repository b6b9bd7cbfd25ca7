//! What icecream's monitors are told, in icecream's words: the news of a cluster, put into the monitor messages
//! of its protocol.
//!
//! One way only: a monitor introduces itself and never speaks again, and whoever asks for anything else gets no
//! answer, so that no daemon of icecream takes this for its scheduler. Knows no socket;
//! [`super::icecream_port`] has them. Only what every version from 29 on understands alike is said, so the bytes
//! are the same for all.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::news::{Ending, JobNumber, News, NodePicture, Snapshot};

/// The protocol's version that is spoken at most: beyond it the numbers of messages have changed.
pub const VERSION_MAX: u32 = 43;
/// The least version whose monitor messages are as here, and whose count of fields in the end of a job is.
pub const VERSION_MIN: u32 = 39;
/// The largest version that the protocol lets a peer claim.
const VERSION_CLAIM_MAX: u32 = 1 << 20;
/// The length of a monitor's only message, in bytes: its type.
const LOGIN_BYTES: u32 = 4;

const MON_LOGIN: u32 = 82;
const MON_GET_CS: u32 = 83;
const MON_JOB_BEGIN: u32 = 84;
const MON_JOB_DONE: u32 = 85;
const MON_LOCAL_JOB_BEGIN: u32 = 86;
const MON_STATS: u32 = 87;
const JOB_LOCAL_DONE: u32 = 79;

/// What a job's number is beside those of jobs that asked nobody, which have none.
const LOCAL_JOB_BIT: u32 = 1 << 31;
/// Local jobs of one report that are told one by one, at most.
const LOCAL_JOBS_MAX: u32 = 32;
/// Jobs that are remembered, at most: the queue and the leases of a large cluster.
const JOBS_MAX: usize = 64 << 10;
/// The languages of icecream's protocol.
const LANGUAGE_C: u32 = 0;
const LANGUAGE_CXX: u32 = 1;

/// Whether a connection that begins with this byte is one of icecream's: the lowest byte of its version. The
/// cluster's own begin with an `I`, and icecream is far from that version.
pub fn is_greeting(first: u8) -> bool {
    (21..73).contains(&first)
}

/// What a peer of icecream has said so far, and what is answered.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    heard: Vec<u8>,
    step: Step,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Version,
    Agreement(u32),
    Login,
    Done,
}

/// What comes of the bytes of a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Say this; perhaps nothing.
    Say(Vec<u8>),
    /// It is a monitor.
    Monitor,
    /// It is none, and why; it gets no answer.
    Stranger(&'static str),
}

impl Greeting {
    /// What is said first.
    pub fn hello() -> [u8; 4] {
        VERSION_MAX.to_le_bytes()
    }

    /// More was heard. Once it is a monitor or a stranger, nothing more may be told.
    pub fn hear(&mut self, bytes: &[u8]) -> Answer {
        self.heard.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some((first, rest)) = self.heard.split_first_chunk::<4>() {
            let (first, rest) = (*first, rest.to_vec());
            match self.step {
                Step::Version => {
                    let theirs = u32::from_le_bytes(first);
                    if !(VERSION_MIN..=VERSION_CLAIM_MAX).contains(&theirs) {
                        return Answer::Stranger("its version of icecream's protocol is too old");
                    }
                    let agreed = theirs.min(VERSION_MAX);
                    said.extend_from_slice(&agreed.to_le_bytes());
                    self.step = Step::Agreement(agreed);
                }
                Step::Agreement(agreed) if u32::from_le_bytes(first) != agreed => {
                    return Answer::Stranger("it does not agree on a version");
                }
                Step::Agreement(_) => self.step = Step::Login,
                Step::Login => {
                    let Some((word, _)) = rest.split_first_chunk::<4>() else {
                        break;
                    };
                    let is_monitor = u32::from_be_bytes(first) == LOGIN_BYTES
                        && u32::from_be_bytes(*word) == MON_LOGIN;
                    self.step = Step::Done;
                    return match is_monitor {
                        true => Answer::Monitor,
                        false => Answer::Stranger("it is no monitor"),
                    };
                }
                Step::Done => break,
            }
            self.heard = rest;
        }
        Answer::Say(said)
    }
}

/// Puts news into icecream's messages. Nodes are hosts by number, which is never 0.
#[derive(Clone, Debug, Default)]
pub struct Translator {
    nodes: BTreeMap<NodeId, NodePicture>,
    jobs: BTreeMap<JobNumber, Job>,
    locals: u32,
}

#[derive(Clone, Debug)]
struct Job {
    worker: Option<NodeId>,
    submitter: NodeId,
    file: Vec<u8>,
}

impl Translator {
    /// What a monitor is told that comes now, at `seconds` after 1970, and knows nothing.
    pub fn welcome(&self, seconds: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for node in self.nodes.values() {
            out.extend(stats(node));
        }
        for (number, job) in &self.jobs {
            out.extend(asked(*number, job));
            if let Some(worker) = job.worker {
                out.extend(begun(*number, worker, seconds));
            }
        }
        out
    }

    /// The cluster at this moment; returns what those are told who have heard all before.
    pub fn snapshot(&mut self, snapshot: &Snapshot, seconds: u32) -> Vec<u8> {
        let mut out = self.farewell();
        for node in &snapshot.nodes {
            self.nodes.insert(node.node, node.clone());
        }
        for picture in &snapshot.jobs {
            let job = Job {
                worker: picture.worker,
                submitter: picture.submitter,
                file: picture.file.0.clone(),
            };
            self.remember(picture.job, job);
        }
        out.extend(self.welcome(seconds));
        out
    }

    /// The cluster is gone; what monitors are told of it.
    pub fn farewell(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in std::mem::take(&mut self.jobs).into_keys() {
            out.extend(done(number, 1, &Ending::Lost));
        }
        for node in std::mem::take(&mut self.nodes).into_keys() {
            out.extend(offline(node));
        }
        out
    }

    /// Something happened; what monitors are told of it, perhaps nothing.
    pub fn news(&mut self, news: &News, seconds: u32) -> Vec<u8> {
        match news {
            News::Node(picture) => {
                self.nodes.insert(picture.node, picture.clone());
                stats(picture)
            }
            News::Left { node } => {
                self.nodes.remove(node);
                offline(*node)
            }
            News::Queued {
                job,
                submitter,
                file,
            } => self.ask(*job, *submitter, &file.0),
            News::Started {
                job,
                submitter,
                worker,
                file,
            } => {
                // Monitors abort at a host that they don't know.
                if !self.nodes.contains_key(worker) {
                    return Vec::new();
                }
                let mut out = match self.jobs.contains_key(job) {
                    true => Vec::new(),
                    false => self.ask(*job, *submitter, &file.0),
                };
                let Some(known) = self.jobs.get_mut(job) else {
                    return Vec::new();
                };
                known.worker = Some(*worker);
                out.extend(begun(*job, *worker, seconds));
                out
            }
            News::Ended { job, ending } => match self.jobs.remove(job) {
                Some(_) => done(*job, exit_code(ending), ending),
                None => Vec::new(),
            },
            News::Local {
                node, jobs, file, ..
            } if self.nodes.contains_key(node) => {
                let mut out = Vec::new();
                for _ in 0..(*jobs).min(LOCAL_JOBS_MAX) {
                    self.locals = self.locals.wrapping_add(1);
                    let number = LOCAL_JOB_BIT | self.locals;
                    out.extend(message(MON_LOCAL_JOB_BEGIN, |fields| {
                        fields.number(node.0);
                        fields.number(number);
                        fields.number(seconds);
                        fields.text(short(&file.0));
                    }));
                    // It is over when it is reported.
                    out.extend(message(JOB_LOCAL_DONE, |fields| fields.number(number)));
                }
                out
            }
            News::Local { .. } => Vec::new(),
        }
    }

    fn ask(&mut self, number: JobNumber, submitter: NodeId, file: &[u8]) -> Vec<u8> {
        if !self.nodes.contains_key(&submitter) {
            return Vec::new();
        }
        let job = Job {
            worker: None,
            submitter,
            file: file.to_vec(),
        };
        let out = asked(number, &job);
        self.remember(number, job);
        out
    }

    fn remember(&mut self, number: JobNumber, job: Job) {
        self.jobs.insert(number, job);
        if self.jobs.len() > JOBS_MAX {
            // The oldest: its end was missed, or it has been forgotten by whoever had it.
            self.jobs.pop_first();
        }
    }
}

/// A job's number in 31 bits, which come again after a thousand days of work.
fn id(number: JobNumber) -> u32 {
    number.0 as u32 & !LOCAL_JOB_BIT
}

fn asked(number: JobNumber, job: &Job) -> Vec<u8> {
    let is_c = job.file.ends_with(b".c") || job.file.ends_with(b".i");
    message(MON_GET_CS, |fields| {
        fields.text(short(&job.file));
        fields.number(if is_c { LANGUAGE_C } else { LANGUAGE_CXX });
        fields.number(id(number));
        fields.number(job.submitter.0);
    })
}

fn begun(number: JobNumber, worker: NodeId, seconds: u32) -> Vec<u8> {
    message(MON_JOB_BEGIN, |fields| {
        fields.number(id(number));
        fields.number(seconds);
        fields.number(worker.0);
    })
}

/// What did not come to its end was no success, and monitors draw it so.
fn exit_code(ending: &Ending) -> u32 {
    match ending {
        Ending::Done { .. } | Ending::Own => 0,
        Ending::Unused
        | Ending::Failed { .. }
        | Ending::Lost
        | Ending::Withdrawn
        | Ending::Denied(_) => 1,
    }
}

fn done(number: JobNumber, exit_code: u32, ending: &Ending) -> Vec<u8> {
    let (usage, output_bytes) = match ending {
        Ending::Done {
            usage,
            output_bytes,
        } => (*usage, *output_bytes),
        _ => Default::default(),
    };
    let clamped = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    message(MON_JOB_DONE, |fields| {
        fields.number(id(number));
        fields.number(exit_code);
        fields.number(clamped(usage.wall_us / 1000));
        fields.number(clamped(usage.cpu_us / 1000));
        // System time is within the one before, and page faults are not told.
        fields.number(0);
        fields.number(0);
        // What came in is not told.
        fields.number(0);
        fields.number(0);
        fields.number(clamped(output_bytes));
        fields.number(clamped(output_bytes));
        // Neither from the submitter nor unknown, and of no client.
        fields.number(0);
        fields.number(0);
    })
}

fn stats(node: &NodePicture) -> Vec<u8> {
    let takes_jobs = node.no_remote.is_none() && !node.is_blocked;
    // Load is said in thousandths of what the machine can bear.
    let load = u64::from(node.load_milli) / u64::from(node.slots.max(1));
    let ip = node.address.rsplit_once(':').map_or("", |(ip, _)| ip);
    let text = format!(
        "Name:{}\nIP:{}\nMaxJobs:{}\nNoRemote:{}\nPlatform:{}\nVersion:{VERSION_MAX}\nFeatures:\n\
         Speed:{:.6}\nLoad:{}\nLoadAvg1:{}\nFreeMem:{}\n",
        line(&node.name),
        line(ip),
        node.slots,
        !takes_jobs,
        line(&node.platform),
        f64::from(node.speed_percent),
        load.min(1000),
        node.load_milli,
        node.memory_mib,
    );
    message(MON_STATS, |fields| {
        fields.number(node.node.0);
        fields.text(text.as_bytes());
    })
}

fn offline(node: NodeId) -> Vec<u8> {
    message(MON_STATS, |fields| {
        fields.number(node.0);
        fields.text(b"State:Offline\n");
    })
}

/// A value between a key and the end of its line: whatever its owner put into it, it makes no key up.
fn line(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).collect()
}

/// The last three parts of a path, as icecream shows them.
fn short(file: &[u8]) -> &[u8] {
    let slashes = file.iter().enumerate().rev();
    let mut slashes = slashes.filter(|(_, byte)| **byte == b'/');
    slashes.nth(2).map_or(file, |(at, _)| &file[at + 1..])
}

fn message(kind: u32, fill: impl FnOnce(&mut Fields)) -> Vec<u8> {
    let mut fields = Fields(vec![0; 4]);
    fields.number(kind);
    fill(&mut fields);
    let length = (fields.0.len() - 4) as u32;
    fields.0[..4].copy_from_slice(&length.to_be_bytes());
    fields.0
}

struct Fields(Vec<u8>);

impl Fields {
    fn number(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    /// The text ends at its first NUL.
    fn text(&mut self, text: &[u8]) {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        self.number(text.len() as u32 + 1);
        self.0.extend_from_slice(text);
        self.0.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Usage;
    use crate::news::JobPicture;

    const DESK: NodeId = NodeId(1);
    const ANVIL: NodeId = NodeId(2);

    fn picture(node: NodeId, name: &str) -> NodePicture {
        NodePicture {
            node,
            name: name.into(),
            address: "10.0.0.2:10245".into(),
            platform: "x86_64".into(),
            slots: 4,
            no_remote: None,
            is_blocked: false,
            speed_percent: 120,
            local_jobs: 0,
            load_milli: 2000,
            memory_mib: 512,
            jobs_done: 0,
        }
    }

    fn cluster() -> Translator {
        let mut translator = Translator::default();
        for (node, name) in [(DESK, "desk"), (ANVIL, "anvil")] {
            translator.news(&News::Node(picture(node, name)), 0);
        }
        translator
    }

    fn started(job: u64, worker: NodeId) -> News {
        News::Started {
            job: JobNumber(job),
            submitter: DESK,
            worker,
            file: "/home/u/src/net/a.c".into(),
        }
    }

    /// The messages in these bytes: type and fields.
    fn messages(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
            let (message, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            let (kind, fields) = message.split_first_chunk::<4>().unwrap();
            found.push((u32::from_be_bytes(*kind), fields.to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        found
    }

    fn kinds(bytes: &[u8]) -> Vec<u32> {
        messages(bytes).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn the_versions_are_exchanged_and_then_a_monitor_introduces_itself() {
        // Theirs, what both can, and that it is a monitor.
        for (theirs, agreed) in [(39u32, 39u32), (43, 43), (44, 43), (1 << 20, 43)] {
            let mut greeting = Greeting::default();
            assert_eq!(Greeting::hello(), [43, 0, 0, 0]);
            assert_eq!(
                greeting.hear(&theirs.to_le_bytes()),
                Answer::Say(agreed.to_le_bytes().to_vec())
            );
            assert_eq!(greeting.hear(&agreed.to_le_bytes()), Answer::Say(vec![]));
            assert_eq!(greeting.hear(&[0, 0, 0, 4, 0]), Answer::Say(vec![]));
            assert_eq!(greeting.hear(&[0, 0, 82]), Answer::Monitor);
        }
    }

    #[test]
    fn bytes_may_come_one_by_one_or_all_at_once() {
        let all = [43, 0, 0, 0, 43, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 82];
        assert_eq!(Greeting::default().hear(&all), Answer::Monitor);
        let mut greeting = Greeting::default();
        let mut said = Vec::new();
        for byte in all {
            match greeting.hear(&[byte]) {
                Answer::Say(bytes) => said.extend(bytes),
                answer => assert_eq!(answer, Answer::Monitor),
            }
        }
        assert_eq!((said, greeting.step), (vec![43, 0, 0, 0], Step::Done));
    }

    #[test]
    fn whoever_is_no_monitor_is_a_stranger() {
        let agreed = [43, 0, 0, 0, 43, 0, 0, 0];
        for (name, bytes) in [
            ("too old", vec![38, 0, 0, 0]),
            ("no version", vec![43, 0, 0x30, 0]),
            ("another agreement", vec![43, 0, 0, 0, 42, 0, 0, 0]),
            (
                "a daemon's login",
                [&agreed[..], &[0, 0, 0, 99, 0, 0, 0, 80]].concat(),
            ),
            (
                "a client's request",
                [&agreed[..], &[0, 0, 0, 50, 0, 0, 0, 71]].concat(),
            ),
            (
                "a long login",
                [&agreed[..], &[0, 0, 0, 8, 0, 0, 0, 82]].concat(),
            ),
        ] {
            let answer = Greeting::default().hear(&bytes);
            assert!(matches!(answer, Answer::Stranger(_)), "{name}: {answer:?}");
        }
    }

    #[test]
    fn the_clusters_own_connections_are_told_from_icecreams() {
        assert!(!is_greeting(b'I'));
        assert!(!is_greeting(0));
        for version in 21..=VERSION_MAX as u8 + 10 {
            assert!(is_greeting(version));
        }
    }

    #[test]
    fn a_job_is_these_bytes() {
        let mut translator = cluster();
        let begin = translator.news(&started(7, ANVIL), 0x1234);
        let mut golden = vec![0, 0, 0, 32, 0, 0, 0, 83, 0, 0, 0, 12];
        golden.extend(b"src/net/a.c\0");
        golden.extend([0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
        golden.extend([
            0, 0, 0, 16, 0, 0, 0, 84, 0, 0, 0, 7, 0, 0, 0x12, 0x34, 0, 0, 0, 2,
        ]);
        assert_eq!(begin, golden);
        let ending = Ending::Done {
            usage: Usage {
                cpu_us: 258_999,
                wall_us: 513_000,
                ..Usage::default()
            },
            output_bytes: 1000,
        };
        let job = JobNumber(7);
        let end = translator.news(&News::Ended { job, ending }, 0x1235);
        let mut golden = vec![0, 0, 0, 52, 0, 0, 0, 85, 0, 0, 0, 7, 0, 0, 0, 0];
        golden.extend([0, 0, 2, 1, 0, 0, 1, 2]);
        golden.extend([0; 16]);
        golden.extend([0, 0, 3, 232, 0, 0, 3, 232]);
        golden.extend([0; 8]);
        assert_eq!(end, golden);
    }

    #[test]
    fn a_node_is_its_lines_and_one_that_left_is_offline() {
        let mut translator = Translator::default();
        let told = translator.news(&News::Node(picture(ANVIL, "an\nState:Offline\nvil")), 0);
        let [(kind, fields)] = &messages(&told)[..] else {
            panic!("{told:?}");
        };
        let text = "Name:anState:Offlinevil\nIP:10.0.0.2\nMaxJobs:4\nNoRemote:false\nPlatform:x86_64\n\
                    Version:43\nFeatures:\nSpeed:120.000000\nLoad:500\nLoadAvg1:2000\nFreeMem:512\n\0";
        assert_eq!(*kind, MON_STATS);
        assert_eq!(fields[..4], [0, 0, 0, 2]);
        assert_eq!(fields[4..8], (text.len() as u32).to_be_bytes());
        assert_eq!(String::from_utf8_lossy(&fields[8..]), text);
        let left = translator.news(&News::Left { node: ANVIL }, 0);
        let mut golden = vec![0, 0, 0, 27, 0, 0, 0, 87, 0, 0, 0, 2, 0, 0, 0, 15];
        golden.extend(b"State:Offline\n\0");
        assert_eq!(left, golden);
    }

    #[test]
    fn local_jobs_begin_and_end_under_numbers_of_their_own() {
        let mut translator = cluster();
        let local = News::Local {
            node: DESK,
            reason: "link".into(),
            jobs: 2,
            file: "x".into(),
        };
        let told = messages(&translator.news(&local, 9));
        let kinds: Vec<u32> = told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [86, 79, 86, 79]);
        assert_eq!(told[0].1[..8], [0, 0, 0, 1, 0x80, 0, 0, 1]);
        assert_eq!(told[3].1, [0x80, 0, 0, 2]);
    }

    #[test]
    fn no_message_names_a_host_that_was_not_told_before() {
        let mut translator = cluster();
        assert!(translator.news(&started(1, NodeId(99)), 0).is_empty());
        let queued = News::Queued {
            job: JobNumber(2),
            submitter: NodeId(99),
            file: "a.c".into(),
        };
        assert!(translator.news(&queued, 0).is_empty());
        let ending = Ending::Own;
        let job = JobNumber(2);
        assert!(translator.news(&News::Ended { job, ending }, 0).is_empty());
    }

    #[test]
    fn who_comes_late_hears_of_hosts_first_and_then_of_jobs() {
        let mut translator = cluster();
        translator.news(&started(7, ANVIL), 0);
        assert_eq!(kinds(&translator.welcome(0)), [87, 87, 83, 84]);
        // Another term: what was is over, and what is begins.
        let snapshot = Snapshot {
            nodes: vec![picture(ANVIL, "anvil"), picture(DESK, "desk")],
            jobs: vec![JobPicture {
                job: JobNumber(1),
                submitter: DESK,
                worker: None,
                file: "a.c".into(),
                age_ms: 0,
            }],
            ..Snapshot::default()
        };
        let told = translator.snapshot(&snapshot, 0);
        assert_eq!(kinds(&told), [85, 87, 87, 87, 87, 83]);
        assert_eq!(kinds(&translator.farewell()), [85, 87, 87]);
        assert!(translator.welcome(0).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut translator = cluster();
        for job in 0..2 * JOBS_MAX as u64 {
            translator.news(&started(job, ANVIL), 0);
        }
        assert_eq!(translator.jobs.len(), JOBS_MAX);
    }
}
