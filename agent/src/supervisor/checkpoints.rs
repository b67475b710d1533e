//! What a pod leaves to the agent's next life, and how that takes it up.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use super::{lock, Entry, Shared, Supervisor};
use crate::api::Pod;
use crate::control;
use crate::durable::clock::Now;
use crate::pod::checkpoint::{checkpoint, resume, Checkpoint, Resumed};
use crate::pod::environment::Sources;
use crate::pod::events::pod_label;
use crate::pod::node::NodeFacts;

impl Entry {
    /// The pod as it is to be written down; none: it need not be.
    pub(super) fn checkpoint(&self, now: Now, secrets: bool) -> Option<(String, Checkpoint)> {
        let state = self.state();
        if state.record.removed || !state.record.is_worth_keeping() {
            return None;
        }
        let uid = state.pod.metadata.uid.clone();
        match checkpoint(&state.pod, &state.record, &state.kept, now, secrets) {
            Ok(checkpoint) => Some((uid, checkpoint)),
            Err(error) => {
                log::error!("pod {}: it cannot be written down: {error}", pod_label(&state.pod));
                None
            }
        }
    }
}

impl Shared {
    /// Writes the pod down as it is, unless that is what was written last.
    ///
    /// # Errors
    /// What the file system says; the first of a row is also said in the log.
    pub(super) async fn write_down(&self, entry: &Entry) -> io::Result<()> {
        if !self.checkpoints.is_kept() {
            return Ok(());
        }
        let mut written = entry.written.lock_arc().await;
        let Some((uid, checkpoint)) = entry.checkpoint(self.clock.now(), self.secrets_at_rest) else {
            return Ok(());
        };
        if *written == Some(checkpoint.fingerprint) {
            return Ok(());
        }
        let checkpoints = self.checkpoints.clone();
        let done = control::blocking(move || {
            let done = checkpoints.write(&uid, &checkpoint.bytes);
            // Held by the work, not by the waiter: nobody who stops waiting lets another one in before it is done.
            *written = done.is_ok().then_some(checkpoint.fingerprint);
            done
        });
        let done = done.await;
        match &done {
            Err(error) if !self.unwritten.load(Ordering::Relaxed) => {
                log::error!("pods cannot be written down, and may not come back after a restart: {error}");
            }
            Ok(()) | Err(_) => {}
        }
        self.unwritten.store(done.is_err(), Ordering::Relaxed);
        done
    }

    /// Removes what was written down of a pod of which nothing is left.
    pub(super) async fn erase(&self, entry: &Entry, pod: &Pod) {
        if !self.checkpoints.is_kept() {
            return;
        }
        // Held, so that nothing is written any more.
        let _written = entry.written.lock().await;
        let (checkpoints, uid) = (self.checkpoints.clone(), pod.metadata.uid.clone());
        if let Err(error) = control::blocking(move || checkpoints.remove(&uid)).await {
            log::warn!("what was written down of pod {} cannot be removed: {error}", pod_label(pod));
        }
    }
}

impl Supervisor {
    /// Takes up the pods that an earlier life of the agent wrote down: they go on before any source of pods has
    /// spoken. The first [`PodEvent::Set`] ends those that it does not name.
    pub async fn resume(&self) {
        let (checkpoints, now) = (self.shared.checkpoints.clone(), self.shared.clock.now());
        let read = control::blocking(move || {
            let mut resumed = Vec::new();
            let each = |uid: &str, data: io::Result<Vec<u8>>| {
                let data = data.map_err(|error| error.to_string());
                match data.and_then(|data| resume(&data, now)) {
                    Ok(pod) => resumed.push(pod),
                    Err(error) => {
                        log::error!("what was written down of pod {uid} cannot be taken up: {error}")
                    }
                }
            };
            let read = checkpoints.read(each);
            (resumed, read)
        });
        let (mut resumed, read) = read.await;
        if let Err(error) = read {
            log::error!("the pods that were written down cannot be read: {error}");
        }
        resumed.sort_by_key(|resumed| resumed.pod.metadata.creation_timestamp);
        self.find_address(&resumed);
        for Resumed { pod, record, mut kept } in resumed {
            for (_, sources) in &mut kept.sources {
                *sources = self.shared.given_sources.alike(Sources::clone(sources));
            }
            log::info!("pod {}: taken up where it was", pod_label(&pod));
            self.enter(&mut lock(&self.shared.pods), Arc::new(pod), record, kept, true);
        }
    }

    /// Until the node knows its address, it has the one that its pods had.
    fn find_address(&self, resumed: &[Resumed]) {
        let mut node = lock(&self.shared.node);
        let known = resumed.iter().map(|resumed| &resumed.record.reported.host_ips);
        if let Some(ips) = known.max_by_key(|ips| ips.len()).filter(|_| node.ips.is_empty()) {
            let ips = ips.iter().map(|host| host.ip.clone()).collect();
            *node = Arc::new(NodeFacts { ips, ..(**node).clone() });
        }
    }
}

/// What some pod was given last: who is given the same shares it.
pub(super) struct Last<T>(Mutex<Weak<T>>);

impl<T> Default for Last<T> {
    fn default() -> Last<T> {
        Last(Mutex::default())
    }
}

impl<T: PartialEq> Last<T> {
    pub(super) fn alike(&self, value: T) -> Arc<T> {
        let mut last = lock(&self.0);
        if let Some(known) = last.upgrade().filter(|known| **known == value) {
            return known;
        }
        let value = Arc::new(value);
        *last = Arc::downgrade(&value);
        value
    }
}
