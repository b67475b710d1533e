//! The one YAML reader: for kubeconfig, configuration and manifests.
//!
//! It makes a [`serde_json::Value`], so that everything has one deserializer, the API's. Depth and
//! size are bounded; aliases are counted at full length, so that a small text cannot grow.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::TScalarStyle;

/// Nesting of collections. Pod manifests have about a dozen levels.
pub const MAX_DEPTH: usize = 64;
/// Scalars and collections in one text, aliases counted as what they stand for.
pub const MAX_NODES: usize = 100_000;

/// Why a text is not YAML that this reader takes.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// The text is not YAML.
    #[error("not valid YAML: {0}")]
    Syntax(#[from] yaml_rust2::ScanError),
    /// Deeper than [`MAX_DEPTH`].
    #[error("line {0}: nested deeper than {MAX_DEPTH} levels")]
    TooDeep(usize),
    /// More than [`MAX_NODES`].
    #[error("line {0}: more than {MAX_NODES} values")]
    TooLarge(usize),
    /// A mapping's key is itself a collection, or an alias names nothing.
    #[error("line {line}: {problem}")]
    Shape {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Another number of documents than one.
    #[error("{0} YAML documents where one belongs")]
    Documents(usize),
}

/// Reads the one document of a text.
///
/// # Errors
/// [`YamlError`].
pub fn parse(text: &str) -> Result<Value, YamlError> {
    let mut documents = parse_all(text)?;
    match (documents.pop(), documents.len()) {
        (None, _) => Ok(Value::Null),
        (Some(document), 0) => Ok(document),
        (Some(_), more) => Err(YamlError::Documents(more.saturating_add(1))),
    }
}

/// Reads the one document of a text as `T`, by the deserializer that everything else goes through: another
/// kind would be paid for in the binary with every type once more.
///
/// # Errors
/// What is wrong with the text, or with a field of `T`.
pub fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let value = parse(text).map_err(|error| error.to_string())?;
    serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())
}

/// Reads every document of a text; empty ones are left out.
///
/// # Errors
/// [`YamlError`].
pub fn parse_all(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut parser = Parser::new_from_str(text);
    let mut reader = Reader::default();
    loop {
        // Event by event: the library's own `load` recurses with the nesting of its input.
        let (event, marker) = parser.next_token()?;
        if event == Event::StreamEnd {
            return Ok(reader.documents);
        }
        reader.take(event, marker.line())?;
    }
}

/// A collection that is not at its end yet, and the anchor it was given.
enum Open {
    Sequence(Vec<Value>, usize),
    Mapping { map: Map<String, Value>, key: Option<String>, anchor: usize },
}

#[derive(Default)]
struct Reader {
    documents: Vec<Value>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

impl Reader {
    fn take(&mut self, event: Event, line: usize) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, line)?;
                let tag = tag.map(|tag| tag.suffix);
                self.place(scalar(text, style, tag.as_deref()), anchor, line)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::Sequence(Vec::new(), anchor), line),
            Event::MappingStart(anchor, _) => {
                self.begin(Open::Mapping { map: Map::new(), key: None, anchor }, line)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence(items, anchor)) => self.place(Value::Array(items), anchor, line),
                Some(Open::Mapping { map, anchor, .. }) => self.place(Value::Object(map), anchor, line),
                None => Err(YamlError::Shape { line, problem: "an end without a start" }),
            },
            Event::Alias(anchor) => {
                let (value, size) = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or(YamlError::Shape { line, problem: "an alias of something unfinished" })?;
                self.count(size, line)?;
                if self.open.len().saturating_add(depth(&value)) > MAX_DEPTH {
                    return Err(YamlError::TooDeep(line));
                }
                self.place(value, 0, line)
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(YamlError::TooLarge(line));
        }
        Ok(())
    }

    fn begin(&mut self, collection: Open, line: usize) -> Result<(), YamlError> {
        self.count(1, line)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::TooDeep(line));
        }
        self.open.push(collection);
        Ok(())
    }

    fn place(&mut self, value: Value, anchor: usize, line: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            let size = size(&value);
            // A remembered copy counts too.
            self.count(size, line)?;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        match self.open.last_mut() {
            None => {
                if !value.is_null() {
                    self.documents.push(value);
                }
            }
            Some(Open::Sequence(items, _)) => items.push(value),
            Some(Open::Mapping { map, key, .. }) => match (key.take(), value) {
                (Some(name), value) => {
                    if map.insert(name, value).is_some() {
                        return Err(YamlError::Shape { line, problem: "a key stands twice in a mapping" });
                    }
                }
                (None, Value::String(name)) => *key = Some(name),
                (None, Value::Null) => *key = Some("null".into()),
                (None, Value::Bool(name)) => *key = Some(name.to_string()),
                (None, Value::Number(name)) => *key = Some(name.to_string()),
                (None, _) => {
                    return Err(YamlError::Shape { line, problem: "a key that is not a scalar" });
                }
            },
        }
        Ok(())
    }
}

