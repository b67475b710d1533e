//! How the node is: as text for a terminal, and as JSON for programs.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use serde_json::{json, Value};

use crate::api::{ContainerStatus, Pod};
use crate::cluster::contact::Standing;
use crate::config::VERSION;
use crate::metrics::Figures;

/// What is known of the node at one moment.
pub struct Status {
    pub figures: Figures,
    pub standing: Standing,
    /// Since when it stands so.
    pub since: Timestamp,
    pub pods: Vec<Pod>,
}

/// A pod, as `kubectl get pods` shows one.
pub struct Row<'p> {
    pub namespace: &'p str,
    pub name: &'p str,
    pub ready: String,
    pub status: String,
    pub restarts: i32,
    pub age: String,
}

impl Status {
    /// The pods, by namespace and name.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = self.pods.iter().map(|pod| self.row(pod)).collect();
        rows.sort_by_key(|row| (row.namespace, row.name));
        rows
    }

    fn row<'p>(&self, pod: &'p Pod) -> Row<'p> {
        let (meta, status) = (&pod.metadata, &pod.status);
        let containers = &status.container_statuses;
        let ready = containers.iter().filter(|container| container.ready).count();
        let created = meta.creation_timestamp.map(|time| time.timestamp()).or(
            // A static pod in no cluster was never created.
            status.start_time.map(|time| time.timestamp()),
        );
        Row {
            namespace: &meta.namespace,
            name: &meta.name,
            ready: format!("{ready}/{}", pod.spec.containers.len()),
            status: word(pod),
            restarts: containers.iter().map(|container| container.restart_count).fold(0, i32::saturating_add),
            age: created.map_or_else(|| "?".to_owned(), |created| self.ago(created)),
        }
    }

    /// How long ago something was.
    pub fn ago(&self, then: Timestamp) -> String {
        age(self.figures.at.duration_since(then))
    }

    /// How the node stands to its cluster, in a sentence.
    pub fn cluster(&self) -> String {
        let (server, since) = (&self.figures.counts.api_server, self.ago(self.since));
        match &self.standing {
            Standing::Alone => "in no cluster: it runs static pods".to_owned(),
            Standing::Joining => format!("not joined yet, for {since}"),
            Standing::Connected => format!("connected to {server} for {since}"),
            Standing::Away(why) => format!("{server} has not answered for {since}: {why}"),
        }
    }

    /// What there is to say of the node, each with a heading.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let (machine, counts) = (&self.figures.machine, &self.figures.counts);
        let started = self.figures.process.started;
        let ends = |ends: Option<Timestamp>| match ends {
            Some(ends) if ends > self.figures.at => {
                format!("until {ends:.0} (in {})", age(ends.duration_since(self.figures.at)))
            }
            Some(ends) => format!("ended {ends:.0}"),
            None => "none".to_owned(),
        };
        vec![
            ("Node", format!("{}, copepod {VERSION}, running for {}", machine.node, self.ago(started))),
            ("Machine", format!("up for {}, {} cores", self.ago(machine.booted), machine.cores)),
            ("Cluster", self.cluster()),
            ("Client certificate", ends(counts.client_certificate)),
            ("Serving certificate", ends(counts.serving_certificate)),
            (
                "Memory",
                format!(
                    "{} of {} available; guests have {} of {}, the agent is {}",
                    size(machine.available),
                    size(machine.memory),
                    size(counts.guest_memory),
                    size(counts.guest_memory_limit),
                    size(self.figures.process.resident)
                ),
            ),
            (
                "Disk",
                format!("{} of {} available", size(machine.disk.available), size(machine.disk.capacity)),
            ),
        ]
    }

    /// All of it, for a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (heading, fact) in self.facts() {
            let _ = writeln!(text, "{:20} {fact}", format!("{heading}:"));
        }
        text.push('\n');
        text + &self.pods()
    }

    /// The pods, as `kubectl get pods --all-namespaces` shows them.
    pub fn pods(&self) -> String {
        let rows = self.rows();
        if rows.is_empty() {
            return "No pods are bound to this node.\n".to_owned();
        }
        let head = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"].map(str::to_owned);
        let cells = rows.into_iter().map(|row| {
            let (namespace, name) = (row.namespace.to_owned(), row.name.to_owned());
            [namespace, name, row.ready, row.status, row.restarts.to_string(), row.age]
        });
        let lines: Vec<[String; 6]> = std::iter::once(head).chain(cells).collect();
        let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
        let mut text = String::new();
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let last = column.saturating_add(1) == line.len();
                let room = if last { 0 } else { width(column).unwrap_or(0).saturating_add(3) };
                let _ = write!(text, "{cell:room$}");
            }
            text.push('\n');
        }
        text
    }

    /// All of it, for programs.
    pub fn json(&self) -> Value {
        let (machine, counts, process) = (&self.figures.machine, &self.figures.counts, &self.figures.process);
        let (state, trouble) = match &self.standing {
            Standing::Alone => ("Alone", None),
            Standing::Joining => ("Joining", None),
            Standing::Connected => ("Connected", None),
            Standing::Away(why) => ("Away", Some(why)),
        };
        let pods: Vec<Value> = self.rows().iter().map(Row::json).collect();
        json!({
            "node": machine.node,
            "version": VERSION,
            "time": self.figures.at.to_string(),
            "startTime": process.started.to_string(),
            "bootTime": machine.booted.to_string(),
            "cluster": {
                "server": counts.api_server,
                "state": state,
                "since": self.since.to_string(),
                "message": trouble,
            },
            "certificates": {
                "clientNotAfter": counts.client_certificate.map(|ends| ends.to_string()),
                "servingNotAfter": counts.serving_certificate.map(|ends| ends.to_string()),
            },
            "memory": {
                "capacityBytes": machine.memory,
                "availableBytes": machine.available,
                "guestBytes": counts.guest_memory,
                "guestLimitBytes": counts.guest_memory_limit,
                "agentBytes": process.resident,
            },
            "disk": {"capacityBytes": machine.disk.capacity, "availableBytes": machine.disk.available},
            "pods": pods,
        })
    }
}

