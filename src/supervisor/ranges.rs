//! The operator's table of issuer ranges: a CSV file, since such tables are licensed. It is read line by line into twelve bytes a
//! range; a fault names the line and what is wrong, never what stands there.

use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::card::brand::Brand;
use crate::card::range::{Country, Funding, RangeFacts, RangeRecord};

/// The first line of the file.
const HEADER: &str = "range_start,range_end,brand,funding,country";
/// More than the networks have issued; six megabytes.
const RANGES_MAX: usize = 500_000;
/// No line of five short fields is longer.
const LINE_BYTES_MAX: u64 = 256;
const FAULTS_MAX: usize = 10;

/// Reads a table: records in ascending order. Each fault is a line of the answer.
pub(super) fn load(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path)
        .map_err(|error| format!("ranges.file: {} cannot be read: {}", path.display(), error.kind()))?;
    read(BufReader::new(file)).map_err(|faults| {
        let name = path.display();
        let lines: Vec<_> = faults.iter().map(|fault| format!("ranges.file: {name}: {fault}")).collect();
        lines.join("\n")
    })
}

/// A record and the line that it stands in.
type Numbered = (RangeRecord, u32);

fn read(mut from: impl BufRead) -> Result<Vec<u8>, Vec<String>> {
    let (mut ranges, mut faults) = (Vec::<Numbered>::new(), Vec::new());
    let mut text = Vec::new();
    let mut line = 0_u32;
    loop {
        text.clear();
        let mut limited = std::io::Read::take(&mut from, LINE_BYTES_MAX);
        let length = limited
            .read_until(b'\n', &mut text)
            .map_err(|e| vec![format!("cannot be read: {}", e.kind())])?;
        if length == 0 {
            break;
        }
        line += 1;
        let (fault, ends) = match std::str::from_utf8(&text).map(str::trim_end) {
            _ if text.len() >= usize::try_from(LINE_BYTES_MAX).unwrap_or(usize::MAX)
                && !text.ends_with(b"\n") =>
            {
                (Some("the line is too long; write five short fields"), true)
            }
            Err(_) => (Some("the line is not text"), false),
            Ok(words) if line == 1 => {
                let is_header = words.trim_start_matches('\u{feff}') == HEADER;
                (Some("the first line must name the columns").filter(|_| !is_header), !is_header)
            }
            Ok("") => (None, false),
            Ok(_) if ranges.len() >= RANGES_MAX => (Some("there are more than 500,000 ranges"), true),
            Ok(words) => match read_range(words) {
                Ok(record) => {
                    ranges.push((record, line));
                    (None, false)
                }
                Err(fault) => (Some(fault), false),
            },
        };
        faults.extend(fault.map(|fault| format!("line {line}: {fault}")));
        if ends || faults.len() >= FAULTS_MAX {
            break;
        }
    }
    if line == 0 {
        faults.push(format!("it is empty; the first line is {HEADER}"));
    } else if faults.iter().any(|fault| fault.starts_with("line 1:")) {
        faults.push(format!("the first line is {HEADER}"));
    }
    ranges.sort_unstable_by_key(|(record, line)| (record.start, *line));
    if faults.is_empty() {
        faults.extend(overlaps(&ranges).take(FAULTS_MAX));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(ranges.into_iter().flat_map(|(record, _)| record.to_bytes()).collect())
}

/// Two ranges that hold the same number: which of them counts nobody could say.
fn overlaps(ranges: &[Numbered]) -> impl Iterator<Item = String> {
    ranges.windows(2).filter_map(|pair| match pair {
        [(before, first), (after, second)] if after.start <= before.end => {
            Some(format!("line {second}: the range overlaps that of line {first}"))
        }
        _ => None,
    })
}

fn read_range(words: &str) -> Result<RangeRecord, &'static str> {
    let mut fields = words.split(',').map(str::trim);
    let mut next = || fields.next().ok_or("there are fewer than five fields");
    let (start, end, brand, funding, country) = (next()?, next()?, next()?, next()?, next()?);
    if fields.next().is_some() {
        return Err("there are more than five fields");
    }
    let start = eight_digits(start).ok_or("range_start is not eight digits")?;
    let end = eight_digits(end).ok_or("range_end is not eight digits")?;
    if end < start {
        return Err("range_end is before range_start");
    }
    let brand = match brand {
        "" => None,
        name => Some(Brand::from_name(name)).filter(|brand| *brand != Brand::Unknown).map(Some).ok_or(
            "brand is not one of amex, diners, discover, jcb, maestro, mastercard, mir, unionpay, visa, nor empty",
        )?,
    };
    let funding = match funding {
        "" => None,
        name => {
            Some(Funding::from_name(name).ok_or("funding is not credit, charge, debit, prepaid, nor empty")?)
        }
    };
    let country = match country.as_bytes() {
        [] => None,
        letters => {
            let letters = letters.try_into().ok().and_then(Country::read);
            Some(letters.ok_or("country is not two capital letters, nor empty")?)
        }
    };
    Ok(RangeRecord { start, end, facts: RangeFacts { brand, funding, country } })
}

