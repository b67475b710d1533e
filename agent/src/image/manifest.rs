//! Manifests and indexes, OCI's and Docker's, as far as this node reads them (OCI image-spec manifest.md, image-index.md).
//!
//! The structs are this crate's own: counts are bounded while they are read (four megabytes of JSON
//! can name a hundred thousand descriptors), and what producers leave out is no error. A test compares
//! them with `oci-spec`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::Deserialize;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Descriptors in one list: the largest public indexes have some forty, layered images at most 127.
const MAX_DESCRIPTORS: usize = 1000;
/// Platforms named in an error.
const PLATFORMS_SHOWN: usize = 6;

/// A blob or manifest that another document points to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: Option<Annotations>,
}

/// What is read of a descriptor's annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Annotations {
    #[serde(rename = "org.opencontainers.image.title", default)]
    title: Option<String>,
}

impl Descriptor {
    /// The file name that an artifact's layer has (OCI image-spec annotations.md).
    pub(super) fn title(&self) -> Option<&str> {
        self.annotations.as_ref()?.title.as_deref()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

/// What a registry answers for a reference.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// One image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// Why an index has nothing for this node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPlatform {
    /// It is for other machines: their platforms.
    Others(String),
    /// It has components (`wasip2` and later) only.
    Components,
    /// It lists nothing at all, or only entries that say nothing of themselves.
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "bounded")]
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "bounded")]
    manifests: Option<Vec<Descriptor>>,
    /// Only schema 1 has these.
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

/// Reads a manifest or an index. What it is follows from its members; a document that could be read
/// as both, or whose media types contradict its members, is refused (CVE-2021-41190).
pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, String> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| format!("its manifest cannot be read: {e}"))?;
    if raw.schema_version == 1 || raw.fs_layers.is_some() {
        return Err(
            "its manifest is of Docker's schema 1, which no longer is supported: push it again".into()
        );
    }
    let document = match (raw.manifests, raw.layers, raw.config) {
        (Some(manifests), None, None) => Document::Index(manifests),
        (None, Some(layers), Some(config)) => Document::Manifest(Manifest { config, layers }),
        (None, None, _) => return Err("its manifest has neither layers nor manifests".into()),
        (None, Some(_), None) => return Err("its manifest has no config".into()),
        (Some(_), _, _) => return Err("its manifest is a manifest and an index at once".into()),
    };
    let is_index = matches!(document, Document::Index(_));
    for media_type in [raw.media_type.as_deref(), content_type].into_iter().flatten() {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let contradicts = match media_type {
            OCI_INDEX | DOCKER_INDEX => !is_index,
            OCI_MANIFEST | DOCKER_MANIFEST => is_index,
            _ => false,
        };
        if contradicts {
            return Err(format!("its manifest says that it is {media_type}, and is not"));
        }
    }
    Ok(document)
}

/// The entry of an index that this node runs: `wasip1/wasm`, else `wasi/wasm`, else `wasi/wasm32`,
/// else a sole entry without a platform. Never another machine's.
pub(super) fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, NoPlatform> {
    for (os, architecture) in [("wasip1", "wasm"), ("wasi", "wasm"), ("wasi", "wasm32")] {
        let wanted = |d: &&Descriptor| {
            d.platform.as_ref().is_some_and(|p| p.os == os && p.architecture == architecture)
        };
        if let Some(found) = manifests.iter().find(wanted) {
            return Ok(found);
        }
    }
    // Attestations (buildkit's) are entries of the platform unknown/unknown.
    let real = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os != "unknown");
    if let [sole] = manifests.iter().filter(real).collect::<Vec<_>>().as_slice() {
        if sole.platform.as_ref().is_none_or(|p| p.os.is_empty()) {
            return Ok(sole);
        }
    }
    let mut others: Vec<String> = Vec::new();
    for platform in manifests.iter().filter(real).filter_map(|d| d.platform.as_ref()) {
        let name = format!("{}/{}", shown(&platform.os), shown(&platform.architecture));
        if !others.contains(&name) {
            others.push(name);
        }
    }
    if others.is_empty() {
        return Err(NoPlatform::Nothing);
    }
    if others.iter().all(|p| p.ends_with("/wasm")) {
        return Err(NoPlatform::Components);
    }
    let more = if others.len() > PLATFORMS_SHOWN { ", …" } else { "" };
    others.truncate(PLATFORMS_SHOWN);
    Err(NoPlatform::Others(format!("{}{more}", others.join(", "))))
}

/// The entry of an index whose files are wanted: as for a module, else this machine's own, else the first.
pub(super) fn choose_files(manifests: &[Descriptor]) -> Result<&Descriptor, NoPlatform> {
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "x86_64" => "amd64",
        other => other,
    };
    let own = |d: &&Descriptor| {
        d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture)
    };
    let real = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os != "unknown");
    let chosen = choose(manifests).ok().or_else(|| manifests.iter().find(own));
    chosen.or_else(|| manifests.iter().find(real)).ok_or(NoPlatform::Nothing)
}

/// A platform's word as it may be printed.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.' || *c == '_').take(16).collect()
}

