//! A module in a file of this machine's, as an image: what `copepod run` is given.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::digest::{Algorithm, Hasher};
use super::error::PullCause;
use super::formats::{check_magic, MAGIC};
use super::pull::MAX_MODULE;
use super::Image;

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// The module in a file, under the digest that its content has. Blocks.
///
/// # Errors
/// Not a module, too large, or what the file system says.
pub fn local(path: &Path) -> Result<Image, PullCause> {
    let (mut file, mut hasher) =
        (File::open(path).map_err(PullCause::Store)?, Hasher::new(Algorithm::Sha256));
    let (mut head, mut size, mut chunk) = (Vec::new(), 0u64, vec![0; CHUNK]);
    loop {
        let read = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PullCause::Store(error)),
        };
        let data = chunk.get(..read).unwrap_or_default();
        head.extend(data.iter().take(MAGIC.saturating_sub(head.len())));
        size = size.saturating_add(read as u64);
        if size > MAX_MODULE {
            return Err(PullCause::TooLarge(format!("it is larger than {MAX_MODULE} bytes")));
        }
        hasher.update(data);
    }
    check_magic(&head).map_err(PullCause::Unrunnable)?;
    let digest = hasher.finish().to_string();
    Ok(Image {
        id: digest.clone(),
        module_digest: digest,
        module: path.to_owned(),
        size,
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_an_image_and_anything_else_is_refused() {
        let path = std::env::temp_dir().join(format!("copepod-local-{:x}", fastrand::u64(..)));
        std::fs::write(&path, b"\0asm\x01\0\0\0").unwrap();
        let image = local(&path).unwrap();
        assert_eq!((image.size, image.module.as_path()), (8, path.as_path()));
        assert!(image
            .module_digest
            .starts_with("sha256:93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476"));
        for (bytes, problem) in [
            (&b"\0asm\x0d\0\x01\0"[..], "component"),
            (b"#!/bin/sh\n", "not a WebAssembly module"),
            (b"", "not"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = local(&path).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(local(&path).is_err());
    }
}
