//! A node that is played by a test: it logs in at a real scheduler and says what the test wants.

use std::time::Duration;

use ice::connection::{Connection, Receiver, Sender};
use ice::message::{FromScheduler, Login, ToScheduler};

/// The longest that a scheduler may take to say welcome.
const BOUND: Duration = Duration::from_secs(30);

/// Logs in over this connection as a node of four slots, and waits until it is welcome.
pub async fn log_in(connection: Connection, name: &str, netname: &str) -> (Sender, Receiver) {
    let (mut sender, mut receiver) = connection.split();
    let login = Login {
        port: 10245,
        slots: 4,
        ..Login::new(name, netname, "x86_64")
    };
    sender.send(&ToScheduler::Login(login)).await.unwrap();
    let late = async {
        ice::reactor::Timer::after(BOUND).await;
        panic!("no welcome within {BOUND:?}")
    };
    let welcome = smol::future::or(receiver.receive::<FromScheduler>(), late).await;
    let welcome = welcome.unwrap();
    assert!(
        matches!(welcome, Some(FromScheduler::Welcome { .. })),
        "{welcome:?}"
    );
    (sender, receiver)
}
