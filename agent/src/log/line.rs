//! One entry of the CRI log format: `2016-10-06T00:17:09.669794202Z stdout F message`.
//!
//! `F` ends a line, `P` is a part of one (more of the same stream follows). Entries written here have
//! a fixed-width header, so that a tag can be found from an entry's start alone, and time stamps in
//! UTC, so that they compare as bytes.

use jiff::Timestamp;

use super::Stream;

/// Bytes of a time stamp: RFC 3339 in UTC with nine digits.
pub(super) const STAMP: usize = 30;
/// Bytes before an entry's content: stamp, stream (both names have six letters), tag and three blanks.
pub(super) const HEADER: usize = STAMP + 10;
/// The longest content of one entry: what containerd's CRI plugin splits at (`max_container_log_line_size`).
pub(super) const MAX_CONTENT: usize = 16 * 1024;
/// The longest entry, with its line feed.
pub(super) const MAX_ENTRY: usize = HEADER + MAX_CONTENT + 1;

/// An entry, without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub stamp: &'a [u8],
    pub partial: bool,
    pub content: &'a [u8],
}

/// The time as entries show it. Nothing when it is not between the years 0 and 9999.
pub(super) fn stamp(time: Timestamp) -> Option<String> {
    Some(format!("{time:.9}")).filter(|text| text.len() == STAMP)
}

/// Appends one entry with its line feed.
pub(super) fn push(to: &mut Vec<u8>, stamp: &str, stream: Stream, partial: bool, content: [&[u8]; 2]) {
    let [head, rest] = content;
    to.reserve(HEADER + head.len() + rest.len() + 1);
    to.extend_from_slice(stamp.as_bytes());
    to.extend_from_slice(match stream {
        Stream::Stdout => b" stdout ",
        Stream::Stderr => b" stderr ",
    });
    to.extend_from_slice(if partial { b"P " } else { b"F " });
    to.extend_from_slice(head);
    to.extend_from_slice(rest);
    to.push(b'\n');
}

/// Reads an entry; nothing when it is not one (torn by a power cut, or not written by this agent).
pub(super) fn parse(entry: &[u8]) -> Option<Entry<'_>> {
    let (stamp, rest) = entry.split_at_checked(STAMP)?;
    let shape = b"0000-00-00T00:00:00.000000000Z";
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    if !stamp.iter().zip(shape).all(fits) {
        return None;
    }
    let rest = rest.strip_prefix(b" stdout ").or_else(|| rest.strip_prefix(b" stderr "))?;
    let (partial, content) = match rest.strip_prefix(b"F ") {
        Some(content) => (false, content),
        None => (true, rest.strip_prefix(b"P ")?),
    };
    Some(Entry { stamp, partial, content })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_anything_else_is_refused() {
        let stamp = stamp(Timestamp::from_second(1).unwrap()).unwrap();
        assert_eq!(stamp, "1970-01-01T00:00:01.000000000Z");
        let mut entry = Vec::new();
        push(&mut entry, &stamp, Stream::Stderr, true, [b"a\xff", b" b"]);
        assert_eq!(entry, b"1970-01-01T00:00:01.000000000Z stderr P a\xff b\n");
        let read = parse(entry.strip_suffix(b"\n").unwrap());
        assert_eq!(read, Some(Entry { stamp: stamp.as_bytes(), partial: true, content: b"a\xff b" }));
        for bad in [
            "",
            "\0\0\0\0",
            "1970-01-01T00:00:01.000000000Z",
            "1970-01-01T00:00:01.000000000Z stdout F",
            "1970-01-01T00:00:01.000000000Z stdlog F x",
            "1970-01-01T00:00:01.000000000Z stdout X x",
            "1970-01-01T00:00:01.00000000xZ stdout F x",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
