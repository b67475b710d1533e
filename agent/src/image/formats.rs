//! The ways in which registries hold WebAssembly modules: which layer of a manifest is the module,
//! and what is none that this node runs.

use serde::Deserialize;

use super::manifest::{Descriptor, Manifest, NoPlatform};

/// `wasm-to-oci` and Krustlet's client.
pub(super) const WASM_TO_OCI_CONFIG: &str = "application/vnd.wasm.config.v1+json";
/// `wasm-to-oci` and Krustlet's client.
pub(super) const WASM_TO_OCI_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// The CNCF's Wasm OCI artifact layout.
pub(super) const CNCF_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The CNCF's Wasm OCI artifact layout.
pub(super) const CNCF_LAYER: &str = "application/wasm";

/// Layers that are a module themselves; the last two are runwasi's oci-tar-builder's, and those of
/// older wasmCloud, Istio and Trivy.
const MODULE_LAYERS: [&str; 4] = [
    WASM_TO_OCI_LAYER,
    CNCF_LAYER,
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];
const SPIN_CONFIG: &str = "application/vnd.fermyon.spin.application.v1+config";
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Why an image holds nothing that this node runs. Asking again changes nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unrunnable {
    /// An ordinary container image.
    #[error(
        "it is a Linux container image ({0}); this node runs WebAssembly modules: give the pod a WASI \
         module (wasm32-wasip1, `copepod push` stores one), or a nodeSelector for a Linux node"
    )]
    LinuxImage(String),
    /// WASI 0.2 and later.
    #[error(
        "it is a WebAssembly component (WASI 0.2 or later); this node runs core modules of WASI preview 1: \
         build it for wasm32-wasip1 (Rust: --target wasm32-wasip1; Go: GOOS=wasip1; C: --target=wasm32-wasip1)"
    )]
    Component,
    /// The blob does not begin as a module does.
    #[error("its layer is not a WebAssembly module: it does not begin with \\0asm and version 1")]
    NotWasm,
    /// A Spin application.
    #[error("it is a Spin application, which needs Spin's triggers; this node runs WASI modules that have a _start")]
    Spin,
    /// A wasi/wasm image with a root file system.
    #[error(
        "it is a {platform} image whose module is packed in a layer of type {layer}, which this node does \
         not unpack: push the module itself with `copepod push FILE.wasm REFERENCE`"
    )]
    Packed {
        /// `os/architecture` of the config.
        platform: String,
        /// Media type of the layer.
        layer: String,
    },
    /// No layer, or more than one, is a module.
    #[error("it has {modules} WebAssembly layers of {layers}, and one is needed; its first layer's type is {first:?}")]
    Layers {
        /// Layers that are modules.
        modules: usize,
        /// Layers in all.
        layers: usize,
        /// Type of the first.
        first: String,
    },
    /// An index without an entry for this node.
    #[error("its index lists no image for wasip1/wasm or wasi/wasm, and nothing else that this node runs")]
    NoPlatform,
}

impl From<NoPlatform> for Unrunnable {
    fn from(no: NoPlatform) -> Unrunnable {
        match no {
            NoPlatform::Others(platforms) => Unrunnable::LinuxImage(platforms),
            NoPlatform::Components => Unrunnable::Component,
            NoPlatform::Nothing => Unrunnable::NoPlatform,
        }
    }
}

/// What a manifest's config and layers come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'m> {
    /// This layer is the module.
    Module(&'m Descriptor),
    /// A root file system in layers; the config tells for which machine.
    Packed,
}

/// Finds the module among the layers.
pub(super) fn content(manifest: &Manifest) -> Result<Content<'_>, Unrunnable> {
    if manifest.config.media_type == SPIN_CONFIG {
        return Err(Unrunnable::Spin);
    }
    let is_module = |d: &&Descriptor| MODULE_LAYERS.contains(&d.media_type.as_str());
    let modules: Vec<&Descriptor> = manifest.layers.iter().filter(is_module).collect();
    match modules.as_slice() {
        [module] => Ok(Content::Module(module)),
        [] if has_image_config(manifest) && !manifest.layers.is_empty() => Ok(Content::Packed),
        _ => Err(Unrunnable::Layers {
            modules: modules.len(),
            layers: manifest.layers.len(),
            first: manifest.layers.first().map(|d| shown(&d.media_type)).unwrap_or_default(),
        }),
    }
}

/// Whether the config is an image config, with an entrypoint and an environment.
pub(super) fn has_image_config(manifest: &Manifest) -> bool {
    IMAGE_CONFIGS.contains(&manifest.config.media_type.as_str())
}

/// An image config (OCI image-spec config.md), as far as this node reads it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct ImageConfig {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    config: Option<Execution>,
}

/// Its execution parameters; Docker writes null for those that are not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Execution {
    #[serde(default)]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(default)]
    pub(super) env: Option<Vec<String>>,
}

