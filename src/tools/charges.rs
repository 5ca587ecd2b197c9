//! `cardvault charges`: what people do to charges over the administration socket.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::administer::report;
use super::signing;
use crate::supervisor::admin::AdminRequest;
use crate::wire::resolution::{Resolution, ResolveOrder, Word};

/// Verbs on charges.
#[derive(Debug, Subcommand)]
pub enum ChargesCommand {
    /// Settle a charge whose outcome could not be found out, by hand
    Resolve {
        /// The configuration file
        #[arg(long, default_value = "cardvault.toml")]
        config: PathBuf,
        /// The charge: ch_…
        charge: String,
        /// The tenant's name
        #[arg(long)]
        tenant: String,
        /// What became of it
        #[arg(long)]
        outcome: Outcome,
        /// How that is known
        #[arg(long)]
        reason: String,
        /// The processor's id of the payment
        #[arg(long)]
        processor_transaction_id: Option<String>,
        /// Which capture, refund or void it is about
        #[arg(long)]
        operation: Option<String>,
    },
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Outcome {
    /// It was done
    Approved,
    /// It was not, and will not be
    Declined,
    /// It was undone
    Voided,
}

/// Carries out a verb on charges.
pub fn run(signer: Option<&Path>, command: ChargesCommand) -> Result<(), String> {
    let ChargesCommand::Resolve {
        config,
        charge,
        tenant,
        outcome,
        reason,
        processor_transaction_id,
        operation,
    } = command;
    let outcome = match outcome {
        Outcome::Approved => Word::Approved,
        Outcome::Declined => Word::Declined,
        Outcome::Voided => Word::Voided,
    };
    let resolution = Resolution { outcome, reason, processor_transaction_id, operation };
    let order = ResolveOrder { tenant, charge, resolution };
    report(signing::ask(&config, signer, vec![AdminRequest::ChargeResolve(order)]))
}
