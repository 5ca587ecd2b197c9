//! A vault without its KEK: the root provider is down or says no, or custodians have not come yet. No role holds a key then, and an edge
//! without database and keeper says why.

use std::os::fd::AsFd;
use std::time::Duration;

use super::children::{Running, Said};
use super::confine::{Confinement, Role};
use super::settings;
use super::vault::Vault;
use crate::wire::control::{FromEdge, SealedSettings, ToEdge};

/// An edge that says why nothing is served has nothing to finish.
const SEALED_END: Duration = Duration::from_secs(2);

impl Vault {
    /// Starts the edge that says why nothing is served, or tells it that there is another reason.
    pub(super) async fn say_sealed(&mut self) -> Result<(), String> {
        let reason = self.sealed.as_ref().map_or("", |sealed| sealed.fault.name()).to_owned();
        if let Some(edge) = self.edge.as_mut().filter(|_| self.edge_is_sealed)
            && !edge.has_ended()
        {
            return edge
                .tell(&ToEdge::Sealed(reason), &[])
                .map_err(|_| "the edge does not listen".to_owned());
        }
        let reload = settings::edge_reload(&self.config, self.key_store.tenants(), &[])?;
        let start = ToEdge::StartSealed(Box::new(SealedSettings {
            certificate_pem: reload.certificate_pem,
            key_pem: reload.key_pem,
            limits: self.config.limits.clone(),
            log: self.config.log.level.clone(),
            reason,
        }));
        let edge = self.spawn(&Confinement::sealed_edge())?;
        let fds = [self.listeners.0.as_fd(), self.listeners.1.as_fd()];
        edge.tell(&start, &fds).map_err(|_| "the edge does not listen".to_owned())?;
        (self.edge, self.edge_is_sealed) = (Some(edge), true);
        self.await_from(Role::Edge, |said| matches!(said, Said::Edge(FromEdge::Ready)).then_some(())).await
    }

    /// Ends the edge that says why nothing is served.
    pub(super) async fn end_sealed_edge(&mut self) {
        if !std::mem::take(&mut self.edge_is_sealed) {
            return;
        }
        if let Some(edge) = &self.edge {
            let _ = edge.tell(&ToEdge::Stop, &[]);
        }
        self.await_edge_end(SEALED_END).await;
        self.edge = None;
    }

    /// Waits for the end of an edge that was asked to stop; other words are heeded meanwhile.
    pub(super) async fn await_edge_end(&mut self, within: Duration) {
        let ended = tokio::time::timeout(within, async {
            while !self.edge.as_mut().is_none_or(Running::has_ended) {
                let word = tokio::time::timeout(Duration::from_millis(20), self.next_word()).await;
                if let Ok(Some(word)) = word {
                    let _ = self.heed(word);
                }
            }
        });
        let _ = ended.await;
    }
}
