//! Root providers that need nobody: one contract over all of them, each in an unsealer's own process and confinement; and vaults whose
//! KEK they wrap, through outage, refusal, another root key and a move.

mod contract;
mod softhsm;
mod vaults;

use std::path::PathBuf;

use cardvault::supervisor::confine::Confinement;
use cardvault::wire::unsealer::ProviderSettings;

/// A root provider to test against, and what can happen to it.
trait Stand {
    /// Its word.
    fn name(&self) -> &'static str;
    /// What an unsealer is told of it.
    fn settings(&self) -> ProviderSettings;
    /// The files that are handed over with that.
    fn files(&self) -> Vec<PathBuf>;
    /// What the unsealer may reach.
    fn confinement(&self) -> Confinement;
    /// Its section of the configuration.
    fn section(&self) -> String;
    /// It cannot be reached, until [`back`](Self::back).
    fn away(&mut self);
    /// It will not give what it has, until [`back`](Self::back).
    fn refuse(&mut self);
    /// Another one of the same name is there, with other root keys, until [`back`](Self::back).
    fn exchange(&mut self);
    /// It is as it was.
    fn back(&mut self);
    /// How many root keys of any installation it has.
    fn root_keys(&self) -> usize;
}
