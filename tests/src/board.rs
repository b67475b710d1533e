//! An emulated board: a whole ARM machine under QEMU, with the agent as it is shipped on its disk.
//!
//! The kernel is Debian's (tests/board/build), its disks are ext4 on virtio: one with the files that a test
//! wants to be there, at `/disk`, and for a board with systemd one with a Debian system (tests/board/system).
//! The board is behind QEMU's user
//! network, whose other side is the bed: it reaches the API server and the registries by the bed's
//! addresses, and a port of an address of the bed, which is the node's address, leads to its kubelet API.
//! Its serial console is the bed's log `board-NAME`; a second serial port takes commands.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    bed::{self, process::Process},
    tools, Bed,
};

/// How long QEMU may take to start, up to its first instruction.
const QEMU_START: Duration = Duration::from_secs(20);
/// How long the kernel and `init` may take: 1.5 to 3 s on an idle core.
const BOOT: Duration = Duration::from_secs(120);
/// How long a command may take on the board, unless the test knows better.
pub const COMMAND: Duration = Duration::from_secs(60);
/// How long joining, and each step after it, may take on an emulated core that is shared.
pub const STEP: Duration = Duration::from_secs(180);
/// How long the board may take to end what runs and power itself off.
const POWER_OFF: Duration = Duration::from_secs(60);
/// The disk of a board that holds the agent alone: binary, journal of ext4, images and logs.
const DISK: &str = "64M";
/// After this long a node that has registered is idle: its certificate is there, its first status sent.
const IDLE: Duration = Duration::from_secs(60);
/// The memory of a board, in MiB: the smallest that is promised to do.
pub const MEMORY: u32 = 64;
/// Where the disk of files is mounted on the board.
pub const ON_BOARD: &str = "/disk";
/// The port of the kubelet API, on the board and on the node's address.
const KUBELET_PORT: u16 = 10250;

/// A kind of board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Machine {
    /// A 64-bit Cortex-A53, as on a Raspberry Pi 3 or Zero 2 W.
    Arm64,
    /// A 32-bit Cortex-A7, as on a Raspberry Pi 2 and on many gateways.
    Armhf,
}

impl Machine {
    /// What Debian calls it.
    pub fn debian(self) -> &'static str {
        match self {
            Machine::Arm64 => "arm64",
            Machine::Armhf => "armhf",
        }
    }

    /// The target of the agent that is shipped for it.
    pub fn target(self) -> &'static str {
        match self {
            Machine::Arm64 => "aarch64-unknown-linux-musl",
            Machine::Armhf => "armv7-unknown-linux-musleabihf",
        }
    }

    /// The agent as it is shipped for it.
    pub fn agent(self) -> PathBuf {
        tools::shipped(self.target())
    }

    /// The emulator and its machine. Without `highmem=off`, a 32-bit kernel finds no PCI bus.
    fn emulator(self) -> [&'static str; 5] {
        match self {
            Machine::Arm64 => ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"],
            Machine::Armhf => ["qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a7"],
        }
    }

    /// The folder with `kernel`, `initramfs` and `modules`.
    fn kernel(self) -> PathBuf {
        static MADE: Mutex<Option<HashMap<Machine, PathBuf>>> = Mutex::new(None);
        let mut made = MADE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = made.get_or_insert_default();
        known.entry(self).or_insert_with(|| script("tests/board/build", &[self.debian()])).clone()
    }
}

/// Runs a script of the tree, and gives the path that is the last line of what it prints.
pub fn script(name: &str, arguments: &[&str]) -> PathBuf {
    let mut command = Command::new(tools::root().join(name));
    command.args(arguments);
    PathBuf::from(expect(command).lines().last().unwrap_or_default())
}

/// How a board is put together.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which board.
    pub machine: Machine,
    /// Its host name, and the node's name.
    pub name: &'static str,
    /// The address of the bed that leads to it, which is the node's.
    pub address: &'static str,
    /// Its memory in MiB.
    pub memory: u32,
    /// The moment its real-time clock starts at, as `-rtc base=` has it; `None` is the true time.
    pub clock: Option<&'static str>,
    /// Seconds until its watchdog device restarts it, where it has one.
    pub watchdog: Option<u32>,
}