/// Reads a list of at most [`MAX_DESCRIPTORS`].
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Descriptor>>, D::Error> {
    struct Bounded(PhantomData<Descriptor>);

    impl<'de> Visitor<'de> for Bounded {
        type Value = Option<Vec<Descriptor>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of descriptors")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(descriptor) = seq.next_element()? {
                if list.len() >= MAX_DESCRIPTORS {
                    return Err(serde::de::Error::custom(format!("more than {MAX_DESCRIPTORS} descriptors")));
                }
                list.push(descriptor);
            }
            Ok(Some(list))
        }
    }

    deserializer.deserialize_any(Bounded(PhantomData))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn entry(digest: &str, platform: Option<(&str, &str)>) -> String {
        let platform = platform.map_or(String::new(), |(os, arch)| {
            format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#)
        });
        format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":7{platform}}}"#)
    }

    fn index(entries: &[(&str, Option<(&str, &str)>)]) -> Vec<Descriptor> {
        let entries: Vec<String> = entries.iter().map(|(d, p)| entry(d, *p)).collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        match parse(text.as_bytes(), Some(OCI_INDEX)).unwrap() {
            Document::Index(list) => list,
            Document::Manifest(_) => panic!("an index was read as a manifest"),
        }
    }

    #[test]
    fn the_entry_for_this_node_is_chosen_and_never_another_machines() {
        let linux = ("l", Some(("linux", "arm64")));
        let attestation = ("t", Some(("unknown", "unknown")));
        let wasip1 = ("1", Some(("wasip1", "wasm")));
        let wasi = ("w", Some(("wasi", "wasm")));
        let wasi32 = ("o", Some(("wasi", "wasm32")));
        let bare = ("b", None);
        for (entries, expected) in [
            (vec![linux, wasi32, wasi, wasip1], Ok("1")),
            (vec![linux, wasi32, wasi], Ok("w")),
            (vec![wasi32, linux, attestation], Ok("o")),
            (vec![bare], Ok("b")),
            (vec![bare, attestation], Ok("b")),
            (vec![bare, ("c", None)], Err(NoPlatform::Nothing)),
            (vec![], Err(NoPlatform::Nothing)),
            (vec![attestation], Err(NoPlatform::Nothing)),
            (vec![("2", Some(("wasip2", "wasm")))], Err(NoPlatform::Components)),
            (vec![linux], Err(NoPlatform::Others("linux/arm64".into()))),
            (
                vec![linux, linux, ("a", Some(("linux", "amd64"))), attestation],
                Err(NoPlatform::Others("linux/arm64, linux/amd64".into())),
            ),
        ] {
            let list = index(&entries);
            assert_eq!(choose(&list).map(|d| d.digest.as_str()), expected, "{entries:?}");
        }
    }

    #[test]
    fn reads_manifests_with_and_without_a_media_type() {
        let descriptor = r#"{"mediaType":"m","digest":"sha256:0","size":2}"#;
        for media_type in ["", &format!(r#""mediaType":"{OCI_MANIFEST}","#)] {
            let text = format!(
                r#"{{"schemaVersion":2,{media_type}"config":{descriptor},"layers":[{descriptor}],"annotations":null,"x":[1]}}"#
            );
            let Document::Manifest(manifest) = parse(text.as_bytes(), None).unwrap() else {
                panic!("no manifest")
            };
            assert_eq!(manifest.layers, [manifest.config]);
        }
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways_or_not_at_all() {
        let d = r#"{"mediaType":"m","digest":"sha256:0","size":2}"#;
        let many = vec![d; MAX_DESCRIPTORS + 1].join(",");
        for (text, content_type) in [
            (String::new(), None),
            ("[]".into(), None),
            ("{}".into(), None),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None),
            (format!(r#"{{"config":{d},"layers":[],"manifests":[]}}"#), None),
            (r#"{"manifests":[],"layers":[]}"#.into(), None),
            (r#"{"layers":[]}"#.into(), None),
            (format!(r#"{{"config":{d},"layers":[]}}"#), Some(OCI_INDEX)),
            (r#"{"manifests":[]}"#.into(), Some(DOCKER_MANIFEST)),
            (format!(r#"{{"mediaType":"{OCI_INDEX}","config":{d},"layers":[]}}"#), None),
            (format!(r#"{{"config":{d},"layers":[{many}]}}"#), None),
            (format!(r#"{{"manifests":[{many}]}}"#), None),
            (format!("{}{}", "[".repeat(500), "]".repeat(500)), None),
        ] {
            assert!(parse(text.as_bytes(), content_type).is_err(), "{text}");
        }
    }

    #[test]
    fn agrees_with_oci_spec() {
        let list = index(&[("sha256:1", Some(("wasip1", "wasm"))), ("sha256:2", None)]);
        assert_eq!(list.len(), 2);
        let hex = "0".repeat(64);
        let descriptor = format!(r#"{{"mediaType":"application/wasm","digest":"sha256:{hex}","size":2}}"#);
        let text = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        let theirs: oci_spec::image::ImageManifest = serde_json::from_str(&text).unwrap();
        let Document::Manifest(ours) = parse(text.as_bytes(), None).unwrap() else { panic!("no manifest") };
        assert_eq!(ours.config.digest, theirs.config().digest().to_string());
        assert_eq!(ours.config.media_type, theirs.config().media_type().to_string());
        assert_eq!(ours.layers.len(), theirs.layers().len());
        assert_eq!(ours.layers.first().unwrap().size, theirs.layers().first().unwrap().size());
    }
}
