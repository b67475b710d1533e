//! The console's socket, and how a command asks it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use async_io::Async;

/// Its name in the data folder.
const SOCKET: &str = "console.sock";
/// How long an answer may take to begin.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer's head, and of what it says is wrong.
const MAX_HEAD: u64 = 16 * 1024;

/// Does something by a path to the socket that is short enough for one, however long the folder's is (unix(7): 107
/// bytes).
fn at<T>(data_dir: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = fs::File::open(data_dir)?;
    work(Path::new(&format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())))
}

/// Opens the socket. Nobody else has it: the data folder is locked.
///
/// # Errors
/// What the file system says, with the folder.
pub fn bind(data_dir: &Path) -> io::Result<Async<UnixListener>> {
    let bound = at(data_dir, |path| {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Async::<UnixListener>::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    bound
        .map_err(|error| io::Error::new(error.kind(), format!("{SOCKET} in {}: {error}", data_dir.display())))
}

/// Asks the agent whose data folder this is, and gives its answer to `out` as it comes.
///
/// # Errors
/// A text for the user: there is no agent, it may not be asked, or what it says.
pub fn ask(data_dir: &Path, path: &str, out: &mut impl Write) -> Result<(), String> {
    let stream = at(data_dir, |path| UnixStream::connect(path)).map_err(|error| {
        let at = data_dir.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("the agent of {at} may be asked by its own user and by root only (try sudo)")
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("no agent runs on {at}: is copepod started, and is this its --data-dir?")
            }
            _ => format!("asking the agent of {at}: {error}"),
        }
    })?;
    let failed = |error: io::Error| format!("asking the agent: {error}");
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    // Of 1.0: the answer ends with the connection, and is not in chunks.
    write!(&stream, "GET {path} HTTP/1.0\r\n\r\n").map_err(failed)?;
    let mut reader = BufReader::new(&stream);
    let mut head = reader.by_ref().take(MAX_HEAD);
    let mut status = String::new();
    head.read_line(&mut status).map_err(failed)?;
    let mut line = String::new();
    while head.read_line(&mut line).map_err(failed)? > 2 {
        line.clear();
    }
    if status.split(' ').nth(1) != Some("200") {
        let mut said = String::new();
        reader.take(MAX_HEAD).read_to_string(&mut said).map_err(failed)?;
        return Err(said.trim_end().to_owned());
    }
    // Whoever follows a log waits.
    stream.set_read_timeout(None).map_err(failed)?;
    let mut piece = vec![0; 8 * 1024];
    loop {
        let read = reader.read(&mut piece).map_err(failed)?;
        let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else { return Ok(()) };
        if out.write_all(piece).and_then(|()| out.flush()).is_err() {
            // Nobody reads on.
            return Ok(());
        }
    }
}