impl Plan {
    /// A board with [`MEMORY`] and the right time.
    pub fn new(machine: Machine, name: &'static str, address: &'static str) -> Plan {
        Plan { machine, name, address, memory: MEMORY, clock: None, watchdog: None }
    }
}

/// A board that runs; its power is cut with this value.
#[derive(Debug)]
pub struct Board {
    /// Its host name, and the node's name.
    pub name: &'static str,
    /// What it is made of.
    pub plan: Plan,
    disks: Vec<PathBuf>,
    process: Process,
    commands: UnixStream,
    /// When power came, and when the last phase ended.
    powered: Instant,
    phase: Instant,
}

impl Board {
    /// Boots a board that starts the agent as a new node of the bed's cluster, with further arguments.
    /// It returns when the board's `init` has started the agent.
    #[track_caller]
    pub fn join(bed: &Bed, plan: Plan, arguments: &[&str]) -> Board {
        let files = Board::files(bed, &plan);
        copy(&plan.machine.agent(), &files.join("copepod"));
        write(&files.join("environment"), &format!("SSL_CERT_FILE={ON_BOARD}/authority.crt\n"));
        let bootstrap = format!("{ON_BOARD}/bootstrap.conf");
        let data = format!("{ON_BOARD}/data");
        let mut all = vec!["--node-ip", plan.address, "--bootstrap-file", &bootstrap, "--data-dir", &data];
        all.extend(arguments);
        write(&files.join("start"), &format!("exec {ON_BOARD}/copepod {}\n", all.join(" ")));
        Board::boot(bed, plan, &files, None)
    }

    /// Boots a board with systemd, and these files in [`ON_BOARD`]. It returns when systemd is up.
    #[track_caller]
    pub fn system(bed: &Bed, plan: Plan, more: &[&Path]) -> Board {
        let files = Board::files(bed, &plan);
        for file in more {
            copy(file, &files.join(file.file_name().expect("it is a file")));
        }
        let made = script("tests/board/system", &[plan.machine.debian()]);
        let system = bed.folder().join(format!("system-{}", plan.name));
        // Most of the disk is a hole, and stays one.
        let mut command = Command::new("cp");
        command.arg("--sparse=always").arg(&made).arg(&system);
        expect(command);
        Board::boot(bed, plan, &files, Some(system))
    }

    /// A folder with what every board has on its disk of files.
    fn files(bed: &Bed, plan: &Plan) -> PathBuf {
        let files = bed.folder().join(format!("files-{}", plan.name));
        fs::create_dir(&files).unwrap_or_else(|e| panic!("cannot make {}: {e}", files.display()));
        copy(bed.registry_authority(), &files.join("authority.crt"));
        copy(&bed.bootstrap(&format!("bootstrap-{}.conf", plan.name), &[]), &files.join("bootstrap.conf"));
        copy(&bed.folder().join("hosts"), &files.join("hosts"));
        write(&files.join("hostname"), plan.name);
        files
    }

    /// Powers on a board with a disk of these files, and perhaps one with a system, and waits until it is
    /// up.
    #[track_caller]
    fn boot(bed: &Bed, plan: Plan, files: &Path, system: Option<PathBuf>) -> Board {
        let kernel = plan.machine.kernel();
        let disk = bed.folder().join(format!("disk-{}", plan.name));
        make_disk(files, &disk);
        let mut disks = vec![disk];
        disks.extend(system);
        // A socket's path has room for 107 bytes.
        let socket = bed.folder().join(format!("{}.tty", plan.name));
        let [program, machine @ ..] = plan.machine.emulator();
        let mut command = bed.command(program);
        command.args(machine);
        command.args(["-m", &plan.memory.to_string()]);
        command.arg("-kernel").arg(kernel.join("kernel"));
        command.arg("-initrd").arg(kernel.join("initramfs"));
        let watchdog = plan.watchdog.map(|seconds| format!(" watchdog={seconds}")).unwrap_or_default();
        command.args(["-append", &format!("console=ttyAMA0 quiet panic=-1{watchdog}")]);
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"]);
        command.args(["-serial", "stdio", "-device", "virtio-rng-device"]);
        for (number, disk) in disks.iter().enumerate() {
            command.args(["-drive", &format!("if=none,id=disk{number},format=raw,file={}", disk.display())]);
            // The default queue of 1024 requests is 0.7 MB of the board's memory.
            command.args(["-device", &format!("virtio-blk-device,drive=disk{number},queue-size=64")]);
        }
        let forward = format!("hostfwd=tcp:{}:{KUBELET_PORT}-:{KUBELET_PORT}", plan.address);
        command.args(["-netdev", &format!("user,id=net,{forward}")]);
        command.args(["-device", "virtio-net-device,netdev=net"]);
        command.args(["-chardev", &format!("socket,id=port,server=on,wait=off,path={}", socket.display())]);
        command.args(["-device", "pci-serial,chardev=port"]);
        if let Some(clock) = plan.clock {
            command.args(["-rtc", &format!("base={clock}")]);
        }
        let powered = Instant::now();
        let process = bed.spawn(&format!("board-{}", plan.name), command);
        let commands = bed.wait_for(&format!("the command port of {}", plan.name), QEMU_START, || {
            UnixStream::connect(&socket).ok()
        });
        let mut board = Board { name: plan.name, plan, disks, process, commands, powered, phase: powered };
        board.wait_for_line(bed, BOOT, &["board:", "up,"]);
        board.report("booted");
        board
    }

