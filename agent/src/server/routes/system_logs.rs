//! `/logs/`: the machine's own log files, as a kubelet hands out `/var/log` (`enableSystemLogHandler`).
//!
//! Nothing outside of the folder is reached, by whatever link; what is neither a file nor a folder is not opened.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use async_lock::SemaphoreGuardArc;
use bytes::Bytes;
use futures_lite::stream;
use http::{Response, StatusCode};
use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::control::blocking;
use crate::runtime::beneath::Beneath;
use crate::server::answer::{self, Body};
use crate::server::Server;

/// Names of a folder that are listed.
const MAX_NAMES: usize = 10_000;
/// Bytes that are read at a time.
const PIECE: usize = 32 * 1024;

enum Found {
    File(File),
    /// Names in order, those of folders with a slash at the end.
    Folder(Vec<String>),
}

pub(super) async fn get(server: &Server, path: &[&str], is_folder: bool) -> Response<Body> {
    let Some(root) = server.context.system_logs.clone() else {
        // What a kubelet answers where this is off.
        return answer::text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n");
    };
    let Some(turn) = server.log_streams.try_acquire_arc() else {
        return answer::text(StatusCode::TOO_MANY_REQUESTS, "too many logs are being read from this node");
    };
    let below = if path.is_empty() { ".".to_owned() } else { path.join("/") };
    match blocking(move || find(&root, &below)).await {
        Ok(Found::File(file)) => answer::stream(pieces(file, turn)),
        // Else the names of the list would lead elsewhere.
        Ok(Found::Folder(_)) if !is_folder => {
            let name = path.last().copied().unwrap_or_default();
            answer::moved(&format!("{name}/"))
        }
        Ok(Found::Folder(names)) => answer::typed(StatusCode::OK, "text/html; charset=utf-8", list(&names)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
        }
        Err(error) => answer::text(StatusCode::FORBIDDEN, format!("403 Forbidden: {error}\n")),
    }
}

fn find(root: &Path, path: &str) -> io::Result<Found> {
    let root = Beneath::of(root)?;
    // A FIFO must not be waited for, and a device not be touched: looked at before it is opened.
    let handle = root.handle(path)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    match kind {
        FileType::RegularFile => Ok(Found::File(root.open(path, flags, Mode::empty(), false)?.into())),
        FileType::Directory => {
            let folder = root.open(path, flags | OFlags::DIRECTORY, Mode::empty(), false)?;
            Ok(Found::Folder(names(Dir::new(folder)?)?))
        }
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is neither a file nor a folder")),
    }
}

fn names(folder: Dir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in folder {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if name == "." || name == ".." {
            continue;
        }
        if names.len() >= MAX_NAMES {
            return Err(io::Error::other(format!("it holds more than {MAX_NAMES} files")));
        }
        let slash = if entry.file_type() == FileType::Directory { "/" } else { "" };
        names.push(format!("{name}{slash}"));
    }
    names.sort_unstable();
    Ok(names)
}

/// The list of Go's http.FileServer.
fn list(names: &[String]) -> String {
    let mut html = String::from("<pre>\n");
    for name in names {
        html.push_str("<a href=\"");
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    html.push(char::from(byte));
                }
                other => {
                    let _ = write!(html, "%{other:02X}");
                }
            }
        }
        html.push_str("\">");
        for c in name.chars() {
            match c {
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '&' => html.push_str("&amp;"),
                '"' => html.push_str("&#34;"),
                other => html.push(other),
            }
        }
        html.push_str("</a>\n");
    }
    html.push_str("</pre>\n");
    html
}

/// The file, with its place among the streams held until the client has gone or everything is sent.
fn pieces(file: File, turn: SemaphoreGuardArc) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold((file, turn), |(mut file, turn)| async move {
        let (read, file) = blocking(move || {
            let mut piece = vec![0; PIECE];
            let read = file.read(&mut piece).map(|count| {
                piece.truncate(count);
                Bytes::from(piece)
            });
            (read, file)
        })
        .await;
        match read {
            Ok(piece) if piece.is_empty() => None,
            piece => Some((piece, (file, turn))),
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_outside_is_found_and_what_is_no_file_is_not_opened() {
        let folder = std::env::temp_dir().join(format!("copepod-system-logs-{:x}", fastrand::u64(..)));
        let root = folder.join("log");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(folder.join("secret"), "outside").unwrap();
        std::fs::write(root.join("sub/a log"), "inside").unwrap();
        symlink("sub/a log", root.join("inner")).unwrap();
        symlink("../secret", root.join("outer")).unwrap();
        symlink(folder.join("secret"), root.join("absolute")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), Mode::RWXU).unwrap();
        let read = |path: &str| match find(&root, path) {
            Ok(Found::File(mut file)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            }
            Ok(Found::Folder(names)) => names.join(" "),
            Err(error) => format!("{:?}", error.kind()),
        };
        assert_eq!(read("sub/a log"), "inside");
        assert_eq!(read("inner"), "inside");
        assert_eq!(read("."), "absolute fifo inner outer sub/");
        for path in ["outer", "absolute", "../secret", "sub/../../secret"] {
            assert!(!read(path).contains("outside") && read(path) != "NotFound", "{path}: {}", read(path));
        }
        assert_eq!(read("fifo"), "PermissionDenied");
        assert_eq!(read("none"), "NotFound");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_are_written_so_that_a_browser_reads_them_as_names() {
        let names = ["a b/".to_owned(), "<script>".to_owned(), "100%\"".to_owned()];
        assert_eq!(
            list(&names),
            "<pre>\n<a href=\"a%20b/\">a b/</a>\n<a href=\"%3Cscript%3E\">&lt;script&gt;</a>\n<a \
             href=\"100%25%22\">100%&#34;</a>\n</pre>\n"
        );
    }
}
