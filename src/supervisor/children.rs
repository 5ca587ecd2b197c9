//! The processes of the vault: how one is started, what it says, and that it ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::confine::{Confinement, Role};
use super::role;
use crate::wire::control::{FromCourierControl, FromEdge, FromForwarderControl, FromKeeperControl};
use crate::wire::frame::FrameError;
use crate::wire::pair;
use crate::wire::unsealer::FromUnsealer;

/// What a child said, or that it is gone.
#[derive(Debug)]
pub(super) enum Said {
    /// The edge.
    Edge(FromEdge),
    /// The keeper.
    Keeper(FromKeeperControl),
    /// The forwarder.
    Forwarder(FromForwarderControl),
    /// The courier.
    Courier(FromCourierControl),
    /// The unsealer.
    Unsealer(FromUnsealer),
    /// Its line ended.
    Gone,
}

impl Said {
    /// The edge's word, if it is one.
    pub(super) const fn edge(&self) -> Option<&FromEdge> {
        if let Self::Edge(said) = self { Some(said) } else { None }
    }

    /// The keeper's word, if it is one.
    pub(super) const fn keeper(&self) -> Option<&FromKeeperControl> {
        if let Self::Keeper(said) = self { Some(said) } else { None }
    }
}

/// A word from the child of this role and number.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) role: Role,
    pub(super) number: u64,
    pub(super) said: Said,
}

/// A running child. Dropping it kills it.
pub(super) struct Running {
    pub(super) number: u64,
    child: Child,
    line: UnixStream,
}

impl Running {
    /// Starts a role of this very binary, confined; what it says arrives at `words`.
    pub(super) fn start(
        number: u64,
        confinement: &Confinement,
        require_full: bool,
        words: mpsc::UnboundedSender<Word>,
    ) -> std::io::Result<Self> {
        let (ours, theirs) = pair::make_pair()?;
        let of = confinement.role;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("cardvault: {}", of.name())).arg("role").args(confinement.to_args());
        if require_full {
            command.arg("--require-full");
        }
        let child = command
            .env_clear()
            .env(role::ALLOCATOR.0, role::ALLOCATOR.1)
            .envs(confinement.environment.iter().cloned())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let reading = ours.try_clone()?;
        std::thread::spawn(move || match of {
            Role::Edge => listen(&reading, of, number, Said::Edge, &words),
            Role::Keeper => listen(&reading, of, number, Said::Keeper, &words),
            Role::Forwarder => listen(&reading, of, number, Said::Forwarder, &words),
            Role::Courier => listen(&reading, of, number, Said::Courier, &words),
            Role::Unsealer => listen(&reading, of, number, Said::Unsealer, &words),
        });
        Ok(Self { number, child, line: ours })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something.
    pub(super) fn tell<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<(), FrameError> {
        pair::send(&self.line, message, fds)
    }

    /// Tells it something that comes with one end of a pair.
    pub(super) fn hand<M: Serialize>(&self, message: &M, end: &UnixStream) -> Result<(), FrameError> {
        self.tell(message, &[end.as_fd()])
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen<M: DeserializeOwned>(
    line: &UnixStream,
    role: Role,
    number: u64,
    wrap: fn(M) -> Said,
    words: &mpsc::UnboundedSender<Word>,
) {
    while let Ok((message, _)) = pair::receive::<M>(line) {
        if words.send(Word { role, number, said: wrap(message) }).is_err() {
            return;
        }
    }
    let _ = words.send(Word { role, number, said: Said::Gone });
}