    /// Prints what has been reached and the seconds it took, even of a test that passes.
    pub fn report(&mut self, reached: &str) {
        let (total, phase) = (self.powered.elapsed(), self.phase.elapsed());
        self.phase = Instant::now();
        say(&format!(
            "{} ({}, {} MiB): {reached}: {:.1} s, {:.1} s since power",
            self.name,
            self.plan.machine.debian(),
            self.plan.memory,
            phase.as_secs_f64(),
            total.as_secs_f64()
        ));
    }

    /// Runs `command` by the board's shell, and gives what it printed.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> String {
        self.run_within(command, COMMAND)
    }

    /// The same, where the test knows how long it may take.
    #[track_caller]
    pub fn run_within(&mut self, command: &str, limit: Duration) -> String {
        let (code, printed) = self.try_run(command, limit);
        assert!(code == 0, "`{command}` on {} ended with {code}:\n{printed}", self.name);
        printed
    }

    /// The same for a command that may fail: its exit code, and what it printed.
    #[track_caller]
    pub fn try_run(&mut self, command: &str, limit: Duration) -> (i32, String) {
        assert!(!command.contains('\n'), "the board's shell takes a line at a time");
        let sent = self.commands.write_all(format!("{command}\n").as_bytes());
        sent.unwrap_or_else(|e| panic!("cannot send `{command}` to {}: {e}", self.name));
        let end = Instant::now() + limit;
        let mut answer = Vec::new();
        loop {
            if let Some(ended) = ended_with(&String::from_utf8_lossy(&answer)) {
                return ended;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "`{command}` on {} has not ended within {} s; so far it printed:\n{}",
                self.name,
                limit.as_secs(),
                String::from_utf8_lossy(&answer)
            );
            self.commands.set_read_timeout(Some(left)).expect("the time left is not zero");
            let mut some = [0; 4096];
            match self.commands.read(&mut some) {
                Ok(0) => panic!("{} went away during `{command}`: see its console's log", self.name),
                Ok(count) => answer.extend_from_slice(&some[..count]),
                Err(_) => {}
            }
        }
    }

    /// Everything on its serial console so far, the agent's log among it.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits for a line of the console that holds every one of `words`, and gives it.
    #[track_caller]
    pub fn wait_for_line(&self, bed: &Bed, limit: Duration, words: &[&str]) -> String {
        bed.wait_for(&format!("a line on the console of {} with {words:?}", self.name), limit, || {
            self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Waits until its node is Ready, then approves its serving certificate.
    #[track_caller]
    pub fn ready(&mut self, bed: &Bed) {
        bed.wait_until_ready(self.name, STEP);
        self.report("Ready");
        bed.approve(self.name, STEP);
        self.report("serving certificate issued");
    }

    /// The agent's resident memory and the board's available memory, in KiB.
    #[track_caller]
    pub fn memory(&mut self) -> Memory {
        let status = self.run("cat /proc/$(pidof copepod)/status /proc/meminfo");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok());
            number.unwrap_or_else(|| panic!("there is no {name} of a number in:\n{status}"))
        };
        Memory { agent: field("VmRSS:"), most: field("VmHWM:"), available: field("MemAvailable:") }
    }

    /// What the agent takes on a board of this kind and [`MEMORY`], registered, approved, without pods, after
    /// a minute of nothing: the figure of the footprint table.
    #[track_caller]
    pub fn agent_memory(machine: Machine) -> Memory {
        let bed = Bed::start();
        let mut board = Board::join(&bed, Plan::new(machine, "idle", bed::NODE), &[]);
        board.ready(&bed);
        std::thread::sleep(IDLE);
        let memory = board.memory();
        board.power_off();
        memory
    }

    /// Waits until the board's watchdog device restarts it, which ends it here.
    #[track_caller]
    pub fn wait_for_restart(mut self, limit: Duration) {
        let status = self.process.wait(limit);
        assert!(status.success(), "QEMU of {} ended with {status}", self.name);
        // A kernel that panics restarts, too.
        let log = self.log();
        assert!(
            log.contains("softdog: Initiating system reboot") && !log.contains("Kernel panic"),
            "it was not the watchdog:\n{log}"
        );
        self.report("restarted by itself");
    }

    /// Ends what runs on it, powers it off, and checks its disk.
    #[track_caller]
    pub fn power_off(mut self) {
        self.commands.write_all(b"poweroff\n").expect("the board takes commands");
        let status = self.process.wait(POWER_OFF);
        assert!(status.success(), "QEMU of {} ended with {status}", self.name);
        self.report("powered off");
        assert!(self.log().contains("reboot: Power down"), "the kernel of {} has not said so", self.name);
        if self.disks.len() == 1 {
            for said in ["what was started has ended with 0", "the disk is unmounted"] {
                assert!(self.log().contains(said), "the console of {} does not say: {said}", self.name);
            }
        }
        for disk in &self.disks {
            let mut check = Command::new("/sbin/e2fsck");
            check.arg("-fn").arg(disk);
            expect(check);
        }
    }
}

