//! The KEK moves from one root provider to another while the vault serves. The old one has to open it; the new one wraps the same KEK,
//! and has given it back once, before the key store says so in one write; then the old one destroys what it wrapped it with, where it
//! can. No card is sealed again, and no key is wrapped anew: for copies of the key store from before, rotate the KEK afterwards.
//!
//! And what the unsealer of an order is handed, and may reach.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use super::ceremony::told;
use super::confine::Confinement;
use super::gathering::Purpose;
use super::kek::Sealed;
use super::key_store::custody::CustodyState;
use super::settings;
use super::vault::Vault;
use crate::config::Environment;
use crate::roots::{RootProvider, https_port};
use crate::wire::unsealer::{Needed, Obtained, ProviderFault, ProviderSettings, ToUnsealer, UnsealOrder};

impl Vault {
    /// Moves the KEK to a provider that needs nobody; where custodians' shares wrap it, they are asked for first. What two persons approved
    /// may have been done before the supervisor could say so.
    pub(super) async fn move_root(
        &mut self,
        to: RootProvider,
        actor: &str,
        is_approved: bool,
    ) -> Result<String, String> {
        if to == RootProvider::File && self.config.environment == Environment::Production {
            return Err("production does not take the root key from a file".to_owned());
        }
        let settings = self.configured(to)?;
        let record = self.key_store.kek().cloned().ok_or("there is no KEK yet")?;
        match record.provider.as_deref() {
            Some(name) if name == to.name() && is_approved => return Ok(moved_to(to)),
            Some(name) if name == to.name() => return Err(format!("the KEK is wrapped by {name} already")),
            Some("shares") => return self.gather(Purpose::MoveRoot(to)).await,
            Some(_) | None => {}
        }
        let order =
            UnsealOrder { from: self.source(&record)?, wrap: Some((settings, self.binding(record.id))) };
        let obtained = self.unseal(order).await?;
        let moved = self.keep_moved(&obtained, to, actor).await;
        self.unsealer = None;
        moved
    }

    /// The new provider has wrapped the KEK, and the unsealer has both at hand.
    pub(super) async fn keep_moved(
        &mut self,
        obtained: &Obtained,
        to: RootProvider,
        actor: &str,
    ) -> Result<String, String> {
        let record = self.key_store.kek().ok_or("there is no KEK")?;
        let (id, from) = (record.id, record.provider.clone().unwrap_or_default());
        let ceremony = self.key_store.custody(CustodyState::Active).map(|custody| custody.ceremony.clone());
        let mut event = told("root.move", actor.to_owned(), ceremony.unwrap_or_default())?;
        event.fields = vec![format!("from={from}"), format!("to={}", to.name())];
        self.key_store
            .end_custody((id, &obtained.wrapped, to.name()), event)
            .map_err(|error| error.to_string())?;
        if let Err(left) = self.destroy(&ToUnsealer::DestroySource).await {
            return Ok(format!(
                "{}; what wrapped it at {from} is still there ({}): destroy it by hand",
                moved_to(to),
                left.sentence
            ));
        }
        Ok(moved_to(to))
    }
}

impl Vault {
    /// What the unsealer of an order may reach.
    pub(super) fn confined_for(&self, order: &UnsealOrder) -> Confinement {
        let keys = &self.config.keys;
        let mut confinement = Confinement::unsealer();
        for provider in order.providers() {
            match provider {
                ProviderSettings::Pkcs11(_) => {
                    if let Some(token) = &keys.pkcs11 {
                        let environment = token.environment.clone().into_iter().collect();
                        confinement = confinement.with_library(&token.module, &token.paths, environment);
                    }
                }
                ProviderSettings::Transit(engine) => {
                    confinement = confinement.with_host(https_port(&engine.url).unwrap_or(443));
                }
                ProviderSettings::AwsKms(kms) => {
                    let port = kms.endpoint.as_deref().map_or(Some(443), https_port);
                    confinement = confinement.with_host(port.unwrap_or(443));
                }
                ProviderSettings::File | ProviderSettings::Shares(_) | ProviderSettings::NewShares(_) => {}
            }
        }
        confinement
    }

