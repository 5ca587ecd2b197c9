//! The file provider, for development: root keys in a file that only its owner reads.
//!
//! A line for each, `root-<key id> ‖ blank ‖ 32 bytes in base64`: each KEK has a root key of its own, so that a KEK is gone for good,
//! in every copy of the key store, when its line is. Versions before had the KEK itself there (`<key id> ‖ blank ‖ base64`, the first
//! one without an id); it is wrapped under a root key at the first start, and then its line goes as well.
//!
//! The file is an open descriptor: the supervisor opens it, the unsealer alone reads it. It is changed in place, by a line at its end
//! or blanks over a line, so that no copy is left elsewhere; a line that was cut off in the middle is no line.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::provider::{ClearKek, ProviderError, RootProvider, unwrap_under, wrap_under};
use crate::random;
use crate::wire::unsealer::{KekBinding, ProviderFault};

/// Far more lines than an installation ever has KEKs.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file of root keys.
pub struct FileProvider {
    file: File,
}

/// Whose key a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// The root key that wraps the KEK of this id.
    Root(u32),
    /// A KEK itself, of this id; the first has none.
    Kek(Option<u32>),
}

struct Line {
    holds: Holds,
    key: ClearKek,
    at: Range<usize>,
}

impl FileProvider {
    /// From the open file; one that others may read is refused.
    pub fn new(file: File) -> Result<Self, ProviderError> {
        if file.metadata().map_err(|error| unreadable(&error))?.mode() & 0o077 != 0 {
            let sentence = "keys.root_key: others may read this file; run chmod 600 on it";
            return Err(ProviderError::new(ProviderFault::Refused, sentence));
        }
        Ok(Self { file })
    }

    /// The KEK that a version before wrote into the file.
    pub fn kek_itself(&mut self, key: u32, version: u32) -> Result<ClearKek, ProviderError> {
        let is_it = |line: &Line| {
            line.holds == Holds::Kek(Some(key)) || (line.holds == Holds::Kek(None) && version == 1)
        };
        self.take(is_it)?.ok_or_else(|| missing(key))
    }

    fn take(&mut self, is_it: impl Fn(&Line) -> bool) -> Result<Option<ClearKek>, ProviderError> {
        Ok(self.lines()?.1.into_iter().rev().find(is_it).map(|line| line.key))
    }

    fn lines(&mut self) -> Result<(Zeroizing<String>, Vec<Line>), ProviderError> {
        let mut text = Zeroizing::new(String::new());
        self.file.seek(SeekFrom::Start(0)).map_err(|error| unreadable(&error))?;
        (&mut self.file)
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(&error))?;
        let mut at = 0;
        let mut lines = Vec::new();
        for line in text.split_inclusive('\n') {
            let range = at..at + line.trim_end_matches('\n').len();
            at += line.len();
            if let Some((holds, key)) = read_line(line) {
                lines.push(Line { holds, key, at: range });
            }
        }
        Ok((text, lines))
    }

    fn root_key(&mut self, key: u32) -> Result<Option<ClearKek>, ProviderError> {
        self.take(|line| line.holds == Holds::Root(key))
    }

    fn add_root_key(&mut self, key: u32) -> Result<ClearKek, ProviderError> {
        let (text, _) = self.lines()?;
        let root = random::make_bytes::<32>().map_err(ProviderError::no_randomness)?;
        let root: ClearKek = Box::new(Zeroizing::new(root));
        // What was cut off before must not run into this line.
        let begins = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let encoded = Zeroizing::new(BASE64.encode(root.as_slice()));
        let line = Zeroizing::new(format!("{begins}root-{key} {}\n", encoded.as_str()));
        self.write_at(text.len(), line.as_bytes())?;
        Ok(root)
    }

    fn write_at(&mut self, at: usize, bytes: &[u8]) -> Result<(), ProviderError> {
        let mut write = || {
            self.file.seek(SeekFrom::Start(at.try_into().unwrap_or(u64::MAX)))?;
            self.file.write_all(bytes)?;
            self.file.sync_all()
        };
        write().map_err(|error: std::io::Error| {
            let sentence = format!("keys.root_key cannot be written: {}", error.kind());
            ProviderError::new(ProviderFault::Unavailable, sentence)
        })
    }
}

impl RootProvider for FileProvider {
    fn wrap(&mut self, kek: &[u8; 32], binding: &KekBinding) -> Result<Vec<u8>, ProviderError> {
        // One that an attempt before left behind has wrapped nothing that anybody kept.
        let root = match self.root_key(binding.key)? {
            Some(root) => root,
            None => self.add_root_key(binding.key)?,
        };
        wrap_under(&root, kek, binding)
    }

    fn unwrap(&mut self, wrapped: &[u8], binding: &KekBinding) -> Result<ClearKek, ProviderError> {
        let root = self.root_key(binding.key)?.ok_or_else(|| missing(binding.key))?;
        unwrap_under(&root, wrapped, binding).ok_or_else(another)
    }

