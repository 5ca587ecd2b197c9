//! The directory of a demo: what it makes is kept there, so that it can be looked at.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::random;

/// Where a demo goes if nobody says: a disk rather than memory, where every user may make a directory.
const ROOMS: [&str; 3] = ["/var/tmp", "/tmp", "/dev/shm"];
/// The type of a file system that is memory (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The directory, and what is where in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
}

impl Place {
    /// The directory that was asked for, or a fresh one.
    pub(super) fn choose(asked: Option<&Path>) -> Result<Self, String> {
        if let Some(directory) = asked {
            let directory = std::path::absolute(directory)
                .map_err(|_| "the directory's name cannot be used".to_owned())?;
            let mut there = std::fs::read_dir(&directory).into_iter().flatten();
            if there.next().is_some() {
                return Err(format!("{} is not empty; name a new directory", directory.display()));
            }
            return Ok(Self { directory });
        }
        let word = random::make_bytes::<5>().map_err(|error| error.to_string())?;
        let word = data_encoding::BASE32_NOPAD.encode(&word).to_ascii_lowercase();
        let asked_for = std::env::temp_dir();
        let mut rooms: Vec<PathBuf> = ROOMS.iter().map(PathBuf::from).collect();
        rooms.insert(1, asked_for);
        rooms.retain(|room| room.is_dir() && can_be_passed(room));
        // A stable order: the first that is a disk, else the first.
        rooms.sort_by_key(|room| is_memory(room));
        for room in rooms {
            let directory = room.join(format!("cardvault-demo-{word}"));
            if std::fs::DirBuilder::new().mode(0o711).create(&directory).is_ok() {
                return Ok(Self { directory });
            }
        }
        Err("no directory for the demo could be made; name one with --directory".to_owned())
    }

    /// A path in it.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The same as text, for arguments.
    pub(super) fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }
}

/// A port that is free now. The sandbox's stands in the configuration before the sandbox runs.
pub(super) fn free_port() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("there is no free port: {}", error.kind()))
}

fn is_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|about| about.f_type == TMPFS_MAGIC)
}

/// Started as root, the edge has a uid of its own, which must get there.
fn can_be_passed(path: &Path) -> bool {
    let open = |above: &Path| std::fs::metadata(above).is_ok_and(|about| about.mode() & 0o001 != 0);
    path.canonicalize().is_ok_and(|real| real.ancestors().all(open))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_directory_is_made_where_all_may_pass() {
        let place = Place::choose(None).unwrap();
        assert!(can_be_passed(&place.directory));
        assert_ne!(
            place.directory,
            Place::choose(None)
                .map(|other| {
                    std::fs::remove_dir(&other.directory).unwrap();
                    other.directory
                })
                .unwrap()
        );
        std::fs::remove_dir(place.directory).unwrap();
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Place::choose(Some(directory.path())).unwrap().directory, directory.path());
        std::fs::write(directory.path().join("x"), "").unwrap();
        assert!(Place::choose(Some(directory.path())).unwrap_err().contains("is not empty"));
    }
}
