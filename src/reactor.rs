//! Sockets and timers for the tasks of [`executor`](crate::executor): whoever runs the tasks also
//! waits for the kernel, on one thread.
//!
//! A general reactor serves any number of threads, and pays for it: a thread of its own that takes
//! turns with the others in waiting, a timer of the kernel's that is set before each wait, and a
//! registration that is renewed after each event. For a daemon whose jobs each bring a dozen small
//! messages this was most of the work. Here a source is registered once and edge-triggered, a
//! timer is the end of the next wait, and a read that has emptied a socket is not tried again.
//!
//! Futures of other reactors work beside it: their wakers reach the sleeping thread like any other.
//! Knows no tasks. Several threads may wait (tests do): one of them waits for all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use smol::io::{AsyncRead, AsyncWrite};

/// Events that are taken from the kernel at a time.
const EVENTS: usize = 64;

/// The number of the descriptor that ends a wait; no source has it.
const ALARM: u64 = 0;

static REACTOR: LazyLock<Reactor> = LazyLock::new(|| {
    // Without these a daemon can't do anything at all.
    Reactor::new().expect("the kernel has an epoll and an eventfd for us")
});

/// Drives `future` to its end on this thread, and the sources and timers of all threads while it
/// waits.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let alarm = Arc::new(Alarm {
        rung: AtomicBool::new(false),
        thread: thread::current(),
    });
    let waker = Waker::from(alarm.clone());
    let mut context = Context::from_waker(&waker);
    let _follower = Follower::enter(alarm.clone());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        match REACTOR.turn.try_lock() {
            Ok(mut events) => REACTOR.wait(&alarm, &mut events),
            // Another thread waits for all. It rings when it has something for this one, or ends.
            Err(_) if alarm.rung.load(Ordering::SeqCst) => {}
            Err(_) => thread::park(),
        }
        alarm.rung.store(false, Ordering::SeqCst);
    }
}

/// Wakes one thread that is in [`block_on`].
struct Alarm {
    rung: AtomicBool,
    thread: Thread,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        // On its own thread the loop sees the mark before it waits again.
        if self.thread.id() != thread::current().id() {
            self.thread.unpark();
            REACTOR.interrupt();
        }
    }
}

/// Membership among the threads in [`block_on`]. Who leaves rings for the others, since one of them
/// has to wait in his place.
struct Follower(Arc<Alarm>);

impl Follower {
    fn enter(alarm: Arc<Alarm>) -> Self {
        lock(&REACTOR.followers).push(alarm.clone());
        Self(alarm)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followers = lock(&REACTOR.followers);
        followers.retain(|other| !Arc::ptr_eq(other, &self.0));
        for other in followers.iter() {
            other.wake_by_ref();
        }
    }
}

struct Reactor {
    epoll: Epoll,
    interruption: EventFd,
    /// Whether some thread sleeps in the kernel, or is about to.
    is_waiting: AtomicBool,
    next: AtomicU64,
    sources: Mutex<BTreeMap<u64, Arc<Source>>>,
    timers: Mutex<BTreeMap<(Instant, u64), Waker>>,
    /// Held by the thread that waits, with the room for what it hears.
    turn: Mutex<Vec<EpollEvent>>,
    followers: Mutex<Vec<Arc<Alarm>>>,
}

