//! The console's token: who holds it may see the console. It is in a file of the data folder that the agent's user
//! alone can read.

use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{digest, SHA256};
use rustix::rand::{getrandom, GetRandomFlags};

use crate::config::read_bounded;
use crate::durable;

/// Bytes of a token, before they are written in hexadecimal.
const BYTES: usize = 16;
/// Bytes of the file.
const MAX_FILE: u64 = 1024;

/// The token's digest: two are compared by it, and take as long whatever they are.
pub struct Token([u8; 32]);

/// Where the token is.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("console-token")
}

/// The token in the data folder.
///
/// # Errors
/// When there is none, or it may not be read.
pub fn read(data_dir: &Path) -> io::Result<String> {
    let path = path(data_dir);
    let text = read_bounded(&path, MAX_FILE)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let text = text.trim();
    if text.len() < BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{}: {BYTES} letters are the least for a token; remove it for another one",
                path.display()
            ),
        ));
    }
    Ok(text.to_owned())
}

impl Token {
    /// The token of the data folder, which is made when it is not there.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn of(data_dir: &Path) -> io::Result<Token> {
        let text = match read(data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; BYTES];
                getrandom(&mut bytes, GetRandomFlags::empty())?;
                let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                durable::write_atomic(&path(data_dir), format!("{text}\n").as_bytes(), 0o600)?;
                text
            }
            read => read?,
        };
        Ok(Token::new(&text))
    }

    fn new(text: &str) -> Token {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Token(bytes)
    }

    /// Is this it?
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        digest(&SHA256, given.as_bytes()).as_ref() == self.0
    }
}
