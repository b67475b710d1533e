//! `poll_oneoff`: waiting for times and descriptors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::descriptors::{rights, Object};
use super::files::File;
use super::{clocks, filestat, Args, Errno, Host, Interest, Memory, Stop, Wait, Waited, Wasi};

/// Subscriptions of one call: more than a guest may have descriptors, and timers beside.
const MAX_SUBSCRIPTIONS: u32 = 2048;
/// Size of a `subscription` of the witx.
const SUBSCRIPTION: u32 = 48;
/// Size of an `event` of the witx.
const EVENT: u32 = 32;
/// `subclockflags`: the time is one of the clock, not one from now.
const ABSTIME: u16 = 1;

/// `eventtype`
const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;

/// One subscription, read once: what the guest does to its memory meanwhile changes nothing.
struct Subscription {
    userdata: u64,
    kind: Kind,
}

enum Kind {
    /// Due at this time; none: in a future too far to reckon with.
    Clock(Option<Instant>),
    Descriptor(u32, Interest),
    /// Answered at once.
    Wrong(u8, Errno),
}

struct Event {
    userdata: u64,
    kind: u8,
    errno: Errno,
    bytes: u64,
    hangup: bool,
}

/// `poll_oneoff(subscriptions, events, count, stored)`
pub fn poll_oneoff(memory: &mut Memory<'_>, host: &mut Host, args: Args<'_>) -> Wasi<()> {
    let (at, out, count, stored) = (args.u32(0), args.u32(1), args.u32(2), args.u32(3));
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return Err(Errno::Inval.into());
    }
    memory.bytes(out, count.saturating_mul(EVENT))?;
    memory.bytes(at, count.saturating_mul(SUBSCRIPTION))?;
    let subscriptions = (0..count)
        .map(|index| subscription(memory, at.saturating_add(index.saturating_mul(SUBSCRIPTION))))
        .collect::<Wasi<Vec<_>>>()?;
    wait(memory, host, subscriptions, out, stored)
}

/// Writes the events that there are; with none, waits for the first.
fn wait(
    memory: &mut Memory<'_>,
    host: &mut Host,
    subscriptions: Vec<Subscription>,
    out: u32,
    stored: u32,
) -> Wasi<()> {
    let now = Instant::now();
    let mut found = 0u32;
    let mut waited = Vec::new();
    let mut deadline: Option<Instant> = None;
    for subscription in &subscriptions {
        match subscription.state(host, now) {
            State::Ready(event) => {
                write_event(memory, out.saturating_add(found.saturating_mul(EVENT)), &event)?;
                found = found.saturating_add(1);
            }
            State::At(Some(at)) => deadline = Some(deadline.map_or(at, |earliest| earliest.min(at))),
            State::At(None) => {}
            State::When(one, interest) => waited.push((one, interest)),
        }
    }
    if found > 0 {
        return memory.write_u32(stored, found);
    }
    let then = Box::new(move |memory: &mut Memory<'_>, host: &mut Host| {
        wait(memory, host, subscriptions, out, stored)
    });
    Err(Stop::Wait(Wait::Until { deadline, waited, then }))
}

enum State {
    Ready(Event),
    At(Option<Instant>),
    When(Waited, Interest),
}

impl Subscription {
    fn state(&self, host: &Host, now: Instant) -> State {
        match self.kind {
            Kind::Clock(Some(at)) if at <= now => self.ready(CLOCK, 0, false),
            Kind::Clock(at) => State::At(at),
            Kind::Wrong(kind, errno) => State::Ready(self.event(kind, errno, 0, false)),
            Kind::Descriptor(fd, interest) => self.descriptor(host, fd, interest),
        }
    }

