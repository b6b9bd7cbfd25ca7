//! The bytes of one message of each kind: they *are* the protocol.
//!
//! postcard is positional, so a field that moves or a variant in between changes what two versions
//! say to each other without a word from the compiler. When this test fails, that has happened:
//! count [`PROTOCOL`] up if two installed versions could meet, then `ICE_BLESS=1 cargo test --test golden`
//! writes the new bytes down.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use ice::frame;
use ice::id::{AbsPath, Bytes, Digest, JobId, LeaseId, NodeId, RequestId, SchedulerId, Term};
use ice::message::*;
use ice::news::*;
use serde::Serialize;

#[test]
fn the_bytes_of_the_protocol_are_those_that_were_agreed() {
    let text = format!("protocol {PROTOCOL}\n{}", messages().concat());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/messages.txt");
    if std::env::var_os("ICE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
}

fn line(name: &str, message: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    frame::encode(message, MESSAGE_BYTES_MAX, &mut bytes).unwrap();
    let mut line = format!("{name} ");
    for byte in bytes {
        write!(line, "{byte:02x}").unwrap();
    }
    line + "\n"
}

fn path(text: &str) -> AbsPath {
    AbsPath::parse(text).unwrap()
}

fn snapshot(picture: NodePicture) -> Snapshot {
    Snapshot {
        netname: "ICE".to_owned(),
        version: "1".to_owned(),
        uptime_s: 2,
        nodes: vec![picture],
        jobs: vec![JobPicture {
            job: JobNumber(3),
            submitter: NodeId(7),
            worker: Some(NodeId(8)),
            file: "f.c".into(),
            age_ms: 4,
        }],
        jobs_omitted: 5,
        totals: totals(),
    }
}

fn totals() -> Totals {
    Totals {
        remote: 6,
        own: 7,
        failed: 8,
        remote_cpu_us: 9,
        output_bytes: 10,
        local: vec![("link".to_owned(), 11)],
    }
}

fn news(picture: NodePicture, usage: Usage) -> Vec<News> {
    let job = JobNumber(3);
    let (submitter, worker) = (NodeId(7), NodeId(8));
    let endings = [
        Ending::Done {
            usage,
            output_bytes: 300,
        },
        Ending::Own,
        Ending::Unused,
        Ending::Failed {
            failure: Failure::Memory,
            dead: true,
        },
        Ending::Lost,
        Ending::Withdrawn,
        Ending::Denied("why".to_owned()),
    ];
    let mut news = vec![
        News::Node(picture),
        News::Left { node: worker },
        News::Queued {
            job,
            submitter,
            file: "f.c".into(),
        },
        News::Started {
            job,
            submitter,
            worker,
            file: "f.c".into(),
        },
        News::Local {
            node: submitter,
            reason: "link".to_owned(),
            jobs: 2,
            file: "f.c".into(),
        },
    ];
    news.extend(endings.map(|ending| News::Ended { job, ending }));
    news
}

fn messages() -> Vec<String> {
    let picture = NodePicture {
        node: NodeId(7),
        name: "n".to_owned(),
        address: "10.0.0.1:10245".to_owned(),
        platform: "x86_64".to_owned(),
        slots: 8,
        no_remote: Some("why".to_owned()),
        is_blocked: true,
        speed_percent: 120,
        local_jobs: 1,
        load_milli: 1500,
        memory_mib: 4096,
        jobs_done: 42,
    };
    let mtime = Mtime {
        seconds: -1,
        nanoseconds: 2,
    };
    let kind = EntryKind::File {
        digest: Digest([7; 32]),
        size: 300,
        executable: true,
        mtime,
    };
    let file = Entry {
        path: path("/a/b.h"),
        kind,
    };
    let entries = vec![
        file,
        Entry {
            path: path("/lib"),
            kind: EntryKind::Symlink("usr/lib".into()),
        },
        Entry {
            path: path("/a"),
            kind: EntryKind::Directory,
        },
    ];
    let chunk = Chunk {
        size: 3,
        data: "abc".into(),
    };
    let usage = Usage {
        cpu_us: 1,
        wall_us: 2,
        rss_kib: 3,
        setup_us: 4,
    };
    let report = Report {
        mode: Mode::Source,
        node: "n".to_owned(),
        reason: Some(("word".to_owned(), "sentence".to_owned())),
        file: "f.c".into(),
        tries: 1,
        files: 2,
        phases: vec![Span {
            phase: CallPhase::Wait,
            from_us: 3,
            to_us: 4,
        }],
    };
    let call = Call {
        protocol: PROTOCOL,
        kind: CallKind::Compile,
        compiler: "/usr/bin/gcc".into(),
        argv: vec!["gcc".into(), "-c".into()],
        cwd: "/w".into(),
        env: vec![("A".into(), "1".into())],
        umask: 0o22,
        terminal: Some(Terminal {
            rows: 24,
            columns: 80,
        }),
        niceness: -1,
        sight: Sight {
            root: Some(FileNumber {
                device: 1,
                inode: 2,
            }),
            directory: Some(FileNumber {
                device: 3,
                inode: 300,
            }),
            compiler: None,
        },
    };
    let job = JobSpec {
        job: JobId(1),
        lease: LeaseId(2),
        term: Term(3),
        tenant: [9; 16],
        toolchain: Digest([8; 32]),
        program: path("/usr/bin/gcc"),
        argv: vec!["gcc".into()],
        cwd: path("/w"),
        env: vec![("A".into(), Bytes::from(&b"\xff"[..]))],
        umask: 0o77,
        terminal: None,
        writable: vec![path("/w")],
        standing: vec![Standing {
            path: path("/w/a.o"),
            mode: 0o644,
            is_empty: true,
        }],
        fresh: entries.clone(),
        entries: vec![0, 1, 1],
    };
    let terms = Terms {
        niceness: 5,
        platform: "x86_64".to_owned(),
        preferred: "h".to_owned(),
    };
    let want = Want {
        request: RequestId(5),
        toolchain: Digest([8; 32]),
        toolchain_bytes: 9_000_000,
        terms: terms.clone(),
        file: "f.c".into(),
        variant: 10,
        except: vec![NodeId(3)],
        own: OwnNode::AsWorker,
    };
    let grant = Grant {
        request: RequestId(5),
        terms,
        lease: LeaseId(6),
        node: NodeId(7),
        name: "w".to_owned(),
        address: SocketAddr::from(([10, 0, 0, 1], 10245)),
        term: Term(3),
        home: Home::Overflow,
        once: true,
        slowness_milli: 900,
        memory_mib: 8000,
    };
    let login = Login {
        name: "n".to_owned(),
        netname: "ICECREAM".to_owned(),
        platform: "x86_64".to_owned(),
        port: 10245,
        slots: 4,
        no_remote: Some("why".to_owned()),
        toolchains: vec![Digest([8; 32])],
        state: NodeState::default(),
        seen: Term::default(),
    };
    let state = NodeState {
        local_jobs: 1,
        remote_jobs: 2,
        waiting: 3,
        load_milli: 4,
        memory_mib: 5,
        processor_stall_milli: 6,
        memory_stall_milli: 7,
        clock_ms: 6,
    };
    let outcome = Outcome::Failed {
        failure: Failure::Full,
        dead: true,
    };
    let node = NodeStatus {
        name: "n".to_owned(),
        address: "10.0.0.1:10245".to_owned(),
        platform: "x86_64".to_owned(),
        slots: 4,
        running: 1,
        local_jobs: 2,
        jobs_done: 3,
        speed_percent: 100,
        no_remote: None,
        load_milli: 5,
        skew_ms: Some(-6),
    };
    vec![
        line("Call", &call),
        line("Answer::Accepted", &Answer::Accepted),
        line(
            "Answer::Output",
            &Answer::Output {
                stream: 2,
                data: "x".into(),
            },
        ),
        line(
            "Answer::Exit",
            &Answer::Exit {
                status: 1,
                report: report.clone(),
            },
        ),
        line("Answer::Local", &Answer::Local { report }),
        line("ToWorker::Job", &ToWorker::Job(Box::new(job))),
        line(
            "ToWorker::Manifest",
            &ToWorker::Manifest(Manifest {
                platform: "x86_64".to_owned(),
                entries,
            }),
        ),
        line(
            "ToWorker::Blob",
            &ToWorker::Blob {
                digest: Digest([7; 32]),
                size: 300,
            },
        ),
        line("ToWorker::Chunk", &ToWorker::Chunk(chunk.clone())),
        line("ToWorker::Gone", &ToWorker::Gone(Digest([7; 32]))),
        line("ToWorker::Cancel", &ToWorker::Cancel),
        line(
            "FromWorker::NeedManifest",
            &FromWorker::NeedManifest(Digest([7; 32])),
        ),
        line(
            "FromWorker::NeedBlobs",
            &FromWorker::NeedBlobs(vec![Digest([7; 32])]),
        ),
        line("FromWorker::Alive", &FromWorker::Alive),
        line("FromWorker::Started", &FromWorker::Started),
        line(
            "FromWorker::Output",
            &FromWorker::Output {
                stream: 1,
                chunk: chunk.clone(),
            },
        ),
        line(
            "FromWorker::File",
            &FromWorker::File {
                path: path("/w/a.o"),
                mode: 0o644,
                size: 3,
            },
        ),
        line("FromWorker::Chunk", &FromWorker::Chunk(chunk)),
        line(
            "FromWorker::Made",
            &FromWorker::Made {
                path: path("/w/l"),
                target: Some("t".into()),
            },
        ),
        line("FromWorker::Removed", &FromWorker::Removed(path("/w/a.o"))),
        line("FromWorker::Done", &FromWorker::Done { status: 1, usage }),
        line(
            "FromWorker::Failed",
            &FromWorker::Failed {
                failure: Failure::Internal,
                detail: "d".to_owned(),
            },
        ),
        line("ToScheduler::Login", &ToScheduler::Login(login)),
        line("ToScheduler::State", &ToScheduler::State(state)),
        line("Deal::Want", &ToScheduler::Deal(Deal::Want(want))),
        line(
            "Deal::Withdraw",
            &ToScheduler::Deal(Deal::Withdraw(RequestId(5))),
        ),
        line(
            "Deal::Began",
            &ToScheduler::Deal(Deal::Began {
                request: RequestId(5),
                lease: LeaseId(6),
            }),
        ),
        line(
            "Deal::Ended",
            &ToScheduler::Deal(Deal::Ended {
                request: RequestId(5),
                lease: LeaseId(6),
                outcome: Outcome::Done {
                    usage,
                    output_bytes: 9,
                },
            }),
        ),
        line(
            "Deal::Ended, lagged",
            &ToScheduler::Deal(Deal::Ended {
                request: RequestId(5),
                lease: LeaseId(6),
                outcome: Outcome::Lagged { ran_us: 7 },
            }),
        ),
        line(
            "Deal::Ended, failed",
            &ToScheduler::Deal(Deal::Ended {
                request: RequestId(5),
                lease: LeaseId(6),
                outcome,
            }),
        ),
        line("Deal::Return", &ToScheduler::Deal(Deal::Return(LeaseId(6)))),
        line(
            "Deal::Way",
            &ToScheduler::Deal(Deal::Way {
                lease: LeaseId(6),
                way: Way {
                    travel_us: 1500,
                    up: 12_000_000,
                    down: 0,
                },
            }),
        ),
        line(
            "ToScheduler::Toolchains",
            &ToScheduler::Toolchains {
                added: vec![Digest([1; 32])],
                removed: vec![],
            },
        ),
        line(
            "ToScheduler::Capacity",
            &ToScheduler::Capacity {
                slots: 4,
                no_remote: Some("why".to_owned()),
            },
        ),
        line("ToScheduler::Status", &ToScheduler::Status),
        line("ToScheduler::Watch", &ToScheduler::Watch),
        line(
            "ToScheduler::Block",
            &ToScheduler::Block {
                node: "n".to_owned(),
                is_blocked: true,
            },
        ),
        line(
            "ToScheduler::LocalJobs",
            &ToScheduler::LocalJobs(vec![LocalJobs {
                reason: "link".to_owned(),
                jobs: 3,
                file: "f.c".into(),
            }]),
        ),
        line(
            "FromScheduler::Welcome",
            &FromScheduler::Welcome {
                node: NodeId(7),
                name: "n".to_owned(),
                term: Term(3),
            },
        ),
        line(
            "FromScheduler::Refused",
            &FromScheduler::Refused("why".to_owned()),
        ),
        line("Offer::Grant", &FromScheduler::Offer(Offer::Grant(grant))),
        line(
            "Offer::Size",
            &FromScheduler::Offer(Offer::Size {
                request: RequestId(5),
                size: Size {
                    cost_us: 70_000,
                    memory_mib: 300,
                    output_bytes: 200_000,
                },
            }),
        ),
        line(
            "Offer::Revoke",
            &FromScheduler::Offer(Offer::Revoke(LeaseId(6))),
        ),
        line(
            "Offer::Deny",
            &FromScheduler::Offer(Offer::Deny {
                request: RequestId(5),
                why: "why".to_owned(),
            }),
        ),
        line(
            "FromScheduler::Elsewhere",
            &FromScheduler::Elsewhere(SocketAddr::from(([10, 0, 0, 2], 8765))),
        ),
        line(
            "FromScheduler::Standbys",
            &FromScheduler::Standbys(vec![SocketAddr::from(([10, 0, 0, 2], 8765))]),
        ),
        line("FromScheduler::Alive", &FromScheduler::Alive),
        line(
            "FromScheduler::Status",
            &FromScheduler::Status(Status {
                nodes: vec![node],
                waiting: 1,
                totals: totals(),
                clock_ms: 7,
            }),
        ),
        line(
            "FromScheduler::Snapshot",
            &FromScheduler::Snapshot(snapshot(picture.clone())),
        ),
        line(
            "FromScheduler::News",
            &FromScheduler::News {
                skipped: 9,
                news: news(picture, usage),
            },
        ),
        line("ToNode::Deal", &ToNode::Deal(Deal::Withdraw(RequestId(5)))),
        line("ToNode::WantLocal", &ToNode::WantLocal(RequestId(5))),
        line("ToNode::ReturnLocal", &ToNode::ReturnLocal(RequestId(5))),
        line(
            "ToNode::Local",
            &ToNode::Local {
                reason: "link".to_owned(),
                file: "f.c".into(),
            },
        ),
        line(
            "FromNode::Offer",
            &FromNode::Offer(Offer::Revoke(LeaseId(6))),
        ),
        line("FromNode::Void", &FromNode::Void),
        line("FromNode::LocalSlot", &FromNode::LocalSlot(RequestId(5))),
        line(
            "Datagram::Question",
            &Datagram::Question {
                nonce: [9; 16],
                asker: None,
            },
        ),
        line(
            "Datagram::Answer",
            &Datagram::Answer {
                nonce: [9; 16],
                claim: Claim {
                    id: SchedulerId(1),
                    started_ms: 2,
                    term: Term(3),
                    office: Office::Master,
                    port: 8765,
                },
            },
        ),
    ]
}
