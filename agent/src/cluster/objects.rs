//! The ConfigMaps and Secrets that pods of this node mount: followed, each by one watch, however many pods mount it,
//! and only while one does (`pkg/kubelet/util/manager/watch_based_manager.go`).
//!
//! A watch tells that there is another version, by its metadata alone; what is in it is read by whoever needs it.
//! Nothing is kept of it here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use async_lock::OnceCell;

use super::client::Client;
use super::error::Outage;
use super::watch::{Change, Watcher};
use crate::api::{ConfigMap, Metadata, Object, Secret};
use crate::control::{self, Task};
use crate::supervisor::{Followed, ObjectKind, ObjectName, Signal};

type Watches = Mutex<BTreeMap<ObjectName, Weak<Watch>>>;

/// The objects that are followed. Cheap to clone.
#[derive(Clone, Default)]
pub struct Objects {
    watches: Arc<Watches>,
}

/// One that is followed, until nobody keeps it any more.
struct Watch {
    object: ObjectName,
    watches: Weak<Watches>,
    told: Mutex<Vec<Weak<Signal>>>,
    /// Dropped with the watch.
    task: OnceLock<Task<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    /// Follows an object as long as what comes back is kept.
    pub fn follow(
        &self,
        client: &Arc<OnceCell<Client>>,
        object: &ObjectName,
        changed: &Arc<Signal>,
    ) -> Followed {
        let mut watches = lock(&self.watches);
        let known = watches.get(object).and_then(Weak::upgrade);
        let watch = known.unwrap_or_else(|| {
            let watch = Arc::new(Watch {
                object: object.clone(),
                watches: Arc::downgrade(&self.watches),
                told: Mutex::default(),
                task: OnceLock::new(),
            });
            watches.insert(object.clone(), Arc::downgrade(&watch));
            let task = control::spawn(follow(client.clone(), Arc::downgrade(&watch), object.clone()));
            let _once = watch.task.set(task);
            watch
        });
        drop(watches);
        let mut told = lock(&watch.told);
        told.retain(|signal| signal.strong_count() > 0);
        told.push(Arc::downgrade(changed));
        drop(told);
        watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(watches) = self.watches.upgrade() else { return };
        let mut watches = lock(&watches);
        // Somebody may follow it anew by now.
        if watches.get(&self.object).is_some_and(|known| known.strong_count() == 0) {
            watches.remove(&self.object);
        }
    }
}

/// Tells whoever follows the object of each change, for ever.
async fn follow(client: Arc<OnceCell<Client>>, watch: Weak<Watch>, object: ObjectName) {
    let client = client.wait().await.clone();
    let namespace = Some(object.namespace.as_str());
    let collection = match object.kind {
        ObjectKind::ConfigMap => ConfigMap::collection(namespace),
        ObjectKind::Secret => Secret::collection(namespace),
    };
    let what = format!("following {collection}/{}", object.name);
    // A node may watch single objects only (Node authorizer).
    let selector = format!("fieldSelector=metadata.name%3D{}", object.name);
    let mut watcher: Watcher<Metadata> = Watcher::new(client, collection, selector).of_metadata();
    let mut outage = Outage::default();
    loop {
        match watcher.next().await {
            // The first, too, tells what is there: it may be another version than was read before.
            Ok(Change::All(_) | Change::Applied(_) | Change::Deleted(_)) => {
                let Some(watch) = watch.upgrade() else { return };
                for signal in lock(&watch.told).iter().filter_map(Weak::upgrade) {
                    signal.give();
                }
            }
            // Too old a version, after an outage: the next call lists.
            Err(error) if error.is(410) => continue,
            Err(error) => {
                outage.report(&what, &error);
                continue;
            }
        }
        outage.over(&what);
    }
}
