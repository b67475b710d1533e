//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{self, Display, Write};
use std::time::Duration;

use jiff::Timestamp;

/// What a scraper is told that it is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family of metrics is.
#[derive(Clone, Copy)]
pub enum Kind {
    /// It only grows, until it begins anew at zero.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A value, in the unit that Prometheus has for its kind.
#[derive(Clone, Copy)]
pub enum Value {
    /// A number of things or bytes.
    Count(u64),
    /// A length of time, told in seconds.
    Time(Duration),
    /// A moment, told in seconds since 1970.
    At(Timestamp),
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => write!(f, "{count}"),
            Value::Time(time) => write!(f, "{}.{:09}", time.as_secs(), time.subsec_nanos()),
            Value::At(at) => {
                let ms = at.as_millisecond();
                write!(f, "{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
            }
        }
    }
}

/// The text as it grows.
pub struct Exposition {
    text: String,
    /// In milliseconds since 1970, after each value; none: the scraper's own clock counts.
    stamp: Option<i64>,
    name: &'static str,
    kind: Kind,
    help: &'static str,
    begun: bool,
}

impl Exposition {
    /// An empty one, each of whose samples says that it was taken at `stamp`.
    pub fn new(stamp: Option<Timestamp>) -> Exposition {
        Exposition {
            text: String::new(),
            stamp: stamp.map(Timestamp::as_millisecond),
            name: "",
            kind: Kind::Gauge,
            help: "",
            begun: false,
        }
    }

    /// Begins a family: what comes next is of it. One without samples is not mentioned.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> &mut Exposition {
        (self.name, self.kind, self.help, self.begun) = (name, kind, help, false);
        self
    }

    /// A value of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: Value) {
        // Writing to a String cannot fail.
        let _ = self.write(labels, value);
    }

    fn write(&mut self, labels: &[(&str, &str)], value: Value) -> fmt::Result {
        let name = self.name;
        if !std::mem::replace(&mut self.begun, true) {
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            write!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}\n", self.help)?;
        }
        self.text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            write!(self.text, "{label}=\"")?;
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        write!(self.text, " {value}")?;
        if let Some(stamp) = self.stamp {
            write!(self.text, " {stamp}")?;
        }
        self.text.push('\n');
        Ok(())
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }
}