fn size(value: &Value) -> usize {
    // Values are at most MAX_DEPTH deep, so this recursion is too.
    match value {
        Value::Array(items) => items.iter().map(size).sum::<usize>().saturating_add(1),
        Value::Object(map) => map.values().map(size).sum::<usize>().saturating_add(1),
        _ => 1,
    }
}

/// Levels of collections.
fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => return 0,
    };
    below.unwrap_or(0).saturating_add(1)
}

/// YAML 1.2 core schema.
fn scalar(text: String, style: TScalarStyle, tag: Option<&str>) -> Value {
    if style != TScalarStyle::Plain || tag == Some("str") {
        return Value::String(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        let number = if let Some(hex) = digits.strip_prefix("0x") {
            i64::from_str_radix(hex, 16).ok().map(Number::from)
        } else if let Some(octal) = digits.strip_prefix("0o") {
            i64::from_str_radix(octal, 8).ok().map(Number::from)
        } else if let Ok(whole) = text.parse::<i64>() {
            Some(whole.into())
        } else if let Ok(whole) = text.parse::<u64>() {
            Some(whole.into())
        } else if text.bytes().all(|c| c.is_ascii_digit() || b"+-.eE".contains(&c)) {
            text.parse::<f64>().ok().and_then(Number::from_f64)
        } else {
            None
        };
        if let Some(number) = number {
            return Value::Number(number);
        }
    }
    Value::String(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_a_manifest_as_the_api_would_send_it() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: hello, labels: {a: '1'}}\nspec:\n  \
                    containers:\n  - name: c\n    image: x:v1\n    args: [\"yes\", 0x10, 1.5, -3, ~, true]\n    \
                    command:\n    - |\n      two\n      lines\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hello", "labels": {"a": "1"}},
                "spec": {"containers": [{"name": "c", "image": "x:v1",
                    "args": ["yes", 16, 1.5, -3, null, true], "command": ["two\nlines\n"]}]}})
        );
    }

    #[test]
    fn takes_several_documents_and_aliases() {
        let all = parse_all("--- &a {x: 1}\n---\n---\n- &b [1, 2]\n- *b\n").unwrap();
        assert_eq!(all, [json!({"x": 1}), json!([[1, 2], [1, 2]])]);
        assert!(matches!(parse("a\n---\nb\n"), Err(YamlError::Documents(2))));
        assert_eq!(parse("").unwrap(), Value::Null);
    }

    #[test]
    fn hostile_texts_are_refused_and_not_followed() {
        assert!(matches!(parse(&"[".repeat(MAX_DEPTH + 1)), Err(YamlError::TooDeep(_))));
        assert!(parse(&"[".repeat(100_000)).is_err());
        let mut bomb = String::from("- &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("- &a{level} [{before}]\n"));
        }
        assert!(matches!(parse(&bomb), Err(YamlError::TooLarge(_))));
        let (down, up) = ("[".repeat(40), "]".repeat(40));
        let deep = format!("- &a {down}{up}\n- &b {down}*a{up}\n");
        assert!(matches!(parse(&deep), Err(YamlError::TooDeep(_))));
        assert!(matches!(parse("a: 1\na: 2\n"), Err(YamlError::Shape { .. })));
        assert!(matches!(parse("{[1]: 2}"), Err(YamlError::Shape { .. })));
        assert!(matches!(parse("a: [1, 2\nb: }"), Err(YamlError::Syntax(_))));
        assert!(matches!(parse("&a [*a]"), Err(YamlError::Shape { .. })));
    }
}
