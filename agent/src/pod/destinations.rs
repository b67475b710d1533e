//! Where a pod's containers may connect to: nowhere, unless its annotation says so.

use crate::api::Pod;
use crate::runtime::destinations::{Destination, MAX_DESTINATIONS};

/// Annotation: destinations that the pod's guests may connect to, `broker.example:1883, 10.0.0.0/8:443`.
pub const CONNECT: &str = "copepod/connect";

/// The destinations of a pod's containers.
///
/// # Errors
/// What is wrong with the annotation.
pub fn destinations(pod: &Pod) -> Result<Vec<Destination>, String> {
    let Some(text) = pod.metadata.annotations.get(CONNECT) else { return Ok(Vec::new()) };
    let all = text.split(',').map(str::trim).map(|item| item.parse::<Destination>());
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if all.len() > MAX_DESTINATIONS {
        return Err(format!("it names {} destinations, and {MAX_DESTINATIONS} are allowed", all.len()));
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<usize, String> {
        let mut pod = Pod::default();
        pod.metadata.annotations.insert(CONNECT.to_owned(), text.to_owned());
        destinations(&pod).map(|all| all.len())
    }

    #[test]
    fn the_annotation_is_a_list_and_nothing_without_it() {
        assert_eq!(read("broker.test:1883, 10.0.0.0/8:*"), Ok(2));
        assert_eq!(destinations(&Pod::default()), Ok(Vec::new()));
        assert!(read("").is_err());
        assert!(read("a:1,,b:2").is_err());
        assert!(read("broker").unwrap_err().contains("\"broker\" is no destination"));
        assert!(read(&vec!["a:1"; 65].join(",")).unwrap_err().contains("65 destinations, and 64"));
    }
}
