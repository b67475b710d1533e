//! `$(VAR)` in values, commands and arguments (`third_party/forked/golang/expansion`).

/// Expands `$(NAME)` through `value_of`; unknown names stay as they are, `$$` gives `$`, and a `$` before
/// anything else is itself. `None`: the result would be longer than `limit` bytes.
#[must_use]
pub fn expand<'v>(text: &str, limit: usize, value_of: impl Fn(&str) -> Option<&'v str>) -> Option<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        rest = after;
        if let Some(escaped) = after.strip_prefix('$') {
            result.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|open| open.split_once(')')) {
            match value_of(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = tail;
        } else {
            result.push('$');
        }
        if result.len() > limit {
            return None;
        }
    }
    result.push_str(rest);
    (result.len() <= limit).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_kubernetes() {
        let values = |name: &str| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            "REF" => Some("$(A)"),
            _ => None,
        };
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)z", "x1y1z"),
            ("$(EMPTY)", ""),
            ("$(REF)", "$(A)"),
            ("$(NO)", "$(NO)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$", "$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$(", "$("),
            ("$()", "$()"),
            ("$($(A))", "$($(A))"),
            ("é$(A)é", "é1é"),
            ("a$é", "a$é"),
        ] {
            assert_eq!(expand(text, 100, values).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_result_above_the_limit_is_refused() {
        let long = "x".repeat(50);
        let value = |_: &str| Some(long.as_str());
        assert!(expand("$(A)$(A)", 100, value).is_some());
        assert!(expand("$(A)$(A)$(A)", 100, value).is_none());
        assert!(expand(&"y".repeat(101), 100, value).is_none());
    }
}
