//! The file provider of the root key, for development: the KEK in a file that only its owner reads.
//!
//! A line for each KEK, `key id ‖ blank ‖ 32 bytes in base64`; the first KEK of an installation stands without an id, as `init`
//! makes it. Two lines are there while a KEK takes over from another.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretSlice};
use zeroize::Zeroizing;

use crate::random;

/// The KEKs of the file.
pub(super) struct RootFile {
    keys: Vec<(Option<u32>, SecretSlice<u8>)>,
}

impl RootFile {
    /// Reads them.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("keys.root_key cannot be read: {}", error.kind());
        if std::fs::metadata(path).map_err(failed)?.mode() & 0o077 != 0 {
            return Err("keys.root_key: others may read this file; run chmod 600 on it".to_owned());
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
        let keys: Option<Vec<_>> =
            text.lines().filter(|line| !line.trim().is_empty()).map(read_line).collect();
        let keys = keys.filter(|keys| !keys.is_empty());
        keys.map(|keys| Self { keys })
            .ok_or_else(|| "keys.root_key: the file does not hold 32 bytes in base64".to_owned())
    }

    /// The KEK of this id and version.
    pub(super) fn kek(&self, id: u32, version: u32) -> Result<&SecretSlice<u8>, String> {
        let found = self.keys.iter().find(|(line, _)| is_of(*line, id, version)).map(|(_, key)| key);
        found.ok_or_else(|| {
            format!(
                "keys.root_key: the file has no key {id}, which the key store is wrapped under; restore it"
            )
        })
    }

    /// Makes a KEK beside those that are there.
    pub(super) fn make(&mut self, id: u32) -> Result<(), String> {
        let key = random::make_bytes::<32>().map_err(|error| error.to_string())?;
        self.keys.retain(|(line, _)| *line != Some(id));
        self.keys.push((Some(id), SecretSlice::from(key.to_vec())));
        Ok(())
    }

    /// Forgets all but this one.
    pub(super) fn keep_only(&mut self, id: u32, version: u32) {
        self.keys.retain(|(line, _)| is_of(*line, id, version));
    }

    /// Writes them, durably, in place of what is there.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let mut text = Zeroizing::new(String::with_capacity(self.keys.len() * 64));
        for (id, key) in &self.keys {
            if let Some(id) = id {
                text.push_str(&format!("{id} "));
            }
            text.push_str(&Zeroizing::new(BASE64.encode(key.expose_secret())));
            text.push('\n');
        }
        let write = || {
            let new = path.with_extension("new");
            clear(&new)?;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            let mut before = std::fs::OpenOptions::new().write(true).open(path)?;
            std::fs::rename(&new, path)?;
            path.parent().map_or(Ok(()), |directory| std::fs::File::open(directory)?.sync_all())?;
            // Only now: a crash between the two must find one whole file. What a disk keeps of it elsewhere is the disk's.
            let length = usize::try_from(before.metadata()?.len()).unwrap_or(0);
            before.write_all(&vec![0; length])?;
            before.sync_all()
        };
        write().map_err(|error: std::io::Error| format!("keys.root_key cannot be written: {}", error.kind()))
    }
}

/// The first KEK stands without an id.
fn is_of(line: Option<u32>, id: u32, version: u32) -> bool {
    line == Some(id) || (line.is_none() && version == 1)
}

/// Overwrites and removes what a write that was cut off has left.
fn clear(path: &Path) -> std::io::Result<()> {
    let Ok(mut left) = std::fs::OpenOptions::new().write(true).open(path) else { return Ok(()) };
    let length = usize::try_from(left.metadata()?.len()).unwrap_or(0);
    left.write_all(&vec![0; length])?;
    left.sync_all()?;
    std::fs::remove_file(path)
}

fn read_line(line: &str) -> Option<(Option<u32>, SecretSlice<u8>)> {
    let (id, key) = match line.trim().split_once(' ') {
        Some((id, key)) => (Some(id.parse().ok()?), key),
        None => (None, line.trim()),
    };
    let key = BASE64.decode(key.trim().as_bytes()).ok().filter(|key| key.len() == 32)?;
    Some((id, SecretSlice::from(key)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_kek_is_added_and_the_one_before_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        std::fs::write(&path, format!("{}\n", BASE64.encode(&[7; 32]))).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut file = RootFile::read(&path).unwrap();
        assert_eq!(file.kek(9, 1).unwrap().expose_secret(), [7; 32]);
        assert!(file.kek(12, 2).is_err());
        file.make(12).unwrap();
        file.write(&path).unwrap();
        let mut both = RootFile::read(&path).unwrap();
        let made = both.kek(12, 2).unwrap().expose_secret().to_vec();
        assert_eq!(both.kek(9, 1).unwrap().expose_secret(), [7; 32]);
        // Somebody who still has the file open reads zeros.
        let open = std::fs::File::open(&path).unwrap();
        both.keep_only(12, 2);
        both.write(&path).unwrap();
        let one = RootFile::read(&path).unwrap();
        assert_eq!(one.kek(12, 2).unwrap().expose_secret(), made);
        assert!(one.kek(9, 1).is_err());
        // The first is kept by its version, though it has no id.
        let mut first = RootFile {
            keys: vec![(None, SecretSlice::from(vec![7; 32])), (Some(12), SecretSlice::from(vec![8; 32]))],
        };
        first.keep_only(9, 1);
        assert_eq!(first.kek(9, 1).unwrap().expose_secret(), [7; 32]);
        assert!(first.kek(12, 2).is_err());
        let left = std::io::read_to_string(open).unwrap();
        assert!(left.bytes().all(|byte| byte == 0));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_key_or_is_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.key");
        for (text, mode) in [("", 0o600), ("x AAAA", 0o600), ("AAAA", 0o600)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(RootFile::read(&path).is_err());
        }
        std::fs::write(&path, BASE64.encode(&[7; 32])).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(RootFile::read(&path).is_err_and(|sentence| sentence.contains("chmod 600")));
    }
}