    /// Opens a file that a provider reads; for writing only where something is to be written.
    pub(super) fn open_needed(&self, needed: Needed, order: &UnsealOrder) -> Result<File, Sealed> {
        let keys = &self.config.keys;
        let (name, path, writes) = match needed {
            Needed::RootKey => {
                let wraps = matches!(&order.wrap, Some((ProviderSettings::File, _)));
                let leaves = order.wrap.is_some() || self.old_keks().next().is_some();
                ("keys.root_key", keys.root_key.as_deref(), wraps || leaves)
            }
            Needed::Pin => ("keys.pkcs11.pin", keys.pkcs11.as_ref().map(|token| token.pin.as_path()), false),
            Needed::TransitToken => {
                ("keys.transit.token", keys.transit.as_ref().map(|engine| engine.token.as_path()), false)
            }
            Needed::TransitTrust => {
                let own = keys.transit.as_ref().and_then(|engine| engine.trust.as_deref());
                ("keys.transit.trust", own.or_else(settings::machine_trust), false)
            }
            Needed::AwsCredentials => (
                "keys.aws_kms.credentials",
                keys.aws_kms.as_ref().map(|kms| kms.credentials.as_path()),
                false,
            ),
            Needed::AwsTrust => {
                let own = keys.aws_kms.as_ref().and_then(|kms| kms.trust.as_deref());
                ("keys.aws_kms.trust", own.or_else(settings::machine_trust), false)
            }
        };
        let path = path.ok_or_else(|| {
            let sentence = format!("{name}: the root provider needs the path of this file");
            Sealed::new(ProviderFault::Refused, sentence)
        })?;
        let opened = File::options().read(true).write(writes).open(path).map_err(|error| {
            let sentence = format!("{name} cannot be opened: {}", error.kind());
            Sealed::new(ProviderFault::Unavailable, sentence)
        })?;
        if needed == Needed::Pin && self.pins.refused.is_some() && self.pins.refused == seen(&opened) {
            let sentence = "keys.pkcs11.pin: the token said no to what is in this file; it is tried again once the file has changed, as a \
                            token locks after a few wrong PINs";
            return Err(Sealed::new(ProviderFault::Refused, sentence));
        }
        Ok(opened)
    }

    /// Keeps in mind which PIN a token is given with these.
    pub(super) fn note_pin<'a>(&mut self, mut files: impl Iterator<Item = (Needed, &'a File)>) {
        let pin = files.find(|(needed, _)| *needed == Needed::Pin);
        self.pins.given = pin.and_then(|(_, file)| seen(file));
    }
}

/// What is remembered of PINs: of their files, not of what is in them.
#[derive(Default)]
pub(super) struct PinsSeen {
    /// The one that the last unsealer was given.
    given: Option<FileSeen>,
    /// The one that a token said no to.
    refused: Option<FileSeen>,
}

impl PinsSeen {
    /// An unsealer ended with this fault. What another provider refused says nothing of the PIN.
    pub(super) fn note(&mut self, fault: ProviderFault) {
        if fault == ProviderFault::PinRefused {
            self.refused = self.given.take();
        }
    }
}

/// A file as it is now: another content, or other rights, and it is another.
fn seen(file: &File) -> Option<FileSeen> {
    let meta = file.metadata().ok()?;
    Some(FileSeen { inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()), bytes: meta.len() })
}

/// A file, without what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileSeen {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
}

fn moved_to(to: RootProvider) -> String {
    let name = to.name();
    format!(
        "the KEK is wrapped by {name} now; set keys.provider = \"{name}\", and rotate the KEK: copies of the key store from before open \
         as they did until then"
    )
}
