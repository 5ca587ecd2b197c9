//! `[webhook]`: what a processor tells by itself, later: where its notifications stand in a body, what proves that it sent them, which
//! attempt each is about, and what it says of that.
//!
//! Everything that decides is covered by the signature: a path that is not is a fault of the file.

mod event;
mod verify;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeValue;

use super::answer::{self, Mapped};
use super::document::{Section, strings};
use super::fault::Faults;
use super::fields::{Fact, Fields};
use super::leaf::Known;
use super::op::{Op, Operation};
use super::path::Path;
use super::tree::{Format, Parsed, Tree, text_of_body};
use super::words::{Word, read};
use super::{Connector, Outcome};
pub use event::Says;
use event::{Event, read_events};
pub use verify::Untrusted;
use verify::{Piece, Required, Verify, read_required};

/// No processor sends more at once.
const NOTIFICATIONS_MAX: usize = 100;
/// No processor wants a longer answer.
const ANSWER_BYTES_MAX: usize = 256;
const ID_CHARS_MAX: usize = 255;

/// What a webhook brought, as it came.
#[derive(Clone, Copy)]
pub struct Delivery<'d> {
    /// Its headers.
    pub headers: &'d [(String, String)],
    /// Its body.
    pub body: &'d [u8],
    /// Seconds since 1970 when it came.
    pub unix_s: i64,
}

/// The operator's credentials that may have signed it, by field name: those in use, and while rotating those that come after.
pub type CredentialSets<'c> = [Vec<(&'c str, &'c str)>];

/// The amount that a notification names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stated {
    /// It names none.
    Nothing,
    /// In ISO 4217 minor units, and the currency in upper case.
    Amount(i64, String),
    /// It names one that cannot be read.
    Unclear,
}

/// One notification, mapped. Its texts are the processor's own words: bounded, not yet scrubbed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Notification {
    /// Which operations it can be about.
    pub of: Vec<Operation>,
    /// What it says of them.
    pub says: Says,
    /// The same as an answer to the operation; `error` where it is none.
    pub mapped: Mapped,
    /// Our own reference: the attempt, or that of the payment it belongs to.
    pub reference: Option<String>,
    /// The processor's id of the payment that it belongs to.
    pub original: Option<String>,
    /// The amount.
    pub stated: Stated,
}

impl std::fmt::Debug for Notification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notification").field("of", &self.of).field("says", &self.says).finish_non_exhaustive()
    }
}

/// The section, compiled.
#[derive(Debug, Clone)]
pub(super) struct Webhook {
    format: Format,
    /// Where the list of notifications is; without it the body is one.
    list: Option<Path>,
    /// Where the notification is in an item of the list, or in the body.
    item: Option<Path>,
    required: Vec<Required>,
    verify: Verify,
    reference: Vec<Path>,
    transaction: Vec<Path>,
    original: Vec<Path>,
    fields: Fields,
    events: Vec<Event>,
    answer: Box<str>,
}

impl Webhook {
    /// Compiles the section; every fault of it is found here.
    pub(super) fn read(
        mut section: Section<'_>,
        (format, ops): (Format, &[Op]),
        known: &mut Known,
        faults: &mut Faults<'_>,
    ) -> Option<Self> {
        let at = section.at.clone();
        let format = section
            .string("format", faults)
            .and_then(|(text, at)| read::<Format>("format", text, &at, faults))
            .unwrap_or(format);
        let list = read_path(&mut section, "in", faults);
        let item = read_path(&mut section, "item", faults);
        let answer = read_answer(&mut section, faults);
        let required =
            section.section("require", faults).map_or(Vec::new(), |s| read_required(s, known, faults));
        let verify = match section.section("verify", faults) {
            Some(verify) => Verify::read(verify, known, faults),
            None => {
                let instead = "write [webhook.verify]: what is not signed could be anybody's";
                faults.add(&at, "[webhook] has no [webhook.verify]", instead);
                None
            }
        };
        let reference = read_paths(&mut section, "reference", faults);
        let transaction = read_paths(&mut section, "transaction", faults);
        let original = read_paths(&mut section, "original", faults);
        let fields =
            section.section("field", faults).map_or(Fields::default(), |s| Fields::read(s, known, faults));
        let events = read_events(section.take("event"), ops, &at, faults);
        section.finish(faults);
        if reference.is_empty() && transaction.is_empty() {
            let instead = "write reference = \"…\", where our attempt stands, or transaction = \"…\"";
            faults.add(&at, "nothing in [webhook] says which attempt a notification is about", instead);
        }
        let webhook = Self {
            format,
            list,
            item,
            required,
            verify: verify?,
            reference,
            transaction,
            original,
            fields,
            events,
            answer,
        };
        webhook.check_paths(&at, faults);
        Some(webhook)
    }

