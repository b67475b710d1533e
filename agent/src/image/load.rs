//! Puts a module that is here already into the store, under a name of its own: what `copepod run` does
//! with a local file, so that everything after it is the way of any image.

use std::io::{self, Read};

use super::digest::Digest;
use super::error::{PullCause, PullError};
use super::formats::{check_magic, MAGIC};
use super::pull::MAX_MODULE;
use super::reference::Reference;
use super::store::{Record, Store};
use super::Image;

/// Reads a module and stores it as `reference`. Blocks.
///
/// # Errors
/// As a pull's: not a module, too large, or what the file system says.
pub fn load(store: &Store, reference: &Reference, module: impl Read) -> Result<Image, PullError> {
    let _alone = store.pulling();
    read(store, reference, module).map_err(|cause| PullError { image: reference.to_string(), cause })
}

fn read(store: &Store, reference: &Reference, module: impl Read) -> Result<Image, PullCause> {
    let mut data = Vec::new();
    module.take(MAX_MODULE.saturating_add(1)).read_to_end(&mut data).map_err(PullCause::Store)?;
    let size = data.len() as u64;
    if size > MAX_MODULE {
        return Err(PullCause::TooLarge(format!("the module is larger than {MAX_MODULE} bytes")));
    }
    check_magic(data.get(..MAGIC).unwrap_or(&data)).map_err(PullCause::Unrunnable)?;
    let digest = Digest::of(&data);
    if !store.has(&digest, size) {
        let mut ingest = store.ingest(size).map_err(PullCause::Store)?;
        ingest.append(&data).map_err(PullCause::Store)?;
        store.keep(ingest, &digest).map_err(PullCause::Store)?;
    }
    let record = Record {
        reference: reference.key(),
        // There is no manifest; the module's own digest names it as well.
        manifest: digest.to_string(),
        module: digest.to_string(),
        size,
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        private: false,
    };
    store.file(&record).map_err(PullCause::Store)?;
    let gone =
        || PullCause::Store(io::Error::new(io::ErrorKind::NotFound, "what was just stored is gone again"));
    store.find(reference).ok_or_else(gone)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_local_module_is_found_under_its_name_and_anything_else_is_refused() {
        let folder = std::env::temp_dir().join(format!("copepod-load-{:x}", fastrand::u64(..)));
        let store = Store::open(&folder).unwrap();
        let name: Reference = "localhost/hello:latest".parse().unwrap();
        let module = *b"\0asm\x01\0\0\0";
        let image = load(&store, &name, &module[..]).unwrap();
        assert_eq!(std::fs::read(&image.module).unwrap(), module);
        assert_eq!(store.find(&name).unwrap().module_digest, image.module_digest);
        for (bytes, problem) in [
            (&b"\0asm\x0d\0\x01\0"[..], "component"),
            (b"#!/bin/sh\n", "not a WebAssembly module"),
            (b"", "not"),
        ] {
            let error = load(&store, &name, bytes).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
