//! Lines between the processes of a vault, broken while both of their ends live.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, shutdown, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Vault;

impl Vault {
    /// Breaks the one line that a role has beside its own to the supervisor: the edge's (where there is no courier) and the forwarder's
    /// go to the keeper, the courier's to the edge. False where this test may not look into a process that gave up being looked into.
    pub(crate) fn break_line_of(&self, role: &str) -> bool {
        let Some(line) = self.line_of(role) else { return false };
        shutdown(&line, Shutdown::Both).unwrap();
        true
    }

    /// Its end of the line: a pair that the supervisor made, as its own line is, and not that one.
    fn line_of(&self, role: &str) -> Option<OwnedFd> {
        let pid = self.process(role);
        let own = fs::read_link(format!("/proc/{pid}/fd/0")).ok()?;
        let process = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
        let supervisor = self.supervisor().cast_signed();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
            let Ok(what) = fs::read_link(entry.path()) else { continue };
            if what == own || !what.to_string_lossy().starts_with("socket:") {
                continue;
            }
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let socket = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
                Ok(socket) => socket,
                // It was closed meanwhile: connections come and go.
                Err(Errno::BADF) => continue,
                Err(_) => return None,
            };
            let is_local = sockopt::socket_domain(&socket).unwrap() == AddressFamily::UNIX;
            let is_made =
                || sockopt::socket_peercred(&socket).unwrap().pid.as_raw_nonzero().get() == supervisor;
            // The other end of a line to a role that does not run is gone.
            let is_live = || {
                let mut now = [PollFd::new(&socket, PollFlags::empty())];
                poll(&mut now, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
                !now[0].revents().contains(PollFlags::HUP)
            };
            if is_local && is_made() && is_live() {
                return Some(socket);
            }
        }
        panic!("the {role} has no line");
    }
}
