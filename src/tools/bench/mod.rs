//! `cardvault bench`: what the vault does a second, through its TLS listener and with everything on, against a bare floor in the
//! same run.
//!
//! ```text
//! generator (this process, one thread) ──TLS──► serve: supervisor, edge, keeper, forwarder ──TLS──► sandbox
//!      └──────────── in turns ───────────TLS──► floor: the same listener around nothing
//! ```

mod connectors;
mod floor;
mod histogram;
mod installation;
mod load;
mod report;
mod rotate;
mod runs;
mod usage;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use self::floor::FloorArgs;
use self::installation::{Installation, Processor};
use self::load::{Load, Slice, Work};
use self::report::{Facts, Report, Side};
use self::usage::{Memory, Process};
use self::work::{Caller, Charges, Reads, Tokens};
use crate::tools::terminal::{complain, say};

/// Vault and floor take turns of this length.
const SLICE: Duration = Duration::from_secs(2);
/// Before anything counts, each gets this long.
const WARM_UP: Duration = Duration::from_millis(500);
/// Cards that reads go over.
const CARDS_READ: u64 = 20_000;
/// Beyond so many, cards are charged again.
const CARDS_CHARGED_MAX: u64 = 100_000;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Storing cards: durable before the answer
    Tokens(Options),
    /// Showing cards, masked and logged
    Reads(Options),
    /// Charging cards at the sandbox
    Charges(Options),
    /// An invoice run at the sandbox, its ledger compared at the end
    Run(runs::RunOptions),
    /// Sealing all cards again under another key
    Rotate(rotate::RotateOptions),
    /// Rendering a sale and mapping its answer, for each shipped connector; no vault is started
    Connectors(connectors::ConnectorOptions),
    /// What the others are compared with; not for people
    #[command(hide = true)]
    Floor(FloorArgs),
}

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Connections, each with one request in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4000))]
    connections: u16,
    /// Seconds of load on the vault; the floor gets as many. 0 measures nothing
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Milliseconds that the processor takes over a charge
    #[arg(long, default_value_t = 20)]
    processor_ms: u64,
    /// Print the figures as one JSON object on the last line
    #[arg(long)]
    json: bool,
    /// Stay up afterwards, for another load generator, until Ctrl-C
    #[arg(long)]
    hold: bool,
    /// A new directory to work in, which is kept; by default one that is removed
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Measures, and prints what came out. A run that is not valid still ends well: it says so.
pub fn run(command: &Command) -> ExitCode {
    let done = match command {
        Command::Floor(args) => floor::run(args),
        Command::Rotate(options) => rotate::measure(options),
        Command::Run(options) => runs::measure(options),
        Command::Connectors(options) => connectors::run(options),
        Command::Tokens(options) => measure(Operation::Tokens, options),
        Command::Reads(options) => measure(Operation::Reads, options),
        Command::Charges(options) => measure(Operation::Charges, options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            complain(&format!("cardvault bench: {sentence}"));
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Tokens,
    Reads,
    Charges,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Reads => "reads",
            Self::Charges => "charges",
        }
    }
}

fn measure(operation: Operation, options: &Options) -> Result<(), String> {
    let processor = Processor { takes_ms: options.processor_ms, may_keep_in_memory: true };
    let processor = (operation == Operation::Charges).then_some(processor);
    let installation = Installation::start(options.directory.as_deref(), processor)?;
    let report = (options.seconds > 0).then(|| Run::new(&installation, operation, options)?.measure());
    let report = report.transpose()?;
    if let Some(report) = &report {
        report.print();
    }
    if options.hold {
        hold(&installation)?;
    }
    installation.stop();
    if let Some(report) = report.filter(|_| options.json) {
        report.print_json();
    }
    Ok(())
}

/// Everything of one measurement.
struct Run<'a> {
    installation: &'a Installation,
    operation: Operation,
    options: &'a Options,
    vault: Load,
    floor: Load,
    /// The processes that are watched, the generator last, and whether each is the vault's.
    processes: Vec<(Process, bool)>,
}

impl<'a> Run<'a> {
    fn new(
        installation: &'a Installation,
        operation: Operation,
        options: &'a Options,
    ) -> Result<Self, String> {
        let connections = usize::from(options.connections);
        let ca_pem = &installation.ca_pem;
        let vault = Load::connect(installation.vault, ca_pem, connections)?;
        let floor = Load::connect(installation.floor, ca_pem, connections)?;
        let others = [installation.sandbox_process.clone(), Some(installation.floor_process.clone())];
        let generator = Process { name: "generator".to_owned(), pid: std::process::id() };
        let processes = installation
            .processes
            .iter()
            .map(|process| (process.clone(), true))
            .chain(others.into_iter().flatten().chain([generator]).map(|process| (process, false)))
            .collect();
        Ok(Self { installation, operation, options, vault, floor, processes })
    }

