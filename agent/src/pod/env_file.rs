//! Variables in files of a pod's own volume (`fileKeyRef`; `pkg/kubelet/util/env`, ParseEnv).
//!
//! `NAME='value'` lines: what stands between the quotes is the value, over as many lines as it likes; `#` begins a
//! comment, before a name or after a value. A blank between `=` and the quote makes the value empty.

use std::collections::BTreeMap;

/// Bytes of such a file that are read.
pub const MAX_FILE: usize = 64 * 1024;

/// What stands in the files that a container's variables come from, by volume and path; none: it cannot be read.
pub type EnvFiles = BTreeMap<(String, String), Option<String>>;

/// The value of a variable; empty: it has none. None: it is no such file.
#[must_use]
pub fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once('=')?;
        if name.is_empty() || name.ends_with([' ', '\t']) {
            return None;
        }
        if rest.starts_with([' ', '\t']) {
            if name == key {
                return Some(String::new());
            }
            continue;
        }
        let mut value = String::new();
        let mut part = rest.strip_prefix('\'')?;
        let after = loop {
            match part.split_once('\'') {
                Some((last, after)) => {
                    value.push_str(last);
                    break after.trim_start_matches([' ', '\t']);
                }
                None => {
                    value.push_str(part);
                    value.push('\n');
                    part = lines.next()?;
                }
            }
        };
        if !after.is_empty() && !after.starts_with('#') {
            return None;
        }
        if name == key {
            return Some(value);
        }
    }
    Some(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_variables() {
        let good = "# first\n\n  A='one' # a comment\nB='two\nlines'\nC= 'lost'\nD=''\n";
        for (key, expected) in [("A", "one"), ("B", "two\nlines"), ("C", ""), ("D", ""), ("E", "")] {
            assert_eq!(value(good, key).as_deref(), Some(expected), "{key}");
        }
        for bad in ["A", "=x", "A ='x'", "A=x", "A='x", "A='x' y", "A=\"x\""] {
            assert_eq!(value(bad, "Z"), None, "{bad}");
        }
        // What comes after it does not matter.
        assert_eq!(value("A='x'\nnonsense", "A").as_deref(), Some("x"));
    }
}
