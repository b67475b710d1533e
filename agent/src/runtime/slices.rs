//! The run of one guest: instantiated, then called, a slice of fuel at a time, as far as its limits let it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::future::{poll_fn, yield_now};
use futures_lite::FutureExt;
use wasmi::{Error, ResumableCall, Store};

use super::allowance::Allowance;
use super::engine::Compiled;
use super::initial::Forgotten;
use super::pages::release_zeros;
use super::wasi::clocks::thread_cpu;
use super::wasi::{
    errno_value, with_memory, Errno, Exited, Host, Interest, Panicked, Stop, Suspended, Then, Wait, Waited,
};
use super::Exit;

/// How long a slice should take. A guest that is woken on a busy machine waits for one at most, and a
/// switch costs some microseconds.
const SLICE: Duration = Duration::from_millis(3);
/// Fuel of the first slice of all: 0.3 ms on a desktop machine, some 5 ms on the slowest boards.
const FIRST: usize = 500_000;
/// Fuel of a slice, at least: what switching costs is still little beside it.
const LEAST: u64 = 10_000;
/// Fuel of a slice, at most: 3 ms at twice the speed of a fast desktop machine. Bounded as well for the
/// native stack's sake: see `interpreter`.
const MOST: u64 = 8_000_000;
/// A slice's time, at least, where a limit of CPU time leaves less: what is too much is owed.
const SHORTEST: Duration = Duration::from_micros(300);
/// A wait that is worth giving memory back: what it costs, twice some microseconds, is nothing beside it.
const LONG: Duration = Duration::from_millis(500);
/// Linear memory that is looked through for zero pages in one turn: a millisecond or so.
const RELEASE_CHUNK: usize = 4 << 20;

/// What a new guest's first slice is given: what the last adapted slice of any guest was.
#[derive(Debug)]
pub struct Pace(AtomicUsize);

impl Default for Pace {
    fn default() -> Pace {
        Pace(AtomicUsize::new(FIRST))
    }
}

/// Fuel for the next slice after one of `fuel` that took `took`: towards [`SLICE`], by a factor of two at most.
fn adapt(fuel: u64, took: Duration) -> u64 {
    let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let aim = u64::try_from(SLICE.as_micros()).unwrap_or(u64::MAX);
    let next = fuel.saturating_mul(aim) / took;
    next.clamp(fuel / 2, fuel.saturating_mul(2)).clamp(LEAST, MOST)
}

/// Why a guest does not go on: its end. Boxed by nobody: it is made once.
type Ended = Exit;

struct Running {
    compiled: Arc<Compiled>,
    store: Store<Host>,
    pace: Arc<Pace>,
    /// Fuel of a slice of [`SLICE`].
    fuel: u64,
    /// Fuel of the slice that runs, or ran last.
    given: u64,
    /// Fuel that is left in all; none: no limit.
    budget: Option<Budget>,
    allowance: Option<Allowance>,
    released: usize,
}

/// Fuel for the whole run.
struct Budget {
    all: u64,
    left: u64,
}

/// How much a guest may compute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compute {
    /// Thousandths of a processor that it may use in each period; none: all that there is.
    pub cpu_limit: Option<u32>,
    /// Fuel of the whole run; none: no end.
    pub fuel: Option<u64>,
}

/// Runs a guest to its end.
pub fn run(
    compiled: Arc<Compiled>,
    host: Host,
    pace: Arc<Pace>,
    compute: Compute,
) -> impl Future<Output = Exit> + Send {
    let fuel = u64::try_from(pace.0.load(Ordering::Relaxed)).unwrap_or(LEAST);
    let mut store = Store::new(&compiled.engine, host);
    store.limiter(|host| &mut host.limiter);
    let budget = compute.fuel.map(|all| Budget { all, left: all });
    let allowance = compute.cpu_limit.and_then(|limit| Allowance::new(limit, Instant::now()));
    let mut running = Running { compiled, store, pace, fuel, given: 0, budget, allowance, released: 0 };
    // Made before the future is: what only the making needs would be a part of it for as long as the guest runs.
    async move {
        match running.all().await {
            Ok(()) => Exit::Code(0),
            Err(exit) => exit,
        }
    }
}

