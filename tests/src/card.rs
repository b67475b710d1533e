//! A card that cross/image has made, in an emulated machine: what a person does with it, and what the power does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{bed::process::Process, board::Machine, tools::tool, Bed};

/// How long it may take until the agent starts: 4 s on an idle core.
const BOOT: Duration = Duration::from_secs(120);
/// How long an upgrade may take until the restart, or a new system until it is given up.
const RESTART: Duration = Duration::from_secs(180);
/// The device tree of the board that the emulator's raspi3b is.
const TREE: &str = "bcm2837-rpi-3-b.dtb";
/// Where the partitions are in the image, in MiB.
const BOOT_AT: u64 = 1;
const DATA_AT: u64 = 193;
/// The card's size: larger than its image, as cards are.
const CARD: u64 = 512 << 20;

/// A card, in the machine or out of it.
#[derive(Debug)]
pub struct Card {
    file: PathBuf,
    /// As cross/image calls it.
    board: &'static str,
    address: &'static str,
    /// Whether its board's clock begins in 1970 at each start, as one without a battery does.
    pub old_clock: bool,
    /// An archive that the kernel unpacks over the system, and what of it runs as process 1 before the card's own.
    pub beside: Option<(PathBuf, &'static str)>,
    process: Option<Process>,
    boots: u32,
}

/// What its init says when it starts the agent.
#[derive(Debug)]
pub struct Started {
    /// Since its kernel was started.
    pub seconds: String,
    /// KiB of the memory that the kernel has, taken by the system.
    pub taken: u64,
}

impl Card {
    /// A new card, with nothing dropped on it.
    #[track_caller]
    pub fn flashed(bed: &Bed, board: &'static str, name: &str, address: &'static str) -> Card {
        let image = make(bed, board, name, &Machine::Arm64.agent());
        let file = fs::File::options().write(true).open(&image).expect("the image is there");
        file.set_len(CARD).expect("a card is larger");
        Card { file: image, board, address, old_clock: false, beside: None, process: None, boots: 0 }
    }

    /// What a card of its board is upgraded with to a system with this agent.
    #[track_caller]
    pub fn upgrade(bed: &Bed, name: &str, agent: &Path) -> PathBuf {
        let image = make(bed, "virt", name, agent);
        image.with_file_name(format!("{name}-upgrade.tar.gz"))
    }

    /// Which of its systems starts next, as its config.txt says it to a board's firmware.
    #[track_caller]
    pub fn slot(&self) -> String {
        let mut command = Command::new("mtype");
        command.args(["-i", &self.partition(), "::config.txt"]);
        let config = run(command);
        let prefix = config.lines().find_map(|line| line.strip_prefix("os_prefix="));
        prefix.expect("it names a system").trim_end_matches('/').to_owned()
    }

    /// The partition that any computer reads, as mtools are told of it.
    fn partition(&self) -> String {
        format!("{}@@{BOOT_AT}M", self.file.display())
    }

    /// Puts a file onto the partition that any computer reads, and the folder that `name` is in.
    #[track_caller]
    pub fn drop_file(&self, from: &Path, name: &str) {
        if let Some((folder, _)) = name.split_once('/') {
            let mut command = Command::new("mmd");
            command.args(["-i", &self.partition(), &format!("::{folder}")]);
            run(command);
        }
        let mut command = Command::new("mcopy");
        command.args(["-o", "-i", &self.partition()]).arg(from).arg(format!("::{name}"));
        run(command);
    }

    /// Removes a folder of that partition.
    #[track_caller]
    pub fn remove_folder(&self, name: &str) {
        let mut command = Command::new("mdeltree");
        command.args(["-i", &self.partition(), &format!("::{name}")]);
        run(command);
    }

    /// What is on that partition.
    #[track_caller]
    pub fn dropped(&self) -> String {
        let mut command = Command::new("mdir");
        command.args(["-b", "-i", &self.partition(), "::"]);
        run(command)
    }

