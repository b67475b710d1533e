//! How a registry wants to be logged in to: `WWW-Authenticate` (RFC 9110 11.6.1), the Distribution
//! project's token protocol, and its OAuth2 variant for identity tokens.

use serde::Deserialize;
use ureq::http::header::{ACCEPT, CONTENT_TYPE};
use ureq::http::{HeaderName, Method};

use super::credentials::Credential;
use super::error::RegistryError;
use super::http::{read_limited, Ask, Client, Payload, Reply};
use super::location::Location;

/// Challenges looked at, and parameters of each: real ones have one or two, and three or four.
const MAX_CHALLENGES: usize = 8;
const MAX_PARAMETERS: usize = 16;
/// Largest answer of a token service; AWS and Azure send some 3 kB.
const MAX_TOKEN_ANSWER: usize = 64 << 10;
/// Name under which tokens are asked for (OAuth2 `client_id`).
const CLIENT_ID: &str = "copepod";

/// What a registry answers to a request without, or with a wrong, authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// Reads the `WWW-Authenticate` headers of an answer. Schemes other than Basic and Bearer are left out.
pub(super) fn challenges(reply: &Reply) -> Vec<Challenge> {
    let headers = reply.headers().get_all("www-authenticate");
    headers.iter().filter_map(|value| value.to_str().ok()).take(MAX_CHALLENGES).flat_map(parse).collect()
}

/// Reads one header: `scheme name=value, name="value", scheme …`.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let length = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        if word.is_empty() || found.len() > MAX_CHALLENGES {
            break;
        }
        match after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            Some(value) => {
                let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = found.last_mut() {
                    if parameters.len() < MAX_PARAMETERS {
                        parameters.push((word.to_ascii_lowercase(), value));
                    }
                }
                rest = after;
            }
            None => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    found
        .into_iter()
        .take(MAX_CHALLENGES)
        .filter_map(|(scheme, parameters)| challenge(&scheme, parameters))
        .collect()
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let (mut realm, mut service, mut scope) = (String::new(), String::new(), String::new());
            for (name, value) in parameters {
                match name.as_str() {
                    "realm" => realm = value,
                    "service" => service = value,
                    "scope" => scope = value,
                    _ => {}
                }
            }
            Some(Challenge::Bearer { realm, service, scope })
        }
        _ => None,
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c)
}

/// A token or a quoted string, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, after) = text.split_at(length);
        return (value.to_owned(), after);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (index, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, quoted.get(index + 1..).unwrap_or_default()),
            c => value.push(c),
        }
    }
    (value, "")
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// What a token is asked for.
pub(super) struct TokenRequest<'a> {
    /// The token service, checked by the caller.
    pub(super) realm: &'a Location,
    pub(super) service: &'a str,
    pub(super) scopes: Vec<String>,
    pub(super) credential: Option<&'a Credential>,
}

/// Asks the token service of a registry for a bearer token.
pub(super) fn token(client: &mut Client, request: &TokenRequest<'_>) -> Result<String, RegistryError> {
    if let Some(Credential::Identity { token, .. }) = request.credential {
        if let Some(token) = by_refresh_token(client, request, token)? {
            return Ok(token);
        }
    }
    by_get(client, request)
}

/// OAuth2 (RFC 6749 section 6). None where the service does not know this method: Google's answers 404, others 405.
fn by_refresh_token(
    client: &mut Client,
    request: &TokenRequest<'_>,
    refresh_token: &str,
) -> Result<Option<String>, RegistryError> {
    let form = encode(&[
        ("grant_type", "refresh_token"),
        ("service", request.service),
        ("client_id", CLIENT_ID),
        ("scope", &request.scopes.join(" ")),
        ("refresh_token", refresh_token),
    ]);
    let ask = Ask {
        method: Method::POST,
        headers: vec![accept_json(), (CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned())],
        payload: Payload::Bytes(form.as_bytes()),
    };
    // Not followed anywhere: the body is the secret.
    let reply = client.send(&ask, request.realm, None).map_err(|e| e.explain(&ask.method, request.realm))?;
    match reply.status().as_u16() {
        404 | 405 => Ok(None),
        _ => answer(reply, &ask.method, request.realm).map(Some),
    }
}

