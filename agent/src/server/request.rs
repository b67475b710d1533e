//! What is asked for: path and query of a request, decoded once, so that authorization and routes
//! cannot see different paths.

use std::borrow::Cow;

/// The decoded path; nothing when its percent-encoding is broken or it is not UTF-8.
pub fn path(raw: &str) -> Option<Cow<'_, str>> {
    decode(raw, false)
}

/// The names and values of a query, decoded. Nothing when its encoding is broken.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query.
    pub fn parse(raw: &str) -> Option<Query> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name, true)?.into_owned(), decode(value, true)?.into_owned()))
        };
        raw.split('&').filter(|part| !part.is_empty()).map(pair).collect::<Option<_>>().map(Query)
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// As the API's conversion reads a bool: there, and neither `0` nor `false`.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

fn decode(raw: &str, plus_is_blank: bool) -> Option<Cow<'_, str>> {
    if !raw.contains(['%', '+']) {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?
            }
            b'+' if plus_is_blank => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_decoded_or_refused() {
        for (raw, decoded) in [
            ("/a/b", Some("/a/b")),
            ("/%70ods", Some("/pods")),
            ("/a%2Fb+c", Some("/a/b+c")),
            ("/%c3%a9", Some("/é")),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%+1", None),
            ("/%ff", None),
        ] {
            assert_eq!(path(raw).as_deref(), decoded, "{raw}");
        }
        let query = Query::parse("a=1&b&c=x+%26y&a=2&&d=False&e=0&f=").unwrap();
        assert_eq!(
            ["a", "b", "c", "z"].map(|name| query.get(name)),
            [Some("1"), Some(""), Some("x &y"), None]
        );
        let set = ["a", "b", "c", "d", "e", "f", "z"].map(|name| query.is_set(name));
        assert_eq!(set, [true, true, true, false, false, true, false]);
        assert!(Query::parse("a=%").is_none());
    }
}