    fn descriptor(&self, host: &Host, fd: u32, interest: Interest) -> State {
        let kind = if interest == Interest::Read { FD_READ } else { FD_WRITE };
        let wrong = |errno| State::Ready(self.event(kind, errno, 0, false));
        let descriptor = match host.descriptors.with(fd, rights::POLL_FD_READWRITE) {
            Ok(descriptor) => descriptor,
            Err(errno) => return wrong(errno),
        };
        match (&descriptor.object, interest) {
            // At its end: a read returns at once, with nothing.
            (Object::Stdin, Interest::Read) => self.ready(kind, 0, true),
            (Object::Output(_), Interest::Write) => self.ready(kind, 0, false),
            (Object::File(file), _) if file.waits() => match waiting(file, interest) {
                Ok(Some(hangup)) => self.ready(kind, 0, hangup),
                Ok(None) => match Waited::file(file) {
                    Ok(Some(waited)) => State::When(waited, interest),
                    Ok(None) => self.ready(kind, 0, false),
                    Err(errno) => wrong(errno),
                },
                Err(errno) => wrong(errno),
            },
            (Object::Socket(socket), interest) => match socket.ready(interest) {
                Ok(Some(ready)) => self.ready(kind, ready.bytes, ready.hangup),
                Ok(None) => State::When(Waited::Socket(Arc::clone(socket)), interest),
                Err(errno) => wrong(errno),
            },
            (Object::File(file), _) => self.ready(kind, left(file), false),
            _ => wrong(Errno::Badf),
        }
    }

    fn ready(&self, kind: u8, bytes: u64, hangup: bool) -> State {
        State::Ready(self.event(kind, Errno::Success, bytes, hangup))
    }

    fn event(&self, kind: u8, errno: Errno, bytes: u64, hangup: bool) -> Event {
        Event { userdata: self.userdata, kind, errno, bytes, hangup }
    }
}

/// Whether a FIFO or a device is ready now, and if so, whether its other end is closed.
fn waiting(file: &File, interest: Interest) -> Result<Option<bool>, Errno> {
    let wanted = if interest == Interest::Read { PollFlags::IN } else { PollFlags::OUT };
    let mut polled = [PollFd::new(&file.fd, wanted)];
    if rustix::event::poll(&mut polled, Some(&Timespec::default()))? == 0 {
        return Ok(None);
    }
    let found = polled.first().map_or(PollFlags::empty(), PollFd::revents);
    Ok(Some(found.intersects(PollFlags::HUP)))
}

/// Bytes between a file's position and its end.
fn left(file: &File) -> u64 {
    let size = filestat::of(&file.fd).map_or(0, |stat| stat.stx_size);
    let at = rustix::fs::tell(&file.fd).unwrap_or(0);
    size.saturating_sub(at)
}

fn subscription(memory: &Memory<'_>, at: u32) -> Wasi<Subscription> {
    let field = |offset: u32| at.saturating_add(offset);
    let kind = match memory.u8(field(8))? {
        CLOCK => clock(memory.u32(field(16))?, memory.u64(field(24))?, memory.u16(field(40))? & ABSTIME != 0),
        FD_READ => Kind::Descriptor(memory.u32(field(16))?, Interest::Read),
        FD_WRITE => Kind::Descriptor(memory.u32(field(16))?, Interest::Write),
        _ => return Err(Errno::Inval.into()),
    };
    Ok(Subscription { userdata: memory.u64(at)?, kind })
}

/// Every time becomes one of the monotonic clock, the only one that can be waited for here: a step of
/// the wall clock during the wait does not move it.
fn clock(id: u32, timeout: u64, absolute: bool) -> Kind {
    let Some(now) = clocks::now(id) else {
        return Kind::Wrong(CLOCK, if id < 4 { Errno::Notsup } else { Errno::Inval });
    };
    let left = if absolute { timeout.saturating_sub(now) } else { timeout };
    Kind::Clock(Instant::now().checked_add(Duration::from_nanos(left)))
}

fn write_event(memory: &mut Memory<'_>, at: u32, event: &Event) -> Wasi<()> {
    memory.bytes_mut(at, EVENT)?.fill(0);
    memory.write_u64(at, event.userdata)?;
    memory.write(at.saturating_add(8), &(event.errno as u16).to_le_bytes())?;
    memory.write(at.saturating_add(10), &[event.kind])?;
    if event.kind != CLOCK {
        memory.write_u64(at.saturating_add(16), event.bytes)?;
        memory.write(at.saturating_add(24), &u16::from(event.hangup).to_le_bytes())?;
    }
    Ok(())
}
