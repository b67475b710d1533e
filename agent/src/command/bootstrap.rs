//! `copepod bootstrap`: makes what a new node joins with, from an administrator's kubeconfig.
//!
//! What Krustlet's bootstrap.sh does: a bootstrap token (a Secret of type
//! `bootstrap.kubernetes.io/token`), the bindings that joining needs, and a kubeconfig with the token.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{json, Value};

use super::Failure;
use crate::cluster::kubeconfig::Kubeconfig;
use crate::cluster::{Call, Client};
use crate::config::agent::LOG_LEVEL;
use crate::config::setting::{CommandLine, Setting, Takes};
use crate::config::Values;
use crate::{control, durable};

/// The longest life of a token.
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
/// Characters of a bootstrap token's two parts (`[a-z0-9]{6}\.[a-z0-9]{16}`).
const TOKEN_ID: usize = 6;
const TOKEN_SECRET: usize = 16;

/// The command line.
pub const COMMAND: CommandLine = CommandLine {
    name: "copepod bootstrap",
    operands: "",
    operand_count: (0, 0),
    about: "Makes the bootstrap file that a new node joins a cluster with: a kubeconfig with a token that \
            expires.\nIt needs an administrator's kubeconfig, and makes the bindings that joining needs where \
            they are missing.",
    settings: &[
        Setting {
            name: "kubeconfig",
            aliases: &[],
            takes: Takes::Value("FILE"),
            default: None,
            help: "The administrator's kubeconfig [default: KUBECONFIG, else ~/.kube/config].",
            board: false,
        },
        Setting {
            name: "server",
            aliases: &[],
            takes: Takes::Value("URL"),
            default: None,
            help: "Address of the API server as the new node reaches it, in place of the one in the \
                   kubeconfig (kind's and k3s' own say 127.0.0.1).",
            board: false,
        },
        Setting {
            name: "ttl",
            aliases: &[],
            takes: Takes::Value("DURATION"),
            default: Some("1h"),
            help: "How long the token can be used to join: 30m, 1h, 2h30m.",
            board: false,
        },
        Setting {
            name: "output",
            aliases: &[],
            takes: Takes::Value("FILE"),
            default: None,
            help: "Write the file here, readable by its owner alone, in place of printing it.",
            board: false,
        },
        LOG_LEVEL,
    ],
    configurable: false,
};

/// Runs it.
///
/// # Errors
/// [`Failure`]
pub fn run(values: &Values) -> Result<(), Failure> {
    let ttl = values.parse("ttl", parse_duration)?.unwrap_or_default();
    let path = admin_kubeconfig(values)?;
    let admin = Kubeconfig::load(&path).map_err(|error| Failure::Failed(error.to_string()))?;
    let client =
        admin.client().map_err(|problem| Failure::Failed(format!("{}: {problem}", path.display())))?;
    let admin = match values.text("server") {
        Some(url) => admin.at(url).map_err(|problem| Failure::Failed(format!("--server: {problem}")))?,
        None => admin,
    };
    if is_loopback(&admin.server.host) {
        super::complain(&format!(
            "the bootstrap file says {}, which another machine cannot reach: give the address that it can \
             with --server",
            admin.url
        ));
    }
    let token = Token::random().map_err(|error| Failure::Failed(error.to_string()))?;
    control::run(prepare(&client, &token, ttl))?;
    let user = format!("    token: \"{}.{}\"\n", token.id, token.secret);
    let text = admin.text("bootstrap", &user);
    match values.text("output") {
        None => super::say(&text)?,
        Some(file) => durable::write_atomic(file.as_ref(), text.as_bytes(), 0o600)
            .map_err(|error| Failure::Failed(format!("writing {file}: {error}")))?,
    }
    Ok(())
}

fn admin_kubeconfig(values: &Values) -> Result<PathBuf, Failure> {
    if let Some(path) = values.text("kubeconfig") {
        return Ok(path.into());
    }
    // KUBECONFIG may list several files; like kubectl's first choice, the first that exists.
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        let paths: Vec<PathBuf> = std::env::split_paths(&list).collect();
        let found = paths.iter().find(|path| path.exists()).or(paths.first());
        return Ok(found.cloned().unwrap_or_default());
    }
    let home = std::env::var_os("HOME").ok_or_else(|| {
        Failure::Failed("neither --kubeconfig, nor KUBECONFIG, nor HOME says where the kubeconfig is".into())
    })?;
    Ok(PathBuf::from(home).join(".kube/config"))
}