    /// One file is one installation's.
    fn destroy_all_but(&mut self, _: [u8; 16], keep: Option<u32>) -> Result<(), ProviderError> {
        let (_, lines) = self.lines()?;
        // A file without the root key in use would be the end of every card.
        if let Some(key) = keep.filter(|key| !lines.iter().any(|line| line.holds == Holds::Root(*key))) {
            return Err(missing(key));
        }
        for line in lines.into_iter().filter(|line| keep.map(Holds::Root) != Some(line.holds)) {
            self.write_at(line.at.start, &vec![b' '; line.at.len()])?;
        }
        Ok(())
    }
}

fn unreadable(error: &std::io::Error) -> ProviderError {
    let sentence = format!("keys.root_key cannot be read: {}", error.kind());
    ProviderError::new(ProviderFault::Unavailable, sentence)
}

fn missing(key: u32) -> ProviderError {
    let sentence = format!(
        "keys.root_key: the file has nothing for key {key}, which the key store is wrapped under; restore the root key, or restore \
         the key store that belongs to it"
    );
    ProviderError::new(ProviderFault::WrongKey, sentence)
}

/// The root key is not the one that wrapped this KEK, or the KEK is not of this place.
pub(super) fn another() -> ProviderError {
    let sentence = "keys.root_key: this is another key than the key store is wrapped under; restore the root key, or restore the \
                    key store that belongs to it";
    ProviderError::new(ProviderFault::WrongKey, sentence)
}

fn read_line(line: &str) -> Option<(Holds, ClearKek)> {
    let (holds, key) = match line.trim().split_once(' ') {
        Some((name, key)) => match name.strip_prefix("root-") {
            Some(id) => (Holds::Root(id.parse().ok()?), key),
            None => (Holds::Kek(Some(name.parse().ok()?)), key),
        },
        None => (Holds::Kek(None), line.trim()),
    };
    let bytes = Zeroizing::new(BASE64.decode(key.trim().as_bytes()).ok()?);
    Some((holds, Box::new(Zeroizing::new(bytes.as_slice().try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    const PLACE: KekBinding = KekBinding { environment: [1; 16], key: 9 };

    fn open(path: &Path) -> FileProvider {
        FileProvider::new(File::options().read(true).write(true).open(path).unwrap()).unwrap()
    }

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_kek_of_a_version_before_is_wrapped_and_its_line_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        write(&path, &BASE64.encode(&[7; 32]), 0o600);
        let mut file = open(&path);
        let kek = file.kek_itself(9, 1).unwrap();
        assert_eq!(kek.as_slice(), [7; 32]);
        assert!(file.kek_itself(9, 2).is_err());
        let wrapped = file.wrap(&kek, &PLACE).unwrap();
        // Until it is durable elsewhere both are there.
        assert!(file.kek_itself(9, 1).is_ok());
        assert_eq!(open(&path).unwrap(&wrapped, &PLACE).unwrap().as_slice(), [7; 32]);
        file.destroy_all_but(PLACE.environment, Some(PLACE.key)).unwrap();
        assert!(file.kek_itself(9, 1).is_err());
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&BASE64.encode(&[7; 32])));
        assert_eq!(open(&path).unwrap(&wrapped, &PLACE).unwrap().as_slice(), [7; 32]);
    }

    #[test]
    fn the_root_key_of_a_kek_that_was_taken_over_from_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        write(&path, &format!("4 {}\n", BASE64.encode(&[4; 32])), 0o600);
        let mut file = open(&path);
        let old = file.wrap(&[7; 32], &PLACE).unwrap();
        let next = KekBinding { key: 12, ..PLACE };
        assert!(file.destroy_all_but(next.environment, Some(next.key)).is_err(), "there is no key 12 yet");
        assert!(file.unwrap(&old, &PLACE).is_ok());
        let new = file.wrap(&[8; 32], &next).unwrap();
        // A write that was cut off in the middle.
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}root-13 AAAA")).unwrap();
        let third = KekBinding { key: 13, ..PLACE };
        let cut = open(&path).wrap(&[9; 32], &third).unwrap();
        assert_eq!(open(&path).unwrap(&cut, &third).unwrap().as_slice(), [9; 32]);
        file.destroy_all_but(next.environment, Some(next.key)).unwrap();
        assert_eq!(file.unwrap(&new, &next).unwrap().as_slice(), [8; 32]);
        for (wrapped, place) in [(&old, &PLACE), (&cut, &third)] {
            assert_eq!(file.unwrap(wrapped, place).unwrap_err().fault, ProviderFault::WrongKey);
        }
        assert!(!std::fs::read_to_string(&path).unwrap().contains("root-9"));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        write(&path, "", 0o640);
        let refused = FileProvider::new(File::open(&path).unwrap()).err().unwrap();
        assert!(refused.fault == ProviderFault::Refused && refused.sentence.contains("chmod 600"));
        for text in ["", "x AAAA", "AAAA", "root-x AAAA", "root-9 AAAA"] {
            write(&path, text, 0o600);
            let mut file = open(&path);
            assert!(file.kek_itself(9, 1).is_err());
            assert_eq!(file.unwrap(&[0; 60], &PLACE).unwrap_err().fault, ProviderFault::WrongKey);
        }
    }
}
