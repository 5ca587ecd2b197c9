//! Storing a card: sealed by the keeper under a token that is proposed here, deduplicated and claimed by the store's writer.

use super::{Card, Error, POLICY, TRIES_MAX, Vault};
use crate::card::expiry::Expiry;
use crate::card::fingerprint::Fingerprint;
use crate::card::id::{FingerprintId, Token};
use crate::card::sealed::{SealedCard, SealedField};
use crate::card::tenant::TenantId;
use crate::edge::audit::catalogue;
use crate::edge::audit::event::EventDraft;
use crate::edge::directory::Caller;
use crate::edge::keeper::KeeperError;
use crate::edge::store::{
    CardRow, CardStatus, Change, CommitError, Idempotency, OnDuplicate, RowChange, StoreError, StoredAnswer,
    StoredIdempotency,
};
use crate::wire::keeper::{CompareZip, Digest, Digested, RefusalCode, Seal, SealAs, Sealed};

const ROUTE: &str = "POST /v1/tokens";

/// A card that was stored, or found.
#[derive(Clone, Debug)]
pub struct Created {
    /// The card.
    pub card: Card,
    /// 201 for a new one, 200 for one that was there.
    pub status: u16,
    /// What of the submitted card differs from the one that was there.
    pub differs: Option<Vec<&'static str>>,
    /// Whether this was answered before.
    pub replayed: bool,
}

/// What a submitted card was sealed into; the parts that a new card must have.
struct Fresh<'a> {
    body: &'a [u8],
    card: SealedCard,
    shown_expiry: Expiry,
    fingerprint: Fingerprint,
    digests: Digested,
    on_duplicate: OnDuplicate,
    rest: Box<Sealed>,
}

/// What the caller sent.
struct Asked<'a> {
    tenant: TenantId,
    key: &'a str,
    body: &'a [u8],
}

impl Asked<'_> {
    fn seal(&self, seal_as: SealAs, token: Token, policy: u32, versions: [u32; 3]) -> Box<Seal> {
        Box::new(Seal {
            seal_as,
            tenant: self.tenant,
            token,
            policy,
            versions,
            route: ROUTE.to_owned(),
            idempotency_key: Some(self.key.to_owned()),
            allow_expired: false,
            body: self.body.to_vec(),
        })
    }
}

impl Vault {
    /// Stores a card. The body goes to the keeper unopened.
    ///
    /// What is rare is boxed: a future is as large as its largest branch, and every request would carry, move and wipe that.
    pub async fn create(&self, caller: &Caller, key: &str, body: &[u8]) -> Result<Created, Error> {
        let token = Token::make(self.clock.now())?;
        let asked = Asked { tenant: caller.tenant_id(), key, body };
        let sealed = match self.keeper.seal(asked.seal(SealAs::Create, token, POLICY, [0; 3])).await {
            Ok(sealed) => sealed,
            Err(error) => Box::pin(self.seal_expired(&asked, token, error)).await?,
        };
        let mut fresh = Fresh::read(body, sealed)?;
        match self.insert(caller, token, &mut fresh).await {
            Ok(card) => Ok(Created { card, status: 201, differs: None, replayed: false }),
            Err(error) => Box::pin(self.settle(caller, &asked, token, (fresh, error))).await,
        }
    }

    /// Seals a card that has expired, if it is sent again: it may have expired since, and the answer stays what it was.
    async fn seal_expired(
        &self,
        asked: &Asked<'_>,
        token: Token,
        error: KeeperError,
    ) -> Result<Box<Sealed>, Error> {
        if !is_expired(&error) || !self.was_answered(asked).await? {
            return Err(error.into());
        }
        let seal = asked.seal(SealAs::Create, token, POLICY, [0; 3]);
        Ok(self.keeper.seal(Box::new(Seal { allow_expired: true, ..*seal })).await?)
    }

