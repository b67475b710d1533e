//! `v1 Volume`: the kinds that can be laid out here, and the names of all others.

use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{object, ObjectFieldSelector, Quantity, ResourceFieldSelector};

/// A volume of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// What mounts call it.
    pub name: String,
    /// What is in it.
    pub source: VolumeSource,
}

/// What is in a volume.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum VolumeSource {
    EmptyDir(EmptyDirVolume),
    ConfigMap(ConfigMapVolume),
    Secret(SecretVolume),
    DownwardApi(DownwardApiVolume),
    Projected(Arc<ProjectedVolume>),
    HostPath(HostPathVolume),
    Image(ImageVolume),
    /// Any other kind, by its field name; empty when there is none.
    Other(String),
}

impl Default for VolumeSource {
    fn default() -> VolumeSource {
        VolumeSource::Other(String::new())
    }
}

impl VolumeSource {
    /// The API's name of the kind (`emptyDir`).
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            VolumeSource::EmptyDir(_) => "emptyDir",
            VolumeSource::ConfigMap(_) => "configMap",
            VolumeSource::Secret(_) => "secret",
            VolumeSource::DownwardApi(_) => "downwardAPI",
            VolumeSource::Projected(_) => "projected",
            VolumeSource::HostPath(_) => "hostPath",
            VolumeSource::Image(_) => "image",
            VolumeSource::Other(kind) => kind,
        }
    }
}

object! {
    /// A folder that lives as long as the pod.
    EmptyDirVolume {
        medium: String,
        size_limit: Option<Quantity>,
    }
}

object! {
    /// The keys of a ConfigMap as files.
    ConfigMapVolume {
        name: String,
        items: Vec<KeyToPath>,
        default_mode: Option<i32>,
        optional: bool,
    }
}

object! {
    /// The keys of a Secret as files.
    SecretVolume {
        secret_name: String,
        items: Vec<KeyToPath>,
        default_mode: Option<i32>,
        optional: bool,
    }
}

object! {
    /// The keys of a Secret as files of a projection.
    SecretProjection {
        name: String,
        items: Vec<KeyToPath>,
        optional: bool,
    }
}

object! {
    /// Which key goes where.
    KeyToPath {
        mode: Option<i32>,
    } always {
        key: String,
        path: String,
    }
}

object! {
    /// Fields of the pod as files.
    DownwardApiVolume {
        items: Vec<DownwardApiItem>,
        default_mode: Option<i32>,
    }
}

object! {
    /// One field as a file.
    DownwardApiItem {
        field_ref: Option<ObjectFieldSelector>,
        resource_field_ref: Option<ResourceFieldSelector>,
        mode: Option<i32>,
    } always {
        path: String,
    }
}

object! {
    /// Several sources in one folder; later ones win.
    ProjectedVolume {
        sources: Vec<ProjectionSource>,
        default_mode: Option<i32>,
    }
}

object! {
    /// One source of a projection.
    ProjectionSource {
        secret: Option<SecretProjection>,
        downward_api as "downwardAPI": Option<DownwardApiVolume>,
        config_map: Option<ConfigMapVolume>,
        service_account_token: Option<ServiceAccountTokenProjection>,
        cluster_trust_bundle: Option<serde_json::Value>,
        pod_certificate: Option<serde_json::Value>,
    }
}

object! {
    /// A token of the pod's service account.
    ServiceAccountTokenProjection {
        audience: String,
        expiration_seconds: Option<i64>,
    } always {
        path: String,
    }
}

object! {
    /// A path of the host.
    HostPathVolume {
        kind as "type": String,
    } always {
        path: String,
    }
}

object! {
    /// The content of an image.
    ImageVolume {
        reference: String,
        pull_policy: String,
    }
}

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Volume, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Volume;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a volume")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Volume, A::Error> {
                let mut volume = Volume::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let source = match key.as_ref() {
                        "name" => {
                            volume.name = map.next_value::<Option<String>>()?.unwrap_or_default();
                            continue;
                        }
                        "emptyDir" => map.next_value::<Option<_>>()?.map(VolumeSource::EmptyDir),
                        "configMap" => map.next_value::<Option<_>>()?.map(VolumeSource::ConfigMap),
                        "secret" => map.next_value::<Option<_>>()?.map(VolumeSource::Secret),
                        "downwardAPI" => map.next_value::<Option<_>>()?.map(VolumeSource::DownwardApi),
                        "projected" => map
                            .next_value::<Option<_>>()?
                            .map(|v: ProjectedVolume| VolumeSource::Projected(Arc::new(v))),
                        "hostPath" => map.next_value::<Option<_>>()?.map(VolumeSource::HostPath),
                        "image" => map.next_value::<Option<_>>()?.map(VolumeSource::Image),
                        other => {
                            let kind = other.to_owned();
                            map.next_value::<Option<IgnoredAny>>()?.map(|_| VolumeSource::Other(kind))
                        }
                    };
                    if let Some(source) = source {
                        volume.source = source;
                    }
                }
                Ok(volume)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for Volume {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        let kind = self.source.kind();
        match &self.source {
            VolumeSource::EmptyDir(v) => map.serialize_entry(kind, v)?,
            VolumeSource::ConfigMap(v) => map.serialize_entry(kind, v)?,
            VolumeSource::Secret(v) => map.serialize_entry(kind, v)?,
            VolumeSource::DownwardApi(v) => map.serialize_entry(kind, v)?,
            VolumeSource::Projected(v) => map.serialize_entry(kind, &**v)?,
            VolumeSource::HostPath(v) => map.serialize_entry(kind, v)?,
            VolumeSource::Image(v) => map.serialize_entry(kind, v)?,
            VolumeSource::Other(kind) if kind.is_empty() => {}
            VolumeSource::Other(kind) => map.serialize_entry(kind, &EmptyDirVolume::default())?,
        }
        map.end()
    }
}
