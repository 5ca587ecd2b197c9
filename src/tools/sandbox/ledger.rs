//! The ledger: an append-only file of NDJSON, one entry per thing that happened, durable before anybody hears of it.
//!
//! One thread writes: it takes every line that waits, writes them as one, calls fdatasync once and then wakes
//! everybody whose line is down. An entry holds what is needed to answer a repeated key after a restart, the last four
//! digits of the card, and no more of the number.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::numbers::{Behaviour, Fault};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Authorized and captured at once.
    Sale,
    /// Authorized, to be captured.
    Authorize,
    /// Captured of an authorization.
    Capture,
    /// Given back.
    Refund,
    /// Undone before anything was captured, or before a sale settled.
    Void,
    /// Checked for zero.
    Verify,
}

impl Kind {
    /// The word of the wire and the ledger.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Refund => "refund",
            Self::Void => "void",
            Self::Verify => "verify",
        }
    }
}

/// How it ended, or stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// Money moved (or the card was found good).
    Approved,
    /// Money is held.
    Authorized,
    /// Refused.
    Declined,
    /// Not decided yet.
    Pending,
    /// Was approved or authorized, and undone.
    Voided,
    /// Nothing was done; the request only left a trace.
    Error,
}

impl Status {
    /// The word of the wire and the ledger.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Authorized => "authorized",
            Self::Declined => "declined",
            Self::Pending => "pending",
            Self::Voided => "voided",
            Self::Error => "error",
        }
    }
}

/// The wire form in which it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wire {
    /// The plain JSON form.
    Json,
    /// Stripe's form.
    Stripe,
    /// Adyen's JSON.
    Adyen,
    /// Authorize.Net's XML and JSON.
    AuthorizeNet,
    /// Worldpay's XML (WPG).
    Worldpay,
}

impl Wire {
    /// All of them, in their own order.
    pub(super) const ALL: [Self; 5] =
        [Self::Json, Self::Stripe, Self::Adyen, Self::AuthorizeNet, Self::Worldpay];

    /// The word of the ledger and the sandbox's own verbs.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Stripe => "stripe",
            Self::Adyen => "adyen",
            Self::AuthorizeNet => "authorize_net",
            Self::Worldpay => "worldpay",
        }
    }
}

/// What the answers of Adyen, Authorize.Net and Worldpay repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FamilyFields {
    /// Merchant account or code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) merchant: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) brand: String,
    /// `MM/YYYY`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) expiry: String,
    /// Authorize.Net's `refId`, or Worldpay's amount exponent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) echo: String,
    /// Whether a verification code was sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) cvc: bool,
    /// Whether the customer is there and can be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) present: bool,
}

/// What only Stripe's answers repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StripeFields {
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub(super) metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    pub(super) brand: String,
    pub(super) exp_month: u8,
    pub(super) exp_year: u16,
    #[serde(default)]
    pub(super) cvc: bool,
    #[serde(default)]
    pub(super) off_session: bool,
    /// Whether the answer was asked to hold the whole charge.
    #[serde(default)]
    pub(super) expand_charge: bool,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) seq: u64,
    /// RFC 3339, by the sandbox's clock.
    pub(super) at: String,
    pub(super) id: String,
    pub(super) kind: Kind,
    pub(super) reference: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) idempotency_key: Option<String>,
    /// Asked for, in minor units.
    pub(super) amount: i64,
    /// Granted, in minor units.
    pub(super) amount_approved: i64,
    pub(super) currency: String,
    pub(super) status: Status,
    pub(super) code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) invoice: Option<String>,
    pub(super) last4: String,
    pub(super) wire: Wire,
    pub(super) behaviour: Behaviour,
    /// Keyed digest of method, path and body, to tell a repetition from another request with the same key.
    pub(super) request: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network_transaction_id: Option<String>,
    /// The network transaction id of an earlier payment that the request named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) named_network_transaction_id: Option<String>,
    /// Y, N or U.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) zip: Option<String>,
    /// Of a capture: nothing more will be captured.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_final: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stripe: Option<StripeFields>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<FamilyFields>,
    /// Keyed digest of what a duplicate would be: card, amount and invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<String>,
    /// What went wrong with the first answer.
    #[serde(default, skip_serializing_if = "Fault::is_none")]
    pub(super) fault: Fault,
    /// After so many bytes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fault_at: Option<u32>,
    /// Whether the fault meets every repetition of the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) lasting: bool,
    /// Whether nobody can learn from outside what became of it: the answer was lost, and neither the same request again
    /// nor a look-up tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unresolvable: bool,
}