    /// What to do about a card that could not be inserted.
    async fn settle(
        &self,
        caller: &Caller,
        asked: &Asked<'_>,
        token: Token,
        (mut fresh, mut error): (Fresh<'_>, CommitError),
    ) -> Result<Created, Error> {
        for _ in 0..TRIES_MAX {
            let existing = match error {
                CommitError::KeyTaken(stored) => return self.replay(caller, &fresh, *stored).await,
                CommitError::DuplicateCard { token } => Some(token),
                CommitError::FingerprintStale => None,
                CommitError::Conflict
                | CommitError::NotFound
                | CommitError::InvoiceTaken { .. }
                | CommitError::InvoiceInRun { .. }
                | CommitError::TooMany
                | CommitError::Unavailable(_) => return Err(error.into()),
            };
            if existing.is_none() {
                let seal = asked.seal(SealAs::Create, token, POLICY, [0; 3]);
                fresh = Fresh::read(asked.body, self.keeper.seal(seal).await?)?;
            }
            if let Some(existing) = existing
                && let Ok(row) = self.changeable_row(asked.tenant, existing).await
            {
                let settled = match fresh.on_duplicate {
                    OnDuplicate::New | OnDuplicate::ReturnExisting => {
                        self.return_existing(caller, &fresh, row).await
                    }
                    OnDuplicate::UpdateExisting => {
                        let policy = row.sealed.as_ref().map_or(POLICY, |sealed| sealed.policy);
                        let seal = asked.seal(SealAs::Merge, existing, policy, versions_of(&row));
                        let merged = self.keeper.seal(seal).await?;
                        self.update_existing(caller, &fresh, *merged, row).await
                    }
                };
                match settled {
                    Err(Error::Commit(CommitError::KeyTaken(stored))) => {
                        return self.replay(caller, &fresh, *stored).await;
                    }
                    Err(Error::Commit(CommitError::Conflict | CommitError::NotFound)) => {}
                    settled => return settled,
                }
            }
            error = match self.insert(caller, token, &mut fresh).await {
                Ok(card) => return Ok(Created { card, status: 201, differs: None, replayed: false }),
                Err(error) => error,
            };
        }
        Err(CommitError::Conflict.into())
    }

    /// Whether a request with this key was answered.
    async fn was_answered(&self, asked: &Asked<'_>) -> Result<bool, Error> {
        // Only the key's hash is wanted.
        let digest = Digest {
            tenant: asked.tenant,
            route: ROUTE.to_owned(),
            idempotency_key: asked.key.to_owned(),
            body: Vec::new(),
        };
        let digests = self.keeper.digest(digest).await?;
        Ok(self.store.idempotency(asked.tenant, ROUTE, &digests.key).await?.is_some())
    }

    /// Commits the new card with its event and the claim on the key.
    async fn insert(
        &self,
        caller: &Caller,
        token: Token,
        fresh: &mut Fresh<'_>,
    ) -> Result<Card, CommitError> {
        let (change, mut card) = self.insertion(caller, token, fresh)?;
        let committed = self.store.commit(change).await?;
        if let Some(kept) = committed.fingerprint {
            card.fingerprint = kept;
        }
        Ok(*card)
    }

    /// The change that inserts a card, and what may be shown of it.
    fn insertion(
        &self,
        caller: &Caller,
        token: Token,
        fresh: &Fresh<'_>,
    ) -> Result<(Change, Box<Card>), CommitError> {
        let unavailable = |_| CommitError::Unavailable("randomness");
        let now = self.clock.now();
        let row = Box::new(CardRow {
            token,
            tenant: caller.tenant_id(),
            customer: fresh.rest.customer.clone(),
            metadata: fresh.rest.metadata.clone().unwrap_or_default(),
            shown: fresh.rest.shown.clone(),
            fingerprint: FingerprintId::make(now).map_err(unavailable)?,
            sealed: Some(fresh.card.clone()),
            version: 1,
            status: CardStatus::Active,
            legal_hold: false,
            erase_asked: false,
            number_by_updater: false,
            created_at: now,
            updated_at: now,
            erased_at: None,
            scrubbed_at: None,
        });
        let mut event = self
            .row_event(caller, catalogue::CARD_CREATE, &row)
            .map_err(|_| CommitError::Unavailable("randomness"))?;
        event.facts.customer = fresh.rest.customer_pseudonym.clone();
        let card = Box::new(Card::shown_of(&row, fresh.shown_expiry));
        let insert = RowChange::InsertCard {
            card: row,
            fingerprint: fresh.fingerprint.clone(),
            on_duplicate: fresh.on_duplicate,
        };
        let answer = StoredAnswer::Card { token, version: 1, status: 201 };
        Ok((fresh.change(caller.tenant_id(), vec![insert], vec![event], token, answer), card))
    }

    /// Answers with the card that is there, unchanged, and says what differs.
    async fn return_existing(
        &self,
        caller: &Caller,
        fresh: &Fresh<'_>,
        row: CardRow,
    ) -> Result<Created, Error> {
        let (token, version) = (row.token, row.version);
        let event = self.read_event(caller, token, version)?;
        let (card, differs) = self.show_beside(caller, fresh, row).await?;
        let answer = StoredAnswer::Card { token, version, status: 200 };
        let change = fresh.change(caller.tenant_id(), Vec::new(), vec![event], token, answer);
        self.store.commit(change).await?;
        Ok(Created { card, status: 200, differs: Some(differs), replayed: false })
    }

    /// What may be shown of a row, and what of the submitted card differs from it.
    async fn show_beside(
        &self,
        caller: &Caller,
        fresh: &Fresh<'_>,
        row: CardRow,
    ) -> Result<(Card, Vec<&'static str>), Error> {
        let other_zip = self.is_other_zip(caller, fresh, &row).await?;
        let card = self.show(caller, row).await?;
        let other_expiry = fresh.shown_expiry != card.expiry;
        let differs = [(other_expiry, "expiry"), (other_zip, "zip")];
        Ok((card, differs.into_iter().filter_map(|(other, name)| other.then_some(name)).collect()))
    }

    /// Two zips only the keeper can compare; one that was given where none is, or the reverse, does differ.
    async fn is_other_zip(&self, caller: &Caller, fresh: &Fresh<'_>, row: &CardRow) -> Result<bool, Error> {
        let sealed = row.sealed.as_ref().ok_or(StoreError::Corrupt("a live card without sealed fields"))?;
        let (Some(zip), Some(_)) = (&sealed.zip, &fresh.card.zip) else {
            return Ok(sealed.zip.is_some() != fresh.card.zip.is_some());
        };
        let compare = CompareZip {
            tenant: row.tenant,
            token: row.token,
            policy: sealed.policy,
            sealed: zip.clone(),
            body: fresh.body.to_vec(),
        };
        match self.keeper.compare_zip(Box::new(compare)).await {
            Ok(equal) => Ok(!equal),
            Err(error) => Err(self.unopened(caller, row, error)?),
        }
    }

    /// Gives the card that is there the expiry and zip of the submitted one.
    async fn update_existing(
        &self,
        caller: &Caller,
        fresh: &Fresh<'_>,
        merged: Sealed,
        mut row: CardRow,
    ) -> Result<Created, Error> {
        let expiry = merged.shown_expiry.ok_or(KeeperError::Confused)?;
        let mut fields = vec!["expiry".to_owned()];
        if let Some(sealed) = &mut row.sealed {
            sealed.expiry = merged.expiry.ok_or(KeeperError::Confused)?;
            if let Some(zip) = merged.zip {
                sealed.zip = Some(zip);
                fields.push("zip".to_owned());
            }
        }
        row.version += 1;
        row.updated_at = self.clock.now();
        let mut event = self.row_event(caller, catalogue::CARD_UPDATE, &row)?;
        event.facts.fields = fields;
        event.facts.customer = merged.customer_pseudonym;
        let card = Card::shown_of(&row, expiry);
        let answer = StoredAnswer::Card { token: row.token, version: row.version, status: 200 };
        let update = RowChange::UpdateCard { card: Box::new(row), fingerprint: None };
        let change = fresh.change(caller.tenant_id(), vec![update], vec![event], card.token, answer);
        self.store.commit(change).await?;
        Ok(Created { card, status: 200, differs: None, replayed: false })
    }

    /// Answers again what was answered, from the sealed version that was answered.
    async fn replay(
        &self,
        caller: &Caller,
        fresh: &Fresh<'_>,
        stored: StoredIdempotency,
    ) -> Result<Created, Error> {
        let tenant = caller.tenant_id();
        let StoredAnswer::Card { token, version, status } = stored.answer else {
            return Err(Error::KeyReused);
        };
        let current = self.live_row(tenant, token).await?;
        match stored.body_mac {
            None => return Err(Error::TokenErased { scrubbed_at: current.scrubbed_at }),
            Some(mac) if mac != fresh.digests.body => return Err(Error::KeyReused),
            Some(_) => {}
        }
        let mut row = if current.version == version {
            current
        } else {
            let kept = self.store.card_version(tenant, token, version).await?;
            kept.ok_or(Error::TokenErased { scrubbed_at: None })?
        };
        if status == 201 {
            // As it was made, whatever was done with it since.
            row.status = CardStatus::Active;
            row.legal_hold = false;
            row.updated_at = row.created_at;
        }
        self.log_reads(caller, vec![self.read_event(caller, row.token, row.version)?]).await?;
        let (card, differs) = if status == 200 && fresh.on_duplicate == OnDuplicate::ReturnExisting {
            let (card, differs) = self.show_beside(caller, fresh, row).await?;
            (card, Some(differs))
        } else {
            (self.show(caller, row).await?, None)
        };
        Ok(Created { card, status, differs, replayed: true })
    }
}

impl<'a> Fresh<'a> {
    fn read(body: &'a [u8], mut sealed: Box<Sealed>) -> Result<Self, KeeperError> {
        let on_duplicate = match sealed.on_duplicate.as_deref() {
            None | Some("new") => OnDuplicate::New,
            Some("return_existing") => OnDuplicate::ReturnExisting,
            Some("update_existing") => OnDuplicate::UpdateExisting,
            Some(_) => return Err(KeeperError::Confused),
        };
        let (Some(pan), Some(expiry), Some(shown_expiry), Some(fingerprint), Some(digests)) = (
            sealed.pan.take(),
            sealed.expiry.take(),
            sealed.shown_expiry,
            sealed.fingerprint.take(),
            sealed.digests,
        ) else {
            return Err(KeeperError::Confused);
        };
        let card = SealedCard { policy: POLICY, pan, expiry, zip: sealed.zip.take() };
        Ok(Self { body, card, shown_expiry, fingerprint, digests, on_duplicate, rest: sealed })
    }

    fn change(
        &self,
        tenant: TenantId,
        rows: Vec<RowChange>,
        events: Vec<EventDraft>,
        subject: Token,
        answer: StoredAnswer,
    ) -> Change {
        let idempotency = Idempotency {
            tenant,
            route: ROUTE,
            key: self.digests.key,
            body_mac: self.digests.body,
            subject_token: Some(subject),
            answer,
        };
        Change { rows, events, idempotency: Some(idempotency) }
    }
}

/// Whether the keeper says that the submitted card has expired.
fn is_expired(error: &KeeperError) -> bool {
    matches!(error, KeeperError::Refused(refusal) if refusal.code == RefusalCode::CardExpired)
}

/// Versions of PAN, expiry and zip as they are; zero for none.
pub(super) fn versions_of(row: &CardRow) -> [u32; 3] {
    let version = |field: Option<&SealedField>| field.map_or(0, |field| field.version);
    row.sealed.as_ref().map_or([0; 3], |sealed| {
        [version(Some(&sealed.pan)), version(Some(&sealed.expiry)), version(sealed.zip.as_ref())]
    })
}