/// What the agent takes of a board's memory, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory of the agent (`VmRSS`).
    pub agent: u64,
    /// The most that it ever was (`VmHWM`).
    pub most: u64,
    /// What the board has left (`MemAvailable`).
    pub available: u64,
}

/// The exit code and the output of a command, once the board's shell has ended it with a new line and the
/// line `= CODE`. A last new line of the output is left out.
fn ended_with(answer: &str) -> Option<(i32, String)> {
    let (printed, last) = answer.strip_suffix('\n')?.rsplit_once('\n')?;
    let code = last.strip_prefix("= ")?.parse().ok()?;
    Some((code, printed.strip_suffix('\n').unwrap_or(printed).to_owned()))
}

/// Prints a line on the test's stderr, even if the test passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// An ext4 file system in the new file `disk` with the contents of `folder`.
fn make_disk(folder: &Path, disk: &Path) {
    // Where the tests do not run as root, the files are to be root's all the same.
    let root = rustix::process::geteuid().is_root();
    let mut command = Command::new(if root { "/sbin/mke2fs" } else { "fakeroot" });
    if !root {
        command.arg("/sbin/mke2fs");
    }
    command.args(["-q", "-t", "ext4", "-L", "files", "-E", "root_owner=0:0", "-d"]).arg(folder);
    command.arg(disk).arg(DISK);
    expect(command);
}

/// Runs a program of the machine's own, which must end well, and gives what it printed.
fn expect(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let printed = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{printed}{complained}", output.status);
    printed.into_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("cannot copy {} to {}: {e}", from.display(), to.display()));
}

fn write(file: &Path, contents: &str) {
    fs::write(file, contents).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
}

#[cfg(test)]
mod tests {
    use super::ended_with;

    #[test]
    fn a_command_has_ended_once_its_code_has_come() {
        assert_eq!(ended_with("\n= 0\n"), Some((0, String::new())));
        assert_eq!(ended_with("one\ntwo\n\n= 127\n"), Some((127, "one\ntwo".to_owned())));
        assert_eq!(ended_with("no new line\n= 0\n"), Some((0, "no new line".to_owned())));
        for unfinished in ["", "one\n", "one\n= 1", "\n= \n", "\n= 0\nmore\n", "x= 0\n"] {
            assert_eq!(ended_with(unfinished), None, "{unfinished:?}");
        }
    }
}