/// The token protocol (distribution/distribution docs/spec/auth/token.md).
fn by_get(client: &mut Client, request: &TokenRequest<'_>) -> Result<String, RegistryError> {
    let mut to = request.realm.clone();
    if !request.service.is_empty() {
        to = to.with_query("service", &escape(request.service));
    }
    for scope in &request.scopes {
        to = to.with_query("scope", &escape(scope));
    }
    let basic = request.credential.and_then(Credential::basic);
    let ask = Ask::get(vec![accept_json()]);
    let (reply, at) = client.follow(&ask, &to, basic.as_deref())?;
    answer(reply, &ask.method, &at)
}

fn answer(reply: Reply, method: &Method, from: &Location) -> Result<String, RegistryError> {
    let status = reply.status();
    let failed = || {
        format!("failed to authorize: failed to fetch oauth token: unexpected status from {method} request to {from}: {status}")
    };
    match status.as_u16() {
        200..=299 => {}
        400 | 401 | 403 | 404 => return Err(RegistryError::Denied(failed())),
        429 | 500..=599 => return Err(RegistryError::Unavailable(failed())),
        _ => return Err(RegistryError::Protocol(failed())),
    }
    let unreadable =
        |why: &str| RegistryError::Protocol(format!("failed to authorize: the answer of {from} {why}"));
    let body =
        read_limited(reply, MAX_TOKEN_ANSWER).map_err(|e| unreadable(&format!("cannot be read: {e}")))?;
    let parsed: TokenAnswer =
        serde_json::from_slice(&body).map_err(|_| unreadable("is no JSON of a token"))?;
    let given = |token: Option<String>| token.filter(|t| !t.is_empty());
    given(parsed.token).or(given(parsed.access_token)).ok_or_else(|| unreadable("has no token"))
}

fn accept_json() -> (HeaderName, String) {
    (ACCEPT, "application/json".to_owned())
}

/// A form (application/x-www-form-urlencoded).
fn encode(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    fields.join("&")
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    "registry.docker.io",
                    "repository:library/a:pull",
                )],
            ),
            (
                r#"Bearer realm="https://r.io/t", scope="repository:a:pull,push repository:b:pull", error="insufficient_scope""#,
                vec![bearer("https://r.io/t", "", "repository:a:pull,push repository:b:pull")],
            ),
            ("bearer REALM=https://r.io/t,service=s", vec![bearer("https://r.io/t", "s", "")]),
            (r#"Bearer realm = "a\"b\\c" , service= "s""#, vec![bearer("a\"b\\c", "s", "")]),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (
                r#"Basic realm="a, Bearer b", Bearer realm="https://r.io/t""#,
                vec![Challenge::Basic, bearer("https://r.io/t", "", "")],
            ),
            (r#"Negotiate, Digest realm="x", qop="auth", Basic realm="y""#, vec![Challenge::Basic]),
            (r#"Bearer realm="unfinished"#, vec![bearer("unfinished", "", "")]),
            (r#"Bearer realm=""#, vec![bearer("", "", "")]),
            ("realm=\"x\"", vec![]),
            ("", vec![]),
            (", ,", vec![]),
            ("=,=", vec![]),
            ("\"", vec![]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
        assert_eq!(parse(&"Basic ".repeat(10_000)).len(), MAX_CHALLENGES);
    }

    #[test]
    fn what_goes_into_a_form_is_escaped() {
        assert_eq!(encode(&[("a", "x y&z=ü"), ("b", "-._~")]), "a=x%20y%26z%3D%C3%BC&b=-._~");
    }
}
