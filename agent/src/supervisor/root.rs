//! A container's own root, for one run: made when its guest first looks into it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use async_lock::OnceCell;

use super::start::absolute;
use super::tend::container_of;
use super::volumes::mount;
use super::{Entry, Shared};
use crate::api::Container;
use crate::control;
use crate::pod::hosts::{hostname, hosts};
use crate::pod::lifecycle::StartFailure;
use crate::pod::termination::message_path;
use crate::runtime::quota::Account;
use crate::runtime::Place;
use crate::volume::{message, Mounts, RootFiles};

/// See the module.
pub struct ContainerRoot {
    shared: Arc<Shared>,
    entry: Weak<Entry>,
    container: String,
    /// Where files are mounted; all else that is mounted is a folder.
    files: Vec<String>,
    laid: OnceCell<(Arc<OwnedFd>, Arc<Account>)>,
}

impl ContainerRoot {
    /// The root of a container in which this is mounted.
    pub fn new(
        shared: &Arc<Shared>,
        entry: &Arc<Entry>,
        container: &Container,
        mounts: &Mounts,
    ) -> Arc<ContainerRoot> {
        let files = mounts.files.iter().map(|file| file.guest.clone()).collect();
        Arc::new(ContainerRoot {
            shared: shared.clone(),
            entry: Arc::downgrade(entry),
            container: container.name.clone(),
            files,
            laid: OnceCell::new(),
        })
    }

    /// The root as its guest is given it.
    pub fn place(self: &Arc<Self>) -> Place {
        let root = self.clone();
        Place::Later(Arc::new(move || {
            let root = root.clone();
            Box::pin(async move {
                let (fd, account) = root.lay().await?;
                Ok((fd.try_clone()?, Some(account)))
            })
        }))
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn lay(&self) -> io::Result<(Arc<OwnedFd>, Arc<Account>)> {
        let laid = self.laid.get_or_try_init(|| async {
            let gone = || io::Error::new(io::ErrorKind::NotFound, "its pod is gone");
            let entry = self.entry.upgrade().ok_or_else(gone)?;
            let pod = entry.state().pod.clone();
            let volumes = mount(&self.shared, &entry, &pod).await;
            let volumes =
                volumes.map_err(|_: StartFailure| io::Error::other("its volumes cannot be set up"))?;
            let own = container_of(&pod, &self.container);
            let mounted = own.into_iter().flat_map(|container| &container.volume_mounts);
            let mounted = mounted.map(|mount| absolute(&mount.mount_path));
            let content = RootFiles {
                hosts: hosts(&pod, &self.shared.node()),
                hostname: hostname(&pod),
                message: own.map(|container| message_path(container).to_owned()).unwrap_or_default(),
                folders: mounted.filter(|path| !self.files.contains(path)).collect(),
                files: self.files.clone(),
            };
            let (uid, container) = (pod.metadata.uid.clone(), self.container.clone());
            let laid = self.shared.workshop.lay_root(uid, container, content, volumes).await;
            laid.inspect_err(|error| {
                log::warn!("pod {}: the root of container {}: {error}", pod.metadata.name, self.container);
            })
            .map(|(fd, account)| (Arc::new(fd), account))
        });
        laid.await.cloned()
    }

    /// What the guest has left as its termination message.
    pub async fn message(&self, path: &str) -> Vec<u8> {
        let Some((fd, _)) = self.laid.get().cloned() else { return Vec::new() };
        let path = path.to_owned();
        control::blocking(move || message(&fd, &path)).await
    }
}
