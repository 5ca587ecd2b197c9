//! Holds the processor's own ledger against the vault's charges, invoice by invoice and to the cent.
//!
//! - *Doubled*: more than one approved entry that was not undone for one invoice, under whatever key.
//! - *Lost*: approved on one side only.
//! - *Off*: approved on both, with other amounts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// A line of the sandbox's ledger, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) amount_approved: i64,
    pub(super) currency: String,
    pub(super) parent: Option<String>,
    pub(super) invoice: Option<String>,
}

/// A charge as the vault shows it, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) invoice: Option<String>,
    pub(super) status: String,
    pub(super) currency: String,
    #[serde(default)]
    pub(super) amount_captured: i64,
    #[serde(default)]
    pub(super) amount_refunded: i64,
    #[serde(default)]
    pub(super) created_at: String,
}

/// What the comparison gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Invoices that are paid more than once.
    pub(super) doubled: Vec<String>,
    /// Invoices that are paid on one side only.
    pub(super) lost: Vec<String>,
    /// Invoices whose amounts differ.
    pub(super) off: Vec<String>,
    /// What the ledger has received by currency, in minor units.
    pub(super) received: BTreeMap<String, i64>,
    /// What the vault says was paid by currency, in minor units.
    pub(super) paid: BTreeMap<String, i64>,
}

/// An invoice with the money that moved for it, on one side.
#[derive(Default)]
struct Standing {
    payments: usize,
    by_currency: BTreeMap<String, i64>,
}

impl Standing {
    fn add(&mut self, currency: &str, amount: i64) {
        self.payments += 1;
        *self.by_currency.entry(currency.to_owned()).or_insert(0) += amount;
    }
}

/// Reads a ledger's lines.
pub(super) fn read_ledger(lines: &[u8]) -> Result<Vec<Entry>, String> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            serde_json::from_slice(line).map_err(|_| "the sandbox's ledger cannot be read".to_owned())
        })
        .collect()
}

/// Compares both sides.
pub(super) fn compare(charges: &[Charge], ledger: &[Entry]) -> Comparison {
    let (vault, processor) = (of_vault(charges), of_ledger(ledger));
    let mut result = Comparison { received: total(&processor), paid: total(&vault), ..Comparison::default() };
    let nothing = Standing::default();
    for invoice in vault.keys().chain(processor.keys()).collect::<BTreeSet<_>>() {
        let ours = vault.get(invoice).unwrap_or(&nothing);
        let theirs = processor.get(invoice).unwrap_or(&nothing);
        if theirs.payments > 1 {
            result.doubled.push(invoice.clone());
        }
        if (ours.payments > 0) != (theirs.payments > 0) {
            result.lost.push(invoice.clone());
        } else if ours.by_currency != theirs.by_currency {
            result.off.push(invoice.clone());
        }
    }
    result
}

fn of_vault(charges: &[Charge]) -> BTreeMap<String, Standing> {
    let mut standing: BTreeMap<String, Standing> = BTreeMap::new();
    for charge in charges.iter().filter(|charge| charge.status == "approved") {
        // A charge without an invoice stands for itself.
        let invoice = charge.invoice.clone().filter(|invoice| !invoice.is_empty());
        let invoice = standing.entry(invoice.unwrap_or_else(|| charge.id.clone())).or_default();
        invoice.add(&charge.currency, charge.amount_captured - charge.amount_refunded);
    }
    standing
}

fn of_ledger(ledger: &[Entry]) -> BTreeMap<String, Standing> {
    // The last line of an id is how it stands: what was pending is decided in a line of its own.
    let last: BTreeMap<&str, &Entry> = ledger.iter().map(|entry| (entry.id.as_str(), entry)).collect();
    let done = |kind: &str, payment: &str| {
        let is_done = |status: &str| matches!(status, "approved" | "voided");
        last.values()
            .filter(|entry| entry.kind == kind && is_done(&entry.status))
            .filter(|entry| entry.parent.as_deref() == Some(payment))
            .map(|entry| entry.amount_approved)
            .collect::<Vec<_>>()
    };
    let mut standing: BTreeMap<String, Standing> = BTreeMap::new();
    for (id, entry) in &last {
        let amount = match (entry.kind.as_str(), entry.status.as_str()) {
            ("sale", "approved") => entry.amount_approved,
            ("authorize", "authorized") if !done("capture", id).is_empty() => {
                done("capture", id).iter().sum()
            }
            _ => continue,
        };
        if !done("void", id).is_empty() {
            continue;
        }
        let invoice = entry.invoice.clone().unwrap_or_else(|| (*id).to_owned());
        let refunded: i64 = done("refund", id).iter().sum();
        standing.entry(invoice).or_default().add(&entry.currency, amount - refunded);
    }
    standing
}

