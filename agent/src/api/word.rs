//! Texts that are nearly always one of a few.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The types and states of a pod's conditions, as nodes and schedulers write them; what every pod tolerates, and where
/// its token is mounted.
const KNOWN: [&str; 18] = [
    "True",
    "False",
    "Unknown",
    "Ready",
    "ContainersReady",
    "Initialized",
    "PodScheduled",
    "PodReadyToStartContainers",
    "DisruptionTarget",
    "Equal",
    "Exists",
    "NoExecute",
    "NoSchedule",
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "Disabled",
    "Enabled",
];

/// A text, which takes no memory of its own if it is one of those known: of a thousand pods each has a dozen.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Word(Cow<'static, str>);

impl From<&str> for Word {
    fn from(text: &str) -> Word {
        let known = KNOWN.into_iter().find(|known| *known == text);
        Word(known.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed))
    }
}

impl Deref for Word {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Word {
    fn from(text: String) -> Word {
        Word::from(text.as_str())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq<str> for Word {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word, D::Error> {
        Ok(Word::from(&*Cow::<'de, str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_borrowed_and_all_are_read_and_written() {
        for (text, borrowed) in [("Ready", true), ("True", true), ("example.com/gate", false), ("", false)] {
            let word: Word = serde_json::from_str(&format!("{text:?}")).unwrap();
            assert!(word == text);
            assert_eq!(matches!(word.0, Cow::Borrowed(_)), borrowed, "{text}");
            assert_eq!(serde_json::to_string(&word).unwrap(), format!("{text:?}"));
        }
    }
}
