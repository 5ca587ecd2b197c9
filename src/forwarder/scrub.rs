//! Clear values that a processor sends back are replaced, in whatever form it wrote them.
//!
//! A text is read in views: as it is, and with percent, `\u`, `\x` and numeric HTML escapes undone (twice, for what was escaped
//! twice). In each view every value is looked for as it is, as hex (ASCII, and EBCDIC for digits) and as base64 in its three
//! alignments and two alphabets. Digits and hex are found however they are spaced, dashed or dotted.

use std::ops::Range;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER};

use crate::card::stray;

/// What stands in place of what was found.
const REDACTED: &str = "[redacted]";
/// So many characters that are no letter or digit may stand between two digits of a number.
const SEPARATORS_MAX: usize = 3;
/// A shorter value (a card verification code) is looked for only where it stands alone: any id holds such digits by chance.
const LONG_CHARS_MIN: usize = 8;
/// At the end of a text that was cut, so much of a value's beginning is taken for the value.
const CUT_CHARS_MIN: usize = 4;
/// How often escapes are undone.
const UNESCAPES_MAX: usize = 2;

/// What a text is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// Free text: no number that could be a card's goes through either.
    Message {
        /// Where it is cut.
        chars_max: usize,
    },
    /// A short code.
    Code {
        /// Where it is cut.
        chars_max: usize,
    },
    /// A transaction or network id. Many look like a card number and are none; a short value is replaced only if it is the
    /// whole id, since an id that was changed finds no payment.
    Id,
}

/// Looks for the clear values of one exchange.
pub(super) struct Scrubber {
    needles: Vec<Needle>,
}

/// One form of one value.
struct Needle {
    chars: Vec<char>,
    form: Form,
    is_short: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Character for character.
    Exact,
    /// Digits or hex: in either case, with separators.
    Spaced,
    /// The characters of base64 that depend on the value alone; one more may depend on it in part.
    Base64,
}

/// A character as a view has it, and where it stands in the text.
#[derive(Clone, Copy)]
struct Seen {
    char: char,
    start: usize,
    end: usize,
}

impl Scrubber {
    /// Prepares every form of these values.
    pub(super) fn new(values: &[String]) -> Self {
        let mut needles = Vec::with_capacity(values.len() * 10);
        for value in values.iter().filter(|value| !value.is_empty()) {
            add_forms(value, &mut needles);
        }
        Self { needles }
    }

    /// The text without any of the values.
    pub(super) fn clean(&self, text: String, field: Field) -> String {
        let (chars_max, is_message) = match field {
            Field::Message { chars_max } => (chars_max, true),
            Field::Code { chars_max } => (chars_max, false),
            Field::Id => (usize::MAX, false),
        };
        let mut view: Vec<Seen> = text
            .char_indices()
            .map(|(start, char)| Seen { char: plain_digit(char), start, end: start + char.len_utf8() })
            .collect();
        let was_cut = view.len() >= chars_max;
        let mut found = Vec::new();
        for _ in 0..=UNESCAPES_MAX {
            for needle in &self.needles {
                needle.find(&view, was_cut, field, &mut found);
            }
            match unescape(&view) {
                Some(unescaped) => view = unescaped,
                None => break,
            }
        }
        let text = replace(text, found);
        if is_message { without_stray_numbers(text) } else { text }
    }
}

impl Scrubber {
    /// A text of any length without any of the values; with `strays` also without any run of digits that could be a card number,
    /// whosever it is, in whatever form it is written.
    pub(super) fn redact(&self, text: String, strays: bool) -> String {
        let field = Field::Message { chars_max: usize::MAX };
        let mut view: Vec<Seen> = text
            .char_indices()
            .map(|(start, char)| Seen { char: plain_digit(char), start, end: start + char.len_utf8() })
            .collect();
        let mut found = Vec::new();
        for _ in 0..=UNESCAPES_MAX {
            for needle in &self.needles {
                needle.find(&view, false, field, &mut found);
            }
            if strays {
                find_strays(&view, &mut found);
            }
            match unescape(&view) {
                Some(unescaped) => view = unescaped,
                None => break,
            }
        }
        replace(text, found)
    }
}

/// Notes each run of digits, with single blanks and dashes in it, that holds what could be a card number.
fn find_strays(view: &[Seen], found: &mut Vec<Range<usize>>) {
    let is_digit = |at: usize| view.get(at).is_some_and(|seen| seen.char.is_ascii_digit());
    let mut at = 0;
    while at < view.len() {
        if !is_digit(at) {
            at += 1;
            continue;
        }
        let start = at;
        let mut run = String::new();
        while let Some(seen) = view.get(at) {
            let joins = matches!(seen.char, ' ' | '-') && is_digit(at + 1);
            if !is_digit(at) && !joins {
                break;
            }
            run.push(seen.char);
            at += 1;
        }
        if stray::in_free_text(&run)
            && let (Some(first), Some(last)) = (view.get(start), view.get(at - 1))
        {
            found.push(first.start..last.end);
        }
    }
}