fn total(standing: &BTreeMap<String, Standing>) -> BTreeMap<String, i64> {
    let mut total = BTreeMap::new();
    for (currency, amount) in standing.values().flat_map(|invoice| &invoice.by_currency) {
        *total.entry(currency.clone()).or_insert(0) += amount;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `invoice status amount currency`
    fn charges(rows: &[(&str, &str, i64, &str)]) -> Vec<Charge> {
        (1..)
            .zip(rows)
            .map(|(at, (invoice, status, amount, currency))| Charge {
                id: format!("ch_{at}"),
                invoice: Some((*invoice).to_owned()),
                status: (*status).to_owned(),
                currency: (*currency).to_owned(),
                amount_captured: *amount,
                amount_refunded: 0,
                created_at: String::new(),
            })
            .collect()
    }

    /// `id kind parent invoice status amount`, in USD; no parent or invoice is `-`.
    fn ledger(lines: &[&str]) -> Vec<Entry> {
        let there = |word: &str| (word != "-").then(|| word.to_owned());
        let entry = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            Entry {
                id: words[0].to_owned(),
                kind: words[1].to_owned(),
                parent: there(words[2]),
                invoice: there(words[3]),
                status: words[4].to_owned(),
                amount_approved: words[5].parse().unwrap(),
                currency: "USD".to_owned(),
            }
        };
        lines.iter().map(entry).collect()
    }

    struct Case {
        about: &'static str,
        vault: &'static [(&'static str, &'static str, i64, &'static str)],
        ledger: &'static [&'static str],
        doubled: &'static [&'static str],
        lost: &'static [&'static str],
        off: &'static [&'static str],
    }

    const GOOD: Case = Case {
        about: "both sides alike",
        vault: &[("a", "approved", 100, "USD"), ("b", "declined", 0, "USD"), ("c", "failed", 0, "USD")],
        ledger: &["1 sale - a approved 100", "2 sale - b declined 0", "3 sale - c error 0"],
        doubled: &[],
        lost: &[],
        off: &[],
    };

    const CASES: &[Case] = &[
        GOOD,
        Case {
            about: "a second approval under another key",
            ledger: &["1 sale - a approved 100", "2 sale - a approved 100"],
            doubled: &["a"],
            off: &["a"],
            ..GOOD
        },
        Case {
            about: "a second approval that was voided",
            ledger: &["1 sale - a approved 100", "2 sale - a approved 100", "3 void 2 a voided 100"],
            ..GOOD
        },
        Case {
            about: "a void that was declined undoes nothing",
            ledger: &["1 sale - a approved 100", "2 sale - a approved 100", "3 void 2 a declined 0"],
            doubled: &["a"],
            off: &["a"],
            ..GOOD
        },
        Case {
            about: "approved in the vault alone",
            ledger: &["1 sale - a declined 0"],
            lost: &["a"],
            ..GOOD
        },
        Case {
            about: "approved at the processor alone",
            ledger: &["1 sale - a approved 100", "2 sale - b approved 7", "3 sale - z approved 7"],
            lost: &["b", "z"],
            ..GOOD
        },
        Case {
            about: "doubled where the vault has nothing",
            ledger: &["1 sale - a approved 100", "2 sale - c approved 7", "3 sale - c approved 7"],
            doubled: &["c"],
            lost: &["c"],
            ..GOOD
        },
        Case { about: "a cent less", ledger: &["1 sale - a approved 99"], off: &["a"], ..GOOD },
        Case {
            about: "another currency",
            vault: &[("a", "approved", 100, "EUR")],
            ledger: &["1 sale - a approved 100"],
            off: &["a"],
            ..GOOD
        },
        Case {
            about: "a refund that the vault knows nothing of",
            ledger: &["1 sale - a approved 100", "2 refund 1 a approved 30"],
            off: &["a"],
            ..GOOD
        },
        Case {
            about: "pending, then approved: one payment in two lines",
            ledger: &["1 sale - a pending 0", "1 sale - a approved 100"],
            ..GOOD
        },
        Case {
            about: "authorized and captured",
            ledger: &["1 authorize - a authorized 100", "2 capture 1 a approved 100"],
            ..GOOD
        },
        Case {
            about: "authorized and never captured",
            ledger: &["1 authorize - a authorized 100"],
            lost: &["a"],
            ..GOOD
        },
        Case {
            about: "a payment without an invoice belongs to nobody",
            ledger: &["1 sale - a approved 100", "2 sale - - approved 5"],
            lost: &["2"],
            ..GOOD
        },
    ];

    #[test]
    fn doubled_lost_and_other_amounts_are_found() {
        for case in CASES {
            let result = compare(&charges(case.vault), &ledger(case.ledger));
            assert_eq!(result.doubled, case.doubled, "doubled: {}", case.about);
            assert_eq!(result.lost, case.lost, "lost: {}", case.about);
            assert_eq!(result.off, case.off, "off: {}", case.about);
        }
    }

    #[test]
    fn totals_are_kept_by_currency() {
        let vault = charges(&[("a", "approved", 100, "USD"), ("b", "approved", 5, "EUR")]);
        let result = compare(&vault, &ledger(&["1 sale - a approved 100", "2 sale - b approved 5"]));
        let of = |pairs: &[(&str, i64)]| pairs.iter().map(|(c, n)| ((*c).to_owned(), *n)).collect();
        assert_eq!((result.paid, result.received), (of(&[("EUR", 5), ("USD", 100)]), of(&[("USD", 105)])));
        assert_eq!(result.off, ["b"]);
    }

    #[test]
    fn a_ledger_is_read_and_a_torn_one_refused() {
        let line = br#"{"seq":0,"id":"p","kind":"sale","status":"approved","amount_approved":5,"currency":"USD","more":1}"#;
        assert_eq!(read_ledger(&[line, &b"\n"[..]].concat()).unwrap()[0].parent, None);
        assert!(read_ledger(&line[..20]).is_err());
    }
}