impl Row<'_> {
    fn json(&self) -> Value {
        json!({
            "namespace": self.namespace,
            "name": self.name,
            "ready": self.ready,
            "status": self.status,
            "restarts": self.restarts,
        })
    }
}

/// The STATUS of a pod (kubectl, printPod): why its containers wait or ended, before its phase.
fn word(pod: &Pod) -> String {
    let status = &pod.status;
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    if !status.reason.is_empty() {
        return status.reason.clone();
    }
    let init = status.init_container_statuses.iter().find_map(|container| {
        let ended = container.state.terminated.as_ref();
        let done = ended.is_some_and(|ended| ended.exit_code == 0) || container.started == Some(true);
        if done {
            return None;
        }
        Some(format!("Init:{}", why(container).unwrap_or_else(|| "Running".to_owned())))
    });
    let own = || status.container_statuses.iter().rev().find_map(why);
    // What has ended well beside what runs is no reason.
    let running = status.container_statuses.iter().any(|container| container.state.running.is_some());
    let own = own().filter(|word| !(running && word == "Completed"));
    init.or(own).unwrap_or_else(|| match status.phase.as_str() {
        "" => "Pending".to_owned(),
        phase => phase.to_owned(),
    })
}

/// Why a container does not run.
fn why(container: &ContainerStatus) -> Option<String> {
    if let Some(waiting) = container.state.waiting.as_ref().filter(|waiting| !waiting.reason.is_empty()) {
        return Some(waiting.reason.clone());
    }
    let ended = container.state.terminated.as_ref()?;
    match ended.reason.as_str() {
        "" => Some(format!("ExitCode:{}", ended.exit_code)),
        reason => Some(reason.to_owned()),
    }
}

/// A length of time in its two largest units, as kubectl has it.
fn age(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

/// Bytes, for a person: at most four digits.
fn size(bytes: u64) -> String {
    let mut whole = bytes;
    for unit in ["B", "KiB", "MiB"] {
        if whole < 10_000 {
            return format!("{whole} {unit}");
        }
        whole /= 1024;
    }
    format!("{whole} GiB")
}