impl Running {
    async fn all(&mut self) -> Result<(), Ended> {
        let compiled = Arc::clone(&self.compiled);
        let instance = compiled
            .linker
            .instantiate_and_start(&mut self.store, &compiled.module)
            .map_err(|error| self.failed(&error))?;
        let memory = instance.get_memory(&self.store, "memory");
        self.store.data_mut().memory = memory;
        self.store.data_mut().limiter.guest_runs();
        self.release().await;
        for entry in &compiled.entries {
            if let Some(function) = instance.get_func(&self.store, entry) {
                self.begin(0).await?;
                let call = function.call_resumable(&mut self.store, &[], &mut []);
                self.drive(call).await?;
            }
        }
        Ok(())
    }

    async fn drive(&mut self, mut call: Result<ResumableCall, Error>) -> Result<(), Ended> {
        loop {
            self.burn();
            match call.map_err(|error| self.failed(&error))? {
                ResumableCall::Finished => return Ok(()),
                ResumableCall::OutOfFuel(stopped) => {
                    self.adapt();
                    yield_now().await;
                    self.release().await;
                    // One bulk operation runs whole, however much fuel it needs.
                    self.begin(stopped.required_fuel()).await?;
                    call = stopped.resume(&mut self.store, &mut []);
                }
                ResumableCall::HostTrap(stopped) => {
                    if stopped.host_error().downcast_ref::<Suspended>().is_none() {
                        return Err(self.failed(stopped.host_error()));
                    }
                    self.release().await;
                    let errno = self.wait().await?;
                    self.begin(0).await?;
                    call = stopped.resume(&mut self.store, &[errno_value(errno)], &mut []);
                }
            }
        }
    }

