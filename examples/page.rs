//! The scheduler's page over a cluster that does not exist, for whoever changes the page.
//!
//! `cargo run --example page [ADDRESS] [NODES] [JOB_MS]` serves it at `127.0.0.1:8767` or the address that is given.
//! `127.0.0.1:8767 1000 3000` is a cluster of 1000 nodes with some 5000 events a second.

use std::time::{Duration, Instant};

use ice::executor;
use ice::id::{Term, Time};
use ice::message::FromScheduler;
use ice::monitor::demo::Demo;
use ice::news::News;
use ice::reactor::{Async, Timer};
use ice::scheduler::audience::{self, Request, Told};
use ice::scheduler::election::Role;
use ice::scheduler::http::{self, Desk, HttpConfig};
use ice::scheduler::tally::Tally;
use smol::channel;
use smol::future::FutureExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().unwrap_or_default();
    let nodes = arguments.next().map_or(Ok(12), |nodes| nodes.parse())?;
    let job_ms = arguments.next().map_or(Ok(1500), |ms| ms.parse())?;
    let HttpConfig { address, names } = HttpConfig::at(&place)?;
    executor::block_on(async {
        let listener = Async::<std::net::TcpListener>::bind(address)?;
        println!("http://{address}/");
        let (telling, told) = channel::bounded(16);
        let (requests, wants) = channel::bounded(16);
        let (guests, coming) = audience::door();
        let audience = executor::spawn(audience::run(told, requests.clone(), coming));
        let desk = Desk {
            names,
            guests,
            requests,
        };
        let page = executor::spawn(http::serve(listener, desk));
        let role = Role::Master(Term::default().next(0));
        telling.send(Told::Role(role)).await?;
        let (outbox, line) = channel::bounded(64);
        telling.send(Told::Line(line)).await?;
        let mut demo = Demo::new(7, nodes, Duration::from_millis(job_ms));
        let start = Instant::now();
        let mut tally = Tally::default();
        loop {
            let asked = async { wants.recv().await.ok() };
            let moved = async {
                Timer::after(Duration::from_millis(50)).await;
                None
            };
            match asked.or(moved).await {
                Some(Request::Watch) => {
                    let snapshot = demo.snapshot();
                    outbox.send(FromScheduler::Snapshot(snapshot)).await?;
                }
                Some(Request::Role(reply)) => drop(reply.try_send(role)),
                Some(Request::Tally(reply)) => drop(reply.try_send(tally.clone())),
                None => {
                    let news = demo.advance(Time(start.elapsed().as_micros() as u64));
                    for news in &news {
                        match news {
                            News::Ended { ending, .. } => tally.ended(ending, false),
                            News::Local { reason, jobs, .. } => {
                                tally.local(reason, u64::from(*jobs));
                            }
                            _ => {}
                        }
                    }
                    let skipped = 0;
                    outbox.send(FromScheduler::News { skipped, news }).await?;
                }
            }
            if audience.is_finished() || page.is_finished() {
                return Ok(());
            }
        }
    })
}
