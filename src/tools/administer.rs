//! `cardvault tenant` and `cardvault principal`: the verbs of an administrator, over the local socket or, where no vault runs,
//! under the installation's lock.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Subcommand;

use super::signing;
use super::terminal::say;
use crate::card::tenant::Mode;
use crate::clock::{Clock, SystemClock, Time};
use crate::supervisor::admin::AdminRequest;
use crate::wire::control::{AdminAnswer, PrincipalOrder};

/// Verbs on tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Make a tenant, with keys of its own
    Add {
        /// Its name
        name: String,
        /// Which numbers it may store
        #[arg(long, value_parser = ["test", "live"])]
        mode: String,
    },
    /// List tenants
    List,
    /// Switch a tenant off
    Disable {
        /// Its name
        name: String,
    },
}

/// Verbs on principals.
#[derive(Debug, Subcommand)]
pub enum PrincipalCommand {
    /// Make a principal; its credential is shown once
    Add {
        /// Its name
        name: String,
        /// Its tenant; none for administrators and assessors
        #[arg(long)]
        tenant: Option<String>,
        /// What it may do, such as tokens:create; give it more than once
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// It is a person, not an application
        #[arg(long)]
        person: bool,
        /// Days until it may do nothing
        #[arg(long)]
        expires_days: Option<u32>,
        /// The largest charge, such as USD=500000 (minor units); give it more than once. With any limit, a currency without one is
        /// refused
        #[arg(long = "charge-max", value_parser = money)]
        charge_max: Vec<(String, i64)>,
        /// The sum of charges a day (UTC), such as USD=10000000 (minor units); give it more than once. With any limit, a currency
        /// without one is refused
        #[arg(long = "day-max", value_parser = money)]
        day_max: Vec<(String, i64)>,
        /// A destination that it may send cards to, if not all of its tenant's; give it more than once
        #[arg(long = "destination")]
        destinations: Vec<String>,
    },
    /// List principals
    List,
    /// Switch a principal off
    Disable {
        /// Its name or id
        principal: String,
    },
    /// Give a principal a new credential
    Rotate {
        /// Its name or id
        principal: String,
        /// Hours for which the old credential stays good
        #[arg(long, default_value_t = 24)]
        overlap_hours: u32,
    },
}

/// Carries out a verb on tenants.
pub fn tenant(config: &Path, signer: Option<&Path>, command: TenantCommand) -> Result<(), String> {
    let request = match command {
        TenantCommand::Add { name, mode } => {
            AdminRequest::TenantAdd { name, mode: if mode == "live" { Mode::Live } else { Mode::Test } }
        }
        TenantCommand::List => AdminRequest::TenantList,
        TenantCommand::Disable { name } => AdminRequest::TenantDisable { name },
    };
    report(signing::ask(config, signer, vec![request]))
}

/// Carries out a verb on principals.
pub fn principal(config: &Path, signer: Option<&Path>, command: PrincipalCommand) -> Result<(), String> {
    match command {
        PrincipalCommand::Add {
            name,
            tenant,
            scopes,
            person,
            expires_days,
            charge_max,
            day_max,
            destinations,
        } => {
            let order = PrincipalOrder {
                name,
                person,
                tenant,
                scopes,
                expires_at: expires_days.map(in_days),
                charge_max: charge_max.into_iter().collect::<BTreeMap<_, _>>(),
                day_max: day_max.into_iter().collect::<BTreeMap<_, _>>(),
                destinations,
            };
            let plain = AdminRequest::PrincipalAdd(order.clone());
            signing::ask_credential(config, signer, plain, |credential_sha256| AdminRequest::PrincipalGrant {
                order,
                credential_sha256,
            })
        }
        PrincipalCommand::List => report(signing::ask(config, signer, vec![AdminRequest::PrincipalList])),
        PrincipalCommand::Disable { principal } => {
            report(signing::ask(config, signer, vec![AdminRequest::PrincipalDisable { principal }]))
        }
        PrincipalCommand::Rotate { principal, overlap_hours } => {
            let overlap_seconds = u64::from(overlap_hours) * 3600;
            let plain = AdminRequest::PrincipalRotate { principal: principal.clone(), overlap_seconds };
            signing::ask_credential(config, signer, plain, |credential_sha256| {
                AdminRequest::PrincipalRegrant { principal, overlap_seconds, credential_sha256 }
            })
        }
    }
}

/// Prints answers for a person; a refusal is the error.
pub fn report(answers: Result<Vec<AdminAnswer>, String>) -> Result<(), String> {
    for answer in answers? {
        match answer {
            AdminAnswer::Done(sentence) => say(&sentence),
            AdminAnswer::Credential { principal, credential } => {
                say(&format!("{principal}\ncredential, shown once: {credential}"));
            }
            AdminAnswer::Table(rows) => say(&table(&rows)),
            AdminAnswer::Refused(sentence) => return Err(sentence),
        }
    }
    Ok(())
}

fn table(rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let mut rows = rows.iter();
    if let Some(head) = rows.next() {
        table.set_header(head);
    }
    table.add_rows(rows);
    table.to_string()
}

fn in_days(days: u32) -> Time {
    SystemClock.now().plus_seconds(i64::from(days) * 86_400)
}

fn money(text: &str) -> Result<(String, i64), String> {
    let help = || "write CURRENCY=AMOUNT, the amount in minor units, such as USD=500000".to_owned();
    let (currency, amount) = text.split_once('=').ok_or_else(help)?;
    let fits = currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase());
    let amount = amount.parse().ok().filter(|amount: &i64| *amount > 0 && fits).ok_or_else(help)?;
    Ok((currency.to_owned(), amount))
}
