//! The list of actions: what each means and which part of PCI DSS 10.2.1 it serves. An action is never renamed and never given
//! another meaning; a new one is added.

/// One entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// The word in the event.
    pub name: &'static str,
    /// What happened.
    pub means: &'static str,
    /// The sub-requirements of PCI DSS 10.2.1 that it serves (1 to 7), ascending.
    pub serves: &'static [u8],
}

macro_rules! actions {
    ($($constant:ident $name:literal [$($part:literal),*] $means:literal;)*) => {
        $(#[doc = $means] pub const $constant: &str = $name;)*

        /// All actions, sorted by name.
        pub const ACTIONS: &[Action] =
            &[$(Action { name: $name, means: $means, serves: &[$($part),*] }),*];
    };
}

// 1: access to cardholder data. 2: what administrators do. 3: access to the log. 4: refused access. 5: changes of
// credentials. 6: the log starts, stops, pauses. 7: system objects are created and deleted.
actions! {
    AGREEMENT_CREATE "agreement.create" [1] "A stored-credential agreement was made.";
    AGREEMENT_END "agreement.end" [1] "A stored-credential agreement ended.";
    AGREEMENT_FORGET "agreement.forget" [1, 7] "An agreement that ended, of a card that is erased, is older than its tenant keeps it, and gone; `fields` has the policy.";
    AGREEMENT_RENEW "agreement.renew" [1] "An agreement that a change of the number had ended is live again: its customer paid or verified with the new one.";
    APPROVAL_APPROVE "approval.approve" [2] "Another person approved a request; `fields` has the verb, who asked, who approved and through which local user, `note` the digest of what was signed.";
    APPROVAL_EXECUTE "approval.execute" [2] "An approved request was carried out; the outcome says whether it could be.";
    APPROVAL_EXPIRE "approval.expire" [2] "Nobody approved a request in time; it is void.";
    APPROVAL_REFUSE "approval.refuse" [2, 4] "A signed request, or a word on one, was refused; the outcome says why.";
    APPROVAL_REJECT "approval.reject" [2] "A person rejected a request.";
    APPROVAL_REQUEST "approval.request" [2] "A person asked for what needs two; `fields` has the verb and who asked, `note` the digest of what was signed.";
    AUTH_DENIED "auth.denied" [4] "A credential was missing, wrong, expired or disabled, or lacked the scope.";
    CARD_ACTIVATE "card.activate" [1] "A suspended card became active again.";
    CARD_CREATE "card.create" [1, 7] "A card was stored and is active; `card_sha256` and `version` are those of the row.";
    CARD_ERASE "card.erase" [1, 7] "A card was erased, or is to be as soon as nothing needs it any more. By a policy of retention if the actor is `retention`: `fields` has it.";
    CARD_ERASE_OVERDUE "card.erase_overdue" [1, 7] "A card that is to be erased is still needed by an attempt or authorization that should have ended: somebody has to settle it.";
    CARD_ERASED "card.erased" [1, 7] "The sealed fields of a card are overwritten, those of every version; `count` says how many rows, `keys` names every data key that may have sealed it at some time, `fields` the times that were configured.";
    CARD_HOLD "card.hold" [1, 2] "A legal hold was set or released, as `note` says (`released_one`: another keeps the card yet); the card's status stays what it was.";
    CARD_LIST "card.list" [1] "Card records were listed, without numbers; `count` says how many.";
    CARD_READ "card.read" [1] "A card record was read, without its number.";
    CARD_RESEAL "card.reseal" [1] "Cards were sealed again under another key; `cards` has each with its version and digest.";
    CARD_SCRUBBED "card.scrubbed" [1, 7] "The sealed fields of an erased card are gone from every file of the database.";
    CARD_SUSPEND "card.suspend" [1] "A card was suspended: kept, but not to be charged or forwarded.";
    CARD_UNREADABLE "card.unreadable" [1] "A stored card did not open: its row was damaged, edited or swapped.";
    CARD_UPDATE "card.update" [1] "A card changed; `card_sha256` and `version` are those of the row, `fields` says what. By an account updater's word if the actor is `account_updater`: `note` is the destination, `attempt` the charge's.";
    CARD_UPDATE_REFUSED "card.update_refused" [1] "What an account updater said of a card was not stored; the outcome says why, `note` is the destination, `attempt` the charge's.";
    CEREMONY_BEGIN "ceremony.begin" [2, 5] "A key ceremony began; `fields` has its custodians, `note` the threshold and the digest of the custodian form.";
    CEREMONY_END "ceremony.end" [2, 5] "All custodians of a ceremony have confirmed their shares: the KEK is wrapped under its secret, whose check value is in `note`.";
    CHARGE_CAPTURE "charge.capture" [1] "A capture of an authorization was sent, or is about to be.";
    CHARGE_CREATE "charge.create" [1] "A charge was taken, to be sent later.";
    CHARGE_DISPUTE "charge.dispute" [1] "A processor told of a dispute of a charge; `note` says how far it went. The charge stands as before.";
    CHARGE_FORGET "charge.forget" [1, 7] "A charge is older than its tenant keeps it, and gone; `fields` has the policy. Its invoice stays taken.";
    CHARGE_LIST "charge.list" [1] "Charges were listed; `count` says how many.";
    CHARGE_OUTCOME "charge.outcome" [1] "What became of a charge, or of one of its attempts.";
    CHARGE_READ "charge.read" [1] "A charge was read.";
    CHARGE_RESOLVE "charge.resolve" [1, 2] "A person settled a charge whose outcome could not be found out.";
    CHARGE_RETRY "charge.retry" [1] "The schedule of a charge's retries was moved, put off or ended without an attempt; `note` says how.";
    CHARGE_SEND "charge.send" [1] "A card is about to be disclosed to a processor; carries the keeper's `opening`.";
    CONFIG_RELOAD "config.reload" [2, 7] "Certificates, connectors, credentials or policies were loaded anew.";
    CREDENTIALS_REFUSED "credentials.refused" [5] "A processor refused the operator's credentials of a destination; requests go out with the other ones of the two.";
    CUSTODIAN_ACKNOWLEDGE "custodian.acknowledge" [2, 5] "A custodian signed the custodian form; `note` has its digest.";
    FINGERPRINT_LIMIT "fingerprint.limit" [4] "The keeper refused more fingerprint answers for one BIN and last four.";
    FORWARD_OUTCOME "forward.outcome" [1] "What became of a forward.";
    FORWARD_READ "forward.read" [1] "A forward was read, with its redacted answer.";
    FORWARD_SEND "forward.send" [1] "A card is about to be disclosed to a destination; carries the keeper's `opening`.";
    KEEPER_STARTED "keeper.started" [2, 7] "A keeper started and was unsealed: `note` is its boot.";
    KEEPER_STATEMENT "keeper.statement" [1] "The keeper's signed account of what it has opened.";
    KEY_ACTIVATE "key.activate" [2, 7] "A key is in use.";
    KEY_COMPROMISE "key.compromise" [2, 7] "A key is known to others, or may be; it protects nothing more.";
    KEY_CREATE "key.create" [2, 7] "A key was made.";
    KEY_DESTROY "key.destroy" [2, 7] "A key was destroyed; of a data key, `count` says for how many days a backup of the key store is kept.";
    KEY_EMPTIED "key.emptied" [2] "No record is left under a key that cards were to be moved away from.";
    KEY_RETIRE "key.retire" [2, 7] "A key seals nothing any more.";
    LOG_EXPORT "log.export" [3] "The log was exported.";
    LOG_READ "log.read" [3] "Events, a checkpoint or a proof were read.";
    LOG_START "log.start" [6] "The log was opened for appending.";
    LOG_STOP "log.stop" [6] "The log was closed in order.";
    OPENING_UNUSED "opening.unused" [1] "The keeper opened a card and it was disclosed to nobody; carries the `opening`.";
    PAN_UNEXPECTED "pan.unexpected" [4] "Something that looks like a card number came where none may; it was refused and not kept.";
    PERSON_CREATE "person.create" [2, 5, 7] "A person was registered: their signatures count; `fields` has their scopes.";
    PERSON_DISABLE "person.disable" [2, 5] "A person was disabled: their signatures count no more.";
    PERSON_REKEY "person.rekey" [2, 5] "A person has another key; the one before counts no more.";
    PRINCIPAL_CREATE "principal.create" [2, 5, 7] "A principal was made; `row_sha256` is that of the row.";
    PRINCIPAL_DISABLE "principal.disable" [2, 5] "A principal was disabled; `row_sha256` is that of the row.";
    PRINCIPAL_ROTATE "principal.rotate" [2, 5] "A principal was given another credential; `row_sha256` is that of the row.";
    REFUND_OUTCOME "refund.outcome" [1] "What became of a refund.";
    REFUND_SEND "refund.send" [1] "A refund is about to be sent; carries an `opening` if the processor needs the card.";
    ROOT_MOVE "root.move" [2, 5] "The KEK was moved to another root provider; `fields` says from which and to which.";
    RUN_CANCELLED "run.cancelled" [1] "An invoice run was cancelled: what was not on its way is not charged.";
    RUN_CREATED "run.created" [1] "An invoice run was begun; `count` says how many lines were declared.";
    RUN_EXPIRED "run.expired" [1] "The upload of an invoice run was cut and not taken up again in time; nothing was charged.";
    RUN_FINISHED "run.finished" [1] "An invoice run has nothing left to do; `count` says how many lines it has.";
    RUN_LINE_REFUSED "run.line_refused" [1] "A line of an invoice run could not be charged and nothing was sent; `note` says why, `count` which line.";
    RUN_LINES "run.lines" [1] "Lines of an invoice run were taken in; `count` says how many.";
    RUN_PAUSED "run.paused" [1] "An invoice run was told to stand still, or does so for the reason in `note`.";
    RUN_READ "run.read" [1] "Lines of an invoice run were read; `count` says how many.";
    RUN_REJECTED "run.rejected" [1] "The stream of an invoice run was not what was declared; nothing was charged.";
    RUN_RELEASED "run.released" [1] "Invoices of an invoice run that is over were given back; `count` says of how many lines.";
    RUN_RESUMED "run.resumed" [1] "An invoice run that stood still goes on.";
    RUN_STARTED "run.started" [1] "The stream of an invoice run ended as declared, and its lines are being charged.";
    SHARE_CONFIRM "share.confirm" [2, 5] "A custodian has their share; the vault keeps it no more.";
    SHARE_GIVE "share.give" [2, 5] "A custodian gave their share; `note` says for what. Refused, it was another one.";
    SHARE_ISSUE "share.issue" [2, 5] "A share was made for a custodian; `note` has its check value.";
    STORE_BIND "store.bind" [2, 7] "A database was taken into use by this installation, for good.";
    STORE_MIGRATE "store.migrate" [2, 7] "The database schema was brought to a newer version.";
    TENANT_CREATE "tenant.create" [2, 7] "A tenant was made; `row_sha256` is that of the row.";
    TENANT_DISABLE "tenant.disable" [2, 7] "A tenant was disabled; `row_sha256` is that of the row.";
    VAULT_UNSEAL "vault.unseal" [2, 5] "Enough custodians gave their shares: the vault was opened.";
    VERIFY_OUTCOME "verify.outcome" [1] "What became of a verification.";
    VERIFY_SEND "verify.send" [1] "A card is about to be disclosed for a verification; carries the keeper's `opening`.";
    VOID_OUTCOME "void.outcome" [1] "What became of a void.";
    VOID_SEND "void.send" [1] "A void is about to be sent.";
    WEBHOOK_CREATE "webhook.create" [2, 7] "A webhook endpoint was made.";
    WEBHOOK_DELETE "webhook.delete" [2, 7] "A webhook endpoint was deleted.";
    WEBHOOK_DISABLE "webhook.disable" [2] "The vault switched a webhook endpoint off; `note` says why.";
    WEBHOOK_REFUSED "webhook.refused" [4] "What came as a processor's webhook does not prove that the processor sent it; it changed nothing.";
    WEBHOOK_REPLAY "webhook.replay" [2] "What a webhook endpoint was told is delivered once more; `count` says how many.";
    WEBHOOK_ROTATE "webhook.rotate" [2, 5] "A webhook endpoint was given another secret.";
    WEBHOOK_UNAPPLIED "webhook.unapplied" [1] "A processor told of something by webhook and nothing was changed by it; `note` says why.";
    WEBHOOK_UPDATE "webhook.update" [2] "A webhook endpoint was changed; `fields` says what.";
    ZIP_LIMIT "zip.limit" [4] "The keeper refused to compare more zips with that of one card.";
}

/// The entry of this name.
pub fn find(name: &str) -> Option<&'static Action> {
    ACTIONS.binary_search_by(|action| action.name.cmp(name)).ok().and_then(|at| ACTIONS.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_each_action_is_found() {
        assert!(ACTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for action in ACTIONS {
            assert_eq!(find(action.name), Some(action));
        }
        assert_eq!(find("card.reveal"), None);
    }

    #[test]
    fn every_part_of_the_requirement_is_served() {
        for part in 1..=7 {
            assert!(ACTIONS.iter().any(|action| action.serves.contains(&part)), "10.2.1.{part}");
        }
    }
}