impl ImageConfig {
    pub(super) fn parse(bytes: &[u8]) -> Result<ImageConfig, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("its image config cannot be read: {e}"))
    }

    pub(super) fn execution(self) -> Execution {
        self.config.unwrap_or_default()
    }

    /// Why an image whose layers are a root file system is not run.
    pub(super) fn refusal(&self, manifest: &Manifest) -> Unrunnable {
        let word = |text: &Option<String>| shown(text.as_deref().unwrap_or("unknown"));
        let (os, architecture) = (word(&self.os), word(&self.architecture));
        let platform = format!("{os}/{architecture}");
        if os.starts_with("wasi") || architecture.starts_with("wasm") {
            let layer = manifest.layers.last().map(|d| shown(&d.media_type)).unwrap_or_default();
            Unrunnable::Packed { platform, layer }
        } else {
            Unrunnable::LinuxImage(platform)
        }
    }
}

/// Bytes that tell a module.
pub(super) const MAGIC: usize = 8;

/// Checks that a blob begins as a core module does (WebAssembly core specification 5.5.16; the
/// component model's preamble has the layer 1 in the upper half of the version).
pub(super) fn check_magic(head: &[u8]) -> Result<(), Unrunnable> {
    match head {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Err(Unrunnable::Component),
        _ => Err(Unrunnable::NotWasm),
    }
}

/// A word of a registry's document as it may be printed.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(100).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest: "sha256:0".into(),
            size: 1,
            ..Descriptor::default()
        }
    }

    fn manifest(config: &str, layers: &[&str]) -> Manifest {
        Manifest { config: descriptor(config), layers: layers.iter().map(|l| descriptor(l)).collect() }
    }

    #[test]
    fn the_module_is_found_in_every_known_layout() {
        let image = IMAGE_CONFIGS[0];
        for (config, layers, found) in [
            (WASM_TO_OCI_CONFIG, vec![WASM_TO_OCI_LAYER], WASM_TO_OCI_LAYER),
            (CNCF_CONFIG, vec![CNCF_LAYER], CNCF_LAYER),
            (image, vec![MODULE_LAYERS[2]], MODULE_LAYERS[2]),
            ("application/vnd.oci.empty.v1+json", vec![MODULE_LAYERS[3]], MODULE_LAYERS[3]),
            (WASM_TO_OCI_CONFIG, vec!["text/plain", WASM_TO_OCI_LAYER], WASM_TO_OCI_LAYER),
        ] {
            let manifest = manifest(config, &layers);
            let Ok(Content::Module(layer)) = content(&manifest) else { unreachable!("{config}") };
            assert_eq!(layer.media_type, found);
        }
    }

    #[test]
    fn what_holds_no_single_module_is_refused() {
        for (config, layers) in [
            (CNCF_CONFIG, vec![]),
            (CNCF_CONFIG, vec![CNCF_LAYER, CNCF_LAYER]),
            (
                "application/vnd.cncf.helm.config.v1+json",
                vec!["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
            ),
            (IMAGE_CONFIGS[1], vec![]),
        ] {
            let manifest = manifest(config, &layers);
            assert!(matches!(content(&manifest), Err(Unrunnable::Layers { .. })), "{config}");
        }
        assert_eq!(content(&manifest(SPIN_CONFIG, &[CNCF_LAYER])), Err(Unrunnable::Spin));
    }

    #[test]
    fn a_root_file_system_is_named_for_what_it_is() {
        let tar = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let manifest = manifest(IMAGE_CONFIGS[1], &[tar]);
        assert_eq!(content(&manifest), Ok(Content::Packed));
        let config = |text: &str| ImageConfig::parse(text.as_bytes()).unwrap().refusal(&manifest);
        let linux = config(r#"{"os":"linux","architecture":"arm64","rootfs":{"type":"layers"}}"#);
        assert_eq!(linux, Unrunnable::LinuxImage("linux/arm64".into()));
        assert!(linux
            .to_string()
            .contains("is a Linux container image (linux/arm64); this node runs WebAssembly"));
        let packed = config(r#"{"os":"wasi","architecture":"wasm"}"#);
        assert_eq!(packed, Unrunnable::Packed { platform: "wasi/wasm".into(), layer: tar.into() });
        assert!(packed.to_string().contains(tar) && packed.to_string().contains("copepod push"));
        assert_eq!(config("{}"), Unrunnable::LinuxImage("unknown/unknown".into()));
    }

    #[test]
    fn an_image_config_gives_its_execution_parameters() {
        let config = ImageConfig::parse(
            br#"{"os":"wasi","config":{"Entrypoint":["/a.wasm"],"Cmd":null,"Env":["A=b"],"WorkingDir":"/"}}"#,
        )
        .unwrap();
        let execution = config.execution();
        assert_eq!(execution.entrypoint, Some(vec!["/a.wasm".to_owned()]));
        assert_eq!((execution.cmd, execution.env), (None, Some(vec!["A=b".to_owned()])));
        assert_eq!(ImageConfig::parse(b"{}").unwrap().execution(), Execution::default());
    }

    #[test]
    fn modules_are_told_from_components_and_anything_else() {
        assert_eq!(check_magic(b"\0asm\x01\0\0\0\x01"), Ok(()));
        assert_eq!(check_magic(b"\0asm\x0d\0\x01\0"), Err(Unrunnable::Component));
        for bad in [&b""[..], b"\0asm", b"\0asm\x02\0\0\0", b"\x7fELF\x02\x01\x01\0", b"<html>\n\n\n"] {
            assert_eq!(check_magic(bad), Err(Unrunnable::NotWasm), "{bad:?}");
        }
    }
}
