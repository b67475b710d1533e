//! The one TOML reader, for board files: fields with one value or a list of texts each, no tables.
//!
//! `toml_parser` is the parser under the `toml` crate: its events are bounded by what is taken here, so
//! nothing nests, and a table is refused where it begins.

use toml_parser::decoder::{Encoding, IntegerRadix, ScalarKind};
use toml_parser::parser::{parse_document, EventReceiver};
use toml_parser::{ErrorSink, ParseError, Raw, Source, Span};

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number, in decimal digits.
    Number(String),
    /// A boolean.
    Switch(bool),
    /// A list of strings.
    List(Vec<String>),
}

impl Value {
    /// What it is, for a message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Number(_) => "a whole number",
            Value::Switch(_) => "true or false",
            Value::List(_) => "a list",
        }
    }
}

/// Reads the fields of a text, in their order.
///
/// # Errors
/// The line and what is wrong in it: no TOML, a table, a value of another kind, a field that stands there
/// twice.
pub fn parse(text: &str) -> Result<Vec<(String, Value)>, String> {
    let tokens = Source::new(text).lex().into_vec();
    let mut syntax: Option<ParseError> = None;
    let mut reader = Reader { source: Source::new(text), fields: Vec::new(), list: None, refused: None };
    parse_document(&tokens, &mut reader, &mut syntax);
    // What the parser recovers to after an error means nothing: the first problem is the one to tell.
    let syntax = syntax.map(|error| {
        let at = error.unexpected().or(error.context()).map_or(0, |span| span.start());
        (at, error.description().to_owned())
    });
    let first = [syntax, reader.refused].into_iter().flatten().min_by_key(|(at, _)| *at);
    match first {
        None => Ok(reader.fields),
        Some((at, problem)) => {
            let before = text.bytes().take(at).filter(|byte| *byte == b'\n').count();
            // One line for the user, whatever the text has in it.
            Err(format!("line {}: {}", before.saturating_add(1), problem.escape_debug()))
        }
    }
}

/// A value as it stands in a file.
#[must_use]
pub fn written(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Number(digits) => digits.clone(),
        Value::Switch(on) => on.to_string(),
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(|text| quoted(text)).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

struct Reader<'s> {
    source: Source<'s>,
    fields: Vec<(String, Value)>,
    /// The texts of a list that is not at its end.
    list: Option<Vec<String>>,
    /// The first thing that is TOML and not for us: where, and what.
    refused: Option<(usize, String)>,
}

impl<'s> Reader<'s> {
    fn refuse(&mut self, span: Span, problem: String) {
        self.refused.get_or_insert((span.start(), problem));
    }

    fn raw(&self, span: Span, encoding: Option<Encoding>) -> Raw<'s> {
        let text = self.source.input().get(span.start()..span.end()).unwrap_or_default();
        Raw::new_unchecked(text, encoding, span)
    }

    fn set(&mut self, value: Value) {
        if let Some((_, empty)) = self.fields.last_mut() {
            *empty = value;
        }
    }
}

const NO_TABLES: &str = "a table, and there are none: every field stands by itself";

