//! What all objects share: metadata, times, bytes, and the API server's own Status.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::object;

object! {
    /// Of any object, its metadata.
    Metadata {
        metadata: ObjectMeta,
    }
}

object! {
    /// `metadata` of an object.
    ObjectMeta {
        name: String,
        generate_name: String,
        namespace: String,
        uid: String,
        resource_version: String,
        generation: i64,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        owner_references: Vec<OwnerReference>,
    }
}

object! {
    /// An owner of an object.
    OwnerReference {
        controller: Option<bool>,
        block_owner_deletion: Option<bool>,
    } always {
        api_version: String,
        kind: String,
        name: String,
        uid: String,
    }
}

object! {
    /// `metadata` of a list.
    ListMeta {
        resource_version: String,
        continue_token as "continue": String,
    }
}

object! {
    /// What an event is about.
    ObjectReference {
        api_version: String,
        kind: String,
        namespace: String,
        name: String,
        uid: String,
        resource_version: String,
        field_path: String,
    }
}

object! {
    /// `meta/v1 Status`: how the API server says that something failed.
    Status {
        status: String,
        message: String,
        reason: String,
        details: Option<StatusDetails>,
        code: u16,
    }
}

object! {
    /// Details of a [`Status`].
    StatusDetails {
        name: String,
        kind: String,
        uid: String,
        causes: Vec<StatusCause>,
        retry_after_seconds: i64,
    }
}

object! {
    /// One cause in [`StatusDetails`].
    StatusCause {
        reason: String,
        message: String,
        field: String,
    }
}

/// `metav1.Time`: an instant in whole seconds, written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

impl Time {
    /// The instant.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Time {
    /// Cuts off what is finer than a second, since the API would.
    fn from(at: Timestamp) -> Time {
        Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

/// `metav1.MicroTime`: an instant in microseconds, as leases carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroTime(Timestamp);

impl MicroTime {
    /// The instant.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for MicroTime {
    fn from(at: Timestamp) -> MicroTime {
        MicroTime(Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at))
    }
}

impl fmt::Display for MicroTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(|error| serde::de::Error::custom(format_args!("the time {text:?}: {error}")))
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        read_time(deserializer).map(Time::from)
    }
}

impl Serialize for MicroTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MicroTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MicroTime, D::Error> {
        read_time(deserializer).map(MicroTime::from)
    }
}

/// Bytes, in JSON as base64 (`Secret.data`, `ConfigMap.binaryData`, a CSR's request and certificate).
/// Its `Debug` shows only the length: the bytes may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ByteString(pub Vec<u8>);

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteString, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
        base64::engine::general_purpose::STANDARD
            .decode(text.as_bytes())
            .map(ByteString)
            // The text itself may be a secret: only what is wrong with it is told.
            .map_err(|error| serde::de::Error::custom(format_args!("base64 data: {error}")))
    }
}
