//! TLS bootstrap: from a token that many nodes share to a client certificate of this node's own.
//!
//! A kubeconfig that is there and whose certificate has not expired is used as it is. Else the bootstrap
//! file's token asks for a certificate, which the cluster's own controller approves; this waits as long as
//! it takes, says what it waits for (the file, the clock, the network, an approval), and reads the bootstrap
//! file again at each try and whenever it is replaced, so that a new token is taken up without a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;
use jiff::Timestamp;

use super::certificates::{CertificateFolder, Facts, Purpose};
use super::client::Client;
use super::clock::wait_for_clock;
use super::csr::{obtain, CsrError, Desk, ObtainError};
use super::error::ApiError;
use super::kubeconfig::Kubeconfig;
use crate::control::blocking;
use crate::durable::{ClockStep, FileState};

/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Between two readings of a bootstrap file that cannot be used, though it is there: it may name others, which have
/// yet to come.
const RELOAD: Duration = Duration::from_secs(10);
/// How long one request is waited for (the kubelet's own figure), before another is made.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(3600);

/// What a node joins with.
pub struct Joining<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The node's kubeconfig, read or written.
    pub kubeconfig: &'a Path,
    /// The bootstrap kubeconfig.
    pub bootstrap_file: Option<&'a Path>,
    /// Where keys and certificates are kept.
    pub folder: &'a CertificateFolder,
    /// Hears what is being waited for, one line at a time.
    pub tell: &'a (dyn Fn(&str) + Sync),
}

/// Why this node cannot join, and will not be able to without a person.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nothing to join with.
    #[error(
        "there is no kubeconfig {} and no --bootstrap-file: make one with `copepod bootstrap` where you have \
         an administrator's kubeconfig, and bring it here", kubeconfig.display()
    )]
    NothingToJoinWith {
        /// Where the kubeconfig would be.
        kubeconfig: PathBuf,
    },
    /// The certificate is another node's.
    #[error(
        "{}: its certificate is that of {found:?}, but this node is called {node:?}: start it with \
         --node-name, or remove the file to join anew", kubeconfig.display()
    )]
    AnotherNode {
        /// The kubeconfig.
        kubeconfig: PathBuf,
        /// The common name in the certificate.
        found: String,
        /// This node.
        node: String,
    },
}

enum TryError {
    Obtain(ObtainError),
    Other(String),
}

impl From<ObtainError> for TryError {
    fn from(error: ObtainError) -> TryError {
        TryError::Obtain(error)
    }
}

/// A client that is this node, and the kubeconfig that it came from.
///
/// # Errors
/// [`JoinError`], when there is nothing to join with, or it is another node's. Everything else is tried again for
/// ever: pods of an earlier life run meanwhile.
pub async fn join(joining: &Joining<'_>) -> Result<(Client, Kubeconfig), JoinError> {
    wait_for_clock(joining.kubeconfig, joining.tell).await;
    loop {
        let (seen, step) = (FileState::of(joining.kubeconfig), ClockStep::any());
        let problem = match existing(joining)? {
            Existing::Joined(joined) => return Ok(*joined),
            Existing::None => break,
            Existing::Unusable(problem) => problem,
        };
        let text = format!(
            "{problem}; without --bootstrap-file this node cannot ask for a new certificate: put another kubeconfig \
             there, or start this agent with a bootstrap file; waiting for it"
        );
        log::error!("joining the cluster: {text}");
        (joining.tell)(&format!("cannot join the cluster: {text}"));
        seen.replaced(joining.kubeconfig).or(step.wait()).await;
    }
    let Some(file) = joining.bootstrap_file else {
        return Err(JoinError::NothingToJoinWith { kubeconfig: joining.kubeconfig.to_owned() });
    };
    let mut pause = PAUSE.0;
    loop {
        let (seen, bootstrap) = bootstrap_file(file, joining.tell).await;
        wait_for_clock(file, joining.tell).await;
        if FileState::of(file) != seen {
            continue;
        }
        let step = ClockStep::any();
        // Another file is another try, whatever this one waits for.
        let tried = async { Some(attempt(joining, file, &bootstrap).await) };
        let replaced = async {
            seen.replaced(file).await;
            None
        };
        let problem = match tried.or(replaced).await {
            None => {
                log::info!("bootstrap file {}: another one", file.display());
                continue;
            }
            Some(Ok(joined)) => return Ok(joined),
            Some(Err(problem)) => problem,
        };
        let text = explain(file, problem);
        log::error!("joining the cluster: {text}; trying again in {} s", pause.as_secs());
        (joining.tell)(&format!("cannot join the cluster yet: {text}"));
        let paused = async {
            Timer::after(pause.mul_f64(1.0 + fastrand::f64() * 0.1)).await;
            pause.saturating_mul(2).min(PAUSE.1)
        };
        // Another file, or another time, is another try: not more often than the first pauses are long.
        let changed = async {
            seen.replaced(file).or(step.wait()).await;
            Timer::after(PAUSE.0).await;
            PAUSE.0
        };
        pause = paused.or(changed).await;
    }
}

/// The bootstrap file, once it is there, may be read and makes sense. It is on this machine: there is no
/// need to ask for it less and less often.
async fn bootstrap_file(file: &Path, tell: &dyn Fn(&str)) -> (FileState, Kubeconfig) {
    let mut told = String::new();
    loop {
        let seen = FileState::of(file);
        let problem = match Kubeconfig::load(file) {
            Ok(bootstrap) => return (seen, bootstrap),
            Err(_) if !file.exists() => format!("bootstrap file {}: not there", file.display()),
            Err(error) => format!("bootstrap file, {error}"),
        };
        if problem != told {
            let text = format!(
                "waiting for the {problem}; make it with `copepod bootstrap` where you have an administrator's \
                 kubeconfig"
            );
            log::warn!("{text}");
            tell(&text);
            told = problem;
        }
        let again = async {
            match file.exists() {
                true => Timer::after(RELOAD).await,
                false => Timer::never().await,
            };
        };
        seen.replaced(file).or(again).await;
    }
}