impl Reactor {
    fn new() -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interruption = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Each write is an edge, so nobody has to read.
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&interruption, EpollEvent::new(edge, ALARM))?;
        Ok(Self {
            epoll,
            interruption,
            is_waiting: AtomicBool::new(false),
            next: AtomicU64::new(ALARM + 1),
            sources: Mutex::default(),
            timers: Mutex::default(),
            turn: Mutex::new(vec![EpollEvent::empty(); EVENTS]),
            followers: Mutex::default(),
        })
    }

    /// Waits until the alarm has rung, a source is ready or a timer is due, and wakes whom it
    /// concerns. Does not wait when the alarm has rung before.
    fn wait(&self, alarm: &Alarm, events: &mut [EpollEvent]) {
        self.is_waiting.store(true, Ordering::SeqCst);
        let timeout = if alarm.rung.load(Ordering::SeqCst) {
            EpollTimeout::ZERO
        } else {
            self.patience()
        };
        let count = match self.epoll.wait(events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => panic!("wait for events: {errno}"),
        };
        self.is_waiting.store(false, Ordering::SeqCst);
        for event in &events[..count] {
            let source = lock(&self.sources).get(&event.data()).cloned();
            if let Some(source) = source {
                source.hear(event.events());
            }
        }
        self.ring_timers();
    }

    /// The time until the next timer is due, rounded up to milliseconds.
    fn patience(&self) -> EpollTimeout {
        let timers = lock(&self.timers);
        let Some(((deadline, _), _)) = timers.first_key_value() else {
            return EpollTimeout::NONE;
        };
        let rest = deadline.saturating_duration_since(Instant::now());
        let rest_ms = rest.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(rest_ms).unwrap_or(EpollTimeout::MAX)
    }

    fn ring_timers(&self) {
        let mut timers = lock(&self.timers);
        if timers.is_empty() {
            return;
        }
        let later = timers.split_off(&(Instant::now(), u64::MAX));
        let due = std::mem::replace(&mut *timers, later);
        drop(timers);
        due.into_values().for_each(Waker::wake);
    }

    /// Ends the wait of whichever thread waits now.
    fn interrupt(&self) {
        if self.is_waiting.load(Ordering::SeqCst) {
            // It can only fail when the counter is full, and then the edge has been.
            let _ = self.interruption.write(1);
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// A descriptor that the reactor watches.
#[derive(Debug)]
struct Source {
    number: u64,
    readable: Mutex<Readiness>,
    writable: Mutex<Readiness>,
    /// Whether the kernel was asked to tell when it becomes writable. A socket hardly ever isn't,
    /// and would tell of every message that the other end has read.
    watches_writing: AtomicBool,
}

/// Whether an operation is worth trying, and who waits for that.
#[derive(Debug)]
struct Readiness {
    ready: bool,
    /// Whether the other end has ended: there is no event after that.
    ended: bool,
    /// Counts events, so that one between a failed try and its note is not lost.
    events: u64,
    waiting: Vec<Waker>,
}

impl Readiness {
    /// A new source is tried first.
    fn optimistic() -> Mutex<Self> {
        Mutex::new(Self {
            ready: true,
            ended: false,
            events: 0,
            waiting: Vec::new(),
        })
    }
}

impl Source {
    fn hear(&self, events: EpollFlags) {
        let ended = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI | ended;
        // The end of what a TCP peer says is told once, perhaps with its last bytes, and is no hang-up as
        // long as this side may speak.
        let silent = EpollFlags::EPOLLRDHUP | ended;
        for (flags, last, readiness) in [
            (readable, silent, &self.readable),
            (EpollFlags::EPOLLOUT | ended, ended, &self.writable),
        ] {
            if events.intersects(flags) {
                let mut readiness = lock(readiness);
                readiness.ready = true;
                readiness.ended |= events.intersects(last);
                readiness.events += 1;
                let waiting = std::mem::take(&mut readiness.waiting);
                drop(readiness);
                waiting.into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// What [`Async`] can be made of.
pub trait Device: AsFd {
    /// Whether a read that fills less than its buffer has read all there is.
    const SHORT_READ_IS_ALL: bool = false;
}

impl Device for TcpStream {
    const SHORT_READ_IS_ALL: bool = true;
}
impl Device for UnixStream {
    const SHORT_READ_IS_ALL: bool = true;
}
impl Device for TcpListener {}
impl Device for UnixListener {}
impl Device for UdpSocket {}
impl Device for OwnedFd {}
impl Device for File {}

/// A socket, pipe or terminal whose operations wait without holding up their thread. Only tasks of
/// threads in [`block_on`] get to hear of it.
#[derive(Debug)]
pub struct Async<T: Device> {
    device: T,
    source: Arc<Source>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Reading,
    Writing,
}

impl<T: Device> Async<T> {
    /// Puts the device into non-blocking mode and watches it.
    ///
    /// # Errors
    /// When it can't be watched: a file on a disk can't.
    pub fn new(device: T) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&device, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(&device, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        let source = Arc::new(Source {
            number: REACTOR.number(),
            readable: Readiness::optimistic(),
            writable: Readiness::optimistic(),
            watches_writing: AtomicBool::new(false),
        });
        lock(&REACTOR.sources).insert(source.number, source.clone());
        let watched = Self { device, source };
        let event = EpollEvent::new(watched.interest(false), watched.source.number);
        REACTOR.epoll.add(&watched.device, event)?;
        Ok(watched)
    }

    /// The device, which is in non-blocking mode.
    pub fn get_ref(&self) -> &T {
        &self.device
    }

    /// Waits until `operation` has something to read.
    ///
    /// # Errors
    /// Those of `operation`, but the one that says to wait.
    pub async fn read_with<R>(
        &self,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        std::future::poll_fn(|context| self.attempt(context, Direction::Reading, &mut operation))
            .await
    }

    /// Waits until `operation` has room to write to.
    ///
    /// # Errors
    /// Those of `operation`, but the one that says to wait.
    pub async fn write_with<R>(
        &self,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        std::future::poll_fn(|context| self.attempt(context, Direction::Writing, &mut operation))
            .await
    }

    fn interest(&self, writing: bool) -> EpollFlags {
        let reading = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        match writing {
            true => reading | EpollFlags::EPOLLOUT,
            false => reading,
        }
    }

    fn readiness(&self, direction: Direction) -> MutexGuard<'_, Readiness> {
        match direction {
            Direction::Reading => lock(&self.source.readable),
            Direction::Writing => lock(&self.source.writable),
        }
    }

    fn attempt<R>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        operation: &mut impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let Some(events) = self.poll_ready(context, direction)? else {
                return Poll::Pending;
            };
            match operation(&self.device) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.exhausted(direction, events);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// The count of events when a try is worth it; otherwise the task is noted down.
    fn poll_ready(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
    ) -> io::Result<Option<u64>> {
        let mut readiness = self.readiness(direction);
        if readiness.ready {
            return Ok(Some(readiness.events));
        }
        let waker = context.waker();
        if !readiness.waiting.iter().any(|other| other.will_wake(waker)) {
            readiness.waiting.push(waker.clone());
        }
        drop(readiness);
        if direction == Direction::Writing
            && !self.source.watches_writing.swap(true, Ordering::SeqCst)
        {
            // Should there be room by now, the kernel says so again.
            let mut event = EpollEvent::new(self.interest(true), self.source.number);
            REACTOR.epoll.modify(&self.device, &mut event)?;
        }
        Ok(None)
    }

    /// Notes that there is nothing to do until the next event, unless that has been.
    fn exhausted(&self, direction: Direction, events: u64) {
        let mut readiness = self.readiness(direction);
        if readiness.events == events {
            readiness.ready = false;
        }
    }
}

impl<T: Device> Drop for Async<T> {
    fn drop(&mut self) {
        lock(&REACTOR.sources).remove(&self.source.number);
        // Closing is not enough where the device has a second descriptor.
        let _ = REACTOR.epoll.delete(&self.device);
    }
}

impl<T: Device> AsFd for Async<T> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl<T: Device> AsyncRead for &Async<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut seen = 0;
        let result = self.attempt(context, Direction::Reading, &mut |mut device: &T| {
            seen = self.readiness(Direction::Reading).events;
            device.read(bytes)
        });
        if let Poll::Ready(Ok(count)) = &result
            && T::SHORT_READ_IS_ALL
            && (1..bytes.len()).contains(count)
            && !self.readiness(Direction::Reading).ended
        {
            self.exhausted(Direction::Reading, seen);
        }
        result
    }
}

impl<T: Device> AsyncWrite for &Async<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.attempt(context, Direction::Writing, &mut |mut device: &T| {
            device.write(bytes)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.attempt(context, Direction::Writing, &mut |mut device: &T| {
            device.flush()
        })
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A stream is closed by dropping it.
        Poll::Ready(Ok(()))
    }
}

impl<T: Device + Unpin> AsyncRead for Async<T>
where
    for<'a> &'a T: Read,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(context, bytes)
    }
}

impl<T: Device + Unpin> AsyncWrite for Async<T>
where
    for<'a> &'a T: Write,
{
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(context)
    }
}

