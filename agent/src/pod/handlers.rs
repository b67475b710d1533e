//! What is done to a container from outside: probes (`pkg/probe`) and lifecycle hooks
//! (`pkg/kubelet/lifecycle/handlers.go`), read from its spec.

use std::time::Duration;

use serde_json::Value;

use crate::api::{Container, ExecAction, HttpGetAction, LifecycleHandler, Probe};

/// Headers of a request, and bytes of its path and headers together.
const MAX_HEADERS: usize = 64;
const MAX_REQUEST: usize = 16 * 1024;
/// Bytes of the name of a gRPC service.
const MAX_SERVICE: usize = 1024;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `sleep`
    Sleep(Duration),
    /// `httpGet`
    Get(Get),
    /// `tcpSocket`
    Connect {
        /// None: the pod's own address.
        host: Option<String>,
        /// TCP port.
        port: u16,
    },
    /// `grpc`
    Grpc {
        /// TCP port, at the pod's own address.
        port: u16,
        /// What is asked for.
        service: String,
        /// Over TLS, whoever answers.
        secure: bool,
    },
    /// `exec`: the arguments of a second instance of the container's module.
    Exec(Vec<String>),
}

/// A request by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// By HTTPS, whoever answers.
    pub secure: bool,
    /// None: the pod's own address.
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
    /// With its query.
    pub path: String,
    /// Name and value.
    pub headers: Vec<(String, String)>,
}

/// What a probe says about its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// It has started: the others begin.
    Startup,
    /// It may be given work.
    Readiness,
    /// It need not be started anew.
    Liveness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];

    /// As messages begin with it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }

    /// The probe of this kind that a container has.
    #[must_use]
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_deref(),
            ProbeKind::Readiness => container.readiness_probe.as_deref(),
            ProbeKind::Liveness => container.liveness_probe.as_deref(),
        }
    }
}

/// When a probe is made, and when its word counts (`core/v1` defaults).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Not before this long after the container's start.
    pub delay: Duration,
    /// From one to the next.
    pub period: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Successes in a row that count as one.
    pub successes: u32,
    /// Failures in a row that count as one.
    pub failures: u32,
}

impl Rhythm {
    /// That of a probe; a liveness probe's first success counts.
    #[must_use]
    pub fn of(probe: &Probe) -> Rhythm {
        let or = |value: Option<i32>, default: u32| match value.and_then(|value| u32::try_from(value).ok()) {
            Some(value) if value > 0 => value,
            _ => default,
        };
        let seconds = |value, default| Duration::from_secs(u64::from(or(value, default)));
        Rhythm {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: or(probe.success_threshold, 1),
            failures: or(probe.failure_threshold, 3),
        }
    }
}

/// What probes of one kind have said in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// Takes in one more; what counts from now on, if that is enough of them.
    pub fn add(&mut self, well: bool, rhythm: &Rhythm) -> Option<bool> {
        self.run = if self.last == Some(well) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(well);
        let needed = if well { rhythm.successes } else { rhythm.failures };
        (self.run >= needed).then_some(well)
    }
}

/// What a probe does.
///
/// # Errors
/// What is wrong with it.
pub fn of_probe(container: &Container, probe: &Probe) -> Result<Handler, String> {
    if let Some(exec) = &probe.exec {
        command(exec)
    } else if let Some(get) = &probe.http_get {
        request(container, get).map(Handler::Get)
    } else if let Some(tcp) = &probe.tcp_socket {
        Ok(Handler::Connect { host: text(&tcp.host), port: port(container, &tcp.port)? })
    } else if let Some(grpc) = &probe.grpc {
        if grpc.service.len() > MAX_SERVICE {
            return Err(format!("a service of more than {MAX_SERVICE} bytes"));
        }
        let port = u16::try_from(grpc.port).ok().filter(|port| *port > 0);
        let port = port.ok_or("a port that is no number of one")?;
        Ok(Handler::Grpc { port, service: grpc.service.clone(), secure: grpc.mode == "TLS" })
    } else {
        Err("no handler that this node knows".to_owned())
    }
}