fn add_forms(value: &str, needles: &mut Vec<Needle>) {
    let is_short = value.chars().count() < LONG_CHARS_MIN;
    let is_digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let mut add = |text: &str, form| {
        let chars: Vec<char> = text.chars().collect();
        if !needles.iter().any(|known| known.chars == chars) {
            needles.push(Needle { chars, form, is_short });
        }
    };
    add(value, if is_digits && !is_short { Form::Spaced } else { Form::Exact });
    add(&HEXLOWER.encode(value.as_bytes()), Form::Spaced);
    if is_digits {
        let ebcdic: String = value.chars().flat_map(|digit| ['f', digit]).collect();
        add(&ebcdic, Form::Spaced);
    }
    for bytes in grouped(value, is_digits && !is_short) {
        for shift in 0..3 {
            let mut shifted = vec![0; shift];
            shifted.extend_from_slice(bytes.as_bytes());
            for alphabet in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
                let text = alphabet.encode(&shifted);
                // What mixes with the bytes before is dropped, and what mixes with the bytes after.
                let from = [0, 2, 3].get(shift).copied().unwrap_or(0);
                let to = text.len() - usize::from(shifted.len() % 3 != 0);
                if let Some(core) = text.get(from..to).filter(|core| !core.is_empty()) {
                    add(core, Form::Base64);
                }
            }
        }
    }
}

/// A number as it is, and in the groups that people write it in, before it is encoded as a whole.
fn grouped(value: &str, is_number: bool) -> Vec<String> {
    let mut forms = vec![value.to_owned()];
    if is_number {
        for separator in [' ', '-'] {
            let digits = value.chars().enumerate();
            forms.push(
                digits
                    .flat_map(|(at, digit)| {
                        [(at > 0 && at % 4 == 0).then_some(separator), Some(digit)].into_iter().flatten()
                    })
                    .collect(),
            );
        }
    }
    forms
}

impl Needle {
    /// Notes where in the text this form stands.
    fn find(&self, view: &[Seen], was_cut: bool, field: Field, found: &mut Vec<Range<usize>>) {
        let mut at = 0;
        while at < view.len() {
            match self.match_at(view, at, was_cut).filter(|end| self.may_be_here(view, at..*end, field)) {
                Some(end) => {
                    if let (Some(first), Some(last)) = (view.get(at), view.get(end - 1)) {
                        found.push(first.start..last.end);
                    }
                    at = end;
                }
                None => at += 1,
            }
        }
    }

    /// Where the match that begins at `start` ends.
    fn match_at(&self, view: &[Seen], start: usize, was_cut: bool) -> Option<usize> {
        let mut at = start;
        for (matched, wanted) in self.chars.iter().enumerate() {
            if self.form == Form::Spaced && matched > 0 {
                let is_separator = |seen: &&Seen| !seen.char.is_alphanumeric();
                at += view.iter().skip(at).take(SEPARATORS_MAX).take_while(is_separator).count();
            }
            match view.get(at) {
                Some(seen) if self.is_same(seen.char, *wanted) => at += 1,
                None if was_cut && !self.is_short && matched >= CUT_CHARS_MIN => return Some(at),
                Some(_) | None => return None,
            }
        }
        if self.form == Form::Base64 {
            let is_base64 = |seen: &Seen| seen.char.is_ascii_alphanumeric() || "+/-_".contains(seen.char);
            at += usize::from(view.get(at).is_some_and(is_base64));
            at += view.iter().skip(at).take(2).take_while(|seen| seen.char == '=').count();
        }
        Some(at)
    }

    fn is_same(&self, seen: char, wanted: char) -> bool {
        match self.form {
            Form::Spaced => seen.eq_ignore_ascii_case(&wanted),
            Form::Exact | Form::Base64 => seen == wanted,
        }
    }

    fn may_be_here(&self, view: &[Seen], at: Range<usize>, field: Field) -> bool {
        if !self.is_short {
            return true;
        }
        let is_word = |seen: &Seen| seen.char.is_alphanumeric();
        let before = at.start.checked_sub(1).and_then(|before| view.get(before));
        let after = view.get(at.end);
        match field {
            Field::Id => before.is_none() && after.is_none(),
            Field::Message { .. } | Field::Code { .. } => {
                !before.is_some_and(is_word) && !after.is_some_and(is_word)
            }
        }
    }
}