impl Async<TcpListener> {
    /// Listens at `address`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(address: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::new(TcpListener::bind(address.into())?)
    }

    /// The next connection, and who makes it.
    ///
    /// # Errors
    /// The kernel's: mostly that there are no descriptors left.
    pub async fn accept(&self) -> io::Result<(Async<TcpStream>, SocketAddr)> {
        let (stream, address) = self.read_with(TcpListener::accept).await?;
        Ok((Async::new(stream)?, address))
    }
}

impl Async<UnixListener> {
    /// The next connection, and the name of its other end.
    ///
    /// # Errors
    /// The kernel's: mostly that there are no descriptors left.
    pub async fn accept(&self) -> io::Result<(Async<UnixStream>, UnixAddress)> {
        let (stream, address) = self.read_with(UnixListener::accept).await?;
        Ok((Async::new(stream)?, address))
    }
}

impl Async<TcpStream> {
    /// Connects to `address`; lasts as long as the kernel tries.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let stream = Self::new(TcpStream::from(socket))?;
        stream.exhausted(Direction::Writing, 0);
        stream
            .write_with(|stream| match stream.take_error()? {
                Some(error) => Err(error),
                None => stream.peer_addr().map(drop),
            })
            .await?;
        Ok(stream)
    }
}

impl Async<UdpSocket> {
    /// A socket at `address`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(address: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::new(UdpSocket::bind(address.into())?)
    }

    /// The next packet, its length and its sender.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn recv_from(&self, packet: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.read_with(|socket| socket.recv_from(packet)).await
    }

    /// The length of the next packet from the peer that the socket is connected to.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn recv(&self, packet: &mut [u8]) -> io::Result<usize> {
        self.read_with(|socket| socket.recv(packet)).await
    }

    /// Sends a packet to the peer that the socket is connected to.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn send(&self, packet: &[u8]) -> io::Result<usize> {
        self.write_with(|socket| socket.send(packet)).await
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn send_to(&self, packet: &[u8], to: impl Into<SocketAddr>) -> io::Result<usize> {
        let to = to.into();
        self.write_with(|socket| socket.send_to(packet, to)).await
    }
}

