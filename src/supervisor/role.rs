//! The first steps of a child: confine, then run.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::confine::{self, Confinement, Role};
use crate::wire::control::ToEdge;
use crate::wire::pair;
use crate::{edge, forwarder, keeper, unsealer};

/// `cardvault role …`: what the supervisor starts; not for people.
#[derive(Debug, clap::Args)]
pub struct RoleArgs {
    #[command(flatten)]
    confinement: Confinement,
    /// Do not run unless the kernel enforces all of the confinement.
    #[arg(long)]
    require_full: bool,
}

/// How glibc, where it is glibc, shall allocate in a role: a request takes and gives back more small blocks at once than its
/// caches for each thread hold by default (seven of a size), and the lists of small blocks behind them are merged whenever a
/// large one is asked for, which each request does.
pub const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=64:glibc.malloc.mxfast=0");

/// Confines this process and runs the role until the supervisor's line ends.
pub fn run(args: &RoleArgs) -> Result<(), String> {
    quiet_panics();
    let confined = confine::enter(&args.confinement).map_err(|error| error.to_string())?;
    if args.require_full && !confined.landlock_full {
        return Err(
            "this kernel does not enforce all of Landlock (files, TCP, signals); use Linux 6.12 or later"
                .into(),
        );
    }
    let control = pair::from_stdin().map_err(|_| "there is no supervisor on standard input".to_owned())?;
    match args.confinement.role {
        Role::Edge => run_edge(control),
        Role::Keeper => keeper::run(control),
        Role::Forwarder => {
            crate::telemetry::start("info");
            forwarder::run(control)
        }
        Role::Courier => {
            crate::telemetry::start("info");
            forwarder::courier::run(control)
        }
        Role::Unsealer => {
            if args.confinement.finishes {
                unsealer::end_soon_after_parent();
            }
            unsealer::run(control)
        }
    }
}

fn run_edge(control: UnixStream) -> Result<(), String> {
    let (settings, fds) = match pair::receive::<ToEdge>(&control) {
        Ok((ToEdge::Start(settings), fds)) => (settings, fds),
        Ok((ToEdge::StartSealed(settings), fds)) => {
            let listeners: [OwnedFd; 2] =
                fds.try_into().map_err(|_| "the supervisor did not hand over listeners".to_owned())?;
            return edge::sealed::run(control, *settings, listeners.map(TcpListener::from));
        }
        Ok(_) | Err(_) => return Err("the supervisor did not say how to start".to_owned()),
    };
    let [api, metrics, keeper, courier]: [OwnedFd; 4] =
        fds.try_into().map_err(|_| "the supervisor did not hand over listeners and pairs".to_owned())?;
    edge::run(
        control,
        *settings,
        TcpListener::from(api),
        TcpListener::from(metrics),
        [UnixStream::from(keeper), UnixStream::from(courier)],
    )
}

/// A panic's message may hold a value: only its place is printed.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        crate::tools::terminal::complain(&format!(
            "{{\"level\":\"ERROR\",\"message\":\"a fault inside{place}\"}}"
        ));
    }));
}