fn eight_digits(text: &str) -> Option<u32> {
    let fits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &str) -> Result<Vec<u8>, Vec<String>> {
        read(format!("{HEADER}\n{lines}").as_bytes())
    }

    #[test]
    fn a_table_is_read_in_any_order_and_kept_in_one() {
        let bytes = table("46873800,46873899,visa,prepaid,US\r\n\n 42424242 , 42424242,, ,\n40000000,41999999,visa,credit,DE\n").unwrap();
        let (records, rest) = bytes.as_chunks::<{ RangeRecord::BYTES }>();
        assert!(rest.is_empty());
        let starts: Vec<_> = records.iter().map(|bytes| RangeRecord::of_bytes(*bytes).start).collect();
        assert_eq!(starts, [40_000_000, 42_424_242, 46_873_800]);
        assert_eq!(RangeRecord::of_bytes(records[1]).facts, RangeFacts::default());
        let facts = RangeRecord::of_bytes(records[2]).facts;
        assert_eq!((facts.brand, facts.funding), (Some(Brand::Visa), Some(Funding::Prepaid)));
        assert_eq!(facts.country.unwrap().as_str(), "US");
        assert!(table("").unwrap().is_empty());
        assert!(read(format!("\u{feff}{HEADER}\r\n").as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn a_fault_names_the_line_and_never_what_stands_there() {
        for (lines, expected) in [
            ("4242424,42424242,,,", "line 2: range_start is not eight digits"),
            ("42424242,424242424242,,,", "line 2: range_end is not eight digits"),
            ("42424243,42424242,,,", "line 2: range_end is before"),
            ("42424242,42424242,canary,,", "line 2: brand is not"),
            ("42424242,42424242,unknown,,", "line 2: brand is not"),
            ("42424242,42424242,,canary,", "line 2: funding is not"),
            ("42424242,42424242,,,canary", "line 2: country is not"),
            ("42424242,42424242,,,de", "line 2: country is not"),
            ("42424242,42424242,,", "line 2: there are fewer"),
            ("42424242,42424242,,,,canary", "line 2: there are more"),
            ("42424200,42424250,,,\n\n42424250,42424299,,,", "line 4: the range overlaps that of line 2"),
        ] {
            let faults = table(lines).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with(expected), "{faults:?}");
            assert!(!faults[0].contains("canary") && !faults[0].contains("4242"), "{faults:?}");
        }
        assert!(read(&b""[..]).unwrap_err()[0].contains(HEADER));
        for first in ["canary", "a,b,c,d,e\n42424242,42424242,,,"] {
            let faults = read(first.as_bytes()).unwrap_err();
            assert!(faults[0].starts_with("line 1: ") && !faults.concat().contains("canary"), "{faults:?}");
        }
        assert_eq!(table(&"canary\n".repeat(1_000)).unwrap_err().len(), FAULTS_MAX);
        assert!(table(&"c".repeat(10_000)).unwrap_err()[0].contains("too long"));
        assert!(read(&[0xff; 40][..]).is_err());
    }

    #[test]
    fn all_ranges_there_are_take_a_few_megabytes() {
        use std::fmt::Write;
        let mut text = String::new();
        for number in 0..300_000_u32 {
            writeln!(text, "{:08},{:08},visa,debit,FR", 10_000_000 + number * 10, 10_000_009 + number * 10)
                .unwrap();
        }
        let bytes = table(&text).unwrap();
        assert_eq!(bytes.len(), 3_600_000);
    }
}
