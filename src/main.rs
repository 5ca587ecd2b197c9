//! The `cardvault` command: subcommands and wiring only.

use std::path::PathBuf;
use std::process::ExitCode;

use cardvault::config::Config;
use cardvault::edge::audit::export::Log;
use cardvault::edge::store::sqlite::OfflineLog;
use cardvault::supervisor::role::{self, RoleArgs};
use cardvault::supervisor::serve;
use cardvault::supervisor::setup::{self, InitArgs};
use cardvault::telemetry;
use cardvault::tools::administer::{self, PrincipalCommand, TenantCommand};
use cardvault::tools::charges::{self, ChargesCommand};
use cardvault::tools::holds::{self, HoldsCommand};
use cardvault::tools::keys::{self, KeysCommand};
use cardvault::tools::person::{self, PersonCommand};
use cardvault::tools::signing::{self, ApprovalsCommand};
use cardvault::tools::terminal::{complain, say};
use cardvault::tools::{audit, bench, codes, connector, demo, doctor, erase, invoices, sandbox};
use clap::{Parser, Subcommand};

// Every freed block is wiped: copies that hyper, serde and TLS make have no other owner who would.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

/// Keeps payment cards for a company that must not.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// The key file of the person who asks: what changes something is signed with it
    #[arg(long = "as", global = true, value_name = "KEYFILE")]
    signer: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a development installation in a new directory
    Init(InitArgs),
    /// Serve an installation until SIGTERM
    Serve {
        /// The configuration file
        #[arg(long)]
        config: PathBuf,
        /// Write the addresses of API and metrics here once they are served
        #[arg(long)]
        port_file: Option<PathBuf>,
        /// End when standard input closes: for a parent that may be killed
        #[arg(long)]
        until_stdin_closes: bool,
    },
    /// Read certificates, connectors and credentials again, as SIGHUP does
    Reload {
        /// The configuration file
        #[arg(long)]
        config: PathBuf,
    },
    /// Tenants: whose cards these are
    Tenant {
        /// The configuration file
        #[arg(long, global = true, default_value = "cardvault.toml")]
        config: PathBuf,
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Principals: who may call the API
    Principal {
        /// The configuration file
        #[arg(long, global = true, default_value = "cardvault.toml")]
        config: PathBuf,
        #[command(subcommand)]
        command: PrincipalCommand,
    },
    /// Keys: what there is, and how one takes over from another
    Keys {
        /// The configuration file
        #[arg(long, global = true, default_value = "cardvault.toml")]
        config: PathBuf,
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Persons: their keys, and whose signatures count
    Person {
        /// The configuration file
        #[arg(long, global = true, default_value = "cardvault.toml")]
        config: PathBuf,
        #[command(subcommand)]
        command: PersonCommand,
    },
    /// Charges: settle by hand what could not be found out
    #[command(subcommand)]
    Charges(ChargesCommand),
    /// Legal holds: release one
    #[command(subcommand)]
    Holds(HoldsCommand),
    /// Requests that wait for another person: show, approve, reject
    Approvals {
        /// The configuration file
        #[arg(long, global = true, default_value = "cardvault.toml")]
        config: PathBuf,
        #[command(subcommand)]
        command: ApprovalsCommand,
    },
    /// What protects each process right now, read from the kernel
    Doctor {
        /// The configuration file
        #[arg(long)]
        config: PathBuf,
    },
    /// A whole vault at work: stores cards, charges invoices, is killed in the middle, and proves what it did
    Demo(demo::Args),
    /// A payment processor to try everything against
    Sandbox(sandbox::Args),
    /// Check, render and map with the connector language
    #[command(subcommand)]
    Connector(connector::Command),
    /// What each code of a decline means for the next try, from the dated data
    Codes(codes::Args),
    /// The audit log: export and verify
    Audit(audit::AuditArgs),
    /// Erasures: verify a certificate
    #[command(subcommand)]
    Erase(erase::Command),
    /// Measure what the vault does a second, against a bare floor in the same run
    #[command(subcommand)]
    Bench(bench::Command),
    /// Invoices: charge those of a file, each once
    #[command(subcommand)]
    Invoices(invoices::Command),
    #[command(hide = true)]
    Role(RoleArgs),
}

fn main() -> ExitCode {
    let Cli { signer, command } = Cli::parse();
    let signer = signer.as_deref();
    match command {
        Command::Init(args) => end(setup::init(&args).map(|made| {
            say(&format!("made {}", made.config.display()));
            match made.credential {
                Some(credential) => {
                    say(&format!("first administrator's credential, shown once: {credential}"));
                }
                None => say(args.without_kek()),
            }
        })),
        Command::Serve { config, port_file, until_stdin_closes } => {
            telemetry::start("info");
            if until_stdin_closes {
                stop_with_stdin();
            }
            end(on_this_thread(serve::serve(&config, port_file.as_deref())))
        }
        Command::Reload { config } => end(signing::reload(&config, signer)),
        Command::Tenant { config, command } => end(administer::tenant(&config, signer, command)),
        Command::Principal { config, command } => end(administer::principal(&config, signer, command)),
        Command::Keys { config, command } => end(keys::run(&config, signer, command)),
        Command::Person { config, command } => end(person::run(&config, signer, command)),
        Command::Charges(command) => end(charges::run(signer, command)),
        Command::Holds(command) => end(holds::run(signer, command)),
        Command::Approvals { config, command } => end(signing::approvals(&config, signer, command)),
        Command::Doctor { config } => end(doctor::run(&config)),
        Command::Demo(args) => demo::run(&args),
        Command::Sandbox(args) => sandbox::run(args),
        Command::Connector(command) => connector::run(&command),
        Command::Codes(args) => codes::run(&args),
        Command::Audit(args) => ExitCode::from(audit::run(&args, &open_log)),
        Command::Erase(command) => ExitCode::from(erase::run(&command)),
        Command::Bench(command) => bench::run(&command),
        Command::Invoices(command) => invoices::run(&command),
        Command::Role(args) => end(role::run(&args)),
    }
}

fn open_log(source: &audit::Source) -> std::io::Result<Box<dyn Log>> {
    let path = match source {
        audit::Source::Config(path) => {
            Config::load(path).map_err(|_| std::io::ErrorKind::InvalidInput)?.store.directory
        }
        audit::Source::Database(path) => path.clone(),
    };
    Ok(Box::new(OfflineLog::open(&path)?))
}

/// Children die with the thread that started them, so the supervisor stays on the first one.
fn on_this_thread(future: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("no runtime could be made: {}", error.kind()))?.block_on(future)
}

/// Asks this process to stop, as SIGTERM does, when standard input closes.
fn stop_with_stdin() {
    // A thread, as a read of standard input cannot be given up; it goes with the process.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    });
}

fn end(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            complain(&format!("cardvault: {sentence}"));
            ExitCode::FAILURE
        }
    }
}