/// What a hook does.
///
/// # Errors
/// What is wrong with it.
pub fn of_hook(container: &Container, hook: &LifecycleHandler) -> Result<Handler, String> {
    if let Some(exec) = &hook.exec {
        command(exec)
    } else if let Some(get) = &hook.http_get {
        request(container, get).map(Handler::Get)
    } else if let Some(sleep) = &hook.sleep {
        Ok(Handler::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))))
    } else {
        Err("no handler that this node knows".to_owned())
    }
}

/// The `preStop` hook of a container, if it has one that can be done.
#[must_use]
pub fn pre_stop(container: &Container) -> Option<Handler> {
    let hook = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
    // What is wrong with it has refused the pod.
    of_hook(container, hook).ok()
}

/// The `postStart` hook of a container, likewise.
#[must_use]
pub fn post_start(container: &Container) -> Option<Handler> {
    let hook = container.lifecycle.as_ref()?.post_start.as_ref()?;
    of_hook(container, hook).ok()
}

/// What is wrong with the probes and hooks of a container, if anything is.
#[must_use]
pub fn problem(container: &Container) -> Option<String> {
    let probe = ProbeKind::ALL.into_iter().find_map(|kind| {
        let wrong = of_probe(container, kind.of(container)?).err()?;
        Some(format!("a {} probe with {wrong}", kind.word().to_lowercase()))
    });
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [
        ("postStart", lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())),
        ("preStop", lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref())),
    ];
    probe.or_else(|| {
        let wrong = |(name, hook): (&str, Option<&LifecycleHandler>)| {
            Some(format!("a {name} hook with {}", of_hook(container, hook?).err()?))
        };
        hooks.into_iter().find_map(wrong)
    })
}

fn command(exec: &ExecAction) -> Result<Handler, String> {
    let bytes = exec.command.iter().fold(0, |sum: usize, word| sum.saturating_add(word.len()));
    if exec.command.is_empty() || bytes > MAX_REQUEST || exec.command.iter().any(|word| word.contains('\0')) {
        return Err(format!("a command that is empty, longer than {MAX_REQUEST} bytes, or has a NUL byte"));
    }
    Ok(Handler::Exec(exec.command.clone()))
}

