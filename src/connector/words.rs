//! Enums that a connector file writes as words: one list for reading, printing and "write one of".

use std::ops::Range;

use super::fault::{Faults, suggest};

/// An enum whose variants are written as words.
pub trait Word: Copy + PartialEq + 'static {
    /// The words, in the order of [`ALL`](Self::ALL).
    const TEXTS: &'static [&'static str];
    /// Every variant.
    const ALL: &'static [Self];

    /// The word of this variant.
    fn text(self) -> &'static str;

    /// The variant of a word; `None` for any other text.
    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.text() == text)
    }
}

/// Reads a word, or says which ones there are.
pub(super) fn read<W: Word>(what: &str, text: &str, at: &Range<usize>, faults: &mut Faults<'_>) -> Option<W> {
    let word = W::parse(text);
    if word.is_none() {
        faults.add(at, format!("`{what}` has an unknown word"), suggest(text, W::TEXTS.iter().copied()));
    }
    word
}

macro_rules! words {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$vdoc])* $variant),+ }

        impl $crate::connector::words::Word for $name {
            const TEXTS: &'static [&'static str] = &[$($text),+];
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str($crate::connector::words::Word::text(*self))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                $crate::connector::words::Word::parse(&text)
                    .ok_or_else(|| serde::de::Error::custom(concat!("not a word of ", stringify!($name))))
            }
        }
    };
}
pub(super) use words;