    fn caller(&self, run: &str) -> Caller {
        Caller { credential: self.installation.credential.clone(), run: run.to_owned() }
    }

    fn measure(mut self) -> Result<Report, String> {
        let fdatasync_ms = usage::fdatasync_ms(&self.installation.directory)
            .map_err(|error| format!("the disk cannot be timed: {}", error.kind()))?;
        let memory_at_start = self.memory();
        let (vault, floor, added) = match self.operation {
            Operation::Tokens => {
                let (mut work, mut plain) = (Tokens::new(self.caller("t")), Tokens::new(self.caller("f")));
                let (vault, floor) = self.take_turns(&mut work, &mut plain)?;
                (vault, floor, None)
            }
            Operation::Reads => {
                let tokens = self.store(CARDS_READ)?;
                let mut work = Reads::new(self.caller("r"), tokens.clone());
                let (vault, floor) = self.take_turns(&mut work, &mut Reads::new(self.caller("f"), tokens))?;
                (vault, floor, None)
            }
            Operation::Charges => {
                let tokens = self.store(self.charges_max())?;
                let mut work = Charges::new(self.caller("c"), tokens.clone());
                let (vault, floor) =
                    self.take_turns(&mut work, &mut Charges::new(self.caller("f"), tokens))?;
                (vault, floor, Some(work.added))
            }
        };
        let processes: Vec<_> =
            self.processes.iter().map(|(process, of_vault)| (process.name.clone(), *of_vault)).collect();
        Ok(Report::of(&Facts {
            op: self.operation.name(),
            connections: usize::from(self.options.connections),
            vault: &vault,
            floor: &floor,
            added: added.as_ref(),
            processes: &processes,
            memory: &self.memory(),
            memory_at_start: &memory_at_start,
            fdatasync_ms,
            ledger_in_memory: (self.operation == Operation::Charges)
                .then(|| self.installation.ledger_is_in_memory()),
        }))
    }

    /// Vault and floor in slices, one after the other.
    fn take_turns(&mut self, work: &mut dyn Work, plain: &mut dyn Work) -> Result<(Side, Side), String> {
        self.vault.run(work, WARM_UP, u64::MAX)?;
        self.floor.run(plain, WARM_UP, u64::MAX)?;
        work.measure();
        let (mut vault, mut floor) = (Side::default(), Side::default());
        let mut left = Duration::from_secs(self.options.seconds);
        while !left.is_zero() {
            let slice = left.min(SLICE);
            left -= slice;
            let (done, cpu) = self.watch(|run| run.vault.run(work, slice, u64::MAX))?;
            vault.add(done, &cpu);
            let (done, cpu) = self.watch(|run| run.floor.run(plain, slice, u64::MAX))?;
            floor.add(done, &cpu);
        }
        Ok((vault, floor))
    }

    /// Runs a slice; gives what each process used meanwhile.
    fn watch(
        &mut self,
        slice: impl FnOnce(&mut Self) -> Result<Slice, String>,
    ) -> Result<(Slice, Vec<Duration>), String> {
        let before = self.cpu();
        let done = slice(self)?;
        let used = self.cpu().iter().zip(before).map(|(now, then)| now.saturating_sub(then)).collect();
        Ok((done, used))
    }

    fn cpu(&self) -> Vec<Duration> {
        self.processes.iter().map(|(process, _)| usage::cpu_time(process.pid)).collect()
    }

    fn memory(&self) -> Vec<Memory> {
        self.processes.iter().map(|(process, _)| usage::memory(process.pid)).collect()
    }

    /// Stores cards for what needs some; gives their tokens.
    fn store(&mut self, cards: u64) -> Result<Vec<String>, String> {
        let mut work = Tokens::new(self.caller("s"));
        work.kept = Some(Vec::new());
        let done = self.vault.run(&mut work, Duration::MAX, cards)?;
        match done.first_failure {
            None => Ok(work.kept.unwrap_or_default()),
            Some(status) => Err(format!("cards could not be stored: the vault answered {status}")),
        }
    }

    /// As many cards as can be charged in the time.
    fn charges_max(&self) -> u64 {
        let options = self.options;
        let of_connection = (options.seconds + 1).saturating_mul(1_000 / options.processor_ms.max(1));
        of_connection.saturating_mul(options.connections.into()).clamp(1, CARDS_CHARGED_MAX)
    }
}

/// Tells another load generator what it needs, and stays until Ctrl-C.
fn hold(installation: &Installation) -> Result<(), String> {
    say(&format!("vault       https://{}", installation.vault));
    say(&format!("floor       https://{}", installation.floor));
    say(&format!("CA          {}", installation.directory.join("tls/ca.pem").display()));
    say(&format!("credential  {}", installation.credential));
    say("Ctrl-C ends it.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|_| "no runtime could be made".to_owned())?;
    runtime.block_on(tokio::signal::ctrl_c()).map_err(|_| "signals cannot be received".to_owned())
}
