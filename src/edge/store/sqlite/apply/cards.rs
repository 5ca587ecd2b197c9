//! Cards: insert, update, status, erasure.

use super::super::codec::{self, FLAG_ERASE_WANTED, FLAG_HOLD, FLAG_NUMBER_BY_UPDATER, StoredCard};
use super::super::keys::{self, Mark};
use super::customers::Salt;
use super::{Applying, Refusal, load_card};
use crate::card::fingerprint::Fingerprint;
use crate::card::id::{FingerprintId, Token};
use crate::card::tenant::TenantId;
use crate::clock::Time;
use crate::edge::store::{CardRow, CardStatus, CommitError, OnDuplicate};

/// Tokens looked at to find one with the whole fingerprint: a second number with the same 16 bytes will not be met.
const MARKS_READ: usize = 4;

/// What lies beside the sealed fields of a version.
pub(super) struct Beside {
    mark: [u8; 16],
    /// The fingerprint key that the mark comes from; none for the tenant's first.
    mark_key: Option<u32>,
    body_mac: Option<[u8; 32]>,
    pub(super) salt: Option<Salt>,
}

impl Applying<'_> {
    pub(super) fn insert_card(
        &mut self,
        card: &CardRow,
        fingerprint: &Fingerprint,
        on_duplicate: OnDuplicate,
        body_mac: Option<&[u8; 32]>,
    ) -> Result<FingerprintId, Refusal> {
        let Some(sealed) = &card.sealed else { return Err(CommitError::Conflict.into()) };
        self.watched.take(sealed)?;
        if !self.watched.take_fingerprint(card.tenant, fingerprint.key)? {
            return Err(CommitError::FingerprintStale.into());
        }
        let (mark, before) = Mark::all_of(card.tenant, fingerprint);
        let customer = keys::customer_mark(card.tenant, card.customer.as_deref());
        let wants_one = match on_duplicate {
            OnDuplicate::New => false,
            OnDuplicate::ReturnExisting | OnDuplicate::UpdateExisting => true,
        };
        if wants_one {
            for mark in std::iter::once(&mark).chain(&before) {
                let prefix = keys::fingerprint_customer_prefix(mark.head(), customer);
                if let Some(token) = self.card_that_stays(prefix, mark)? {
                    return Err(CommitError::DuplicateCard { token }.into());
                }
            }
        }
        let key = fingerprint.key;
        let fingerprint = self.fingerprint_of_marks((&mark, &before))?.unwrap_or(card.fingerprint);
        self.salt = if card.customer.is_some() { Some(self.salt_of(customer)?) } else { None };
        self.conn.prepare_cached(include_str!("../sql/sealed_insert.sql"))?.execute((
            codec::encode_sealed(sealed),
            mark.head(),
            body_mac,
            self.salt.as_ref().map(Salt::bytes),
            key,
        ))?;
        let kept = CardRow { fingerprint, ..card.clone() };
        self.conn.prepare_cached(include_str!("../sql/card_insert.sql"))?.execute((
            card.token.bytes(),
            card.tenant.0,
            codec::status_code(card.status),
            card.version,
            if card.legal_hold { FLAG_HOLD } else { 0 },
            self.conn.last_insert_rowid(),
            card.created_at.micros,
            card.updated_at.micros.saturating_sub(card.created_at.micros),
            codec::encode_details(&kept),
        ))?;
        self.index.put(&keys::fingerprint(mark.head(), customer, card.token), mark.rest());
        if card.customer.is_some() {
            self.index.put(&keys::customer(customer, card.token), &[]);
        }
        Ok(fingerprint)
    }

    pub(super) fn update_card(
        &mut self,
        card: &CardRow,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<FingerprintId, Refusal> {
        let stored = self.card_of(card.tenant, card.token)?;
        let (Some(sealed), Some(old_id)) = (&card.sealed, stored.sealed_id) else {
            return Err(CommitError::NotFound.into());
        };
        match stored.row.status {
            CardStatus::Erased => return Err(CommitError::NotFound.into()),
            CardStatus::Erasing => return Err(CommitError::Conflict.into()),
            CardStatus::Active | CardStatus::Suspended => {}
        }
        if card.version != stored.row.version.saturating_add(1) {
            return Err(CommitError::Conflict.into());
        }
        self.watched.take(sealed)?;
        if let Some(of_it) = fingerprint
            && !self.watched.take_fingerprint(card.tenant, of_it.key)?
            && !card.number_by_updater
        {
            return Err(CommitError::FingerprintStale.into());
        }
        let old = self.sealed_marks(old_id)?;
        let customer = keys::customer_mark(card.tenant, card.customer.as_deref());
        self.salt = match old.salt.filter(|_| card.customer == stored.row.customer) {
            None if card.customer.is_some() => Some(self.salt_of(customer)?),
            kept => kept,
        };
        let key = fingerprint.map_or(old.mark_key, |of_it| Some(of_it.key));
        let (mark, fingerprint) = self.move_fingerprint(card, &stored, old.mark, fingerprint)?;
        self.retire_version(&stored, old_id)?;
        self.conn.prepare_cached(include_str!("../sql/sealed_insert.sql"))?.execute((
            codec::encode_sealed(sealed),
            mark,
            old.body_mac,
            self.salt.as_ref().map(Salt::bytes),
            key,
        ))?;
        let kept = CardRow {
            fingerprint,
            status: stored.row.status,
            created_at: stored.row.created_at,
            erased_at: None,
            ..card.clone()
        };
        let sealed_id = self.conn.last_insert_rowid();
        let by_updater = if card.number_by_updater { FLAG_NUMBER_BY_UPDATER } else { 0 };
        let flags = stored.flags & !FLAG_NUMBER_BY_UPDATER | by_updater;
        let changed = StoredCard { row: kept, sealed_id: Some(sealed_id), flags };
        self.write_card(&changed)?;
        self.tell_of_card("token.updated", &changed.row)?;
        Ok(fingerprint)
    }

    pub(super) fn set_card_status(
        &mut self,
        tenant: TenantId,
        token: Token,
        status: CardStatus,
    ) -> Result<(), Refusal> {
        let mut card = self.card_of(tenant, token)?;
        let allowed = match status {
            CardStatus::Active => card.flags & FLAG_ERASE_WANTED == 0,
            CardStatus::Suspended => true,
            CardStatus::Erasing | CardStatus::Erased => false,
        };
        match card.row.status {
            CardStatus::Erased => Err(CommitError::NotFound.into()),
            CardStatus::Active | CardStatus::Suspended if allowed => {
                let was = std::mem::replace(&mut card.row.status, status);
                card.row.updated_at = self.now;
                self.write_card(&card)?;
                match status {
                    _ if was == status => Ok(()),
                    CardStatus::Suspended => self.tell_of_card("token.suspended", &card.row),
                    CardStatus::Active | CardStatus::Erasing | CardStatus::Erased => {
                        self.tell_of_card("token.updated", &card.row)
                    }
                }
            }
            CardStatus::Active | CardStatus::Suspended | CardStatus::Erasing => {
                Err(CommitError::Conflict.into())
            }
        }
    }

    pub(super) fn erase_card(
        &mut self,
        tenant: TenantId,
        token: Token,
        held_seen: bool,
    ) -> Result<(), Refusal> {
        let mut card = self.card_of(tenant, token)?;
        match card.row.status {
            CardStatus::Erased => return Err(CommitError::NotFound.into()),
            CardStatus::Erasing => return Ok(()),
            CardStatus::Active | CardStatus::Suspended => {}
        }
        let held = card.flags & FLAG_HOLD != 0;
        if held != held_seen {
            return Err(CommitError::Conflict.into());
        }
        if held {
            card.flags |= FLAG_ERASE_WANTED;
            let was = std::mem::replace(&mut card.row.status, CardStatus::Suspended);
            card.row.updated_at = self.now;
            self.write_card(&card)?;
            let is_news = was != CardStatus::Suspended;
            return if is_news { self.tell_of_card("token.suspended", &card.row) } else { Ok(()) };
        }
        self.erase_loaded(card)
    }

    /// Erases the card, or lets it wait for the charge that still needs it.
    pub(super) fn erase_loaded(&mut self, mut card: StoredCard) -> Result<(), Refusal> {
        self.unlist_fingerprint(&card)?;
        if self.is_pinned(card.row.token)? {
            card.row.status = CardStatus::Erasing;
            card.row.updated_at = self.now;
            return self.write_card(&card);
        }
        self.erase_now(card)
    }

    pub(super) fn erase_now(&mut self, mut card: StoredCard) -> Result<(), Refusal> {
        let token = card.row.token;
        let customer = keys::customer_mark(card.row.tenant, card.row.customer.as_deref());
        let mut sealed_ids: Vec<i64> = card.sealed_id.into_iter().collect();
        sealed_ids.extend(self.old_versions(token)?.into_iter().map(|(_, id)| id));
        if let Some(id) = card.sealed_id {
            let mark = self.sealed_marks(id)?.mark;
            self.forget_declines_of(card.row.tenant, mark, card.row.fingerprint)?;
        }
        let mut rows = 0;
        for id in sealed_ids {
            rows += self.conn.prepare_cached(include_str!("../sql/sealed_erase.sql"))?.execute((id,))?;
        }
        self.conn.prepare_cached(include_str!("../sql/versions_delete.sql"))?.execute((token.bytes(),))?;
        for (key, _) in self.index.scan(self.conn, keys::body_mac_prefix(token), usize::MAX)? {
            if let Some(id) = key.last_chunk::<8>() {
                rows += self
                    .conn
                    .prepare_cached(include_str!("../sql/body_mac_erase.sql"))?
                    .execute((i64::from_be_bytes(*id),))?;
            }
            self.index.delete(&key);
        }
        rows += self
            .conn
            .prepare_cached(include_str!("../sql/forward_answers_erase.sql"))?
            .execute((token.bytes(),))?;
        self.tell_erasure(&card.row, rows)?;
        self.index.delete(&keys::customer(customer, token));
        self.index.delete(&keys::unlisted(token));
        self.index.delete(&keys::last_use(token));
        self.index.put(&keys::scrub(token), &[]);
        card.row = CardRow {
            customer: None,
            metadata: std::collections::BTreeMap::new(),
            shown: None,
            fingerprint: codec::NO_FINGERPRINT,
            sealed: None,
            status: CardStatus::Erased,
            updated_at: self.now,
            erased_at: Some(self.now),
            ..card.row
        };
        self.erased += 1;
        let gone = StoredCard { sealed_id: None, flags: 0, ..card };
        self.write_card(&gone)?;
        self.tell_of_card("token.erased", &gone.row)
    }

    /// A charge no longer needs this version: erases what waited for it.
    pub(super) fn unpinned(&mut self, token: Token, version: u32) -> Result<(), Refusal> {
        let Some(card) = load_card(self.conn, token)? else { return Ok(()) };
        if card.row.status == CardStatus::Erasing && !self.is_pinned(token)? {
            return self.erase_now(card);
        }
        if card.row.version == version {
            // The current version keeps its number anyway.
            return Ok(());
        }
        let pinned = self.index.scan(self.conn, keys::pin_version_prefix(token, version), 1)?;
        let old = self.old_versions(token)?.into_iter().find(|(number, _)| *number == version);
        if let (Some((_, id)), true) = (old, pinned.is_empty()) {
            self.drop_pan(token, version, id)?;
        }
        Ok(())
    }

    fn is_pinned(&self, token: Token) -> Result<bool, Refusal> {
        Ok(!self.index.scan(self.conn, keys::pin_prefix(token), 1)?.is_empty())
    }

    fn old_versions(&self, token: Token) -> Result<Vec<(u32, i64)>, Refusal> {
        let mut statement = self.conn.prepare_cached(include_str!("../sql/versions_of_card.sql"))?;
        let rows = statement.query_map((token.bytes(),), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The current version becomes an old one; its PAN goes unless an attempt pins it.
    fn retire_version(&mut self, stored: &StoredCard, sealed_id: i64) -> Result<(), Refusal> {
        let (token, version) = (stored.row.token, stored.row.version);
        self.conn.prepare_cached(include_str!("../sql/version_insert.sql"))?.execute((
            token.bytes(),
            version,
            sealed_id,
            stored.row.created_at.micros,
            stored.row.updated_at.micros.saturating_sub(stored.row.created_at.micros),
            codec::encode_details(&stored.row),
        ))?;
        let Some(sealed) = &stored.row.sealed else { return Ok(()) };
        let pins = self.index.scan(self.conn, keys::pin_version_prefix(token, version), 1)?;
        let kept = if pins.is_empty() { codec::without_pan(sealed) } else { codec::encode_sealed(sealed) };
        self.conn.prepare_cached(include_str!("../sql/sealed_retire.sql"))?.execute((sealed_id, kept))?;
        Ok(())
    }

    fn drop_pan(&mut self, token: Token, version: u32, sealed_id: i64) -> Result<(), Refusal> {
        let mut statement = self.conn.prepare_cached(include_str!("../sql/card_version_get.sql"))?;
        let mut rows = statement.query((token.bytes(), version))?;
        let Some(card) = rows.next()?.map(StoredCard::read).transpose()? else { return Ok(()) };
        if let Some(sealed) = card.row.sealed.filter(|sealed| !sealed.pan.envelope.is_empty()) {
            self.conn
                .prepare_cached(include_str!("../sql/sealed_retire.sql"))?
                .execute((sealed_id, codec::without_pan(&sealed)))?;
        }
        Ok(())
    }

    /// Gives the mark and fingerprint id of the new version, and moves its entries.
    fn move_fingerprint(
        &mut self,
        card: &CardRow,
        stored: &StoredCard,
        old_mark: [u8; 16],
        fingerprint: Option<&Fingerprint>,
    ) -> Result<([u8; 16], FingerprintId), Refusal> {
        let old_customer = keys::customer_mark(card.tenant, stored.row.customer.as_deref());
        let customer = keys::customer_mark(card.tenant, card.customer.as_deref());
        let old_key = keys::fingerprint(old_mark, old_customer, card.token);
        let old_rest = self.index.get(self.conn, &old_key)?.unwrap_or_default();
        self.index.delete(&old_key);
        let is_old = |mark: &Mark| mark.head() == old_mark && mark.rest() == old_rest;
        let (mark, rest, id, is_another) = match fingerprint {
            None => (old_mark, old_rest, stored.row.fingerprint, false),
            Some(of_it) => {
                let (new, before) = Mark::all_of(card.tenant, of_it);
                let is_another = !std::iter::once(&new).chain(&before).any(is_old);
                let id = if is_another {
                    self.fingerprint_of_marks((&new, &before))?.unwrap_or(card.fingerprint)
                } else {
                    stored.row.fingerprint
                };
                (new.head(), new.rest().to_vec(), id, is_another)
            }
        };
        self.index.put(&keys::fingerprint(mark, customer, card.token), &rest);
        if is_another {
            self.forget_declines_of(card.tenant, old_mark, stored.row.fingerprint)?;
        }
        if customer != old_customer {
            self.index.delete(&keys::customer(old_customer, card.token));
            if card.customer.is_some() {
                self.index.put(&keys::customer(customer, card.token), &[]);
            }
        }
        Ok((mark, id))
    }

    /// When a number's last token goes, what was counted of it goes as well; while it may have another in another place, with time.
    fn forget_declines_of(
        &self,
        tenant: TenantId,
        mark: [u8; 16],
        fingerprint: FingerprintId,
    ) -> Result<(), Refusal> {
        if self.watched.moves(tenant) {
            return Ok(());
        }
        let others = self.index.scan(self.conn, keys::fingerprint_prefix(mark), 1)?;
        if others.is_empty() { self.forget_declines(fingerprint) } else { Ok(()) }
    }

    /// A card that is to go never matches a duplicate; the entry goes with its last token.
    fn unlist_fingerprint(&mut self, card: &StoredCard) -> Result<(), Refusal> {
        let Some(id) = card.sealed_id else { return Ok(()) };
        let mark = self.sealed_marks(id)?.mark;
        let customer = keys::customer_mark(card.row.tenant, card.row.customer.as_deref());
        let key = keys::fingerprint(mark, customer, card.row.token);
        // Kept beside the token, so that a hold can put the card back: the rest of the mark stands nowhere else.
        if let Some(rest) = self.index.get(self.conn, &key)? {
            self.index.delete(&key);
            if self.is_pinned(card.row.token)? {
                self.index.put(&keys::unlisted(card.row.token), &rest);
            }
        }
        Ok(())
    }

    pub(super) fn list_fingerprint(&mut self, card: &StoredCard) -> Result<(), Refusal> {
        let Some(id) = card.sealed_id else { return Ok(()) };
        let mark = self.sealed_marks(id)?.mark;
        let customer = keys::customer_mark(card.row.tenant, card.row.customer.as_deref());
        if let Some(rest) = self.index.get(self.conn, &keys::unlisted(card.row.token))? {
            self.index.put(&keys::fingerprint(mark, customer, card.row.token), &rest);
            self.index.delete(&keys::unlisted(card.row.token));
        }
        Ok(())
    }

    pub(super) fn sealed_marks(&self, id: i64) -> Result<Beside, Refusal> {
        let mut statement = self.conn.prepare_cached(include_str!("../sql/sealed_marks.sql"))?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Beside {
                mark: row.get(0)?,
                mark_key: row.get(3)?,
                body_mac: row.get(1)?,
                salt: Salt::read(row.get(2)?),
            })
        };
        Ok(statement.query_row((id,), read)?)
    }

    fn token_of_mark(&self, prefix: keys::Key, mark: &Mark) -> Result<Option<Token>, Refusal> {
        let entries = self.index.scan(self.conn, prefix, MARKS_READ)?;
        let whole = entries.iter().find(|(_, rest)| rest == mark.rest());
        Ok(whole.and_then(|(key, _)| keys::last_id(key)).and_then(Token::from_slice))
    }

    /// The card of that number which is not to go: one that waits for the release of a legal hold is nobody's any more.
    fn card_that_stays(&self, prefix: keys::Key, mark: &Mark) -> Result<Option<Token>, Refusal> {
        for (key, rest) in self.index.scan(self.conn, prefix, MARKS_READ)? {
            let token = keys::last_id(&key).and_then(Token::from_slice).filter(|_| rest == mark.rest());
            let Some(token) = token else { continue };
            if load_card(self.conn, token)?.is_some_and(|card| card.flags & FLAG_ERASE_WANTED == 0) {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }

    fn fingerprint_of_mark(&self, mark: &Mark) -> Result<Option<FingerprintId>, Refusal> {
        let Some(token) = self.token_of_mark(keys::fingerprint_prefix(mark.head()), mark)? else {
            return Ok(None);
        };
        Ok(load_card(self.conn, token)?.map(|card| card.row.fingerprint))
    }

    fn fingerprint_of_marks(
        &self,
        (mark, before): (&Mark, &[Mark]),
    ) -> Result<Option<FingerprintId>, Refusal> {
        for mark in std::iter::once(mark).chain(before) {
            if let Some(id) = self.fingerprint_of_mark(mark)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The number of this current version is found under another fingerprint key from now on.
    pub(super) fn mark_again(
        &mut self,
        (tenant, token, row): (TenantId, Token, i64),
        fingerprint: &Fingerprint,
    ) -> Result<(), Refusal> {
        // Whoever comes with a hash under the key before would not find it.
        self.watched.take_fingerprint(tenant, fingerprint.key)?;
        let mut card = self.card_of(tenant, token)?;
        if card.sealed_id != Some(row) {
            return Err(CommitError::Conflict.into());
        }
        let (old, new) = (self.sealed_marks(row)?.mark, Mark::of(tenant, &fingerprint.hash));
        let customer = keys::customer_mark(tenant, card.row.customer.as_deref());
        let old_key = keys::fingerprint(old, customer, token);
        if self.index.get(self.conn, &old_key)?.is_some() {
            // One number has one id, whichever of its tokens was moved first.
            let id = self.fingerprint_of_mark(&new)?.unwrap_or(card.row.fingerprint);
            self.index.delete(&old_key);
            self.index.put(&keys::fingerprint(new.head(), customer, token), new.rest());
            if id != card.row.fingerprint {
                card.row.fingerprint = id;
                self.write_card(&card)?;
            }
        } else if self.index.get(self.conn, &keys::unlisted(token))?.is_some() {
            self.index.put(&keys::unlisted(token), new.rest());
        }
        let again = include_str!("../sql/sealed_mark_again.sql");
        self.conn.prepare_cached(again)?.execute((row, new.head(), fingerprint.key))?;
        Ok(())
    }

    pub(super) fn write_card(&self, card: &StoredCard) -> Result<(), Refusal> {
        let row = &card.row;
        self.conn.prepare_cached(include_str!("../sql/card_update.sql"))?.execute((
            row.token.bytes(),
            codec::status_code(row.status),
            row.version,
            card.flags,
            card.sealed_id,
            row.updated_at.micros.saturating_sub(row.created_at.micros),
            row.erased_at.map(|time: Time| time.micros),
            codec::encode_details(row),
        ))?;
        Ok(())
    }
}