    /// A slice begins, with `least` fuel at least, once the guest may use the processor again.
    async fn begin(&mut self, least: u64) -> Result<(), Ended> {
        let time = self.allowed().await;
        let share = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let whole = u64::try_from(SLICE.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut fuel = (self.fuel.saturating_mul(share) / whole).max(least);
        if let Some(budget) = &self.budget {
            if budget.left == 0 || budget.left < least {
                return Err(Exit::Trap(format!("it has used up its fuel of {}", budget.all)));
            }
            fuel = fuel.min(budget.left);
        }
        self.given = fuel;
        self.store.set_fuel(fuel).map_err(|error| Exit::Trap(error.to_string()))?;
        let host = self.store.data_mut();
        host.slice_cpu = thread_cpu();
        host.slice_end = Instant::now().checked_add(time).unwrap_or(host.slice_end);
        Ok(())
    }

    /// The time that the next slice may take, once its limit lets the guest run at all.
    async fn allowed(&mut self) -> Duration {
        let Some(allowance) = &mut self.allowance else { return SLICE };
        loop {
            let used = self.store.data().shared.cpu();
            match allowance.settle(used, Instant::now()) {
                Ok(left) => return left.clamp(SHORTEST, SLICE),
                Err(later) => Timer::at(later).await,
            };
        }
    }

    /// A slice has ended: what it used of its fuel is gone.
    fn burn(&mut self) {
        let Some(budget) = &mut self.budget else { return };
        let host = self.store.data_mut();
        let taken = std::mem::take(&mut host.fuel_taken);
        let unused = self.store.get_fuel().unwrap_or(0).saturating_add(taken);
        budget.left = budget.left.saturating_sub(self.given.saturating_sub(unused));
    }

    /// A slice has used up its fuel.
    fn adapt(&mut self) {
        let took = thread_cpu().saturating_sub(self.store.data().slice_cpu);
        // A slice that a limit has cut short tells little, and one that was longer for a bulk operation, nothing.
        if self.given == self.fuel {
            self.fuel = adapt(self.fuel, took);
            self.pace.0.store(usize::try_from(self.fuel).unwrap_or(FIRST), Ordering::Relaxed);
        }
    }

    /// Waits for what the suspended call waits for; what it answers then.
    async fn wait(&mut self) -> Result<Errno, Ended> {
        loop {
            let then = match self.store.data_mut().pending.take() {
                None => return Ok(Errno::Success),
                Some(Wait::Turn(then)) => {
                    yield_now().await;
                    then
                }
                Some(Wait::Blocking(work)) => crate::control::blocking(work).await,
                Some(Wait::Work(work)) => work.await,
                Some(Wait::Until { deadline, waited, then }) => {
                    let forgotten = self.fall_asleep(deadline);
                    until(deadline, waited).await;
                    self.wake_up(&forgotten);
                    then
                }
            };
            if let Some(errno) = self.follow(then)? {
                return Ok(errno);
            }
        }
    }

    /// Gives back memory that can be written again, where the guest waits for long.
    fn fall_asleep(&mut self, deadline: Option<Instant>) -> Forgotten {
        let soon = Instant::now().checked_add(LONG);
        let short = deadline.is_some_and(|at| soon.is_some_and(|soon| at < soon));
        match self.store.data().memory {
            Some(memory) if !short => self.compiled.initial.forget(memory.data_mut(&mut self.store)),
            _ => Forgotten::new(),
        }
    }

    fn wake_up(&mut self, forgotten: &Forgotten) {
        if let Some(memory) = self.store.data().memory.filter(|_| !forgotten.is_empty()) {
            self.compiled.initial.restore(memory.data_mut(&mut self.store), forgotten);
        }
    }

    /// Does what follows a wait; none: it waits again.
    fn follow(&mut self, then: Then) -> Result<Option<Errno>, Ended> {
        match with_memory(&mut self.store, then) {
            Ok(()) => Ok(Some(Errno::Success)),
            Err(Stop::Errno(errno)) => Ok(Some(errno)),
            Err(Stop::Trap(text)) => Err(self.ended(Exit::Trap(text))),
            Err(Stop::Exit(code)) => Err(self.ended(Exit::Code(code))),
            Err(Stop::Wait(wait)) => {
                self.store.data_mut().pending = Some(wait);
                Ok(None)
            }
            Err(Stop::Lay(_)) => Ok(Some(Errno::Badf)),
        }
    }

    /// Notes the size of linear memory and gives back the zero pages of what is new in it.
    async fn release(&mut self) {
        let size = self.store.data().memory.map_or(0, |memory| memory.data_size(&self.store));
        self.store.data().shared.set_memory(u64::try_from(size).unwrap_or(u64::MAX));
        while self.released < size {
            let end = self.released.saturating_add(RELEASE_CHUNK).min(size);
            if let Some(memory) = self.store.data().memory {
                if let Some(new) = memory.data_mut(&mut self.store).get_mut(self.released..end) {
                    release_zeros(new);
                }
            }
            self.released = end;
            if end < size {
                yield_now().await;
            }
        }
    }

    fn failed(&self, error: &Error) -> Exit {
        if let Some(Exited(code)) = error.downcast_ref::<Exited>() {
            return self.ended(Exit::Code(*code));
        }
        if let Some(Panicked(text)) = error.downcast_ref::<Panicked>() {
            return Exit::Panic(text.clone());
        }
        self.ended(Exit::Trap(error.to_string()))
    }

    /// `exit`, or the lack of memory that led to it.
    fn ended(&self, exit: Exit) -> Exit {
        match exit {
            Exit::Code(0) => exit,
            _ if self.store.data().limiter.refused() => Exit::OutOfMemory,
            _ => exit,
        }
    }
}

/// Waits until `deadline` or until one of `waited` is ready.
async fn until(deadline: Option<Instant>, waited: Vec<(Waited, Interest)>) {
    let timer = async {
        match deadline {
            Some(at) => Timer::at(at).await,
            None => Timer::never().await,
        };
    };
    let ready = poll_fn(|context| {
        // Each is asked, so that each wakes the guest.
        let ready = waited.iter().filter(|(one, interest)| one.poll_ready(*interest, context).is_ready());
        match ready.count() {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    });
    timer.or(ready).await;
}