    /// A path must be of the format, and what decides must be signed.
    fn check_paths(&self, at: &Range<usize>, faults: &mut Faults<'_>) {
        let of_item = || {
            let ids = self.reference.iter().chain(&self.transaction).chain(&self.original);
            let of_events = self.events.iter().flat_map(Event::paths);
            let of_money = self.fields.paths_of([Fact::AmountApproved, Fact::Currency]);
            ids.chain(of_money).chain(of_events)
        };
        let others = self.list.iter().chain(&self.item).chain(self.fields.paths()).chain(self.verify.paths());
        if !of_item().chain(others).all(|path| path.fits(self.format)) {
            let instead = "write JSON paths like `data.reference`, XML paths like `//order/@code`";
            faults.add(at, "a path of [webhook] is not of its format", instead);
        }
        if let Some(path) = of_item().find(|path| !self.verify.covers(path)) {
            let problem =
                format!("`{}` of [webhook] decides, and the signature does not cover it", path.spelling());
            faults.add(at, problem, "write it into `msg` of [webhook.verify], or decide by something else");
        }
        let is_of_item = |piece: &Piece| matches!(piece, Piece::Item(_));
        if self.verify.pieces().any(is_of_item) && self.format == Format::Xml {
            faults.add(at, "a message of single values cannot be made of XML", "sign {body}");
        }
    }

    /// The credentials without which nothing can be verified.
    pub(super) fn secret(&self) -> usize {
        self.verify.secret()
    }

    /// Every credential that it looks at.
    fn credentials(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.verify.secret()).chain(self.required.iter().filter_map(Required::credential))
    }

    /// For a person: what is signed, and where that stands.
    pub(super) fn explain_signature(&self) -> String {
        self.verify.explain()
    }

    /// The operations that it tells the end of, or that what was approved did not hold.
    pub(super) fn tells(&self, reversed: bool) -> Vec<Operation> {
        let of = |event: &&Event| match event.says {
            Says::Approved | Says::Declined => !reversed,
            Says::Reversed => reversed,
            Says::Pending
            | Says::DisputeOpened
            | Says::ChargedBack
            | Says::ChargebackReversed
            | Says::ChargedBackAgain
            | Says::Noted
            | Says::Ignored => false,
        };
        let told: Vec<Operation> = self.events.iter().filter(of).flat_map(|event| event.of.clone()).collect();
        Operation::ALL.iter().copied().filter(|operation| told.contains(operation)).collect()
    }

    /// The notifications of a body, each with what its signature covers; `None` if there is none that can be read.
    fn each<'t>(&self, tree: Tree<'t>) -> Option<Vec<Tree<'t>>> {
        let items = match &self.list {
            Some(list) => list.items(tree)?,
            None => vec![tree],
        };
        let inner = |item: Tree<'t>| match &self.item {
            Some(path) => path.part(item),
            None => Some(item),
        };
        let all: Vec<Tree<'t>> = items.into_iter().map(inner).collect::<Option<_>>()?;
        (!all.is_empty() && all.len() <= NOTIFICATIONS_MAX).then_some(all)
    }
}

impl Connector {
    /// Whether the processor tells by itself what became of attempts.
    pub const fn has_webhook(&self) -> bool {
        self.webhook.is_some()
    }

    /// The body that the processor wants to see once what it told is kept.
    pub fn webhook_answer(&self) -> &str {
        self.webhook.as_ref().map_or("", |webhook| &webhook.answer)
    }

    /// The credential that signs webhooks: a destination without it takes none.
    pub fn webhook_secret(&self) -> Option<&str> {
        let webhook = self.webhook.as_ref()?;
        self.credentials.get(webhook.secret()).map(|field| &**field)
    }

    /// The credentials that webhooks are checked with.
    pub fn webhook_credentials(&self) -> Vec<&str> {
        let all = self.webhook.iter().flat_map(Webhook::credentials);
        all.filter_map(|index| self.credentials.get(index)).map(|field| &**field).collect()
    }

    /// Whether a key is written as the connector says.
    pub fn is_webhook_secret(&self, text: &str) -> bool {
        self.webhook.as_ref().is_some_and(|webhook| webhook.verify.is_key(text))
    }

