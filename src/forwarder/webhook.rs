//! What a processor tells by itself: checked with the credentials that the keeper sent along, mapped by the connector, scrubbed.
//!
//! It is read here, not in the keeper: these bytes are anybody's until their signature is checked, some signatures stand within them,
//! and no key of a card is in this process.

use super::answer;
use super::fault::Fault;
use super::routes::{Reads, Route};
use super::scrub::{Field, Scrubber};
use crate::card::stray;
use crate::clock::{Clock, SystemClock};
use crate::connector::{self, Delivery, Mapped, Word};
use crate::wire::forwarder::{Dispute, Notification, Says, Stated, Webhook, WebhookRead};

/// What was not an answer to a request of ours has no status; nothing went wrong with it.
const HTTP_STATUS: u16 = 200;

/// Checks and maps one webhook.
pub(super) fn read(route: Option<&Route>, webhook: &Webhook) -> WebhookRead {
    let Some(Reads::Mapped(connector)) = route.map(|route| &route.reads) else {
        return WebhookRead::Failed(Fault::Destination.word().to_owned());
    };
    let unix_s = i64::try_from(SystemClock.now().millis() / 1000).unwrap_or(i64::MAX);
    let delivery = Delivery { headers: &webhook.headers, body: &webhook.body, unix_s };
    let sets: Vec<Vec<(&str, &str)>> = webhook.credentials.iter().map(|set| pairs(set)).collect();
    match connector.read_webhook(&delivery, &sets) {
        Err(why) => WebhookRead::Untrusted(why.text().to_owned()),
        Ok(all) => {
            let scrubber = Scrubber::new(&webhook.scrub);
            WebhookRead::Said {
                notifications: all.into_iter().map(|one| clean(one, &scrubber)).collect(),
                answer: connector.webhook_answer().to_owned(),
            }
        }
    }
}

fn pairs(set: &[(String, String)]) -> Vec<(&str, &str)> {
    set.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect()
}

fn clean(one: connector::Notification, scrubber: &Scrubber) -> Notification {
    let mapped = Mapped {
        // Whose card it is about is not known here: what could be a number does not go on, whosever it is.
        processor_code: one.mapped.processor_code.map(without_numbers),
        transaction_id: one.mapped.transaction_id.and_then(no_number),
        network_transaction_id: one.mapped.network_transaction_id.and_then(no_number),
        transaction_link_id: one.mapped.transaction_link_id.and_then(no_number),
        ..one.mapped
    };
    let id = |text: Option<String>| text.and_then(no_number).map(|text| scrubber.clean(text, Field::Id));
    Notification {
        of: one.of.into_iter().filter_map(answer::verb).collect(),
        says: says(one.says),
        answer: answer::scrubbed(mapped, HTTP_STATUS, scrubber),
        reference: id(one.reference),
        original: id(one.original),
        stated: match one.stated {
            connector::Stated::Nothing => Stated::Nothing,
            connector::Stated::Amount(minor, currency) => Stated::Amount(minor, currency),
            connector::Stated::Unclear => Stated::Unclear,
        },
    }
}

fn without_numbers(text: String) -> String {
    if stray::in_free_text(&text) || stray::is_identifier(&text) { "[redacted]".to_owned() } else { text }
}

fn no_number(text: String) -> Option<String> {
    (!stray::is_identifier(&text)).then_some(text)
}

const fn says(says: connector::Says) -> Says {
    match says {
        connector::Says::Approved | connector::Says::Declined | connector::Says::Pending => Says::Answer,
        connector::Says::Reversed => Says::Reversed,
        connector::Says::DisputeOpened => Says::Disputed(Dispute::Opened),
        connector::Says::ChargedBack => Says::Disputed(Dispute::ChargedBack),
        connector::Says::ChargebackReversed => Says::Disputed(Dispute::Reversed),
        connector::Says::ChargedBackAgain => Says::Disputed(Dispute::ChargedBackAgain),
        connector::Says::Noted => Says::Noted,
        connector::Says::Ignored => Says::Ignored,
    }
}
