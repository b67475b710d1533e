//! The Kubernetes objects as this agent reads and writes them.
//!
//! Each type has only the fields that some room of the agent uses; whatever else an object carries is
//! ignored. A `null` reads as the field's default (a watch bookmark carries `"containers": null`),
//! and a field at its default is not written, unless the API calls it required. Field names and their
//! meaning are those of the Kubernetes API reference (read at v1.37), so they are not told again here.

mod certificates;
mod event;
mod fields;
mod lease;
mod meta;
mod node;
mod objects;
mod pod;
mod pod_status;
mod probe;
mod quantity;
mod review;
mod token_request;
mod volume;
mod word;

pub use certificates::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};
pub use event::{Event, EventSource};
pub use lease::{Lease, LeaseSpec};
pub use meta::{
    ByteString, ListMeta, Metadata, MicroTime, ObjectMeta, ObjectReference, OwnerReference, Status,
    StatusCause, StatusDetails, Time,
};
pub use node::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo, Taint,
};
pub use objects::{ConfigMap, Secret, Service, ServicePort, ServiceSpec};
pub use pod::{
    Affinity, ConfigMapEnvSource, Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource,
    FileKeySelector, HostAlias, LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, ObjectKeySelector, Pod, PodOs, PodReadinessGate, PodSpec,
    ResourceFieldSelector, ResourceRequirements, Toleration, VolumeMount,
};
pub use pod_status::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIp, PodCondition, PodIp, PodStatus, VolumeMountStatus,
};
pub use probe::{
    ExecAction, GrpcAction, HttpGetAction, HttpHeader, Lifecycle, LifecycleHandler, Probe, SleepAction,
    TcpSocketAction,
};
pub use quantity::Quantity;
pub use review::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
    SubjectAccessReviewStatus, TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
pub use token_request::{BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus};
pub use volume::{
    ConfigMapVolume, DownwardApiItem, DownwardApiVolume, EmptyDirVolume, HostPathVolume, ImageVolume,
    KeyToPath, ProjectedVolume, ProjectionSource, SecretProjection, SecretVolume,
    ServiceAccountTokenProjection, Volume, VolumeSource,
};
pub use word::Word;

use serde::Serialize;

/// Declares a struct of API fields: camelCase names, or the one after `as`; `null` and absent read as the default
/// ([`fields`]). Fields of the first block are left out when they are at their default; those of a block after
/// `always` are always written.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$fm:meta])* $field:ident $(as $json:literal)?: $ty:ty,)* }
        $(always { $($(#[$rm:meta])* $required:ident $(as $rjson:literal)?: $rty:ty,)* })?) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(missing_docs)]
        pub struct $name {
            $($(#[$fm])*
            #[serde($(rename = $json,)? skip_serializing_if = "crate::api::is_default")]
            pub $field: $ty,)*
            $($($(#[$rm])*
            #[serde($(rename = $rjson)?)]
            pub $required: $rty,)*)?
        }
        impl crate::api::fields::Fields for $name {
            const NAMES: &'static [&'static str] = &[
                $(crate::api::name!($field $($json)?),)*
                $($(crate::api::name!($required $($rjson)?),)*)?
            ];
            #[allow(unused_assignments)]
            fn set<'de, A: serde::de::MapAccess<'de>>(&mut self, at: usize, map: &mut A) -> Result<(), A::Error> {
                let mut at = at;
                $(if at == 0 {
                    return crate::api::fields::field(map, &mut self.$field);
                }
                at = at.wrapping_sub(1);)*
                $($(if at == 0 {
                    return crate::api::fields::field(map, &mut self.$required);
                }
                at = at.wrapping_sub(1);)*)?
                Ok(())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                crate::api::fields::read(deserializer)
            }
        }
    };
}
/// The name of a field.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $json:literal) => {
        $json
    };
}
use name;
use object;

/// What every top-level object has.
pub trait Object {
    /// `apiVersion`
    const API_VERSION: &'static str;
    /// `kind`
    const KIND: &'static str;
    /// The resource's name in paths.
    const RESOURCE: &'static str;

    /// The path of the resource's collection, in a namespace or (`None`) across the cluster.
    #[must_use]
    fn collection(namespace: Option<&str>) -> String {
        let root = if Self::API_VERSION.contains('/') { "apis" } else { "api" };
        match namespace {
            Some(ns) => format!("/{root}/{}/namespaces/{ns}/{}", Self::API_VERSION, Self::RESOURCE),
            None => format!("/{root}/{}/{}", Self::API_VERSION, Self::RESOURCE),
        }
    }
}

macro_rules! kinds {
    ($($name:ty: $version:literal, $kind:literal, $resource:literal;)*) => {
        $(impl Object for $name {
            const API_VERSION: &'static str = $version;
            const KIND: &'static str = $kind;
            const RESOURCE: &'static str = $resource;
        })*
    };
}
kinds! {
    Pod: "v1", "Pod", "pods";
    Node: "v1", "Node", "nodes";
    ConfigMap: "v1", "ConfigMap", "configmaps";
    Secret: "v1", "Secret", "secrets";
    Service: "v1", "Service", "services";
    Event: "v1", "Event", "events";
    Lease: "coordination.k8s.io/v1", "Lease", "leases";
    CertificateSigningRequest: "certificates.k8s.io/v1", "CertificateSigningRequest", "certificatesigningrequests";
    TokenRequest: "authentication.k8s.io/v1", "TokenRequest", "serviceaccounts";
    TokenReview: "authentication.k8s.io/v1", "TokenReview", "tokenreviews";
    SubjectAccessReview: "authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews";
}

/// An object with its `apiVersion` and `kind`, as a request body carries it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Typed<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    object: &'a T,
}

impl<'a, T: Object> Typed<'a, T> {
    /// Wraps an object for writing.
    #[must_use]
    pub fn new(object: &'a T) -> Self {
        Typed { api_version: T::API_VERSION, kind: T::KIND, object }
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
