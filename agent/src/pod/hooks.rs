//! What a container wants done before it is stopped (`pkg/kubelet/lifecycle/handlers.go`). The hooks that this node
//! can give: a sleep, and a request by HTTP, of which any answer will do.

use std::time::Duration;

use serde_json::Value;

use crate::api::Container;

/// Headers of a request, and bytes of its path and headers together.
const MAX_HEADERS: usize = 64;
const MAX_REQUEST: usize = 16 * 1024;

/// A `preStop` hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `sleep`
    Sleep(Duration),
    /// `httpGet`
    Get {
        /// None: the pod's own address.
        host: Option<String>,
        /// TCP port.
        port: u16,
        /// With its query.
        path: String,
        /// Name and value.
        headers: Vec<(String, String)>,
    },
}

/// The `preStop` hook of a container, if it has one.
///
/// # Errors
/// What this node cannot give, or what is wrong with it.
pub fn pre_stop(container: &Container) -> Result<Option<Hook>, String> {
    let Some(lifecycle) = container.lifecycle.as_ref().and_then(Value::as_object) else { return Ok(None) };
    if lifecycle.get("postStart").is_some_and(|hook| !hook.is_null()) {
        return Err("a postStart hook, which this node cannot give yet".to_owned());
    }
    let Some(hook) = lifecycle.get("preStop").and_then(Value::as_object) else { return Ok(None) };
    if let Some(sleep) = hook.get("sleep") {
        let seconds = sleep.get("seconds").and_then(Value::as_u64).unwrap_or(0);
        return Ok(Some(Hook::Sleep(Duration::from_secs(seconds))));
    }
    match hook.get("httpGet") {
        Some(get) => request(container, get).map(Some),
        None => {
            Err("a preStop hook that is no sleep and no httpGet, which this node cannot give yet".to_owned())
        }
    }
}

fn request(container: &Container, get: &Value) -> Result<Hook, String> {
    let text = |key: &str| get.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if text("scheme").is_some_and(|scheme| scheme != "HTTP") {
        return Err("a preStop hook by HTTPS, which this node cannot give yet".to_owned());
    }
    let port = match get.get("port") {
        Some(Value::String(name)) => {
            let named = container.ports.iter().find(|port| port.name == *name);
            named.map(|port| i64::from(port.container_port)).or_else(|| name.parse().ok())
        }
        number => number.and_then(Value::as_i64),
    };
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let port = port.ok_or("a preStop hook whose port is none of its own and no number")?;
    let path = text("path").unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err("a preStop hook whose path has blanks or control characters".to_owned());
    }
    let given = get.get("httpHeaders").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut headers = Vec::new();
    for header in given {
        let part = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, value) = (part("name"), part("value"));
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty()
            || !name.bytes().all(token)
            || value.bytes().any(|byte| byte < b' ' || byte == 0x7f)
        {
            return Err(format!("a preStop hook with the header {name:?}, which is none"));
        }
        headers.push((name, value));
    }
    let size = headers
        .iter()
        .fold(path.len(), |sum, (name, value)| sum.saturating_add(name.len()).saturating_add(value.len()));
    if headers.len() > MAX_HEADERS || size > MAX_REQUEST {
        return Err(format!("a preStop hook of more than {MAX_HEADERS} headers or {MAX_REQUEST} bytes"));
    }
    Ok(Hook::Get { host: text("host").map(str::to_owned), port, path, headers })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(lifecycle: Value) -> Result<Option<Hook>, String> {
        let json = json!({"name": "c", "image": "i", "lifecycle": lifecycle,
            "ports": [{"name": "admin", "containerPort": 9090}]});
        pre_stop(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn hooks_are_read_and_what_cannot_be_given_is_named() {
        let get = |more: Value| {
            let mut get = json!({"port": 8080});
            get.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            parsed(json!({"preStop": {"httpGet": get}}))
        };
        let plain = |port, path: &str| Hook::Get { host: None, port, path: path.into(), headers: vec![] };
        assert_eq!(parsed(Value::Null), Ok(None));
        assert_eq!(parsed(json!({})), Ok(None));
        let sleep = Hook::Sleep(Duration::from_secs(7));
        assert_eq!(parsed(json!({"preStop": {"sleep": {"seconds": 7}}})), Ok(Some(sleep)));
        assert_eq!(get(json!({})), Ok(Some(plain(8080, "/"))));
        assert_eq!(get(json!({"port": "admin", "path": "bye?now"})), Ok(Some(plain(9090, "/bye?now"))));
        let headers = json!([{"name": "X-A", "value": "b c"}]);
        let whole = Hook::Get {
            host: Some("10.0.0.9".into()),
            port: 80,
            path: "/".into(),
            headers: vec![("X-A".into(), "b c".into())],
        };
        assert_eq!(get(json!({"port": 80, "host": "10.0.0.9", "httpHeaders": headers})), Ok(Some(whole)));
        for (wrong, text) in [
            (json!({"port": "nowhere"}), "no number"),
            (json!({"port": 70000}), "no number"),
            (json!({"scheme": "HTTPS"}), "by HTTPS"),
            (json!({"path": "/a b"}), "blanks"),
            (json!({"path": "/a\r\nX: y"}), "blanks"),
            (json!({"httpHeaders": [{"name": "A B", "value": ""}]}), "which is none"),
            (json!({"httpHeaders": [{"name": "A", "value": "b\r\nC: d"}]}), "which is none"),
            (json!({"path": format!("/{}", "x".repeat(MAX_REQUEST))}), "bytes"),
        ] {
            let error = get(wrong.clone()).unwrap_err();
            assert!(error.contains(text), "{wrong}: {error}");
        }
        for (lifecycle, text) in [
            (json!({"postStart": {"sleep": {"seconds": 1}}}), "postStart"),
            (json!({"preStop": {"exec": {"command": ["x"]}}}), "no sleep and no httpGet"),
            (json!({"preStop": {}}), "no sleep and no httpGet"),
        ] {
            let error = parsed(lifecycle.clone()).unwrap_err();
            assert!(error.contains(text), "{lifecycle}: {error}");
        }
    }
}
