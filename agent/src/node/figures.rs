//! What the machine and this process have used: read from the kernel when somebody asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{getrlimit, Resource};
use rustix::time::{clock_gettime, ClockId};

use super::host::{meminfo, text, Host, Left};
use crate::cluster::{CertificateEnds, Client};
use crate::durable::clock::Now;
use crate::metrics::{Counts, Disk, Figures, Machine, Process};
use crate::runtime::Runtime;
use crate::supervisor::Supervisor;

/// Interfaces that are told of.
const MAX_INTERFACES: usize = 64;

/// Where the figures come from.
pub struct Sources {
    /// Of pods.
    pub supervisor: Supervisor,
    /// Of guests' memory.
    pub runtime: Runtime,
    /// The node's name.
    pub node: String,
    /// What does not change.
    pub host: Host,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Of requests to the API server, once the node has joined.
    pub client: Arc<OnceLock<Client>>,
    /// Of certificates.
    pub certificates: Arc<CertificateEnds>,
}

impl Sources {
    /// Everything, as it is now.
    #[must_use]
    pub fn read(&self) -> Figures {
        let now = Now::read();
        let (started, failed) = self.supervisor.starts();
        Figures {
            at: now.wall,
            mono: now.mono,
            machine: self.machine(),
            process: process(now.wall),
            counts: Counts {
                started,
                failed,
                guest_memory: self.runtime.memory(),
                guest_memory_limit: self.runtime.memory_limit(),
                api_server: self.client.get().map(|client| client.server().authority()).unwrap_or_default(),
                requests: self.client.get().map(Client::answered).unwrap_or_default(),
                client_certificate: self.certificates.client(),
                serving_certificate: self.certificates.serving(),
            },
            pods: self.supervisor.figures(),
        }
    }

    fn machine(&self) -> Machine {
        let left = Left::read(&self.data_dir);
        let stat = text("/proc/stat");
        let booted = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        let booted = booted.and_then(|seconds: i64| Timestamp::from_second(seconds).ok()).unwrap_or_default();
        Machine {
            node: self.node.clone(),
            booted,
            cores: self.host.cores,
            cpu: cpu(&stat),
            memory: self.host.memory,
            available: left.memory,
            swapped: meminfo("SwapTotal:").saturating_sub(meminfo("SwapFree:")),
            disk: disk(&self.data_dir),
            tasks: left.tasks,
            max_tasks: left.max_tasks,
            interfaces: interfaces(&text("/proc/net/dev")),
        }
    }
}

/// Clock ticks of the kernel (`USER_HZ`) as time.
fn ticks(count: u64) -> Duration {
    let hertz = clock_ticks_per_second().max(1);
    let nanos = count.checked_rem(hertz).unwrap_or(0).saturating_mul(1_000_000_000 / hertz);
    Duration::from_secs(count / hertz).saturating_add(Duration::from_nanos(nanos))
}

/// What all processors did but idle and wait (proc_pid_stat(5): guests are in user time already).
fn cpu(stat: &str) -> Duration {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let columns: Vec<u64> = line.split_whitespace().map_while(|column| column.parse().ok()).collect();
    // user nice system [idle iowait] irq softirq steal
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| columns.get(*index));
    ticks(busy.fold(0, |sum, column| sum.saturating_add(*column)))
}

/// `/proc/net/dev`: two lines of headings, then `name: received … sent …`.
fn interfaces(text: &str) -> Vec<(String, u64, u64)> {
    let interface = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let columns: Vec<u64> = rest.split_whitespace().map_while(|column| column.parse().ok()).collect();
        Some((name.trim().to_owned(), *columns.first()?, *columns.get(8)?))
    };
    let all = text.lines().skip(2).filter_map(interface);
    all.filter(|(name, _, _)| name != "lo").take(MAX_INTERFACES).collect()
}

fn disk(folder: &Path) -> Disk {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return Disk::default() };
    Disk {
        capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
        free: stat.f_bfree.saturating_mul(stat.f_frsize),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    }
}

/// How many entries a folder of `/proc` has.
fn entries(folder: &str) -> u64 {
    fs::read_dir(folder).map_or(0, |all| u64::try_from(all.count()).unwrap_or(u64::MAX))
}

/// What a clock of the kernel's shows.
fn clock(which: ClockId) -> Duration {
    let time = clock_gettime(which);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// `/proc/self` (proc_pid_stat(5), proc_pid_statm(5), proc_pid_io(5)).
fn process(now: Timestamp) -> Process {
    let stat = text("/proc/self/stat");
    // After the command's name, which may hold anything: the third field is the first. The 22nd is the start, in
    // ticks since the machine's start, time asleep included.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let start = fields.split_whitespace().nth(22 - 3).and_then(|field| field.parse().ok()).unwrap_or(0);
    let age = clock(ClockId::Boottime).saturating_sub(ticks(start));
    let statm = text("/proc/self/statm");
    let mut pages = statm.split_whitespace().map(|pages| pages.parse().unwrap_or(0_u64));
    let mut bytes = || pages.next().unwrap_or(0).saturating_mul(u64::try_from(page_size()).unwrap_or(0));
    let written = text("/proc/self/io");
    let written = written.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    Process {
        started: now.checked_sub(age).unwrap_or(now),
        cpu: clock(ClockId::ProcessCPUTime),
        size: bytes(),
        resident: bytes(),
        // But for the one that reads the folder.
        open_files: entries("/proc/self/fd").saturating_sub(1),
        max_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        threads: entries("/proc/self/task"),
        written,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let stat = "cpu  100 10 50 9999 777 5 5 30 100 0\ncpu0 1 2 3\nbtime 1767225600\n";
        assert_eq!(cpu(stat), ticks(200));
        assert_eq!(ticks(clock_ticks_per_second() * 3 / 2), Duration::from_millis(1500));
        let net = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10\n  eth0: 100 2 \
                   3 4 5 6 7 8 900 10 11\nbroken\n wlan0:7 0 0 0 0 0 0 0 8 0\n";
        let found = interfaces(net);
        assert_eq!(found, [("eth0".to_owned(), 100, 900), ("wlan0".to_owned(), 7, 8)]);
        assert_eq!((cpu(""), interfaces("")), (Duration::ZERO, vec![]));
    }

    #[test]
    fn reads_this_process() {
        let now = Timestamp::now();
        let one = process(now);
        assert!(one.resident > 1_000_000 && one.size >= one.resident, "{one:?}");
        assert!(one.threads >= 1 && one.open_files >= 3 && one.max_files >= one.open_files, "{one:?}");
        let age = now.duration_since(one.started);
        assert!(!age.is_negative() && age < jiff::SignedDuration::from_secs(3600), "{one:?}");
        // Some work, so that the clock ticks.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(text("/proc/self/stat"));
        }
        let next = process(Timestamp::now());
        assert!(next.cpu >= one.cpu + Duration::from_millis(30), "{:?} {:?}", one.cpu, next.cpu);
    }
}