impl EventReceiver for Reader<'_> {
    fn std_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.refuse(span, NO_TABLES.into());
    }

    fn array_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.refuse(span, NO_TABLES.into());
    }

    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.refuse(span, NO_TABLES.into());
        false
    }

    fn key_sep(&mut self, span: Span, _: &mut dyn ErrorSink) {
        self.refuse(span, NO_TABLES.into());
    }

    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        if self.list.is_some() {
            self.refuse(span, "a list within a list".into());
            return false;
        }
        self.list = Some(Vec::new());
        true
    }

    fn array_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        if let Some(list) = self.list.take() {
            self.set(Value::List(list));
        }
    }

    fn simple_key(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut name = String::new();
        self.raw(span, encoding).decode_key(&mut name, error);
        if self.fields.iter().any(|(other, _)| *other == name) {
            self.refuse(span, format!("{name} stands there twice"));
        }
        self.fields.push((name, Value::List(Vec::new())));
    }

    fn scalar(&mut self, span: Span, encoding: Option<Encoding>, error: &mut dyn ErrorSink) {
        let mut text = String::new();
        let kind = self.raw(span, encoding).decode_scalar(&mut text, error);
        match (&mut self.list, kind) {
            (Some(list), ScalarKind::String) => list.push(text),
            (Some(_), _) => self.refuse(span, format!("{text} in a list of strings: put it in quotes")),
            (None, ScalarKind::String) => self.set(Value::Text(text)),
            (None, ScalarKind::Boolean(on)) => self.set(Value::Switch(on)),
            (None, ScalarKind::Integer(IntegerRadix::Dec)) => self.set(Value::Number(text)),
            (None, ScalarKind::Integer(_)) => {
                self.refuse(span, format!("{text}: numbers are written in decimal digits here"));
            }
            (None, ScalarKind::Float | ScalarKind::DateTime) => {
                self.refuse(span, format!("{text}: neither a string nor a whole number"));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn takes_fields_of_every_kind() {
        let text = "# a board\nname = 'x' # here\nn = 1_000\n\"quoted\" = \"a\\tb\"\non = true\nnone = []\n\
                    list = [\n  \"a\", # first\n  'b',\n]\n";
        let expected = [
            ("name", Value::Text("x".into())),
            ("n", Value::Number("1000".into())),
            ("quoted", Value::Text("a\tb".into())),
            ("on", Value::Switch(true)),
            ("none", Value::List(vec![])),
            ("list", Value::List(vec!["a".into(), "b".into()])),
        ];
        let expected: Vec<(String, Value)> =
            expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for value in [
            Value::Text("a \"b\" \\u0041 c\n\t\u{7f} é".into()),
            Value::Number("12".into()),
            Value::Switch(false),
            Value::List(vec![]),
            Value::List(vec!["/dev/a b".into(), "'".into()]),
        ] {
            assert_eq!(parse(&format!("x = {}\n", written(&value))), Ok(vec![("x".into(), value)]));
        }
    }

    #[test]
    fn refuses_in_one_line_with_its_number() {
        for (text, problem) in [
            ("a = 1\n[t]\nb = 2\n", "line 2: a table"),
            ("[[t]]\n", "line 1: a table"),
            ("a = {b = 1}\n", "line 1: a table"),
            ("\n\na.b = 1\n", "line 3: a table"),
            ("a = [[1]]\n", "line 1: a list within a list"),
            ("a = [\n'x',\n2]\n", "line 3: 2 in a list of strings"),
            ("a = 1\na = 2\n", "line 2: a stands there twice"),
            ("a = 1.5\n", "line 1: 1.5: neither"),
            ("a = 0x10\n", "line 1: 10: numbers are written"),
            ("a = 1979-05-27\n", "line 1: 1979-05-27: neither"),
            ("a = \n", "line 1: "),
            ("a 1\n", "line 1: "),
            ("a = 'x\n", "line 1: "),
            ("a = yes\n", "line 1: "),
            ("a = 1 b = 2\n", "line 1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn hostile_texts_neither_nest_nor_panic() {
        for deep in ["[", "a = [", "a = {b = ", "a=[{", "a.", "\"", "'''", "a = \"\\u"] {
            assert!(parse(&deep.repeat(5000)).is_err(), "{deep}");
        }
        let mut random = fastrand::Rng::with_seed(7);
        let board =
            "description = \"a\\u00e9\"\ncompatible = ['x', \"y\"]\nmemory-reserved = 0x10\non = false\n";
        for _ in 0..20_000 {
            let mut bytes = board.as_bytes().to_vec();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(0..bytes.len());
                bytes[at] = *random.choice(b"=[]{}'\"\\.,#\n\r 0xu\x00\xff-_".as_slice()).unwrap();
            }
            // Whatever comes of it, it comes back.
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