struct Token {
    id: String,
    secret: String,
}

impl Token {
    fn random() -> std::io::Result<Token> {
        Ok(Token { id: random_text(TOKEN_ID)?, secret: random_text(TOKEN_SECRET)? })
    }
}

fn random_text(length: usize) -> std::io::Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0; length];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| std::io::Error::other("the kernel gives no random numbers"))?;
    // 32 letters: each of the 256 values of a byte means one of them, all equally often.
    let letter = |byte: &u8| LETTERS.get(usize::from(byte % 32)).map(|letter| char::from(*letter));
    Ok(bytes.iter().filter_map(letter).collect())
}

async fn prepare(client: &Client, token: &Token, ttl: Duration) -> Result<(), Failure> {
    for (path, binding) in bindings() {
        let name = binding.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        match client.send(Call::new(Method::POST, path).json(&binding)).await {
            Ok(_) => log::info!("made the binding {name}"),
            Err(error) if error.is(409) => {}
            Err(error) => return Err(Failure::Failed(format!("making the binding {name}: {error}"))),
        }
    }
    let expires = SignedDuration::try_from(ttl)
        .ok()
        .and_then(|ttl| Timestamp::now().checked_add(ttl).ok())
        .ok_or_else(|| Failure::Failed("--ttl: out of range".into()))?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("bootstrap-token-{}", token.id), "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "description": "Made by copepod bootstrap",
            "token-id": token.id,
            "token-secret": token.secret,
            "expiration": format!("{expires:.0}"),
            "usage-bootstrap-authentication": "true",
        },
    });
    let path = "/api/v1/namespaces/kube-system/secrets";
    client
        .send(Call::new(Method::POST, path).json(&secret))
        .await
        .map(drop)
        .map_err(|error| Failure::Failed(format!("making the bootstrap token: {error}")))
}

/// What a node needs to join and to serve, as RBAC objects; those that exist are left as they are.
fn bindings() -> Vec<(&'static str, Value)> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let cluster = |name: &str, role: &str, group: &str| {
        let binding = json!({
            "apiVersion": format!("{RBAC}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group}],
        });
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    };
    vec![
        cluster("copepod:bootstrap", "system:node-bootstrapper", "system:bootstrappers"),
        cluster(
            "copepod:approve-client-certificates",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            "system:bootstrappers",
        ),
        cluster(
            "copepod:approve-renewals",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "system:nodes",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings",
            json!({
                "apiVersion": format!("{RBAC}/v1"),
                "kind": "RoleBinding",
                "metadata": {"name": "copepod:client-ca", "namespace": "kube-system"},
                "roleRef": {
                    "apiGroup": RBAC,
                    "kind": "Role",
                    "name": "extension-apiserver-authentication-reader",
                },
                "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": "system:nodes"}],
            }),
        ),
    ]
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Go's durations, as kubectl and kubeadm take them: `1h`, `2h30m`, `90s`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a duration such as 30m or 1h, at most {} h", MAX_TTL.as_secs() / 3600);
    let (mut total, mut digits) = (Duration::ZERO, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let seconds: u64 = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = std::mem::take(&mut digits).parse().map_err(|_| wrong())?;
        total = total.saturating_add(Duration::from_secs(number.saturating_mul(seconds)));
    }
    if !digits.is_empty() || total.is_zero() || total > MAX_TTL {
        return Err(wrong());
    }
    Ok(total)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("1h", 3600), ("2h30m", 9000), ("90s", 90), ("1m1s", 61)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds);
        }
        for text in ["", "1", "h", "1d", "-1h", "0s", "99999999h", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_have_the_form_that_the_api_server_demands() {
        let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(one.secret, two.secret);
        assert_eq!((one.id.len(), one.secret.len()), (6, 16));
        assert!(one.secret.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    }
}