/// Full-width digits are digits.
fn plain_digit(char: char) -> char {
    match char {
        '\u{ff10}'..='\u{ff19}' => char::from_digit(u32::from(char) - 0xff10, 10).unwrap_or(char),
        other => other,
    }
}

/// The view with its escapes undone, each escape one character; `None` if there is none.
fn unescape(view: &[Seen]) -> Option<Vec<Seen>> {
    if !view.iter().any(|seen| matches!(seen.char, '%' | '\\' | '&')) {
        return None;
    }
    let mut out = Vec::with_capacity(view.len());
    let mut at = 0;
    while let Some(seen) = view.get(at) {
        let escape = escape_at(view.get(at..).unwrap_or(&[]));
        let (char, length) = escape.unwrap_or((seen.char, 1));
        let last = view.get(at + length - 1).unwrap_or(seen);
        out.push(Seen { char: plain_digit(char), start: seen.start, end: last.end });
        at += length;
    }
    (out.len() < view.len()).then_some(out)
}

/// The character that an escape stands for, and how long the escape is.
fn escape_at(view: &[Seen]) -> Option<(char, usize)> {
    let char_at = |at: usize| view.get(at).map(|seen| seen.char);
    let number = |from: usize, digits: usize, radix: u32| {
        let digits = view.get(from..from + digits)?.iter();
        let value = digits.map(|seen| seen.char.to_digit(radix)).try_fold(0, |sum, d| Some(sum * radix + d?));
        char::from_u32(value?)
    };
    match (char_at(0)?, char_at(1)?) {
        ('%', 'u') | ('\\', 'u' | 'U') => Some((number(2, 4, 16)?, 6)),
        ('\\', 'x') => Some((number(2, 2, 16)?, 4)),
        ('%', _) => Some((number(1, 2, 16)?, 3)),
        ('&', '#') => {
            let is_hex = matches!(char_at(2)?, 'x' | 'X');
            let (from, radix) = if is_hex { (3, 16) } else { (2, 10) };
            let is_digit = |seen: &&Seen| seen.char.is_digit(radix);
            let digits = view.iter().skip(from).take(7).take_while(is_digit).count();
            let end = from + digits;
            (digits > 0 && char_at(end) == Some(';')).then_some((number(from, digits, radix)?, end + 1))
        }
        _ => None,
    }
}

/// Replaces every found place, overlapping ones as one.
fn replace(text: String, mut found: Vec<Range<usize>>) -> String {
    if found.is_empty() {
        return text;
    }
    found.sort_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let (mut kept_to, mut redacted_to) = (0, 0);
    for range in found {
        if range.start >= redacted_to {
            out.push_str(text.get(kept_to..range.start).unwrap_or(""));
            out.push_str(REDACTED);
        }
        redacted_to = redacted_to.max(range.end);
        kept_to = redacted_to;
    }
    out.push_str(text.get(kept_to..).unwrap_or(""));
    out
}

