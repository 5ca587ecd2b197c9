//! Mapping: a processor's answer becomes a few bounded fields, and nothing else of it goes on.

use serde::{Deserialize, Serialize};

use super::Connector;
use super::decline::DeclineClass;
use super::fields::{Fact, ZipCheck};
use super::op::{Op, Operation, Place};
use super::rules::{Outcome, Rule, Verdict};
use super::tree::{Parsed, Tree, text_of_body};
use super::updates::CardUpdate;
use super::words::Word;

/// What an answer means. What the processor did not say is `null`.
///
/// Its texts are the processor's own words, bounded but not yet scrubbed of an echoed card number: that is the
/// forwarder's, so its `Debug` prints none of them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Mapped {
    /// What became of the operation.
    pub outcome: Outcome,
    /// Nobody can say whether it was done: look it up.
    pub unknown: bool,
    /// Approved for less than was asked.
    pub partial: bool,
    /// Approved, but a person at the processor looks at it first.
    pub held_for_review: bool,
    /// The processor had this attempt already.
    pub duplicate: bool,
    /// The processor's code, at most 64 characters.
    pub processor_code: Option<String>,
    /// For a decline or an error: what it means for the next attempt.
    pub decline_class: Option<DeclineClass>,
    /// The processor's words, at most 1,000 characters.
    pub message: Option<String>,
    /// The processor's id, whole: at most 255 characters or not at all.
    pub transaction_id: Option<String>,
    /// The network's id, whole and unchanged: at most 255 characters or not at all.
    pub network_transaction_id: Option<String>,
    /// Mastercard's transaction link id, unchanged: at most 22 characters or not at all.
    pub transaction_link_id: Option<String>,
    /// The address check.
    pub avs: Avs,
    /// The network's advice, at most 32 characters.
    pub advice_code: Option<String>,
    /// Of an approval, in ISO 4217 minor units.
    pub amount_approved: Option<i64>,
    /// The processor's own time in milliseconds, where it says so.
    pub processor_ms: Option<f64>,
    /// What an account updater says of the card, in the answer of a charge or verification. It is not written with the rest.
    #[serde(skip)]
    pub card_update: Option<CardUpdate>,
}

/// The address check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Avs {
    /// As the processor says it, at most 64 characters.
    pub raw: Option<String>,
    /// What became of the zip.
    pub zip: Option<ZipCheck>,
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Mapped");
        out.field("outcome", &self.outcome).field("unknown", &self.unknown);
        out.field("decline_class", &self.decline_class).finish_non_exhaustive()
    }
}

const CODE_CHARS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 1000;
const ID_CHARS_MAX: usize = 255;
const SHORT_CHARS_MAX: usize = 32;
/// By its rules: <https://docs.stripe.com/payments/cards/mastercard-tlid>.
const LINK_ID_CHARS_MAX: usize = 22;

/// Maps one answer. Whatever the bytes are, the result is one of the outcomes.
pub(super) fn map(
    connector: &Connector,
    operation: Operation,
    status: u16,
    body: &[u8],
    ours: &[&str],
) -> Mapped {
    let op = connector.op(operation);
    let format = op.and_then(|op| op.format).unwrap_or(connector.format);
    let text = text_of_body(format, body);
    let Some(parsed) = Parsed::read(format, &text) else {
        return facts_of(
            connector,
            op,
            &unread(connector, operation, status, text.is_empty()),
            Tree::Nothing,
        );
    };
    match look_within(op, status, parsed.tree(), ours) {
        Found::Here(tree) => {
            let rule = connector.rules.iter().find(|rule| rule.matches(operation, status, tree));
            let verdict = rule.map_or(&Verdict::UNKNOWN, |rule| believed(rule, status));
            // A redirect or an interim answer comes from something before the processor.
            let from_processor = (200..300).contains(&status) || status >= 400;
            facts_of(connector, op, if from_processor { verdict } else { &Verdict::UNKNOWN }, tree)
        }
        Found::Nothing => facts_of(connector, op, &Verdict::NOT_FOUND, Tree::Nothing),
        Found::Unclear => facts_of(connector, op, &Verdict::UNKNOWN, Tree::Nothing),
    }
}

/// What a rule says of an answer. A timeout, a conflict or a fault tells by itself that nobody knows: whoever wrote the rule, only what
/// the processor's own words say beside it is believed.
fn believed(rule: &Rule, status: u16) -> &Verdict {
    let says_nothing = matches!(status, 408 | 409 | 500..) && !rule.hears_the_body();
    // What the rule says beside it, as of a duplicate, is lost only where it would have been certain.
    if says_nothing && !rule.verdict.unknown { &Verdict::UNKNOWN } else { &rule.verdict }
}

/// The verdict on an answer that is not in the declared format: by status alone, and never that something was done.
fn unread(connector: &Connector, operation: Operation, status: u16, is_empty: bool) -> Verdict {
    let by_status = |rule: &&Rule| rule.reads_no_body() && rule.matches(operation, status, Tree::Nothing);
    let verdict =
        connector.rules.iter().find(by_status).map_or(&Verdict::UNKNOWN, |rule| believed(rule, status));
    let believable = match verdict.outcome {
        Outcome::Error => true,
        // An empty 404 may say so; a page of a proxy may not.
        Outcome::NotFound => is_empty,
        Outcome::Approved | Outcome::Declined | Outcome::Pending => false,
    };
    if believable && !(200..300).contains(&status) { verdict.clone() } else { Verdict::UNKNOWN }
}

