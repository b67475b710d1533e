//! The server over in-memory streams (socket pairs), with real TLS clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod access;
mod certificates;
mod limits;
mod logs;
mod streams;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use async_io::Async;
use bytes::Bytes;
use futures_rustls::{client, TlsConnector};
use futures_util::future::{ready, BoxFuture};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use smol_hyper::rt::FuturesIo;

use super::*;
use crate::log::PodKey;
use crate::runtime::stdio::Wanted;

type Tunnel = client::TlsStream<Async<UnixStream>>;
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

const NODE: &str = "pi";

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A client's certificate, after `change`.
    fn client(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

/// The API server's part: tokens, and who may do what.
#[derive(Default)]
struct Cluster {
    /// `verb nodes/subresource` that a user may do; `*` for all.
    rights: Mutex<HashMap<String, Vec<String>>>,
    /// What was asked, in order.
    asked: Mutex<Vec<String>>,
}

impl Cluster {
    fn allow(&self, user: &str, what: &[&str]) {
        let rights = what.iter().map(|right| (*right).to_owned()).collect();
        self.rights.lock().unwrap().insert(user.to_owned(), rights);
    }
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Reviewer for Cluster {
    fn review_token<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, ReviewError>> {
        self.asked.lock().unwrap().push(format!("token {token}"));
        let user = |name: &str| User { name: name.to_owned(), ..User::default() };
        Box::pin(ready(match token {
            "broken" => Err(ReviewError("connection refused".to_owned())),
            "nameless" => Ok(Some(user(""))),
            _ => Ok(token.strip_prefix("token-of-").map(user)),
        }))
    }
    fn review_access<'a>(
        &'a self,
        user: &'a User,
        wanted: &'a Attributes,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        assert!(user.groups.iter().any(|group| group == "system:authenticated"), "{user:?}");
        assert_eq!(wanted.name, NODE);
        let right = format!("{} nodes/{}", wanted.verb, wanted.subresource);
        self.asked.lock().unwrap().push(format!("{} {right}", user.name));
        let rights = self.rights.lock().unwrap();
        let has = |what: &str| rights.get(&user.name).is_some_and(|all| all.iter().any(|one| one == what));
        Box::pin(ready(match has("unknown") {
            true => Err(ReviewError("connection refused".to_owned())),
            false => Ok(has("*") || has(&right)),
        }))
    }
}

/// The node's part: one pod, whose containers' names say what becomes of their logs.
struct Node;

impl PodsView for Node {
    fn pods(&self) -> Vec<crate::api::Pod> {
        let pods = json!([{"metadata": {"name": "hello"}, "status": {"phase": "Running"}},
            {"metadata": {"name": "done"}, "status": {"phase": "Succeeded"}}]);
        serde_json::from_value(pods).unwrap()
    }
    fn figures(&self) -> crate::metrics::Figures {
        crate::metrics::Figures::default()
    }
    fn container_log(
        &self,
        ns: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<LogTarget, LogRefusal> {
        if (ns, pod) != ("default", "hello") {
            return Err(LogRefusal::NoPod);
        }
        match container {
            "main" if previous => Err(LogRefusal::NoPrevious),
            "main" | "unwritten" => Ok(LogTarget { pod: key(), container: container.to_owned(), restart: 0 }),
            "pulling" => Err(LogRefusal::Waiting("ImagePullBackOff".to_owned())),
            "creating" => Err(LogRefusal::Waiting("ContainerCreating".to_owned())),
            "never" => Err(LogRefusal::Terminated),
            "unknown" => Err(LogRefusal::NotAvailable),
            _ => Err(LogRefusal::NoContainer),
        }
    }
    fn has_pod(&self, pod: &PodName) -> bool {
        pod.name == "hello" && pod.uid.as_deref().is_none_or(|uid| uid == "u1")
    }
    fn exec(
        &self,
        pod: &PodName,
        container: &str,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<Start, NotThere> {
        match (self.has_pod(pod), container) {
            (false, _) => Err(NotThere::Pod),
            (true, "main") => Ok(Box::pin(ready(streams::instance(&command, wanted)))),
            (true, _) => Err(NotThere::Container),
        }
    }
    fn attach(&self, pod: &PodName, container: &str, wanted: Wanted) -> Result<(Wanted, Start), NotThere> {
        self.exec(pod, container, vec!["echo".to_owned()], wanted).map(|start| (wanted, start))
    }
    fn listener(&self, _: &PodName, port: u16) -> Result<SocketAddr, String> {
        match port {
            81 => Err("no container listens on port 81".to_owned()),
            port => Ok(([127, 0, 0, 1], port).into()),
        }
    }
}

fn key() -> PodKey {
    PodKey { namespace: "default".to_owned(), name: "hello".to_owned(), uid: "u1".to_owned() }
}

/// A server that runs, and what its clients need.
struct Bed {
    authority: Authority,
    cluster: Arc<Cluster>,
    tls: Tls,
    logs: Logs,
    root: PathBuf,
    serving: CertificateDer<'static>,
    connect: async_channel::Sender<io::Result<Connection>>,
    server: control::Task<()>,
}

impl Bed {
    fn start() -> Bed {
        let authority = Authority::new();
        let cluster = Arc::new(Cluster::default());
        let (serving, key) = self_signed::make(&[NODE.to_owned()], &[[10, 0, 0, 7].into()]).unwrap();
        let tls = Tls::new(vec![serving.clone()], key).unwrap();
        tls.set_client_ca_pem(authority.pem.as_bytes()).unwrap();
        let root = std::env::temp_dir().join(format!("copepod-server-{:x}", fastrand::u64(..)));
        let logs = Logs::new(root.clone(), crate::log::Settings::default());
        let context = ServerContext {
            node_name: NODE.to_owned(),
            tls: tls.clone(),
            reviewer: cluster.clone(),
            pods: Arc::new(Node),
            logs: logs.clone(),
            system_logs: Some(root.clone()),
            configz: json!({"kubeletconfig": {}}),
        };
        let (connect, connections) = async_channel::unbounded();
        let server = control::spawn(serve(Box::pin(connections), context));
        Bed { authority, cluster, tls, logs, root, serving, connect, server }
    }

    /// A stream to the server, nothing sent yet.
    async fn stream(&self) -> Async<UnixStream> {
        let (near, far) = Async::<UnixStream>::pair().unwrap();
        self.connect.send(Ok(Box::new(far))).await.unwrap();
        near
    }

    async fn tunnel(&self, identity: Option<&Identity>) -> io::Result<Tunnel> {
        let mut roots = RootCertStore::empty();
        roots.add(self.serving.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(NODE).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.stream().await).await
    }

    /// One request on a connection of its own.
    async fn send(
        &self,
        identity: Option<&Identity>,
        method: Method,
        path: &str,
        token: Option<&str>,
    ) -> Response<Incoming> {
        let mut client = Client::new(self.tunnel(identity).await.unwrap()).await;
        let response = client.send(method, path, token).await;
        client.connection.detach();
        response
    }

    async fn get(&self, identity: &Identity, path: &str) -> (StatusCode, String) {
        text(self.send(Some(identity), Method::GET, path, None).await).await
    }

    /// Somebody who may do everything.
    fn admin(&self) -> Identity {
        self.cluster.allow("admin", &["*"]);
        self.authority.client("admin", |_| ())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// One connection that stays open.
struct Client {
    requests: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    connection: control::Task<()>,
    /// The connection was closed as it should be.
    closed_well: Arc<AtomicBool>,
}

impl Client {
    async fn new(tunnel: Tunnel) -> Client {
        let (requests, connection) =
            hyper::client::conn::http1::handshake(FuturesIo::new(tunnel)).await.unwrap();
        let closed_well = Arc::<AtomicBool>::default();
        let told = closed_well.clone();
        let connection =
            control::spawn(async move { told.store(connection.await.is_ok(), Ordering::Relaxed) });
        Client { requests, connection, closed_well }
    }

    async fn send(&mut self, method: Method, path: &str, token: Option<&str>) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("Host", NODE);
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        self.requests.ready().await.unwrap();
        self.requests.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
    }
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}