/// Completes at a time; costs no system call. It needs a thread in [`block_on`].
#[derive(Debug)]
pub struct Timer {
    deadline: Instant,
    number: Option<u64>,
}

impl Timer {
    /// A timer that completes in `time`, up to a millisecond later.
    pub fn after(time: Duration) -> Self {
        // A time without end is one that nobody sees the end of.
        let century = Duration::from_secs(3_000_000_000);
        Self::at(Instant::now() + time.min(century))
    }

    /// A timer that completes at `deadline`.
    pub fn at(deadline: Instant) -> Self {
        Self {
            deadline,
            number: None,
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| REACTOR.number());
        let key = (self.deadline, number);
        let mut timers = lock(&REACTOR.timers);
        timers.insert(key, context.waker().clone());
        let is_next = timers.keys().next() == Some(&key);
        drop(timers);
        if is_next {
            // Another thread may wait, and for too long.
            REACTOR.interrupt();
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&REACTOR.timers).remove(&(self.deadline, number));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

#[cfg(test)]
mod tests {
    use smol::future::{self, FutureExt};
    use smol::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn bytes_arrive_whatever_the_sizes_of_the_pieces() {
        let (left, right) = UnixStream::pair().unwrap();
        let (left, right) = (Async::new(left).unwrap(), Async::new(right).unwrap());
        // Far beyond what a socket holds, so that both ends have to wait.
        let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let received = block_on(async {
            let send = async {
                for piece in sent.chunks(77_777) {
                    (&left).write_all(piece).await.unwrap();
                }
                drop(left);
            };
            let receive = async {
                let mut received = Vec::new();
                (&right).read_to_end(&mut received).await.unwrap();
                received
            };
            future::zip(send, receive).await.1
        });
        assert!(received == sent);
    }

    #[test]
    fn a_short_read_does_not_hide_the_end_of_the_stream() {
        for _ in 0..200 {
            let (left, mut right) = UnixStream::pair().unwrap();
            let left = Async::new(left).unwrap();
            let writer = thread::spawn(move || {
                right.write_all(b"one").unwrap();
                thread::yield_now();
                right.write_all(b"two").unwrap();
            });
            let mut all = Vec::new();
            block_on((&left).read_to_end(&mut all)).unwrap();
            assert_eq!(all, b"onetwo");
            writer.join().unwrap();
        }
    }

    #[test]
    fn futures_of_another_reactor_work_beside_it() {
        let time = Duration::from_millis(1);
        block_on(future::zip(
            async_io::Timer::after(time),
            Timer::after(time),
        ));
    }

    #[test]
    fn the_end_of_a_tcp_stream_that_comes_with_its_last_bytes_is_read() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut right = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (left, _) = listener.accept().unwrap();
        let left = Async::new(left).unwrap();
        block_on(async {
            // The reader has heard that there is nothing, so both come with one event.
            assert!(future::poll_once((&left).read(&mut [0; 8])).await.is_none());
            right.write_all(b"last").unwrap();
            drop(right);
            let mut all = Vec::new();
            (&left).read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"last");
        });
    }