/// A step's answer that does not hold what it should: the charge was not sent, whatever it says.
pub(super) fn of_a_failed_step(connector: &Connector, status: u16, body: &[u8]) -> Mapped {
    let mapped = map(connector, Operation::Sale, status, body, &[]);
    let is_decline = mapped.outcome == Outcome::Declined;
    let outcome = if is_decline { Outcome::Declined } else { Outcome::Error };
    let decline_class = mapped.decline_class.filter(|_| is_decline).or(Some(DeclineClass::Error));
    Mapped {
        outcome,
        decline_class,
        unknown: false,
        partial: false,
        held_for_review: false,
        duplicate: false,
        transaction_id: None,
        network_transaction_id: None,
        amount_approved: None,
        card_update: None,
        ..mapped
    }
}

enum Found<'t> {
    Here(Tree<'t>),
    /// The list is there and whole, and does not hold it.
    Nothing,
    /// An answer of another shape, or a list that goes on elsewhere.
    Unclear,
}

/// For a look-up that answers with a list, the part that is meant.
fn look_within<'t>(op: Option<&Op>, status: u16, tree: Tree<'t>, ours: &[&str]) -> Found<'t> {
    let Some(within) = op.and_then(|op| op.within.as_ref()).filter(|_| (200..300).contains(&status)) else {
        return Found::Here(tree);
    };
    let is_believed = within.given.iter().all(|test| test.holds(tree));
    if is_believed && !within.nothing.is_empty() && within.nothing.iter().all(|test| test.holds(tree)) {
        return Found::Nothing;
    }
    let Some(items) = within.list.items(tree).filter(|_| is_believed) else { return Found::Unclear };
    let not_here =
        if within.whole.iter().all(|test| test.holds(tree)) { Found::Nothing } else { Found::Unclear };
    match &within.place {
        Place::At(index) => items.get(*index).map_or(not_here, |item| Found::Here(*item)),
        Place::Where { attempt, more } => {
            let goes_on = more.as_ref().and_then(|more| more.text(tree)).is_some_and(|more| more != "false");
            let is_ours =
                |item: &&Tree<'t>| attempt.text(**item).is_some_and(|text| ours.contains(&text.as_str()));
            match items.iter().find(is_ours) {
                Some(item) => Found::Here(*item),
                None if goes_on || ours.is_empty() => Found::Unclear,
                None => not_here,
            }
        }
    }
}

/// Reads the fields of an answer beside its verdict, where the operation has them or else the connector.
fn facts_of(connector: &Connector, op: Option<&Op>, verdict: &Verdict, tree: Tree<'_>) -> Mapped {
    let own = op.map(|op| &op.fields);
    let card_update = op
        .filter(|op| op.operation.asks_issuer() && !verdict.unknown)
        .and_then(|_| connector.updates.find(tree, (&connector.maps, &connector.empty)));
    let mapped = facts(connector, verdict, |fact| {
        let fields = own.filter(|fields| fields.has(fact)).unwrap_or(&connector.fields);
        fields.text(fact, tree, (&connector.maps, &connector.empty))
    });
    Mapped { card_update, ..mapped }
}

/// What a verdict and the texts beside it mean.
pub(super) fn facts(
    connector: &Connector,
    verdict: &Verdict,
    text: impl Fn(Fact) -> Option<String>,
) -> Mapped {
    let code = text(Fact::Code).map(|t| bounded(&t, CODE_CHARS_MAX));
    let advice = text(Fact::AdviceCode).map(|t| bounded(&t, SHORT_CHARS_MAX));
    let said = text(Fact::Message).map(|t| bounded(&t, MESSAGE_CHARS_MAX));
    let decline_class = match verdict.outcome {
        Outcome::Declined => Some(
            verdict.class.unwrap_or_else(|| connector.declines.classify(code.as_deref(), advice.as_deref())),
        ),
        Outcome::Error if !verdict.unknown => Some(DeclineClass::Error),
        Outcome::Error | Outcome::Approved | Outcome::Pending | Outcome::NotFound => None,
    };
    let amount = || connector.money.to_iso(&text(Fact::AmountApproved)?, text(Fact::Currency).as_deref());
    Mapped {
        outcome: verdict.outcome,
        unknown: verdict.unknown,
        partial: verdict.partial,
        held_for_review: verdict.held_for_review,
        duplicate: verdict.duplicate,
        processor_code: code,
        decline_class,
        message: said.or_else(|| verdict.message.as_deref().map(str::to_owned)),
        transaction_id: text(Fact::TransactionId).and_then(whole),
        network_transaction_id: text(Fact::NetworkTransactionId).and_then(whole),
        transaction_link_id: text(Fact::TransactionLinkId).filter(|id| is_link_id(id)),
        avs: Avs {
            raw: text(Fact::AvsRaw).map(|t| bounded(&t, CODE_CHARS_MAX)),
            zip: text(Fact::AvsZip).and_then(|t| ZipCheck::parse(&t)),
        },
        advice_code: advice,
        amount_approved: if verdict.outcome == Outcome::Approved { amount() } else { None },
        card_update: None,
        processor_ms: text(Fact::ProcessorMs).and_then(|t| t.parse().ok()).filter(|ms: &f64| ms.is_finite()),
    }
}

/// Cut to a length; a control character becomes a space, so that no log line or terminal is broken by it.
fn bounded(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Some processors tell what other networks say in the place of Mastercard's transaction link id: that is longer.
fn is_link_id(text: &str) -> bool {
    text.len() <= LINK_ID_CHARS_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// An id is kept whole or not at all: a cut one would name nothing, or something else.
fn whole(text: String) -> Option<String> {
    let fits = text.len() <= ID_CHARS_MAX && text.chars().all(|c| !c.is_control());
    fits.then_some(text)
}
