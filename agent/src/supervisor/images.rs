//! Which images pods have: those must stay.

use std::sync::Arc;

use super::{lock, Shared, Supervisor};
use crate::api::{Pod, VolumeSource};
use crate::image::{InUse, Users};

impl Supervisor {
    /// Tells which images pods have, as long as this supervisor lives: all that are here, ended ones too, as a
    /// kubelet's containers do. Nothing before every source of pods has said which there are.
    #[must_use]
    pub fn image_users(&self) -> Users {
        let shared = Arc::downgrade(&self.shared);
        Box::new(move || in_use(&*shared.upgrade()?))
    }
}

fn in_use(shared: &Shared) -> Option<InUse> {
    {
        let pods = lock(&shared.pods);
        if pods.closed || pods.awaited.cluster || pods.awaited.folder {
            return None;
        }
    }
    let mut in_use = InUse::default();
    for entry in shared.entries() {
        {
            let state = entry.state();
            name_images(&state.pod, &mut in_use);
            if let Some(again) = &state.again {
                name_images(again, &mut in_use);
            }
        }
        let volumes = entry.volumes.get().map(|volumes| volumes.folders()).unwrap_or_default();
        volumes.into_iter().for_each(|folder| in_use.folder(folder));
    }
    Some(in_use)
}

/// What a pod's containers run, and its volumes show.
fn name_images(pod: &Pod, in_use: &mut InUse) {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let volumes = pod.spec.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Image(image) => Some(&image.reference),
        _ => None,
    });
    // What cannot be read names nothing that is here.
    let references = containers.map(|container| &container.image).chain(volumes);
    references.filter_map(|text| text.parse().ok()).for_each(|reference| in_use.name(&reference));
}
