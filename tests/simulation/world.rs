//! A cluster on a virtual clock: the real cores, joined by a network that is made up.
//!
//! Each machine has a node's [`Session`], a submitter's [`Holdings`] and [`Course`]s, and a worker's
//! [`Slots`]; the schedulers have their [`Core`]s. What stands between the cores in the real program (sockets,
//! tasks, compilers) is done here in its simplest form. Events happen one at a time, in the order of the
//! clock and of nothing else, so that a seed is a story that can be told again.
//!
//! The network behaves as TCP does: each connection delivers in order, with a delay of its own, or breaks. A
//! machine that is cut off or frozen is silent, and what was said to it arrives late. A machine that dies
//! forgets everything, and its connections are reset.
//!
//! Which of the schedulers leads is decided here as simply: the one that does stays it, and when it stops or hangs
//! the first of the others takes over. One that comes back after that finds out, after a while in which both
//! lend slots, and stands by. The real election is a core with stories of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ice::daemon::session::{Input, LinkCommand, LinkEvent, Output, Session};
use ice::daemon::slots::{Admission, Claim, Slots};
use ice::id::{Bytes, Digest, LeaseId, NodeId, RequestId, Time};
use ice::message::{
    Deal, Failure, FromScheduler, Grant, Home, Login, NodeState, Offer, Outcome, OwnNode, Terms,
    ToScheduler, Usage, Want,
};
use ice::scheduler::speed::Speeds;
use ice::scheduler::{Action, Algorithm, Core, Event, PeerId, Rules};
use ice::submitter::attempt::Undelivered;
use ice::submitter::course::{self, Course, Step};
use ice::submitter::holdings::{self, Holdings};
use ice::submitter::ways::Measured;

use crate::random::Random;

/// The toolchain of all jobs.
const GCC: Digest = Digest([1; 32]);
/// What sending it takes.
const TOOLCHAIN_US: u64 = 800_000;
/// How long a submitter waits for a worker that says nothing, and for a connection.
const SILENCE_US: u64 = 1_800_000;
/// How long a job waits at a full worker's door.
const DOOR_US: u64 = 500_000;
/// A scheduler that hung learns so late that another leads.
const YIELD_US: u64 = 1_000_000;
/// A machine says how it stands at most so often.
const STATE_PAUSE_US: u64 = 100_000;

/// What a machine is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Slots; none only submits.
    pub slots: u32,
    /// How many times longer than elsewhere a job takes.
    pub slowness: f64,
    /// Whether it has the toolchain from the beginning.
    pub equipped: bool,
}

/// A build: jobs that one machine wants done, so many at a time.
#[derive(Clone, Debug)]
pub struct Build {
    /// On which machine.
    pub machine: usize,
    /// When it begins.
    pub begins: Time,
    /// `make -j`.
    pub parallel: usize,
    /// Its niceness.
    pub niceness: u8,
    /// What each of its jobs costs on a machine of slowness 1, in microseconds.
    pub costs_us: Vec<u64>,
    /// A name for the files, by which their sizes are remembered.
    pub project: String,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The machines.
    pub machines: Vec<Shape>,
    /// Schedulers; nodes go to the one that leads.
    pub schedulers: usize,
    /// How they choose.
    pub algorithm: Algorithm,
    /// The builds.
    pub builds: Vec<Build>,
    /// The way of a message, in microseconds, and by how much it may be longer.
    pub delay_us: (u64, u64),
    /// How much a job's time may differ from what it should be, as a share.
    pub noise: f64,
    /// What is to be known of speeds and sizes at the beginning.
    pub speeds: Speeds,
    /// The random numbers.
    pub seed: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine loses its power, and all that it knows.
    Die(usize),
    /// It is there again.
    Revive(usize),
    /// Nothing moves on it, and its connections stay.
    Freeze(usize),
    /// It goes on.
    Thaw(usize),
    /// It reaches nobody.
    CutOff(usize),
    /// It is reached again.
    Reconnect(usize),
    /// It becomes so many times slower, in tenths.
    Slow(usize, u32),
    /// Its user runs so many jobs of his own.
    Burden(usize, u32),
    /// A scheduler's process ends.
    Stop(usize),
    /// It is started anew.
    Start(usize),
    /// A scheduler's process hangs.
    Hang(usize),
    /// It goes on.
    Resume(usize),
}

/// A job of a build, as it went.
#[derive(Clone, Debug, Default)]
pub struct JobRecord {
    /// When it began to wait.
    pub began: Time,
    /// When it ended, if it did.
    pub ended: Option<Time>,
    /// How often it ended.
    pub ends: u32,
    /// How many starts it had on workers.
    pub starts: u32,
    /// Whether it was compiled where it was called.
    pub local: bool,
}

