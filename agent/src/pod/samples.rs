//! Pods for the tables of this room's tests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{json, Value};

use crate::api::{Container, Pod};
use crate::durable::clock::Now;
use crate::pod::events::EventText;
use crate::pod::lifecycle::{advance, apply, plan, Action, Happening, StartFailure};
use crate::pod::node::NodeFacts;
use crate::pod::record::{Admission, PodRecord};
use crate::pod::status::report;
use crate::runtime::Exit;

/// A pod `ns/p` of one container `c`, its spec overlaid with `spec`.
pub fn pod(spec: &Value) -> Pod {
    let mut json = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": {"nodeName": "n", "restartPolicy": "Always", "containers": [{"name": "c", "image": "i:1"}]},
    });
    let target = json.get_mut("spec").and_then(Value::as_object_mut).unwrap();
    for (key, value) in spec.as_object().unwrap() {
        target.insert(key.clone(), value.clone());
    }
    serde_json::from_value(json).unwrap()
}

/// A container of image `i:1`.
pub fn container(name: &str) -> Container {
    Container { name: name.to_owned(), image: "i:1".to_owned(), ..Container::default() }
}

/// A node with 1 cpu, 1 Gi and 10 pods.
pub fn node() -> NodeFacts {
    NodeFacts {
        name: "n".to_owned(),
        labels: [("kubernetes.io/os".to_owned(), "wasi".to_owned())].into(),
        ips: vec!["10.0.0.5".to_owned()],
        allocatable: [("cpu", "1"), ("memory", "1Gi"), ("pods", "10")]
            .map(|(k, v)| (k.to_owned(), v.into()))
            .into(),
        own_ports: vec![10250],
        ..NodeFacts::default()
    }
}

/// The moment `seconds` after the start, the wall clock being in 2026.
pub fn at(seconds: u64) -> Now {
    let wall = jiff::Timestamp::from_second(1_767_225_600 + i64::try_from(seconds).unwrap()).unwrap();
    Now { wall, mono: Duration::from_secs(1000 + seconds) }
}

/// A pod, its record and a clock, to be played through a story.
pub struct Story {
    pub pod: Pod,
    pub record: PodRecord,
    pub now: u64,
    pub events: Vec<String>,
    runs: u32,
    /// What is to be added to the monotonic clock.
    booted: Duration,
}

impl Story {
    pub fn new(spec: &Value) -> Story {
        let pod = pod(spec);
        let record = PodRecord::begin(&pod, Admission::Admitted, at(0));
        Story { pod, record, now: 0, events: Vec::new(), runs: 0, booted: Duration::ZERO }
    }

    /// The machine started again: its monotonic clock shows something else at this time.
    pub fn mono_at(&mut self, now: Now) {
        let seconds = now.wall.as_second() - at(0).wall.as_second();
        self.booted = now.mono - at(u64::try_from(seconds).unwrap()).mono;
    }

    fn moment(&self) -> Now {
        let now = at(self.now);
        Now { mono: now.mono + self.booted, ..now }
    }

    fn happens(&mut self, happening: Happening) {
        let now = self.moment();
        let events = apply(&self.pod, &mut self.record, happening, now);
        self.note(events);
    }

    fn note(&mut self, events: Vec<EventText>) {
        self.events.extend(events.into_iter().map(|event| format!("{}: {}", event.reason, event.message)));
    }

    /// What is to be done now, in words; `wake` in seconds from now.
    pub fn plan(&mut self) -> (Vec<String>, Option<u64>) {
        let now = self.moment();
        let events = advance(&self.pod, &mut self.record, now);
        self.note(events);
        let plan = plan(&self.pod, &self.record, now);
        let words = plan.actions.iter().map(|action| match action {
            Action::Start(name) => format!("start {name}"),
            Action::Abort(name) => format!("abort {name}"),
            Action::PreStop(name) => format!("prestop {name}"),
            Action::Ask(name) => format!("ask {name}"),
            Action::Kill(name, code) => format!("kill {name} {code}"),
            Action::Delete => "delete".to_owned(),
            Action::Forget => "forget".to_owned(),
        });
        (words.collect(), plan.wake.map(|at_| (at_ - now.mono).as_secs()))
    }

    /// Expects exactly these actions.
    #[track_caller]
    pub fn expect(&mut self, actions: &[&str], wake: Option<u64>) {
        assert_eq!(self.plan(), (actions.iter().map(|a| (*a).to_owned()).collect(), wake));
    }

    pub fn starting(&mut self, name: &str) {
        self.happens(Happening::Starting(name.to_owned()));
    }

    pub fn start(&mut self, name: &str) {
        self.starting(name);
        let id = format!("copepod://{}", self.runs);
        self.runs += 1;
        self.happens(Happening::Started {
            container: name.to_owned(),
            id,
            image_id: "i@sha256:1".to_owned(),
        });
    }

    pub fn fail(&mut self, name: &str, failure: StartFailure) {
        self.starting(name);
        self.happens(Happening::Failed(name.to_owned(), failure));
    }

    pub fn end(&mut self, name: &str, exit: Exit) {
        self.happens(Happening::Ended(name.to_owned(), exit, Vec::new()));
    }

    pub fn kill(&mut self, name: &str, code: i32) {
        self.happens(Happening::Killed(name.to_owned(), code));
        self.end(name, Exit::Killed);
    }

    pub fn happening(&mut self, happening: Happening) {
        self.happens(happening);
    }

    pub fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_timestamp = Some(self.moment().wall.into());
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    /// The status now; the next goes on from it.
    pub fn status(&mut self) -> Value {
        let status = report(&self.pod, &self.record, &node(), self.moment());
        self.record.reported = status.clone().into();
        serde_json::to_value(status).unwrap()
    }

    /// The events since this was last asked.
    pub fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}