enum Existing {
    Joined(Box<(Client, Kubeconfig)>),
    /// There is none, or a bootstrap file that takes its place.
    None,
    /// What is wrong with it.
    Unusable(String),
}

/// The kubeconfig that is there already, if it can be used.
fn existing(joining: &Joining<'_>) -> Result<Existing, JoinError> {
    let path = joining.kubeconfig;
    if !path.exists() {
        return Ok(Existing::None);
    }
    let usable = || -> Result<(Client, Kubeconfig), String> {
        let mut kubeconfig = Kubeconfig::load(path).map_err(|error| error.to_string())?;
        if let Some((certificate, _)) = &kubeconfig.identity {
            let mut facts = Facts::of(certificate)?;
            // One that was renewed since, where the kubeconfig has another in it.
            if let Ok(Some(renewed)) = joining.folder.load(Purpose::Client) {
                let same = renewed.facts.common_name == facts.common_name;
                if same && renewed.facts.not_after > facts.not_after {
                    kubeconfig.identity = Some((renewed.certificate, renewed.key));
                    facts = renewed.facts;
                }
            }
            if facts.expired(Timestamp::now()) {
                return Err(format!("the certificate in {} expired at {}", path.display(), facts.not_after));
            }
        }
        let client = kubeconfig.client().map_err(|problem| format!("{}: {problem}", path.display()))?;
        Ok((client, kubeconfig))
    };
    match usable() {
        Ok((client, kubeconfig)) => {
            if let Some((certificate, _)) = &kubeconfig.identity {
                let found = Facts::of(certificate).map(|facts| facts.common_name).unwrap_or_default();
                if found.starts_with("system:node:") && found != format!("system:node:{}", joining.node) {
                    let (kubeconfig, node) = (path.to_owned(), joining.node.to_owned());
                    return Err(JoinError::AnotherNode { kubeconfig, found, node });
                }
            }
            Ok(Existing::Joined(Box::new((client, kubeconfig))))
        }
        Err(problem) if joining.bootstrap_file.is_some() => {
            log::warn!("{problem}; joining anew with the bootstrap file");
            Ok(Existing::None)
        }
        Err(problem) => Ok(Existing::Unusable(problem)),
    }
}

async fn attempt(
    joining: &Joining<'_>,
    file: &Path,
    bootstrap: &Kubeconfig,
) -> Result<(Client, Kubeconfig), TryError> {
    // Signed before, and the kubeconfig did not come to be written: it still counts.
    if let Ok(Some(identity)) = joining.folder.load(Purpose::Client) {
        let ours = identity.facts.common_name == format!("system:node:{}", joining.node);
        if ours && !identity.facts.expired(Timestamp::now()) {
            if let Ok(joined) = adopt(joining, bootstrap).await {
                return Ok(joined);
            }
        }
    }
    let client = bootstrap
        .client()
        .map_err(|problem| TryError::Other(format!("kubeconfig {}: {problem}", file.display())))?;
    (joining.tell)(&format!("asking {} for a certificate", bootstrap.server.authority()));
    let asked = |request: &str| {
        log::info!("asked {} for a client certificate: {request}", bootstrap.server.authority());
        (joining.tell)(&format!("waiting for the cluster to sign the certificate request {request}"));
    };
    let desk = Desk { client: &client, folder: joining.folder, node: joining.node };
    obtain(desk, Purpose::Client, Vec::new(), SIGNING_TIMEOUT, &asked).await?;
    adopt(joining, bootstrap).await
}

/// Writes the node's kubeconfig around its current certificate, and uses it.
async fn adopt(joining: &Joining<'_>, bootstrap: &Kubeconfig) -> Result<(Client, Kubeconfig), TryError> {
    let current = joining.folder.current(Purpose::Client);
    let (bootstrap, path, node) = (bootstrap.clone(), joining.kubeconfig.to_owned(), joining.node.to_owned());
    blocking(move || bootstrap.write_node(&path, &node, &current))
        .await
        .map_err(|error| TryError::Other(format!("writing {}: {error}", joining.kubeconfig.display())))?;
    let kubeconfig =
        Kubeconfig::load(joining.kubeconfig).map_err(|error| TryError::Other(error.to_string()))?;
    let client = kubeconfig.client().map_err(TryError::Other)?;
    log::info!("joined as {}; kubeconfig written to {}", joining.node, joining.kubeconfig.display());
    Ok((client, kubeconfig))
}

/// What went wrong, and what a person can do about it; also what the next try does otherwise.
fn explain(file: &Path, problem: TryError) -> String {
    let error = match problem {
        TryError::Other(text) => return text,
        TryError::Obtain(ObtainError::Csr(error)) => error,
        TryError::Obtain(error) => return error.to_string(),
    };
    match &error {
        CsrError::Denied { .. } | CsrError::Failed { .. } | CsrError::Taken { .. } => {
            format!("{error}; the next request has a new key")
        }
        CsrError::Api(api) if api.is(401) => format!(
            "the API server does not take the token in {}: it has expired or was deleted; make a new file \
             with `copepod bootstrap` and put it there",
            file.display()
        ),
        CsrError::Api(api @ ApiError::Refused { .. }) if api.is(403) => format!(
            "{api}; the cluster lacks the bindings that joining needs: `copepod bootstrap` makes them"
        ),
        _ => error.to_string(),
    }
}