fn text(text: &str) -> Option<String> {
    Some(text).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn port(container: &Container, port: &Value) -> Result<u16, String> {
    let number = match port {
        Value::String(name) => {
            let named = container.ports.iter().find(|port| port.name == *name);
            named.map(|port| i64::from(port.container_port)).or_else(|| name.parse().ok())
        }
        number => number.as_i64(),
    };
    let number = number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    number.ok_or_else(|| "a port that is none of its container's and no number".to_owned())
}

fn request(container: &Container, get: &HttpGetAction) -> Result<Get, String> {
    let secure = match get.scheme.as_str() {
        "" | "HTTP" => false,
        "HTTPS" => true,
        _ => return Err("a scheme that is neither HTTP nor HTTPS".to_owned()),
    };
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err("a path that has blanks or control characters".to_owned());
    }
    let mut headers = Vec::new();
    for header in &get.http_headers {
        let (name, value) = (&header.name, &header.value);
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty()
            || !name.bytes().all(token)
            || value.bytes().any(|byte| byte < b' ' || byte == 0x7f)
        {
            return Err(format!("the header {name:?}, which is none"));
        }
        headers.push((name.clone(), value.clone()));
    }
    let size = headers
        .iter()
        .fold(path.len(), |sum, (name, value)| sum.saturating_add(name.len()).saturating_add(value.len()));
    if headers.len() > MAX_HEADERS || size > MAX_REQUEST {
        return Err(format!("more than {MAX_HEADERS} headers or {MAX_REQUEST} bytes"));
    }
    let port = port(container, &get.port)?;
    Ok(Get { secure, host: text(&get.host), port, path, headers })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(more: Value) -> Container {
        let mut json =
            json!({"name": "c", "image": "i", "ports": [{"name": "admin", "containerPort": 9090}]});
        json.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        serde_json::from_value(json).unwrap()
    }

    fn probe(probe: Value) -> Result<Handler, String> {
        let container = container(json!({"livenessProbe": probe}));
        of_probe(&container, ProbeKind::Liveness.of(&container).unwrap())
    }

    #[test]
    fn handlers_are_read_and_what_is_wrong_is_named() {
        let get = |more: Value| {
            let mut get = json!({"port": 8080});
            get.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            probe(json!({"httpGet": get}))
        };
        let plain = |port, path: &str| {
            Handler::Get(Get { secure: false, host: None, port, path: path.into(), headers: vec![] })
        };
        assert_eq!(get(json!({})), Ok(plain(8080, "/")));
        assert_eq!(get(json!({"port": "admin", "path": "bye?now"})), Ok(plain(9090, "/bye?now")));
        let headers = json!([{"name": "X-A", "value": "b c"}]);
        let whole = Handler::Get(Get {
            secure: true,
            host: Some("10.0.0.9".into()),
            port: 80,
            path: "/".into(),
            headers: vec![("X-A".into(), "b c".into())],
        });
        let given = json!({"port": 80, "host": "10.0.0.9", "scheme": "HTTPS", "httpHeaders": headers});
        assert_eq!(get(given), Ok(whole));
        for (wrong, text) in [
            (json!({"port": "nowhere"}), "no number"),
            (json!({"port": 70000}), "no number"),
            (json!({"scheme": "GOPHER"}), "neither HTTP nor HTTPS"),
            (json!({"path": "/a b"}), "blanks"),
            (json!({"path": "/a\r\nX: y"}), "blanks"),
            (json!({"httpHeaders": [{"name": "A B", "value": ""}]}), "which is none"),
            (json!({"httpHeaders": [{"name": "A", "value": "b\r\nC: d"}]}), "which is none"),
            (json!({"path": format!("/{}", "x".repeat(MAX_REQUEST))}), "bytes"),
        ] {
            let error = get(wrong.clone()).unwrap_err();
            assert!(error.contains(text), "{wrong}: {error}");
        }
        for (given, expected) in [
            (json!({"exec": {"command": ["a", "b"]}}), Ok(Handler::Exec(vec!["a".into(), "b".into()]))),
            (json!({"tcpSocket": {"port": "admin"}}), Ok(Handler::Connect { host: None, port: 9090 })),
            (
                json!({"grpc": {"port": 50, "service": "s"}}),
                Ok(Handler::Grpc { port: 50, service: "s".into(), secure: false }),
            ),
            (json!({"exec": {"command": []}}), Err("a command that is empty")),
            (json!({"grpc": {"port": 0}}), Err("no number")),
            (json!({}), Err("no handler")),
        ] {
            match expected {
                Ok(handler) => assert_eq!(probe(given), Ok(handler)),
                Err(text) => assert!(probe(given).unwrap_err().contains(text), "{text}"),
            }
        }
    }

    #[test]
    fn problems_name_their_handler() {
        assert_eq!(problem(&container(json!({}))), None);
        let bad = json!({"httpGet": {"port": 0}});
        for (given, text) in [
            (json!({"readinessProbe": bad}), "a readiness probe with a port"),
            (json!({"lifecycle": {"postStart": bad}}), "a postStart hook with a port"),
            (json!({"lifecycle": {"preStop": {"tcpSocket": {"port": 1}}}}), "a preStop hook with no handler"),
        ] {
            assert!(problem(&container(given)).unwrap().starts_with(text), "{text}");
        }
        let sleeps = container(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 7}}}}));
        assert_eq!(pre_stop(&sleeps), Some(Handler::Sleep(Duration::from_secs(7))));
        assert_eq!(post_start(&sleeps), None);
    }

    #[test]
    fn thresholds_are_counted_in_a_row() {
        let rhythm = Rhythm::of(&Probe { success_threshold: Some(2), ..Probe::default() });
        assert_eq!(rhythm.period, Duration::from_secs(10));
        let mut tally = Tally::default();
        let said: Vec<_> = [true, true, false, false, true, false, false, false, false]
            .map(|well| tally.add(well, &rhythm))
            .into();
        let expected = [None, Some(true), None, None, None, None, None, Some(false), Some(false)];
        assert_eq!(said, expected);
    }
}