/// Free text without any run of digits that holds what could be a card number, whosever it is.
fn without_stray_numbers(text: String) -> String {
    if !stray::in_free_text(&text) {
        return text;
    }
    let is_run = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b' ' | b'-');
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = bytes.iter().skip(at).take_while(|byte| is_run(byte)).count();
        let run = text.get(at..at + length).unwrap_or("");
        if stray::in_free_text(run) {
            let blank = |c: char| matches!(c, ' ' | '-');
            let start = at + (run.len() - run.trim_start_matches(blank).len());
            found.push(start..at + run.trim_end_matches(blank).len());
        }
        at += length.max(1);
    }
    replace(text, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::{BASE64, BASE64URL, HEXUPPER};
    use proptest::prelude::*;

    const PAN: &str = "4242424242424242";
    const SECRET: &str = "sk_test_one+two/three";
    const MESSAGE: Field = Field::Message { chars_max: 1000 };
    const CODE: Field = Field::Code { chars_max: 64 };

    fn scrubber() -> Scrubber {
        Scrubber::new(&[PAN.to_owned(), "987".to_owned(), SECRET.to_owned()])
    }

    fn each(value: &str, form: impl Fn(char) -> String) -> String {
        value.chars().map(form).collect()
    }

    #[test]
    fn a_number_is_found_in_every_form() {
        let percent = each(PAN, |c| format!("%{:02X}", u32::from(c)));
        let forms = [
            PAN.to_owned(),
            "4242 4242 4242 4242".to_owned(),
            "4242-4242-4242-4242".to_owned(),
            "4242 - 4242 - 4242 - 4242".to_owned(),
            "424242 42424242 42".to_owned(),
            "4.2.4.2.4.2.4.2.4.2.4.2.4.2.4.2".to_owned(),
            "4242\u{a0}4242\u{200b}4242\u{2009}4242".to_owned(),
            "4242%204242+4242%2D4242".to_owned(),
            percent.replace('%', "%25"),
            percent,
            each(PAN, |c| format!("\\u{:04x}", u32::from(c))),
            each(PAN, |c| format!("\\x{:02X}", u32::from(c))),
            each(PAN, |c| format!("&#{};", u32::from(c))),
            each(PAN, |c| format!("&#x{:x};", u32::from(c))),
            each(PAN, |c| char::from_u32(0xff10 + u32::from(c) - 0x30).unwrap().to_string()),
            HEXLOWER.encode(PAN.as_bytes()),
            each(PAN, |c| format!("{:02x} ", u32::from(c))),
            each(PAN, |c| format!("F{c}")),
            each(PAN, |c| format!("f{c}")),
            BASE64.encode(PAN.as_bytes()),
            BASE64URL.encode(PAN.as_bytes()),
            BASE64_NOPAD.encode(b"4242-4242-4242-4242"),
            BASE64_NOPAD.encode(b"4242 4242 4242 4242"),
        ];
        for (at, form) in forms.iter().enumerate() {
            for field in [MESSAGE, CODE, Field::Id] {
                let clean = scrubber().clean(format!("x:{form}"), field);
                assert_eq!(clean.trim_end(), format!("x:{REDACTED}"), "form {at}");
            }
        }
    }

    #[test]
    fn a_credential_is_found_in_every_form() {
        let forms = [
            SECRET.to_owned(),
            "sk%5Ftest_one%2Btwo%2Fthree".to_owned(),
            HEXLOWER.encode(SECRET.as_bytes()),
            HEXUPPER.encode(SECRET.as_bytes()),
            BASE64.encode(SECRET.as_bytes()),
        ];
        for (at, form) in forms.iter().enumerate() {
            assert_eq!(scrubber().clean(format!("<{form}>"), CODE), format!("<{REDACTED}>"), "form {at}");
        }
    }

    #[test]
    fn a_short_value_is_found_where_it_stands_alone() {
        for (text, field, clean) in [
            ("cvc 987 is wrong", MESSAGE, "cvc [redacted] is wrong"),
            ("cvc 987", CODE, "cvc [redacted]"),
            ("code OTg3", CODE, "code [redacted]"),
            ("took 19873 ms", MESSAGE, "took 19873 ms"),
            ("ch_987", Field::Id, "ch_987"),
            ("ch-987-1", Field::Id, "ch-987-1"),
            ("987", Field::Id, REDACTED),
        ] {
            assert_eq!(scrubber().clean(text.to_owned(), field), clean);
        }
    }

    #[test]
    fn a_number_that_was_cut_off_is_found() {
        let cut = |text: &str, max: usize| text.chars().take(max).collect::<String>();
        for kept in 5..16 {
            let text = cut(&format!("{}{PAN}", "a".repeat(64 - kept)), 64);
            assert_eq!(scrubber().clean(text, CODE), format!("{}{REDACTED}", "a".repeat(64 - kept)));
        }
        assert_eq!(scrubber().clean("card ending in 424242".to_owned(), MESSAGE), "card ending in 424242");
    }

    #[test]
    fn other_numbers_go_from_messages_and_stay_in_ids() {
        let other = "5555 5555 5555 4444";
        let clean = scrubber().clean(format!("not {other}, 12 - or 7"), MESSAGE);
        assert_eq!(clean, "not [redacted], 12 - or 7");
        for field in [CODE, Field::Id] {
            assert_eq!(scrubber().clean(other.to_owned(), field), other);
        }
        let harmless = "invoice 2026-11-22: 100% of 12,50 & more \\u00e9 &#9731;";
        assert_eq!(scrubber().clean(harmless.to_owned(), MESSAGE), harmless);
    }

    proptest! {
        #[test]
        fn base64_is_found_in_any_alignment(before in "[a-z:]{0,9}", after in "[a-z:]{0,9}") {
            for value in [PAN, SECRET] {
                let whole = format!("{before}{value}{after}");
                for alphabet in [&BASE64, &BASE64URL, &BASE64_NOPAD] {
                    let clean = scrubber().clean(alphabet.encode(whole.as_bytes()), MESSAGE);
                    prop_assert!(clean.contains(REDACTED));
                    // What is left of the value's own symbols is none that holds a character of it whole.
                    prop_assert!(clean.len() <= (before.len() + after.len()) * 4 / 3 + 8 + REDACTED.len());
                }
            }
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,80}", piece in 0_usize..16) {
            let text = format!("{text}{}{text}{PAN}{text}", &PAN[..piece]);
            for field in [MESSAGE, CODE, Field::Id] {
                prop_assert!(!scrubber().clean(text.clone(), field).contains(PAN));
            }
        }
    }
}
