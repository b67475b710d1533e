//! Kubeconfig files: where the API server is, and with what one proves oneself.
//!
//! Read: the current context's cluster and user. Certificates and tokens stand in the file or in files
//! that it names, relative to it. Written: the node's own, pointing at its current certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::prelude::{Engine as _, BASE64_STANDARD};
use http::header::HeaderValue;
use http::Uri;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::client::{Client, Credentials};
use super::transport::Server;
use crate::config::{read_bounded, yaml};
use crate::durable;
use crate::outgoing::Unverified;

/// Bytes of a kubeconfig, and of each file that it names.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("kubeconfig {}: {problem}", path.display())]
pub struct KubeconfigError {
    path: PathBuf,
    problem: String,
}

/// The current context of a kubeconfig, everything that it names read in.
#[derive(Clone)]
pub struct Kubeconfig {
    /// Where the API server is.
    pub server: Server,
    /// The server's URL as it stands in the file.
    pub url: String,
    /// The authority of the server's certificate, PEM.
    pub authority: Option<String>,
    /// The client certificate and its key, PEM.
    pub identity: Option<(String, String)>,
    insecure: bool,
    token: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

impl Kubeconfig {
    /// Reads the current context of a file.
    ///
    /// # Errors
    /// [`KubeconfigError`] names the file and what is wrong in it.
    pub fn load(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
        Self::read(path).map_err(|problem| KubeconfigError { path: path.to_owned(), problem })
    }

    fn read(path: &Path) -> Result<Kubeconfig, String> {
        let text = read_bounded(path, MAX_FILE).map_err(|error| error.to_string())?;
        let file: File = yaml::read(&text)?;
        let contexts = file.contexts.unwrap_or_default();
        let context = contexts
            .iter()
            .find(|named| named.name == file.current_context)
            .or_else(|| if file.current_context.is_empty() { contexts.first() } else { None })
            .ok_or_else(|| format!("there is no context {:?}", file.current_context))?;
        let cluster = file
            .clusters
            .unwrap_or_default()
            .into_iter()
            .find(|named| named.name == context.context.cluster)
            .ok_or_else(|| format!("there is no cluster {:?}", context.context.cluster))?
            .cluster;
        let user = file
            .users
            .unwrap_or_default()
            .into_iter()
            .find(|named| named.name == context.context.user)
            .map(|named| named.user)
            .unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::resolve(folder, cluster, user)
    }

    fn resolve(folder: &Path, cluster: Cluster, user: User) -> Result<Kubeconfig, String> {
        if cluster.proxy_url.is_some_and(|url| !url.is_empty()) {
            return Err("proxy-url is not supported".into());
        }
        let authority =
            data_or_file(folder, cluster.certificate_authority_data, cluster.certificate_authority)
                .map_err(|problem| format!("certificate-authority: {problem}"))?;
        let certificate = data_or_file(folder, user.client_certificate_data, user.client_certificate)
            .map_err(|problem| format!("client-certificate: {problem}"))?;
        let key = data_or_file(folder, user.client_key_data, user.client_key)
            .map_err(|problem| format!("client-key: {problem}"))?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("client-certificate and client-key belong together, one is missing".into()),
        };
        let token = match (user.token.filter(|token| !token.is_empty()), user.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => Some(
                read_bounded(&folder.join(&file), MAX_FILE)
                    .map_err(|error| format!("tokenFile {}: {error}", file.display()))?,
            ),
            (None, None) => None,
        };
        if identity.is_none() && token.is_none() {
            let other = [
                user.exec.map(|_| "exec"),
                user.auth_provider.map(|_| "auth-provider"),
                user.username.map(|_| "username"),
            ];
            if let Some(kind) = other.into_iter().flatten().next() {
                return Err(format!(
                    "the user logs in by {kind}, which is not supported; use a client certificate or a token"
                ));
            }
        }
        Ok(Kubeconfig {
            server: parse_server(&cluster.server, cluster.tls_server_name.as_deref())?,
            url: cluster.server,
            authority,
            identity,
            insecure: cluster.insecure_skip_tls_verify,
            token,
        })
    }

    /// A client that proves itself as this file says.
    ///
    /// # Errors
    /// A certificate, key or token that cannot be used.
    pub fn client(&self) -> Result<Client, String> {
        Ok(Client::new(self.server.clone(), self.credentials()?))
    }