    /// The bytes of the whole card.
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.file).expect("the card is there")
    }

    /// Spoils the data partition.
    pub fn lose_data(&self) {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(&self.file).expect("the card is there");
        file.write_all_at(&vec![0; 1 << 20], DATA_AT << 20).expect("it can be written");
    }

    /// Fills the data partition to its last block.
    #[track_caller]
    pub fn fill_data(&self) {
        use std::os::unix::fs::FileExt;
        let (data, fill) = (self.file.with_extension("data"), self.file.with_extension("fill"));
        // The partition as the last check of it has left it.
        let size = fs::metadata(&data).expect("its power was cut before").len();
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap_or(1) | 1).collect();
        fs::write(&fill, bytes).expect("the bed's folder is writable");
        let mut command = Command::new("/sbin/debugfs");
        command.args(["-w", "-R", &format!("write {} fill", fill.display())]).arg(&data);
        // It writes until there is no room left, and says so.
        let output = command.output().expect("debugfs runs");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Could not allocate block"), "{output:?}");
        let card = fs::File::options().write(true).open(&self.file).expect("the card is there");
        card.write_all_at(&fs::read(&data).expect("it is there"), DATA_AT << 20).expect("it can be written");
    }

    /// Gives it power, with the kernel and the system that its config.txt names, as a board's firmware does.
    #[track_caller]
    pub fn power(&mut self, bed: &Bed) {
        self.boots += 1;
        let folder = bed.folder().join(format!("firmware-{}", self.boots));
        fs::create_dir_all(&folder).expect("the bed's folder is writable");
        let mut command = Command::new("mcopy");
        let slot = self.slot();
        let mut files =
            vec![format!("::{slot}/kernel"), format!("::{slot}/system"), format!("::{slot}/cmdline.txt")];
        if self.board != "virt" {
            files.push(format!("::{slot}/{TREE}"));
        }
        command.args(["-o", "-i", &self.partition()]).args(files).arg(&folder);
        run(command);
        let mut line = fs::read_to_string(folder.join("cmdline.txt")).expect("it has a command line");
        let system = folder.join("system");
        if let Some((archive, init)) = &self.beside {
            let mut both = fs::read(&system).expect("it was copied");
            both.extend(fs::read(archive).expect("the test has made it"));
            fs::write(&system, both).expect("the folder is writable");
            line = format!("{} rdinit={init}", line.trim());
        }
        let mut command = bed.command("qemu-system-aarch64");
        command.arg("-kernel").arg(folder.join("kernel")).arg("-initrd").arg(system);
        if self.old_clock {
            command.args(["-rtc", "base=1970-01-01T00:00:00"]);
        }
        command.args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
        ]);
        if self.board == "virt" {
            command.args(["-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-append", line.trim()]);
            command.args(["-device", "virtio-rng-device"]);
            command.args(["-drive", &format!("if=none,id=card,format=raw,file={}", self.file.display())]);
            command.args(["-device", "virtio-blk-device,drive=card"]);
            let forward = format!("hostfwd=tcp:{}:10250-:10250", self.address);
            command.args(["-netdev", &format!("user,id=net,{forward}")]);
            command.args(["-device", "virtio-net-device,netdev=net"]);
        } else {
            // The emulator's board has its other serial line first.
            command.args(["-M", "raspi3b", "-append", &line.replace("ttyS1", "ttyAMA0")]);
            command.arg("-dtb").arg(folder.join(TREE));
            command.args(["-drive", &format!("if=sd,format=raw,file={}", self.file.display())]);
        }
        self.process = Some(bed.spawn(&format!("card-{}", self.boots), command));
    }

    /// Gives it power, and waits until the agent starts.
    #[track_caller]
    pub fn boot(&mut self, bed: &Bed) -> Started {
        self.power(bed);
        let line = self.wait_for_line(bed, BOOT, &["card:", "starting copepod as", "are available"]);
        let numbers: Vec<&str> = line.split(' ').filter(|word| word.parse::<f64>().is_ok()).collect();
        let [.., seconds, total, available] = numbers[..] else { panic!("no figures in {line:?}") };
        let kib =
            |number: &str| number.parse::<u64>().unwrap_or_else(|e| panic!("{number} in {line:?}: {e}"));
        Started { seconds: seconds.to_owned(), taken: kib(total) - kib(available) }
    }

    /// Bytes of a file of the system that starts next.
    #[track_caller]
    pub fn size_of(&self, name: &str) -> u64 {
        let mut command = Command::new("mtype");
        command.args(["-i", &self.partition(), &format!("::{}/{name}", self.slot())]);
        let output = command.output().expect("mtype runs");
        assert!(output.status.success(), "there is no {name}");
        output.stdout.len() as u64
    }

    /// Waits until it starts again by itself, which ends it here: the next power is the next start.
    #[track_caller]
    pub fn wait_for_restart(&mut self) {
        let process = self.process.as_mut().expect("it has power");
        let ended = process.wait(RESTART);
        assert!(ended.success(), "the emulator ended with {ended}");
    }

    /// Everything on its serial console since it was given power.
    pub fn console(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Waits for a line of the console that holds every one of `words`, and gives it.
    #[track_caller]
    pub fn wait_for_line(&self, bed: &Bed, limit: Duration, words: &[&str]) -> String {
        bed.wait_for(&format!("a line on the card's console with {words:?}"), limit, || {
            self.console()
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)))
                .map(str::to_owned)
        })
    }

    /// Takes its power in the middle of something.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Takes its power, and checks what that has left: nothing that a journal or a check at the start does not mend.
    #[track_caller]
    pub fn cut_power(&mut self) {
        // It is killed.
        self.process = None;
        let fat = self.file.with_extension("fat");
        let data = self.file.with_extension("data");
        let card = self.bytes();
        let at = |mib: u64| usize::try_from(mib << 20).expect("it fits");
        fs::write(&fat, &card[at(BOOT_AT)..at(DATA_AT)]).expect("the folder is writable");
        fs::write(&data, &card[at(DATA_AT)..]).expect("the folder is writable");
        let mut command = Command::new("/sbin/fsck.fat");
        command.arg("-n").arg(&fat);
        run(command);
        // The journal first, as a mount would.
        let mut command = Command::new("/sbin/e2fsck");
        command.args(["-fp", &data.to_string_lossy()]);
        let ended = command.status().expect("e2fsck runs");
        assert!(ended.code().is_some_and(|code| code <= 1), "the data partition: e2fsck ended with {ended}");
    }
}

/// Debian's NTP server at the address where a card's emulator finds its host, 10.0.2.2, for as long as the value lives. It does not
/// touch this machine's clock.
#[track_caller]
pub fn time_server(bed: &Bed) -> Process {
    let settings = "local stratum 8\nallow all\nbindaddress 127.0.0.1\ncmdport 0\npidfile chronyd.pid\n";
    let file = bed.write("chrony.conf", settings);
    let mut command = bed.command(tool("chronyd"));
    command.args(["-x", "-d", "-u", "root", "-f"]).arg(file);
    bed.spawn("chronyd", command)
}

#[track_caller]
fn make(bed: &Bed, board: &str, name: &str, agent: &Path) -> PathBuf {
    let image = bed.folder().join(format!("{name}.img"));
    let mut command = Command::new(crate::tools::root().join("cross/image"));
    command.args([board, &image.to_string_lossy()]).env("COPEPOD_BIN", agent);
    run(command);
    image
}

#[track_caller]
fn run(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
