//! What bounds a guest: its memory and tables as they grow, and the ceiling of all guests together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmi::errors::{MemoryError, TableError};
use wasmi::ResourceLimiter;
use wasmi_core::LimiterError;

/// Elements of one table: several times the functions of the largest Go program seen (17.7 MB); 1 MiB.
pub const MAX_TABLE_ELEMENTS: usize = 1 << 18;
/// Tables of one guest. LLVM and Go make one.
pub const MAX_TABLES: usize = 16;
/// Elements by which one `table.grow` may grow a running guest's table; more answers -1, as the
/// specification allows. wasmi 2.0.0 executes a block again when fuel ends in `table.grow`, and a
/// growth that costs no fuel cannot meet that: an element is 4 bytes, and [`BYTES_PER_FUEL`] of them
/// cost one unit. No toolchain for wasip1 grows a table.
const FREE_TABLE_GROWTH: usize = 1;
/// Bytes of a bulk operation (`memory.fill`, `copy`, `grow`) for one unit of fuel. A unit is about
/// 0.6 ns of interpreter on a desktop machine, in which 8 bytes are moved, so a slice of bulk
/// operations takes about as long as any other.
pub const BYTES_PER_FUEL: u32 = 8;
/// Fuel of one `memory.grow` or `table.grow`: all that wasmi lets an operator cost (see
/// [`super::operators::MAX_GROWS`]). They take as long as some hundred others.
pub const GROW_FUEL: u8 = u8::MAX;
/// Calls within calls. wasmi's own default of 1000 is low for recursive programs; a frame costs some
/// 32 bytes here, so a third of a megabyte at most.
pub const MAX_RECURSION: usize = 10_000;
/// Bytes of the interpreter's value stack, of one guest, on the heap; it grows as needed.
pub const MAX_STACK: usize = 2 << 20;

/// Linear memory of all guests together, and its ceiling.
#[derive(Debug)]
pub struct Ledger {
    account: Mutex<Account>,
    ceiling: u64,
}

/// A guest that is refused more is told of in the log, at most once in this time, however many ask.
const TOLD_EVERY: Duration = Duration::from_secs(600);
/// Bytes of one element of a table (wasmi's own references).
const ELEMENT: u64 = 4;

#[derive(Debug, Default)]
struct Account {
    used: u64,
    /// When somebody was refused, and the log told so.
    told: Option<Instant>,
}

impl Ledger {
    /// A ledger that lets guests have `ceiling` bytes together.
    #[must_use]
    pub fn new(ceiling: u64) -> Ledger {
        Ledger { account: Mutex::default(), ceiling }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.account().used
    }

    /// Bytes that there are.
    #[must_use]
    pub fn ceiling(&self) -> u64 {
        self.ceiling
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: u64) -> bool {
        let mut account = self.account();
        match account.used.checked_add(bytes) {
            Some(sum) if sum <= self.ceiling => {
                account.used = sum;
                return true;
            }
            _ if account.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) => return false,
            _ => account.told = Some(Instant::now()),
        }
        let used = account.used;
        drop(account);
        log::warn!(
            "a guest is refused {} KiB more of memory: all guests together have {} of {} KiB \
             (--guest-memory)",
            bytes / 1024,
            used / 1024,
            self.ceiling / 1024
        );
        false
    }

    fn give_back(&self, bytes: u64) {
        let mut account = self.account();
        account.used = account.used.saturating_sub(bytes);
    }

    /// Bytes that are in use already.
    fn add(&self, bytes: u64) {
        let mut account = self.account();
        account.used = account.used.saturating_add(bytes);
    }
}

/// What wasmi asks before a guest's memory or table grows.
pub struct Limiter {
    limit: u64,
    ledger: Arc<Ledger>,
    /// Memory, tables, arguments and environment.
    held: u64,
    last: u64,
    running: bool,
    refused: bool,
}

impl Limiter {
    /// Bounds memory and tables by `limit` bytes, of which `given` are taken by arguments and environment, and
    /// by what `ledger` has left.
    #[must_use]
    pub fn new(limit: u64, given: u64, ledger: Arc<Ledger>) -> Limiter {
        ledger.add(given);
        Limiter { limit, ledger, held: given, last: 0, running: false, refused: false }
    }

    /// From now on the guest itself asks.
    pub fn guest_runs(&mut self) {
        self.running = true;
    }

    /// Whether the last growth that the guest asked for was refused for want of memory: an end by trap or by
    /// a code other than 0 is then held to be its consequence.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.refused
    }

    fn grow(&mut self, more: u64) -> bool {
        let granted = self.held.saturating_add(more) <= self.limit && self.ledger.take(more);
        self.refused = !granted;
        if granted {
            self.last = more;
            self.held = self.held.saturating_add(more);
        }
        granted
    }

    fn undo(&mut self) {
        self.ledger.give_back(self.last);
        self.held = self.held.saturating_sub(self.last);
        self.last = 0;
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.ledger.give_back(self.held);
    }
}

fn bytes(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        Ok(self.grow(bytes(desired.saturating_sub(current))))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let more = desired.saturating_sub(current);
        let few = !self.running || more <= FREE_TABLE_GROWTH;
        Ok(few && desired <= MAX_TABLE_ELEMENTS && self.grow(bytes(more).saturating_mul(ELEMENT)))
    }

    fn memory_grow_failed(&mut self, error: &MemoryError) -> Result<(), LimiterError> {
        self.undo();
        // Without fuel, the same growth is asked for again in the next slice.
        self.refused = !matches!(error, MemoryError::OutOfFuel { .. });
        Ok(())
    }

    fn table_grow_failed(&mut self, _error: &TableError) -> Result<(), LimiterError> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        1
    }
    fn tables(&self) -> usize {
        MAX_TABLES
    }
    fn memories(&self) -> usize {
        1
    }
}
