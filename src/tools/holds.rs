//! `cardvault holds`: what people do to legal holds over the administration socket.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::administer::report;
use super::signing;
use crate::supervisor::admin::AdminRequest;
use crate::wire::control::HoldOrder;

/// Verbs on legal holds.
#[derive(Debug, Subcommand)]
pub enum HoldsCommand {
    /// Release a legal hold of a card
    Release {
        /// The configuration file
        #[arg(long, default_value = "cardvault.toml")]
        config: PathBuf,
        /// The card: tok_…
        token: String,
        /// The tenant's name
        #[arg(long)]
        tenant: String,
        /// The hold's reference; the one without if none is given
        #[arg(long, default_value = "")]
        reference: String,
    },
}

/// Carries out a verb on legal holds.
pub fn run(signer: Option<&Path>, command: HoldsCommand) -> Result<(), String> {
    let HoldsCommand::Release { config, token, tenant, reference } = command;
    let order = HoldOrder { tenant, token, reference };
    report(signing::ask(&config, signer, vec![AdminRequest::HoldRelease(order)]))
}
