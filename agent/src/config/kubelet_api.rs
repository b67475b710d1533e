//! The settings of the kubelet API: where it listens, whom it believes, what of the machine it hands out.

use std::path::PathBuf;

use super::agent::{number, value};
use super::setting::Setting;

/// `--address`
pub(super) const ADDRESS: Setting = value(
    "address",
    &["addr"],
    "IP",
    None,
    "Address that the kubelet API listens on [default: every address of --node-ip's family].",
);

/// `--port`
pub(super) const PORT: Setting = number("port", "PORT", Some("10250"), "Port of the kubelet API.");

/// `--client-ca-file`
pub(super) const CLIENT_CA_FILE: Setting = value(
    "client-ca-file",
    &[],
    "FILE",
    None,
    "Authority of the client certificates that the kubelet API accepts; another file is taken up at once [default: \
     the cluster's, from the config map kube-system/extension-apiserver-authentication, which is followed; if that \
     may not be read, the authority of the kubeconfig].",
);

/// `--system-log-dir`
pub(super) const SYSTEM_LOG_DIR: Setting = value(
    "system-log-dir",
    &[],
    "DIR",
    Some("/var/log"),
    "Folder of the machine's own logs, which the kubelet API shows under /logs/ to those who may get nodes/log. An \
     empty value shows them to nobody.",
);

/// A folder; an empty text is none.
pub(super) fn folder_or_none(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Ok(None),
        text => std::path::absolute(text).map(Some).map_err(|error| error.to_string()),
    }
}