/// Where a line stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Place {
    /// The first byte behind it.
    pub(super) fn end(self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

/// The file and its writer. Dropping it ends the writer after what is queued.
pub(super) struct Ledger {
    reader: File,
    end: u64,
    lines: mpsc::Sender<Vec<u8>>,
    durable: watch::Receiver<u64>,
}

/// The ledger cannot be written any more; nothing may be answered as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot be written")]
pub(super) struct Broken;

impl Ledger {
    /// Opens or creates the file, hands every entry to `each`, cuts off a torn last line and starts the writer.
    pub(super) fn open(path: &Path, mut each: impl FnMut(Entry, Place)) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut end = 0;
        let mut lines = BufReader::with_capacity(1 << 20, &file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let len = lines.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                break;
            }
            // A line that is whole but not an entry is somebody's edit: better to stop than to forget a payment.
            let entry = serde_json::from_slice(&line).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "the ledger has a line that is no entry")
            })?;
            let place = Place { offset: end, len: u32::try_from(len).unwrap_or(u32::MAX) };
            end = place.end();
            each(entry, place);
        }
        drop(lines);
        if end == 0
            && let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty())
        {
            // A new file's name has to be durable too.
            File::open(directory)?.sync_all()?;
        }
        file.set_len(end)?;
        file.seek(io::SeekFrom::End(0))?;
        let reader = file.try_clone()?;
        let (sender, receiver) = mpsc::channel();
        let (told, durable) = watch::channel(end);
        std::thread::Builder::new().name("ledger".into()).spawn(move || write_all(file, &receiver, &told))?;
        Ok(Self { reader, end, lines: sender, durable })
    }

    /// Queues an entry; it is durable once [`durable`](Self::durable) reaches the end of its place.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<Place, Broken> {
        let mut line = serde_json::to_vec(entry).map_err(|_| Broken)?;
        line.push(b'\n');
        let place = Place { offset: self.end, len: u32::try_from(line.len()).map_err(|_| Broken)? };
        self.lines.send(line).map_err(|_| Broken)?;
        self.end = place.end();
        Ok(place)
    }

    /// How far the file is durable, in bytes; it is closed when the writer failed.
    pub(super) fn durable(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }

    /// A second handle, to read durable lines without holding the state.
    pub(super) fn reader(&self) -> io::Result<File> {
        self.reader.try_clone()
    }

    /// Reads a line that the writer has written.
    pub(super) fn read(&self, place: Place) -> Option<Entry> {
        read(&self.reader, place)
    }

    /// The end of what was queued.
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}

/// Reads one durable line.
pub(super) fn read(file: &File, place: Place) -> Option<Entry> {
    let mut line = vec![0; usize::try_from(place.len).ok()?];
    file.read_exact_at(&mut line, place.offset).ok()?;
    serde_json::from_slice(&line).ok()
}

/// The writer: many waiting lines, one write, one fdatasync. Ends when the ledger is dropped or the disk fails.
fn write_all(mut file: File, lines: &mpsc::Receiver<Vec<u8>>, told: &watch::Sender<u64>) {
    let mut batch = Vec::new();
    while let Ok(first) = lines.recv() {
        batch.clear();
        batch.extend_from_slice(&first);
        while let Ok(next) = lines.try_recv() {
            batch.extend_from_slice(&next);
        }
        if file.write_all(&batch).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        let len = u64::try_from(batch.len()).unwrap_or(0);
        told.send_modify(|durable| *durable += len);
    }
}