    /// What a client needs to prove itself.
    ///
    /// # Errors
    /// As [`Kubeconfig::client`].
    pub fn credentials(&self) -> Result<Credentials, String> {
        let bearer = match &self.token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                    .map_err(|_| "the token has characters that no token has".to_owned())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Credentials { tls: Arc::new(self.tls()?), bearer })
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified))
        } else {
            let mut roots = RootCertStore::empty();
            let pem = self.authority.as_deref().ok_or(
                "certificate-authority-data is missing: without it nothing proves who the API server is",
            )?;
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| format!("certificate-authority: {error}"))?;
            }
            if roots.is_empty() {
                return Err("certificate-authority holds no certificate".into());
            }
            builder.with_root_certificates(roots)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|error| format!("client-key: {error}"))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, key)
                    .map_err(|error| format!("client-certificate: {error}"))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Writes the kubeconfig of a node: the same cluster, the certificate and key in `identity` (one file).
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write_node(&self, path: &Path, node: &str, identity: &Path) -> std::io::Result<()> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let identity = quoted(&identity.to_string_lossy());
        let user = format!("    client-certificate: {identity}\n    client-key: {identity}\n");
        let text = self.text(&format!("system:node:{node}"), &user);
        if let Some(folder) = path.parent() {
            durable::ensure_private_dir(folder)?;
        }
        durable::write_atomic(path, text.as_bytes(), 0o600)
    }

    /// The text of a kubeconfig for the same cluster and another user; `user` is its block, indented by
    /// four.
    #[must_use]
    pub fn text(&self, user_name: &str, user: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut cluster = format!("    server: {}\n", quoted(&self.url));
        if let Some(pem) = &self.authority {
            let data = BASE64_STANDARD.encode(pem);
            cluster.push_str(&format!("    certificate-authority-data: {data}\n"));
        }
        if self.insecure {
            cluster.push_str("    insecure-skip-tls-verify: true\n");
        }
        let name = self.server.tls_name.to_str();
        if name != self.server.host {
            cluster.push_str(&format!("    tls-server-name: {}\n", quoted(&name)));
        }
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: default\n  cluster:\n{cluster}users:\n- name: \
             {0}\n  user:\n{user}contexts:\n- name: default\n  context:\n    cluster: default\n    user: \
             {0}\ncurrent-context: default\n",
            quoted(user_name)
        )
    }

    /// The same cluster under another address.
    ///
    /// # Errors
    /// When the address is no `https` URL.
    pub fn at(mut self, url: &str) -> Result<Kubeconfig, String> {
        // A name that the file gave for the certificate holds at the other address too.
        let name = self.server.tls_name.to_str().into_owned();
        let given = (name != self.server.host).then_some(name);
        self.server = parse_server(url, given.as_deref())?;
        self.url = url.to_owned();
        Ok(self)
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// When a block is broken or there is none.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| format!("certificate: {error}"))?;
    if found.is_empty() {
        return Err("there is no certificate in the PEM text".into());
    }
    Ok(found)
}

fn data_or_file(
    folder: &Path,
    data: Option<String>,
    file: Option<PathBuf>,
) -> Result<Option<String>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let bytes = BASE64_STANDARD.decode(data.trim()).map_err(|error| format!("not base64: {error}"))?;
        return String::from_utf8(bytes).map(Some).map_err(|_| "not PEM".into());
    }
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else { return Ok(None) };
    read_bounded(&folder.join(&file), MAX_FILE)
        .map(Some)
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn parse_server(url: &str, tls_name: Option<&str>) -> Result<Server, String> {
    let uri: Uri = url.parse().map_err(|_| format!("server {url:?} is not a URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("server {url:?}: an API server is spoken to over https"));
    }
    let host = uri.host().ok_or_else(|| format!("server {url:?} has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = tls_name.filter(|name| !name.is_empty()).unwrap_or(&host).to_owned();
    Ok(Server {
        port: uri.port_u16().unwrap_or(443),
        base: uri.path().trim_end_matches('/').to_owned(),
        tls_name: ServerName::try_from(name.clone())
            .map_err(|_| format!("{name:?} is neither a host name nor an address"))?,
        host,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::unwrap_in_result)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Kubeconfig, String> {
        let path = std::env::temp_dir().join(format!("copepod-kubeconfig-{:x}", fastrand::u64(..)));
        std::fs::write(&path, text).unwrap();
        let loaded = Kubeconfig::load(&path).map_err(|error| error.to_string());
        std::fs::remove_file(&path).unwrap();
        loaded
    }

    fn with(cluster: &str, user: &str) -> String {
        format!(
            "kind: Config\nclusters:\n- name: c\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: \
             {{{user}}}\ncontexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n"
        )
    }

    #[test]
    fn reads_servers_of_every_shape() {
        for (url, host, port, base) in [
            ("https://10.0.0.1:6443", "10.0.0.1", 6443, ""),
            ("https://api.example/k8s/c-1/", "api.example", 443, "/k8s/c-1"),
            ("https://[fd00::1]:6443", "fd00::1", 6443, ""),
        ] {
            let loaded = load(&with(&format!("server: '{url}'"), "token: t")).unwrap();
            assert_eq!(
                (loaded.server.host.as_str(), loaded.server.port, loaded.server.base.as_str()),
                (host, port, base)
            );
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, problem) in [
            (with("server: 'http://a'", "token: t"), "over https"),
            (with("server: 'https://a', proxy-url: 'http://b'", "token: t"), "proxy-url"),
            (with("server: 'https://a', certificate-authority: /no/ca.crt", ""), "/no/ca.crt"),
            (with("server: 'https://a', certificate-authority-data: '%'", ""), "not base64"),
            (with("server: 'https://a'", "client-certificate-data: YQ=="), "belong together"),
            (with("server: 'https://a'", "exec: {command: aws}"), "by exec"),
            (with("server: 'https://a'", "tokenFile: /no/token"), "/no/token"),
            ("current-context: x\n".into(), "no context \"x\""),
            ("[".into(), "not valid YAML"),
        ] {
            let error = load(&text).err().unwrap();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let first = load(&with("server: 'https://a:1', tls-server-name: b", "token: t")).unwrap();
        let again = load(&first.text("system:node:n", "    token: \"t2\"\n")).unwrap();
        assert_eq!(again.url, "https://a:1");
        assert_eq!(again.server.tls_name.to_str(), "b");
        assert_eq!(again.token.as_deref(), Some("t2"));
        assert!(again.credentials().err().unwrap().contains("certificate-authority-data is missing"));
    }
}