/// The two ends of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Machine(usize),
    Scheduler(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wire(u64);

#[derive(Clone, Debug)]
enum Message {
    ToScheduler(ToScheduler),
    FromScheduler(FromScheduler),
    Job { lease: LeaseId, cost_us: u64 },
    Started,
    Done { wall_us: u64 },
    Busy,
    Closed,
}

/// A connection.
#[derive(Debug)]
struct Line {
    ends: [Place; 2],
    /// When the last message in each direction arrives: the next does not overtake it.
    last: [Time; 2],
    /// What could not be delivered, since one end was out of reach.
    held: [VecDeque<Message>; 2],
    open: [bool; 2],
}

#[derive(Clone, Debug)]
enum Happening {
    Deliver(Wire, usize, Message),
    Connect(usize),
    SessionWake(usize),
    HoldingsWake(usize),
    /// The node tells its submitter something.
    Hear(usize, holdings::Event),
    CoreWake(usize),
    Yield,
    Tell(usize),
    Fetched(usize, Claim),
    Late(usize, Claim),
    Compiled(usize, Claim, u64),
    LocalDone(usize, Claim),
    Impatient(usize, u64),
    Begin(usize),
    Fault(Fault),
}

struct Machine {
    shape: Shape,
    alive: bool,
    frozen: bool,
    cut_off: bool,
    /// Changes with each death: what was to happen before does not.
    life: u64,
    session: Session,
    link: Option<Wire>,
    node: Option<NodeId>,
    /// The session's number of connections, so that a late answer is known as such.
    holdings: Holdings,
    slots: Slots,
    toolchains: bool,
    told: NodeState,
    telling: bool,
    /// Happenings that wait for the thaw.
    stalled: VecDeque<Happening>,
    /// Leases held for the first time, and who waits on what.
    jobs: BTreeMap<RequestId, (usize, usize)>,
    attempts: BTreeMap<u64, Attempt>,
    courses: BTreeMap<(usize, usize), Course>,
    work: BTreeMap<Claim, Work>,
    locals: BTreeMap<Claim, Local>,
    claims: u64,
    session_wakes: Option<Time>,
    holdings_wakes: Option<Time>,
    /// When a job last ran here.
    pub used: Time,
}

/// A start of a job, on the submitter.
#[derive(Clone, Debug)]
struct Attempt {
    job: (usize, usize),
    request: RequestId,
    grant: Grant,
    worker: usize,
    wire: Wire,
    /// When the compiler started at the worker.
    started: Option<Time>,
}

/// A job on a worker.
#[derive(Clone, Debug)]
struct Work {
    wire: Wire,
    cost_us: u64,
}

/// A local job.
#[derive(Clone, Debug)]
struct Local {
    job: Option<(usize, usize)>,
    lease: Option<(RequestId, LeaseId)>,
    running: bool,
}

struct Seat {
    core: Option<Core>,
    hung: bool,
    starts: u64,
    peers: BTreeMap<Wire, PeerId>,
    wires: BTreeMap<PeerId, Wire>,
    joined: BTreeSet<Wire>,
    peers_so_far: u64,
    stalled: VecDeque<Happening>,
    wakes: Option<Time>,
    /// Leases that are out here: of which node, and who holds them.
    out: BTreeMap<LeaseId, (NodeId, Wire)>,
    slots: BTreeMap<NodeId, u32>,
    ids: BTreeMap<Wire, NodeId>,
}

/// The cluster.
pub struct World {
    /// The time.
    pub now: Time,
    setup: Setup,
    random: Random,
    happenings: BTreeMap<(Time, u64), (u64, Happening)>,
    so_far: u64,
    machines: Vec<Machine>,
    seats: Vec<Seat>,
    /// The scheduler that leads.
    master: usize,
    lines: BTreeMap<Wire, Line>,
    wires_so_far: u64,
    /// Whether everything that happens is printed.
    is_told: bool,
    /// Whether what must hold is checked after each step.
    pub is_checked: bool,
    /// What became of each build's jobs.
    pub records: Vec<Vec<JobRecord>>,
    /// How many jobs of each build have begun to wait.
    begun: Vec<usize>,
    /// How many jobs of all builds have not ended.
    left: usize,
    /// Work done for each build, in microseconds of the reference machine, with the time it was done.
    pub service: Vec<Vec<(Time, u64)>>,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(setup: Setup) -> Self {
        let mut world = Self {
            now: Time(1_000_000),
            random: Random::new(setup.seed),
            happenings: BTreeMap::new(),
            so_far: 0,
            machines: Vec::new(),
            seats: Vec::new(),
            master: 0,
            lines: BTreeMap::new(),
            wires_so_far: 0,
            is_checked: true,
            is_told: std::env::var_os("ICE_TRACE").is_some(),
            records: setup
                .builds
                .iter()
                .map(|build| vec![JobRecord::default(); build.costs_us.len()])
                .collect(),
            begun: vec![0; setup.builds.len()],
            left: setup.builds.iter().map(|build| build.costs_us.len()).sum(),
            service: vec![Vec::new(); setup.builds.len()],
            setup,
        };
        for number in 0..world.setup.machines.len() {
            let machine = world.fresh_machine(number, 0);
            world.machines.push(machine);
            world.wake_session(number);
        }
        for number in 0..world.setup.schedulers {
            world.seats.push(Seat {
                core: None,
                hung: false,
                starts: 0,
                peers: BTreeMap::new(),
                wires: BTreeMap::new(),
                joined: BTreeSet::new(),
                peers_so_far: 0,
                stalled: VecDeque::new(),
                wakes: None,
                out: BTreeMap::new(),
                slots: BTreeMap::new(),
                ids: BTreeMap::new(),
            });
            world.start_scheduler(number);
        }
        for number in 0..world.setup.builds.len() {
            let begins = world.setup.builds[number].begins;
            world.at(begins, Happening::Begin(number));
        }
        world
    }

    /// Something will go wrong, or well again, at `when`.
    pub fn plan(&mut self, when: Time, fault: Fault) {
        self.at(when, Happening::Fault(fault));
    }

    /// Lets the next thing happen; whether there was one.
    pub fn step(&mut self) -> bool {
        let Some(((when, _), (life, happening))) = self.happenings.pop_first() else {
            return false;
        };
        self.now = when;
        if self.is_current(&happening, life) {
            if self.is_told {
                eprintln!("{:.6} {happening:?}", when.0 as f64 / 1e6);
            }
            self.happen(happening);
        }
        if self.is_checked {
            self.check();
        }
        true
    }

    /// Whether all jobs have ended.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// What the first scheduler has learned.
    pub fn speeds(&self) -> Speeds {
        let core = self.seats[0].core.as_ref();
        core.map_or_else(Speeds::default, |core| core.speeds().clone())
    }

    /// The workers that are up and reached by all, and when each last ran a job, be it its own.
    pub fn workers(&self) -> impl Iterator<Item = (usize, Time)> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| {
                machine.alive && !machine.frozen && !machine.cut_off && machine.shape.slots > 0
            })
            .map(|(number, machine)| match machine.is_in_use() {
                true => (number, self.now),
                false => (number, machine.used),
            })
    }

    /// Jobs that wait on a submitter.
    pub fn waiting(&self) -> usize {
        let machines = self.machines.iter();
        machines.map(|machine| machine.holdings.waiting()).sum()
    }

    /// Whether any leases are out, by what the schedulers have said.
    pub fn leases_out(&self) -> usize {
        self.seats.iter().map(|seat| seat.out.len()).sum()
    }

    // What must hold at any time.

    fn check(&self) {
        for (number, seat) in self.seats.iter().enumerate() {
            let mut by_node: BTreeMap<NodeId, u32> = BTreeMap::new();
            for (node, _) in seat.out.values() {
                *by_node.entry(*node).or_default() += 1;
            }
            for (node, out) in by_node {
                let slots = seat.slots.get(&node).copied().unwrap_or(0);
                assert!(
                    out <= slots,
                    "scheduler {number} lent {out} of {slots} slots of node {node}"
                );
            }
        }
        for (number, machine) in self.machines.iter().enumerate() {
            let (local, remote) = (machine.slots.local_jobs(), machine.slots.remote_jobs());
            let slots = machine.shape.slots;
            assert!(
                local + remote <= slots.max(1),
                "machine {number} runs {local} + {remote} jobs on {slots} slots"
            );
        }
    }

    // The clock.

    fn at(&mut self, when: Time, happening: Happening) {
        self.so_far += 1;
        let life = self.life_of(&happening);
        let when = when.max(self.now);
        self.happenings
            .insert((when, self.so_far), (life, happening));
    }

    fn after(&mut self, us: u64, happening: Happening) {
        let when = self.now.after(Duration::from_micros(us));
        self.at(when, happening);
    }

    fn owner(happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Connect(machine)
            | Happening::SessionWake(machine)
            | Happening::HoldingsWake(machine)
            | Happening::Hear(machine, _)
            | Happening::Tell(machine)
            | Happening::Fetched(machine, _)
            | Happening::Late(machine, _)
            | Happening::Compiled(machine, ..)
            | Happening::LocalDone(machine, _)
            | Happening::Impatient(machine, _) => Some(*machine),
            _ => None,
        }
    }

    fn life_of(&self, happening: &Happening) -> u64 {
        match (Self::owner(happening), happening) {
            (Some(machine), _) => self.machines.get(machine).map_or(0, |machine| machine.life),
            (None, Happening::CoreWake(seat)) => {
                self.seats.get(*seat).map_or(0, |seat| seat.starts)
            }
            _ => 0,
        }
    }

    fn is_current(&self, happening: &Happening, life: u64) -> bool {
        match (Self::owner(happening), happening) {
            (Some(machine), _) => {
                self.machines[machine].alive && self.machines[machine].life == life
            }
            (None, Happening::CoreWake(seat)) => self.seats[*seat].starts == life,
            _ => true,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(machine) = Self::owner(&happening)
            && self.machines[machine].frozen
        {
            self.machines[machine].stalled.push_back(happening);
            return;
        }
        match happening {
            Happening::Deliver(wire, to, message) => self.deliver(wire, to, message),
            Happening::Connect(machine) => self.connect(machine),
            Happening::SessionWake(machine) => {
                if !is_due(&mut self.machines[machine].session_wakes, self.now) {
                    return;
                }
                if self.machines[machine]
                    .session
                    .next_wake()
                    .is_some_and(|wake| wake <= self.now)
                {
                    self.session(machine, Input::Tick);
                } else {
                    self.wake_session(machine);
                }
            }
            Happening::HoldingsWake(machine) => {
                if !is_due(&mut self.machines[machine].holdings_wakes, self.now) {
                    return;
                }
                self.holdings(machine, holdings::Event::Tick);
            }
            Happening::Hear(machine, event) => self.holdings(machine, event),
            Happening::CoreWake(seat) => self.core_wake(seat),
            Happening::Yield => self.stand_by(),
            Happening::Tell(machine) => {
                self.machines[machine].telling = false;
                self.tell_state(machine);
            }
            Happening::Fetched(machine, claim) => self.fetched(machine, claim),
            Happening::Late(machine, claim) => self.late(machine, claim),
            Happening::Compiled(machine, claim, wall_us) => self.compiled(machine, claim, wall_us),
            Happening::LocalDone(machine, claim) => self.local_done(machine, claim),
            Happening::Impatient(machine, attempt) => self.impatient(machine, attempt),
            Happening::Begin(build) => self.make(build),
            Happening::Fault(fault) => self.fault(fault),
        }
    }

    // The network.

    fn reaches(&self, a: Place, b: Place) -> bool {
        let there = |place: Place| match place {
            Place::Machine(machine) => !self.machines[machine].cut_off,
            Place::Scheduler(_) => true,
        };
        there(a) && there(b)
    }

    fn wire(&mut self, from: Place, to: Place) -> Wire {
        self.wires_so_far += 1;
        let wire = Wire(self.wires_so_far);
        self.lines.insert(
            wire,
            Line {
                ends: [from, to],
                last: [self.now; 2],
                held: [VecDeque::new(), VecDeque::new()],
                open: [true; 2],
            },
        );
        wire
    }

    fn delay(&mut self) -> u64 {
        let (least, more) = self.setup.delay_us;
        least + self.random.below(more + 1)
    }

    /// Says something to the end `to` of a connection.
    fn say(&mut self, wire: Wire, to: usize, message: Message) {
        let delay = self.delay();
        let Some(line) = self.lines.get(&wire) else {
            return;
        };
        if !self.reaches(line.ends[0], line.ends[1]) {
            if let Some(line) = self.lines.get_mut(&wire) {
                line.held[to].push_back(message);
            }
            return;
        }
        let arrives = self
            .now
            .after(Duration::from_micros(delay))
            .max(line.last[to]);
        if let Some(line) = self.lines.get_mut(&wire) {
            line.last[to] = arrives;
        }
        self.at(arrives, Happening::Deliver(wire, to, message));
    }

    /// One end hangs up.
    fn hang_up(&mut self, wire: Wire, end: usize) {
        let Some(line) = self.lines.get_mut(&wire) else {
            return;
        };
        line.open[end] = false;
        if line.open == [false; 2] {
            self.lines.remove(&wire);
            return;
        }
        self.say(wire, 1 - end, Message::Closed);
    }

    fn deliver(&mut self, wire: Wire, to: usize, message: Message) {
        let Some(line) = self.lines.get(&wire) else {
            return;
        };
        if !line.open[to] {
            return;
        }
        let place = line.ends[to];
        if !self.reaches(line.ends[0], line.ends[1]) {
            if let Some(line) = self.lines.get_mut(&wire) {
                line.held[to].push_back(message);
            }
            return;
        }
        let stalled = match place {
            Place::Machine(machine) if !self.machines[machine].alive => return,
            Place::Machine(machine) if self.machines[machine].frozen => {
                Some(&mut self.machines[machine].stalled)
            }
            Place::Scheduler(seat) if self.seats[seat].hung => Some(&mut self.seats[seat].stalled),
            _ => None,
        };
        if let Some(stalled) = stalled {
            stalled.push_back(Happening::Deliver(wire, to, message));
            return;
        }
        if matches!(message, Message::Closed)
            && let Some(line) = self.lines.get_mut(&wire)
        {
            line.open[to] = false;
            if line.open == [false; 2] {
                self.lines.remove(&wire);
            }
        }
        match place {
            Place::Machine(machine) => self.machine_hears(machine, wire, message),
            Place::Scheduler(seat) => self.scheduler_hears(seat, wire, message),
        }
    }

    fn machine_hears(&mut self, machine: usize, wire: Wire, message: Message) {
        match message {
            Message::FromScheduler(message) => {
                if self.machines[machine].link == Some(wire) {
                    self.session(machine, Input::Heard(message));
                }
            }
            Message::Closed if self.machines[machine].link == Some(wire) => {
                self.machines[machine].link = None;
                self.session(machine, Input::Lost("the connection ended".into()));
            }
            Message::Job { lease, cost_us } => self.job_arrives(machine, wire, lease, cost_us),
            Message::Closed => {
                self.job_is_dropped(machine, wire);
                self.worker_says(machine, wire, Message::Closed);
            }
            message => self.worker_says(machine, wire, message),
        }
    }

    // Schedulers.

    fn start_scheduler(&mut self, number: usize) {
        let speeds = Speeds::recalling(self.setup.speeds.recollection());
        let rules = Rules {
            netname: "SIM".into(),
            algorithm: self.setup.algorithm,
            // No two schedulers begin with the same, even when they start at the same time.
            first_lease: (self.now.0 << 8 | number as u64) << 20,
            seed: self.setup.seed,
        };
        let seat = &mut self.seats[number];
        seat.core = Some(Core::new(rules, speeds));
        seat.starts += 1;
        seat.hung = false;
    }

    fn may_lead(&self, number: usize) -> bool {
        let seat = &self.seats[number];
        seat.core.is_some() && !seat.hung
    }

    /// Who was the master lets his nodes go to the one that is it now.
    fn stand_by(&mut self) {
        for number in 0..self.seats.len() {
            let has_nodes = !self.seats[number].peers.is_empty();
            if number != self.master
                && has_nodes
                && self.may_lead(number)
                && self.may_lead(self.master)
            {
                self.stop_scheduler(number);
                self.start_scheduler(number);
            }
        }
    }

    fn stop_scheduler(&mut self, number: usize) {
        let seat = &mut self.seats[number];
        seat.core = None;
        seat.starts += 1;
        seat.stalled.clear();
        seat.out.clear();
        seat.slots.clear();
        seat.ids.clear();
        seat.wires.clear();
        seat.joined.clear();
        seat.wakes = None;
        let wires: Vec<Wire> = std::mem::take(&mut seat.peers).into_keys().collect();
        for wire in wires {
            self.hang_up(wire, 1);
        }
    }

    fn scheduler_hears(&mut self, number: usize, wire: Wire, message: Message) {
        let seat = &mut self.seats[number];
        if seat.core.is_none() {
            return;
        }
        let event = match message {
            Message::ToScheduler(ToScheduler::Login(login)) if !seat.peers.contains_key(&wire) => {
                seat.peers_so_far += 1;
                let peer = PeerId(seat.peers_so_far);
                seat.peers.insert(wire, peer);
                seat.wires.insert(peer, wire);
                let from = match self.lines.get(&wire).map(|line| line.ends[0]) {
                    Some(Place::Machine(machine)) => address(machine).ip(),
                    _ => return,
                };
                Event::Joined {
                    peer,
                    login,
                    from,
                    here: IpAddr::from([10, 255, 0, 1]),
                }
            }
            Message::ToScheduler(message) => {
                let Some(&peer) = seat.peers.get(&wire) else {
                    return;
                };
                if let ToScheduler::Deal(Deal::Return(lease)) = &message {
                    seat.out.remove(lease);
                }
                Event::Message(peer, message)
            }
            Message::Closed => {
                let Some(peer) = seat.peers.remove(&wire) else {
                    return;
                };
                seat.wires.remove(&peer);
                seat.part(wire);
                Event::Left(peer)
            }
            _ => return,
        };
        self.core(number, event);
    }

    fn core(&mut self, number: usize, event: Event) {
        let now = self.now;
        let Some(core) = &mut self.seats[number].core else {
            return;
        };
        let actions = core.on_event(event, now);
        for action in actions {
            let seat = &mut self.seats[number];
            match action {
                Action::Send(peer, message) => {
                    let Some(&wire) = seat.wires.get(&peer) else {
                        continue;
                    };
                    match &message {
                        FromScheduler::Welcome { node, .. } => {
                            let slots = match self.lines.get(&wire).map(|line| line.ends[0]) {
                                Some(Place::Machine(machine)) => self.machines[machine].shape.slots,
                                _ => 0,
                            };
                            seat.slots.insert(*node, slots);
                            seat.ids.insert(wire, *node);
                        }
                        FromScheduler::Offer(Offer::Grant(grant)) => {
                            let before = seat.out.insert(grant.lease, (grant.node, wire));
                            assert_eq!(before, None, "lease {} is lent twice", grant.lease);
                        }
                        _ => {}
                    }
                    self.say(wire, 0, Message::FromScheduler(message));
                }
                Action::Close(peer, _) => {
                    if let Some(wire) = seat.wires.remove(&peer) {
                        seat.peers.remove(&wire);
                        seat.part(wire);
                        self.hang_up(wire, 1);
                    }
                }
            }
        }
        let seat = &mut self.seats[number];
        let wake = seat.core.as_ref().and_then(Core::next_wake);
        if let Some(wake) = wake
            && seat.wakes.is_none_or(|at| wake < at)
        {
            seat.wakes = Some(wake);
            self.at(wake, Happening::CoreWake(number));
        }
    }

    fn core_wake(&mut self, number: usize) {
        let seat = &mut self.seats[number];
        if seat.hung {
            seat.stalled.push_back(Happening::CoreWake(number));
            return;
        }
        if is_due(&mut seat.wakes, self.now) {
            self.core(number, Event::Tick);
        }
    }

    // A machine's link.

    fn fresh_machine(&self, number: usize, life: u64) -> Machine {
        let shape = self.setup.machines[number].clone();
        let login = Login {
            port: if shape.slots > 0 { 10245 } else { 0 },
            slots: shape.slots,
            toolchains: if shape.equipped { vec![GCC] } else { vec![] },
            ..Login::new(format!("m{number}"), "SIM", "x86_64")
        };
        Machine {
            alive: true,
            frozen: false,
            cut_off: false,
            life,
            session: Session::new(login),
            link: None,
            node: None,
            holdings: Holdings::default(),
            slots: Slots::new(shape.slots),
            toolchains: shape.equipped,
            told: NodeState::default(),
            telling: false,
            stalled: VecDeque::new(),
            jobs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            courses: BTreeMap::new(),
            work: BTreeMap::new(),
            locals: BTreeMap::new(),
            claims: 0,
            session_wakes: None,
            holdings_wakes: None,
            used: self.now,
            shape,
        }
    }

    fn wake_session(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if let Some(wake) = machine.session.next_wake() {
            let wake = wake.max(self.now);
            if machine.session_wakes.is_none_or(|at| wake < at) {
                machine.session_wakes = Some(wake);
                self.at(wake, Happening::SessionWake(number));
            }
        }
    }

    fn session(&mut self, number: usize, input: Input) {
        let now = self.now;
        let outputs = self.machines[number].session.on_input(input, now);
        for output in outputs {
            match output {
                Output::Connect => {
                    let delay = self.delay();
                    self.after(2 * delay, Happening::Connect(number));
                }
                Output::Disconnect => {
                    if let Some(wire) = self.machines[number].link.take() {
                        self.hang_up(wire, 0);
                    }
                }
                Output::Send(message) => {
                    if let Some(wire) = self.machines[number].link {
                        self.say(wire, 1, Message::ToScheduler(message));
                    }
                }
                Output::Tell(LinkEvent::Up { node, .. }) => {
                    self.machines[number].node = Some(node);
                }
                Output::Tell(LinkEvent::Down(_)) => {
                    self.machines[number].node = None;
                    self.after(0, Happening::Hear(number, holdings::Event::Void));
                }
                Output::Tell(LinkEvent::Offer(offer)) => {
                    let event = holdings::Event::Offer(offer);
                    self.after(0, Happening::Hear(number, event));
                }
            }
        }
        self.wake_session(number);
    }

    /// The scheduler that leads is connected to; it may be that one takes over only now.
    fn connect(&mut self, number: usize) {
        let is_cut_off = self.machines[number].cut_off;
        if !is_cut_off
            && !self.may_lead(self.master)
            && let Some(next) = (0..self.seats.len()).find(|&seat| self.may_lead(seat))
        {
            self.master = next;
        }
        let is_found = !is_cut_off && self.may_lead(self.master);
        let found = is_found.then_some(self.master);
        match found {
            Some(seat) => {
                let wire = self.wire(Place::Machine(number), Place::Scheduler(seat));
                self.machines[number].link = Some(wire);
                self.session(number, Input::Connected);
            }
            None => self.session(number, Input::Lost("nobody answers".into())),
        }
    }

    fn tell_state(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        let state = NodeState {
            local_jobs: machine.slots.local_jobs(),
            remote_jobs: machine.slots.remote_jobs(),
            waiting: machine.holdings.waiting() as u32,
            ..NodeState::default()
        };
        if machine.telling || machine.told == state {
            return;
        }
        machine.told = state.clone();
        machine.telling = true;
        self.after(STATE_PAUSE_US, Happening::Tell(number));
        self.session(number, Input::Command(LinkCommand::State(state)));
    }

    // A machine's submitter.

    fn make(&mut self, build: usize) {
        let Build {
            machine, parallel, ..
        } = self.setup.builds[build];
        loop {
            let next = self.begun[build];
            let running = next - self.service[build].len();
            if next >= self.records[build].len() || running >= parallel {
                return;
            }
            self.begun[build] += 1;
            self.records[build][next].began = self.now;
            self.machines[machine]
                .courses
                .insert((build, next), Course::default());
            self.ask(machine, (build, next));
        }
    }

    fn ask(&mut self, machine: usize, job: (usize, usize)) {
        let build = &self.setup.builds[job.0];
        let course = &self.machines[machine].courses[&job];
        let own = match course.tries() {
            0 => OwnNode::Locally,
            _ => OwnNode::Nothing,
        };
        let terms = Terms {
            niceness: build.niceness,
            ..Terms::new("x86_64")
        };
        let want = Want {
            file: Bytes::from(&format!("{}/{}.c", build.project, job.1)[..]),
            except: course.except().to_vec(),
            own,
            ..Want::new(RequestId(0), GCC, terms)
        };
        let now = self.now;
        let machine_ref = &mut self.machines[machine];
        let (request, actions) = machine_ref.holdings.want(want, now);
        machine_ref.jobs.insert(request, job);
        self.act(machine, actions);
    }

    fn holdings(&mut self, number: usize, event: holdings::Event) {
        let now = self.now;
        let actions = self.machines[number].holdings.on_event(event, now);
        self.act(number, actions);
    }

    fn act(&mut self, number: usize, actions: Vec<holdings::Action>) {
        // What is said is said in order; what is begun may have consequences of its own.
        for action in &actions {
            if let holdings::Action::Tell(deal) = action {
                let command = LinkCommand::Deal(deal.clone());
                self.session(number, Input::Command(command));
            }
        }
        for action in actions {
            if self.is_told {
                eprintln!("         machine {number}: {action:?}");
            }
            match action {
                holdings::Action::Tell(_) => {}
                holdings::Action::Start(request, grant) => self.start(number, request, grant),
                holdings::Action::Recall(request, lease) => {
                    let attempts = &self.machines[number].attempts;
                    let found = attempts.iter().find(|(_, attempt)| {
                        attempt.request == request
                            && attempt.grant.lease == lease
                            && attempt.started.is_none()
                    });
                    if let Some((&id, _)) = found {
                        self.give_up(number, id, false);
                    }
                }
                holdings::Action::Deny(request, _) => {
                    if let Some(job) = self.machines[number].jobs.remove(&request) {
                        self.run_locally(number, Some(job), None);
                    }
                }
            }
        }
        self.wake_holdings(number);
        self.tell_state(number);
    }

    fn wake_holdings(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if let Some(wake) = machine.holdings.next_wake(self.now)
            && machine.holdings_wakes.is_none_or(|at| wake < at)
        {
            machine.holdings_wakes = Some(wake);
            self.at(wake, Happening::HoldingsWake(number));
        }
    }

    fn start(&mut self, number: usize, request: RequestId, grant: Grant) {
        let unused = |world: &mut Self, lease| {
            let outcome = Outcome::Unused;
            world.holdings(
                number,
                holdings::Event::Ended {
                    request,
                    lease,
                    outcome,
                },
            );
        };
        let Some(&job) = self.machines[number].jobs.get(&request) else {
            return unused(self, grant.lease);
        };
        if grant.home != Home::No {
            self.machines[number].jobs.remove(&request);
            let lease = Some((request, grant.lease));
            self.run_locally(number, Some(job), lease);
            return;
        }
        self.records[job.0][job.1].starts += 1;
        let worker = machine_at(grant.address);
        let wire = self.wire(Place::Machine(number), Place::Machine(worker));
        let attempt = Attempt {
            job,
            request,
            worker,
            wire,
            started: None,
            grant,
        };
        let (lease, node) = (attempt.grant.lease, attempt.grant.node);
        self.machines[number].attempts.insert(wire.0, attempt);
        let cost_us = self.setup.builds[job.0].costs_us[job.1];
        let travel = Duration::from_micros(2 * self.setup.delay_us.0);
        let measured = Measured::Travel(travel);
        self.holdings(number, holdings::Event::Way(node, measured));
        if !self.machines[worker].alive {
            // Nobody listens there.
            self.say(wire, 0, Message::Closed);
            return;
        }
        self.say(wire, 1, Message::Job { lease, cost_us });
        if !self.is_well(worker) || self.machines[number].cut_off {
            self.after(SILENCE_US, Happening::Impatient(number, wire.0));
        }
    }

    fn is_well(&self, number: usize) -> bool {
        let machine = &self.machines[number];
        machine.alive && !machine.frozen && !machine.cut_off
    }

    /// A submitter has waited for a worker's word for as long as he does.
    fn impatient(&mut self, number: usize, id: u64) {
        let Some(attempt) = self.machines[number].attempts.get(&id) else {
            return;
        };
        let worker = attempt.worker;
        if self.is_well(worker) && !self.machines[number].cut_off {
            return;
        }
        self.fail(number, id, Undelivered::Dead("silent".into()));
    }

    fn worker_says(&mut self, number: usize, wire: Wire, message: Message) {
        let Some(attempt) = self.machines[number].attempts.get_mut(&wire.0) else {
            return;
        };
        let (request, lease, job) = (attempt.request, attempt.grant.lease, attempt.job);
        match message {
            Message::Started => {
                attempt.started = Some(self.now);
                self.holdings(number, holdings::Event::Started { request, lease });
            }
            Message::Done { wall_us } => {
                let cpu_us = wall_us;
                self.machines[number].attempts.remove(&wire.0);
                self.hang_up(wire, 0);
                let usage = Usage {
                    cpu_us,
                    wall_us,
                    ..Usage::default()
                };
                let outcome = Outcome::Done {
                    usage,
                    output_bytes: self.output_bytes(job),
                };
                self.holdings(
                    number,
                    holdings::Event::Ended {
                        request,
                        lease,
                        outcome,
                    },
                );
                self.job_ends(number, request, job, false);
            }
            Message::Busy => {
                let failure = Failure::Busy;
                let detail = String::new();
                self.fail(number, wire.0, Undelivered::Refused { failure, detail });
            }
            Message::Closed => self.fail(number, wire.0, Undelivered::Dead("reset".into())),
            _ => {}
        }
    }

    /// What a job writes: more where there is more to do, though one byte may be four times the work of
    /// another's, and the same on whichever machine.
    fn output_bytes(&self, job: (usize, usize)) -> u64 {
        let cost_us = self.setup.builds[job.0].costs_us[job.1];
        let density = 0.5 + 1.5 * Random::new(job.1 as u64).share();
        (cost_us as f64 / 10.0 * density) as u64
    }

    /// A start has come to nothing.
    fn fail(&mut self, number: usize, id: u64, failure: Undelivered) {
        let Some(attempt) = self.machines[number].attempts.remove(&id) else {
            return;
        };
        self.hang_up(attempt.wire, 0);
        let (request, lease, job) = (attempt.request, attempt.grant.lease, attempt.job);
        let outcome = course::outcome(&failure);
        self.holdings(
            number,
            holdings::Event::Ended {
                request,
                lease,
                outcome,
            },
        );
        let Some(course) = self.machines[number].courses.get_mut(&job) else {
            return;
        };
        course.depart();
        let step = course.on_failure(attempt.grant.node, "", &failure);
        let runs_on = self.machines[number]
            .attempts
            .values()
            .any(|other| other.request == request);
        if runs_on {
            return;
        }
        self.machines[number].jobs.remove(&request);
        self.holdings(number, holdings::Event::Gone(request));
        match step {
            Step::Another => self.ask(number, job),
            Step::Local(..) => self.run_locally(number, Some(job), None),
        }
    }

    /// A start is given up, perhaps since another has ended; its worker hears of it.
    fn give_up(&mut self, number: usize, id: u64, lags: bool) {
        let Some(attempt) = self.machines[number].attempts.remove(&id) else {
            return;
        };
        self.hang_up(attempt.wire, 0);
        let (request, lease) = (attempt.request, attempt.grant.lease);
        let outcome = match attempt.started.filter(|_| lags) {
            Some(started) => Outcome::Lagged {
                ran_us: self.now.since(started).as_micros() as u64,
            },
            None => Outcome::Unused,
        };
        self.holdings(
            number,
            holdings::Event::Ended {
                request,
                lease,
                outcome,
            },
        );
    }

    fn job_ends(&mut self, number: usize, request: RequestId, job: (usize, usize), local: bool) {
        let losers: Vec<u64> = self.machines[number]
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.request == request && attempt.job == job)
            .map(|(&id, _)| id)
            .collect();
        for loser in losers {
            self.give_up(number, loser, !local);
        }
        self.machines[number].jobs.remove(&request);
        self.machines[number].courses.remove(&job);
        self.holdings(number, holdings::Event::Gone(request));
        self.record(job, local);
    }

    fn record(&mut self, job: (usize, usize), local: bool) {
        let now = self.now;
        let record = &mut self.records[job.0][job.1];
        record.ends += 1;
        assert_eq!(record.ends, 1, "job {job:?} ended twice");
        record.ended = Some(now);
        self.left -= 1;
        record.local = local;
        let cost_us = self.setup.builds[job.0].costs_us[job.1];
        self.service[job.0].push((now, cost_us));
        self.make(job.0);
    }

    // A machine's slots.

    fn run_locally(
        &mut self,
        number: usize,
        job: Option<(usize, usize)>,
        lease: Option<(RequestId, LeaseId)>,
    ) {
        let machine = &mut self.machines[number];
        machine.claims += 1;
        let claim = Claim(1 << 63 | machine.claims);
        machine.locals.insert(
            claim,
            Local {
                job,
                lease,
                running: false,
            },
        );
        machine.slots.claim_local(claim);
        self.grant(number);
    }

    fn local_done(&mut self, number: usize, claim: Claim) {
        let Some(local) = self.machines[number].locals.remove(&claim) else {
            return;
        };
        self.machines[number].slots.release(claim);
        self.machines[number].used = self.now;
        if let Some((request, lease)) = local.lease {
            let outcome = Outcome::Unused;
            self.holdings(
                number,
                holdings::Event::Ended {
                    request,
                    lease,
                    outcome,
                },
            );
            self.holdings(number, holdings::Event::Gone(request));
        }
        if let Some(job) = local.job {
            self.machines[number].courses.remove(&job);
            self.record(job, true);
        }
        self.grant(number);
    }

    fn job_arrives(&mut self, number: usize, wire: Wire, lease: LeaseId, cost_us: u64) {
        let machine = &mut self.machines[number];
        machine.claims += 1;
        let claim = Claim(machine.claims);
        match machine.slots.claim_remote(claim, lease) {
            Admission::Busy => self.say(wire, 0, Message::Busy),
            Admission::AtTheDoor => {
                machine.work.insert(claim, Work { wire, cost_us });
                self.after(DOOR_US, Happening::Late(number, claim));
            }
            Admission::Accepted => {
                machine.work.insert(claim, Work { wire, cost_us });
                self.admitted(number, claim);
            }
        }
    }

    /// There is room for a job: its toolchain is fetched, if need be.
    fn admitted(&mut self, number: usize, claim: Claim) {
        match self.machines[number].toolchains {
            true => self.fetched(number, claim),
            false => self.after(TOOLCHAIN_US, Happening::Fetched(number, claim)),
        }
    }

    /// A job has waited at the door for long enough.
    fn late(&mut self, number: usize, claim: Claim) {
        let machine = &mut self.machines[number];
        if machine.slots.is_at_the_door(claim)
            && let Some(work) = machine.work.remove(&claim)
        {
            machine.slots.release(claim);
            self.say(work.wire, 0, Message::Busy);
        }
    }

    fn fetched(&mut self, number: usize, claim: Claim) {
        let machine = &mut self.machines[number];
        if !machine.work.contains_key(&claim) {
            return;
        }
        machine.slots.ready(claim);
        if !machine.toolchains {
            machine.toolchains = true;
            let added = vec![GCC];
            let removed = vec![];
            let command = LinkCommand::Toolchains { added, removed };
            self.session(number, Input::Command(command));
        }
        self.grant(number);
    }

    fn job_is_dropped(&mut self, number: usize, wire: Wire) {
        let work = &self.machines[number].work;
        let found = work.iter().find(|(_, work)| work.wire == wire);
        if let Some((&claim, _)) = found {
            self.machines[number].work.remove(&claim);
            self.machines[number].slots.release(claim);
            self.grant(number);
        }
    }

    /// Whoever has a slot begins.
    fn grant(&mut self, number: usize) {
        for claim in self.machines[number].slots.admitted() {
            self.admitted(number, claim);
        }
        let granted = self.machines[number].slots.granted();
        for claim in granted {
            let noise = 1.0 + self.setup.noise * (2.0 * self.random.share() - 1.0);
            let slowness = self.machines[number].shape.slowness * noise;
            if let Some(work) = self.machines[number].work.get(&claim) {
                let (wire, cost_us) = (work.wire, work.cost_us);
                let wall_us = (cost_us as f64 * slowness) as u64;
                self.say(wire, 0, Message::Started);
                self.after(wall_us, Happening::Compiled(number, claim, wall_us));
            } else if let Some(local) = self.machines[number].locals.get_mut(&claim) {
                local.running = true;
                let cost_us = match local.job {
                    Some((build, job)) => self.setup.builds[build].costs_us[job],
                    None => continue,
                };
                let wall_us = (cost_us as f64 * slowness) as u64;
                self.after(wall_us, Happening::LocalDone(number, claim));
            }
        }
        self.tell_state(number);
    }

    fn compiled(&mut self, number: usize, claim: Claim, wall_us: u64) {
        let now = self.now;
        let machine = &mut self.machines[number];
        let Some(work) = machine.work.remove(&claim) else {
            return;
        };
        machine.slots.release(claim);
        machine.used = now;
        self.say(work.wire, 0, Message::Done { wall_us });
        self.grant(number);
    }

    // What goes wrong.

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Die(machine) if self.machines[machine].alive => self.die(machine),
            Fault::Revive(machine) if !self.machines[machine].alive => {
                let life = self.machines[machine].life;
                self.machines[machine] = self.fresh_machine(machine, life);
                self.wake_session(machine);
            }
            Fault::Freeze(machine) => {
                self.machines[machine].frozen = true;
                self.watch(machine);
            }
            Fault::Thaw(machine) => {
                self.machines[machine].frozen = false;
                let stalled = std::mem::take(&mut self.machines[machine].stalled);
                for happening in stalled {
                    let now = self.now;
                    self.at(now, happening);
                }
            }
            Fault::CutOff(machine) => {
                self.machines[machine].cut_off = true;
                self.watch(machine);
            }
            Fault::Reconnect(machine) => {
                self.machines[machine].cut_off = false;
                let wires: Vec<Wire> = self.lines.keys().copied().collect();
                for wire in wires {
                    for to in [0, 1] {
                        let held = match self.lines.get_mut(&wire) {
                            Some(line) => std::mem::take(&mut line.held[to]),
                            None => continue,
                        };
                        for message in held {
                            self.say(wire, to, message);
                        }
                    }
                }
            }
            Fault::Slow(machine, tenths) => {
                let shape = &self.setup.machines[machine];
                self.machines[machine].shape.slowness = shape.slowness * f64::from(tenths) / 10.0;
            }
            Fault::Burden(machine, jobs) => self.burden(machine, jobs),
            Fault::Stop(seat) => self.stop_scheduler(seat),
            Fault::Start(seat) if self.seats[seat].core.is_none() => self.start_scheduler(seat),
            Fault::Hang(seat) => self.seats[seat].hung = true,
            Fault::Resume(seat) => {
                self.seats[seat].hung = false;
                self.after(YIELD_US, Happening::Yield);
                let stalled = std::mem::take(&mut self.seats[seat].stalled);
                for happening in stalled {
                    let now = self.now;
                    self.at(now, happening);
                }
            }
            Fault::Die(_) | Fault::Revive(_) | Fault::Start(_) => {}
        }
    }

    fn die(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.alive = false;
        machine.frozen = false;
        machine.life += 1;
        machine.stalled.clear();
        machine.link = None;
        machine.slots = Slots::new(machine.shape.slots);
        machine.work.clear();
        machine.locals.clear();
        let wires: Vec<(Wire, usize)> = self
            .lines
            .iter()
            .flat_map(|(&wire, line)| {
                let ends = line.ends.iter().enumerate();
                ends.filter(|(_, place)| **place == Place::Machine(number))
                    .map(move |(end, _)| (wire, end))
                    .collect::<Vec<_>>()
            })
            .collect();
        for (wire, end) in wires {
            self.hang_up(wire, end);
        }
    }

    /// Whoever waits for a word of this machine will lose his patience.
    fn watch(&mut self, number: usize) {
        for submitter in 0..self.machines.len() {
            let waiting: Vec<u64> = self.machines[submitter]
                .attempts
                .iter()
                .filter(|(_, attempt)| attempt.worker == number || submitter == number)
                .map(|(&id, _)| id)
                .collect();
            for attempt in waiting {
                self.after(SILENCE_US, Happening::Impatient(submitter, attempt));
            }
        }
    }

    /// The user of a machine runs so many jobs of his own from now on.
    fn burden(&mut self, number: usize, jobs: u32) {
        let own: Vec<Claim> = self.machines[number]
            .locals
            .iter()
            .filter(|(_, local)| local.job.is_none())
            .map(|(&claim, _)| claim)
            .collect();
        for claim in own {
            self.machines[number].locals.remove(&claim);
            self.machines[number].slots.release(claim);
        }
        for _ in 0..jobs {
            self.run_locally(number, None, None);
        }
        self.grant(number);
    }
}

/// Whether a core that is woken is to be: an earlier wake may have come since. If so, none is due any more.
fn is_due(wakes: &mut Option<Time>, now: Time) -> bool {
    wakes.take_if(|at| *at <= now).is_some()
}

impl Machine {
    fn is_in_use(&self) -> bool {
        self.slots.remote_jobs() + self.slots.local_jobs() > 0
    }
}

impl Seat {
    /// A node is gone, with the leases that it lent or held.
    fn part(&mut self, wire: Wire) {
        let node = self.ids.remove(&wire);
        self.out
            .retain(|_, (on, holder)| Some(*on) != node && *holder != wire);
    }
}

fn address(machine: usize) -> SocketAddr {
    let [_, a, b, c] = (machine as u32).to_be_bytes();
    SocketAddr::from(([10, a, b, c], 10245))
}

fn machine_at(address: SocketAddr) -> usize {
    match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip) & 0x00ff_ffff) as usize,
        IpAddr::V6(_) => unreachable!("all addresses here are IPv4"),
    }
}