    #[test]
    fn a_wait_ends_when_another_thread_wakes_the_task() {
        for _ in 0..200 {
            let (sender, receiver) = smol::channel::bounded(1);
            let waker = thread::spawn(move || sender.try_send(7).unwrap());
            assert_eq!(block_on(receiver.recv()), Ok(7));
            waker.join().unwrap();
        }
    }

    #[test]
    fn threads_take_each_others_place() {
        // Each thread ends at another time, and the rest must not sleep for ever.
        let threads: Vec<_> = (0..8_u64)
            .map(|index| {
                thread::spawn(move || {
                    let (left, right) = UnixStream::pair().unwrap();
                    let (left, right) = (Async::new(left).unwrap(), Async::new(right).unwrap());
                    block_on(async {
                        for round in 0..50 + index * 10 {
                            let mut byte = [0];
                            let echo = async {
                                (&left).write_all(&[round as u8]).await.unwrap();
                                (&right).read_exact(&mut byte).await.unwrap();
                            };
                            future::zip(echo, Timer::after(Duration::from_micros(index))).await;
                            assert_eq!(byte, [round as u8]);
                        }
                    });
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_connection_that_nobody_takes_is_an_error() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(block_on(Async::<TcpStream>::connect(address)).is_ok());
        drop(listener);
        let error = block_on(Async::<TcpStream>::connect(address))
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn timers_complete_in_their_order_and_dropped_ones_are_forgotten() {
        block_on(async {
            let timer = |time| async move {
                Timer::after(Duration::from_millis(time)).await;
                time
            };
            let forgotten = Timer::after(Duration::from_secs(3600));
            let first = timer(30).or(timer(1)).or(async {
                forgotten.await;
                0
            });
            assert_eq!(first.await, 1);
        });
    }

    #[test]
    fn a_file_on_a_disk_is_refused() {
        assert!(Async::new(tempfile::tempfile().unwrap()).is_err());
    }
}
