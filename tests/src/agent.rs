//! The agent under test, running in a bed.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::ExitStatus, time::Duration};

use rustix::process::Signal;

use crate::{
    bed::{process::Process, HOSTNAME, NODE},
    tools, Bed,
};

/// How long the agent may take to end by itself. Its own limit is shorter.
pub const STOP: Duration = Duration::from_secs(30);
/// How long joining may take on a busy machine.
pub const JOIN: Duration = Duration::from_secs(60);

/// An agent that runs in a bed; it is killed with this value.
#[derive(Debug)]
pub struct Agent {
    /// The node's name.
    pub node: String,
    arguments: Vec<String>,
    process: Process,
}

impl Agent {
    /// Starts `copepod` with these arguments and no others, its log being `agent-NODE`.
    pub fn start(bed: &Bed, node: &str, arguments: &[&str]) -> Agent {
        let mut command = bed.command(provide(bed));
        // As systemd gives a service one, and keeps it over restarts.
        command.args(arguments).env("RUNTIME_DIRECTORY", bed.folder().join(format!("run-{node}")));
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Agent { node: node.to_owned(), arguments, process: bed.spawn(&format!("agent-{node}"), command) }
    }

    /// Starts `copepod` as the node that is called as the bed's host is, at the tutorial's address,
    /// with a fresh bootstrap kubeconfig, and further arguments.
    pub fn join(bed: &Bed, arguments: &[&str]) -> Agent {
        Agent::join_as(bed, HOSTNAME, NODE, arguments)
    }

    /// Starts `copepod` as node `node` at `address`, with a data folder of its own, a fresh bootstrap
    /// kubeconfig, and further arguments.
    pub fn join_as(bed: &Bed, node: &str, address: &str, arguments: &[&str]) -> Agent {
        let bootstrap = bed.bootstrap(&format!("bootstrap-{node}.conf"), &[]);
        let data = data_dir(bed, node);
        let (bootstrap, data) = (bootstrap.to_string_lossy(), data.to_string_lossy());
        let mut all = vec!["--node-ip", address, "--node-name", node];
        all.extend(["--bootstrap-file", &bootstrap, "--data-dir", &data]);
        all.extend(arguments);
        Agent::start(bed, node, &all)
    }

    /// Waits until the node is Ready, then approves its serving certificate and waits until it is
    /// issued.
    #[track_caller]
    pub fn ready(&self, bed: &Bed) {
        self.wait_until_ready(bed);
        bed.approve(&self.node, JOIN);
    }

    /// Waits until `kubectl get nodes` shows the node Ready.
    #[track_caller]
    pub fn wait_until_ready(&self, bed: &Bed) {
        bed.wait_until_ready(&self.node, JOIN);
    }

    /// Its process id, as it is called outside the bed.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything that it has logged, by all agents of this node's name so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits for a line of the log that holds every one of `words`, and gives it.
    #[track_caller]
    pub fn wait_for_line(&self, bed: &Bed, limit: Duration, words: &[&str]) -> String {
        bed.wait_for(&format!("a line of the agent's log with {words:?}"), limit, || {
            self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }

    /// Ends it as an init system does, with SIGTERM, and says how it ended.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(STOP)
    }

    /// Ends it as a power cut does.
    #[track_caller]
    pub fn kill9(mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(STOP);
    }

    /// Ends it as a power cut does, and leaves it so.
    #[track_caller]
    pub fn die(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(STOP);
    }

    /// Starts it again, as it was started.
    pub fn start_again(&mut self, bed: &Bed) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        *self = Agent::start(bed, &self.node, &arguments);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }
}

/// Where the agent of `node` keeps its files.
pub fn data_dir(bed: &Bed, node: &str) -> PathBuf {
    bed.folder().join(format!("data-{node}"))
}

/// Whether the agent under test runs under qemu-user, as tests/arm has it.
pub fn emulated() -> bool {
    std::env::var_os("COPEPOD_BIN").is_some_and(|path| path.to_string_lossy().ends_with("-under-qemu"))
}

/// Makes `copepod` a command of the bed's PATH, and gives its path.
pub fn provide(bed: &Bed) -> PathBuf {
    let path = bed.bin().join("copepod");
    if !path.exists() {
        // Another thread may have done so in between.
        let _ = symlink(tools::copepod(), &path);
    }
    path
}

impl Bed {
    /// Waits until `kubectl get nodes` shows `node` Ready.
    #[track_caller]
    pub fn wait_until_ready(&self, node: &str, limit: Duration) {
        self.wait_for(&format!("node {node} to be Ready"), limit, || {
            let line = self.kubectl(&["get", "node", node, "--no-headers"]).stdout;
            (line.split_whitespace().nth(1) == Some("Ready")).then_some(())
        });
    }

    /// Waits for the request for the serving certificate of `node`, approves it, and waits until it is
    /// issued.
    #[track_caller]
    pub fn approve(&self, node: &str, limit: Duration) {
        let name = format!("{node}-tls");
        self.wait_for(&format!("the certificate request {name}"), limit, || {
            self.kubectl(&["get", "csr", &name]).success.then_some(())
        });
        self.kubectl(&["certificate", "approve", &name]).expect();
        self.wait_for(&format!("the serving certificate of {node} to be issued"), limit, || {
            self.get(&["csr", &name])["status"]["certificate"].as_str().map(drop)
        });
    }

    /// `copepod bootstrap` into the file `name` of the bed's folder, with further arguments.
    #[track_caller]
    pub fn bootstrap(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let file = self.folder().join(name);
        let _ = fs::remove_file(&file);
        let (admin, output) = (self.admin_kubeconfig(), file.to_string_lossy().into_owned());
        let admin = admin.to_string_lossy();
        let mut all = vec!["bootstrap", "--kubeconfig", &admin, "--output", &output];
        all.extend(arguments);
        self.copepod(&all).expect();
        file
    }

    /// `copepod` with these arguments, until it ends.
    pub fn copepod(&self, arguments: &[&str]) -> crate::kubectl::Outcome {
        let mut command = self.command(provide(self));
        command.args(arguments);
        crate::kubectl::Outcome::of(format!("copepod {}", arguments.join(" ")), command, "")
    }
}
