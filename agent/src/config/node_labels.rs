//! Labels and taints as the command line writes them, checked before the API server would refuse them.

/// Characters of a label's or taint's name and value (`k8s.io/apimachinery` `validation.IsQualifiedName`).
const MAX_NAME: usize = 63;
/// Characters of the part before the slash (a DNS subdomain).
const MAX_PREFIX: usize = 253;

/// Prefixes under `kubernetes.io` and `k8s.io` that a node may set on itself (admission plugin
/// `NodeRestriction`).
const OWN_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Single labels there that it may set.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
];

/// Reads `key=value`, refusing what `NodeRestriction` would refuse.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    check_key(key)?;
    check_value(value)?;
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    let within = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    let reserved = within("kubernetes.io") || within("k8s.io");
    if reserved && !OWN_LABELS.contains(&key) && !OWN_PREFIXES.iter().any(|domain| within(domain)) {
        return Err(format!(
            "a node may not set the label {key} on itself (the API server's NodeRestriction); set it from \
             outside: kubectl label node NODE {key}={value}"
        ));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads `key[=value]:effect`.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn parse_taint(text: &str) -> Result<(String, String, String), String> {
    let (rest, effect) = text.rsplit_once(':').ok_or("a taint is KEY=VALUE:EFFECT, the effect is missing")?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    check_key(key)?;
    check_value(value)?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!("the effect {effect:?} is none of NoSchedule, PreferNoSchedule, NoExecute"));
    }
    Ok((key.to_owned(), value.to_owned(), effect.to_owned()))
}

fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        let part = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.split('.').all(part) {
            return Err(format!("{prefix:?} before the slash is not a DNS subdomain"));
        }
    }
    if name.is_empty() {
        return Err("the key is missing".into());
    }
    check_value(name)
}

fn check_value(text: &str) -> Result<(), String> {
    let outer = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() > MAX_NAME
        || !outer(text.chars().next())
        || !outer(text.chars().last())
        || !text.chars().all(inner)
    {
        return Err(format!(
            "{text:?} is not a name of at most {MAX_NAME} letters, digits, '-', '_' and '.', beginning and \
             ending with a letter or digit"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_labels_that_node_restriction_takes_and_no_others() {
        for good in [
            "room=cellar",
            "kubernetes.io/os=linux",
            "example.com/a=b",
            "x.node.kubernetes.io/a=1",
            "node.kubernetes.io/b",
        ] {
            assert!(parse_label(good).is_ok(), "{good}");
        }
        for bad in [
            "node-role.kubernetes.io/agent=",
            "foo.k8s.io/a=b",
            "kubernetes.io/instance-type=x",
            "-a=b",
            "a=b c",
            "/a=b",
            "=x",
            "A.b/c=d",
        ] {
            assert!(parse_label(bad).is_err(), "{bad}");
        }
        assert!(parse_label(&format!("a={}", "x".repeat(64))).is_err());
    }

    #[test]
    fn reads_taints() {
        let taint = parse_taint("krustlet/arch=wasm32-wasi:NoExecute").unwrap();
        assert_eq!(taint, ("krustlet/arch".into(), "wasm32-wasi".into(), "NoExecute".into()));
        assert_eq!(parse_taint("a:NoSchedule").unwrap().1, "");
        for bad in ["a=b", "a=b:Never", ":NoExecute", "a=b:"] {
            assert!(parse_taint(bad).is_err(), "{bad}");
        }
    }
}
