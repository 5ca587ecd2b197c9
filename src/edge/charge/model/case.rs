//! The cases that are walked: an operation, a class, and how a processor takes it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::mortal::Death;
use super::processor::Reaction;
use super::{HOLD, VERSION};
use crate::card::id::Token;
use crate::card::tenant::Mode;
use crate::clock::{Clock, SystemClock};
use crate::edge::charge::Follow;
use crate::wire::control::DestinationInfo;
use crate::wire::keeper::Verb;

const AMOUNT: i64 = 1_000;

/// A destination's class; the last one cannot even be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Replay,
    SuccessOnly,
    NaturalKey,
    None,
    Blind,
}

impl Class {
    pub(super) const ALL: [Self; 5] =
        [Self::Replay, Self::SuccessOnly, Self::NaturalKey, Self::None, Self::Blind];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::SuccessOnly => "success-only",
            Self::NaturalKey => "natural-key",
            Self::None => "none",
            Self::Blind => "blind",
        }
    }

    pub(super) fn of_destination(name: &str) -> Self {
        let word = name.strip_suffix("-hold").unwrap_or(name);
        Self::ALL.into_iter().find(|class| class.word() == word).unwrap()
    }

    pub(super) fn destinations(self) -> [DestinationInfo; 2] {
        let of = |name: String, can_verify| DestinationInfo {
            connector: name.clone(),
            name,
            connector_version: VERSION,
            mode: Mode::Test,
            idempotency: if self == Self::Blind { "none" } else { self.word() }.to_owned(),
            idempotency_later: if self == Self::Blind { "none" } else { self.word() }.to_owned(),
            // No clock of the test comes so far.
            idempotency_seconds: 1 << 40,
            can_look_up: self != Self::Blind,
            settle_seconds: 0,
            timeout_seconds: 30,
            network_codes: false,
            until_seconds: None,
            can_verify,
            smallest_amounts: BTreeMap::from([("USD".to_owned(), HOLD)]),
            undo_sale: Some(Verb::Void),
            undo_authorize: Some(Verb::Void),
            captures_once: false,
            refunds_capture: false,
            later_needs_transaction: true,
            refund_needs_card: false,
            takes_webhooks: false,
            authorization_hours: 168,
            merchant_hours: BTreeMap::new(),
        };
        [of(self.word().to_owned(), true), of(format!("{}-hold", self.word()), false)]
    }
}

/// The operation that a case is about; what it needs before goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Under {
    Sale,
    Authorize,
    Verify,
    Hold,
    Capture,
    Refund,
    Void,
}

impl Under {
    pub(super) const ALL: [Self; 7] =
        [Self::Sale, Self::Authorize, Self::Verify, Self::Hold, Self::Capture, Self::Refund, Self::Void];

    pub(super) const fn verb(self) -> Verb {
        match self {
            Self::Sale => Verb::Sale,
            Self::Authorize | Self::Hold => Verb::Authorize,
            Self::Verify => Verb::Verify,
            Self::Capture => Verb::Capture,
            Self::Refund => Verb::Refund,
            Self::Void => Verb::Void,
        }
    }

    pub(super) const fn follow(self) -> Option<Follow> {
        match self {
            Self::Sale | Self::Authorize | Self::Verify | Self::Hold => None,
            Self::Capture => Some(Follow::Capture { amount: Some(600), last: false }),
            Self::Refund => Some(Follow::Refund { amount: Some(400) }),
            Self::Void => Some(Follow::Void),
        }
    }
}

/// One walk.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) token: Token,
    pub(super) under: Under,
    pub(super) class: Class,
    pub(super) reaction: Reaction,
    /// The request can never be made again.
    pub(super) once_only: bool,
    /// Where the process dies, life by life.
    pub(super) deaths: Vec<Death>,
    /// Whether the keeper dies with the edge, and with it the outcomes that it had.
    pub(super) forgets: bool,
}

impl Case {
    pub(super) fn new(under: Under, class: Class, reaction: Reaction) -> Self {
        let token = Token::make(SystemClock.now()).unwrap();
        Self { token, under, class, reaction, once_only: false, deaths: Vec::new(), forgets: false }
    }

    /// Whether there is such a thing.
    pub(super) fn exists(&self) -> bool {
        let of_payments =
            matches!(self.reaction, Reaction::ApprovesPart | Reaction::TurnsUp | Reaction::LosesUndo);
        !of_payments || matches!(self.under, Under::Sale | Under::Authorize)
    }

    /// Whether it is not final before a month of silence: nobody says it, or nobody can be asked.
    pub(super) fn waits(&self) -> bool {
        let is_later = matches!(self.reaction, Reaction::ApprovesLater | Reaction::DeclinesLater);
        self.is_held() || (is_later && self.class == Class::Blind)
    }

    /// Whether it waits for a review; a check of a card does not, unless it holds an amount and nobody can learn whether that is
    /// released.
    fn is_held(&self) -> bool {
        let waits = match self.under {
            Under::Verify => false,
            Under::Hold => self.class == Class::Blind,
            Under::Sale | Under::Authorize | Under::Capture | Under::Refund | Under::Void => true,
        };
        self.reaction == Reaction::Holds && waits
    }

    /// Whether nobody may ever learn what became of it: then a person must.
    pub(super) fn may_be_manual(&self) -> bool {
        let is_mute = matches!(self.reaction, Reaction::NeverTells | Reaction::TurnsUp);
        is_mute || self.is_held() || self.class == Class::Blind
    }

    pub(super) fn body(&self) -> Value {
        let hold = if self.under == Under::Hold { "-hold" } else { "" };
        let destination = format!("{}{hold}", self.class.word());
        let capture = !matches!(self.under, Under::Authorize | Under::Capture | Under::Void);
        json!({
            "token": self.token.to_string(), "amount": AMOUNT, "currency": "USD", "destination": destination,
            "invoice": format!("inv-{}", self.token), "capture": capture,
        })
    }
}