    /// The notifications of a webhook that the processor surely sent.
    pub fn read_webhook(
        &self,
        delivery: &Delivery<'_>,
        sets: &CredentialSets<'_>,
    ) -> Result<Vec<Notification>, Untrusted> {
        let webhook = self.webhook.as_ref().ok_or(Untrusted::Unsigned)?;
        verify::check_required(&webhook.required, delivery.headers, sets, &self.credentials)?;
        let keys = webhook.verify.keys(sets, &self.credentials);
        webhook.verify.check_whole(delivery, &keys)?;
        let text = text_of_body(webhook.format, delivery.body);
        let parsed = Parsed::read(webhook.format, &text).ok_or(Untrusted::Unreadable)?;
        let items = webhook.each(parsed.tree()).ok_or(Untrusted::Unreadable)?;
        for item in &items {
            webhook.verify.check_item(*item, &keys)?;
        }
        Ok(items.into_iter().map(|item| self.notification(webhook, item)).collect())
    }

    /// What the notifications of a body would mean, whoever sent it: for who writes a connector.
    pub fn map_webhook(&self, body: &[u8]) -> Option<Vec<Notification>> {
        let webhook = self.webhook.as_ref()?;
        let text = text_of_body(webhook.format, body);
        let parsed = Parsed::read(webhook.format, &text)?;
        let items = webhook.each(parsed.tree())?;
        Some(items.into_iter().map(|item| self.notification(webhook, item)).collect())
    }

    fn notification(&self, webhook: &Webhook, item: Tree<'_>) -> Notification {
        let event = webhook.events.iter().find(|event| event.matches(item));
        let says = event.map_or(Says::Ignored, |event| event.says);
        let verdict = event.map_or(super::rules::Verdict::UNKNOWN, Event::verdict);
        let mut mapped =
            answer::facts(self, &verdict, |fact| webhook.fields.text(fact, item, (&self.maps, &self.empty)));
        let id = |own: Option<&Path>, paths: &[Path]| {
            let text = own.into_iter().chain(paths).find_map(|path| path.text(item));
            text.filter(|text| text.len() <= ID_CHARS_MAX && !text.chars().any(char::is_control))
        };
        mapped.transaction_id = id(event.and_then(|event| event.transaction.as_ref()), &webhook.transaction);
        if mapped.outcome == Outcome::Approved {
            // Of an approval there is nothing to explain, and some write the expiry there.
            (mapped.processor_code, mapped.message) = (None, None);
        }
        Notification {
            of: event.map_or(Vec::new(), |event| event.of.clone()),
            says,
            mapped,
            reference: id(None, &webhook.reference),
            original: id(event.and_then(|event| event.original.as_ref()), &webhook.original),
            stated: self.stated(webhook, item),
        }
    }

    fn stated(&self, webhook: &Webhook, item: Tree<'_>) -> Stated {
        let text = |fact| webhook.fields.text(fact, item, (&self.maps, &self.empty));
        let Some(amount) = text(Fact::AmountApproved) else { return Stated::Nothing };
        let currency = text(Fact::Currency).map(|currency| currency.to_ascii_uppercase());
        let minor = self.money.to_iso(&amount, currency.as_deref());
        minor.zip(currency).map_or(Stated::Unclear, |(minor, currency)| Stated::Amount(minor, currency))
    }
}

fn read_path(section: &mut Section<'_>, key: &'static str, faults: &mut Faults<'_>) -> Option<Path> {
    let (text, at) = section.string(key, faults)?;
    Path::read(text, &at, faults)
}

fn read_paths(section: &mut Section<'_>, key: &'static str, faults: &mut Faults<'_>) -> Vec<Path> {
    let Some(entry) = section.take(key) else { return Vec::new() };
    let list = strings(key, entry.value, faults);
    list.iter().filter_map(|(text, at)| Path::read(text, at, faults)).collect()
}

fn read_answer(section: &mut Section<'_>, faults: &mut Faults<'_>) -> Box<str> {
    let Some((text, at)) = section.string("answer", faults) else { return "".into() };
    if text.len() > ANSWER_BYTES_MAX || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        let instead =
            format!("write what the processor wants to read, at most {ANSWER_BYTES_MAX} plain characters");
        faults.add(&at, "`answer` is no short line of text", instead);
    }
    text.into()
}

/// The items of a list of tables, like `[[webhook.event]]`.
fn tables<'a>(value: &'a Spanned<DeValue<'a>>) -> impl Iterator<Item = &'a Spanned<DeValue<'a>>> {
    value.get_ref().as_array().into_iter().flat_map(|list| list.iter())
}
