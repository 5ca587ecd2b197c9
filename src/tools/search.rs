//! Looks for card numbers in bytes, in every form in which software is known to leave them behind: as text with and without
//! separators, in the encodings that logs and databases use, and as the numbers and packed digits of binary formats.
//!
//! All forms of all numbers are looked for in one pass: a rolling word of [`HEAD`] bytes is asked of a small bitmap, and only
//! what that does not rule out is compared. A hit says where and in which form, never the number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The first bytes of a form, by which it is found; what is shorter would be found in noise.
const HEAD: usize = 6;
const HEAD_MASK: u64 = (1 << (8 * HEAD)) - 1;
/// Bits of the bitmap, as a power of two: 32 KiB stay in a core's nearest cache.
const FILTER_BITS: u32 = 18;
/// How much is read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Hits beyond these are counted, not kept.
pub const HITS_MAX: usize = 100;
/// Between groups of digits, as people, URLs and forms write them.
const SEPARATORS: [&str; 8] = [" ", "-", ".", "_", "/", "+", "%20", "\u{a0}"];

/// Where a number was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which number: its place in what the search was made of.
    pub number: usize,
    /// In which form.
    pub form: &'static str,
    /// Where it begins.
    pub offset: u64,
}

/// What was found in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many bytes were searched.
    pub bytes: u64,
    /// The first hits.
    pub hits: Vec<Hit>,
    /// All hits.
    pub count: u64,
}

/// What was found in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// How many files were searched.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The first hits, with their files.
    pub hits: Vec<(PathBuf, Hit)>,
    /// All hits.
    pub count: u64,
}

/// A search for some numbers in all their forms.
pub struct Search {
    needles: Vec<Needle>,
    heads: HashMap<u64, Vec<usize>>,
    filter: Vec<u64>,
    longest: usize,
}

struct Needle {
    bytes: Vec<u8>,
    number: usize,
    form: &'static str,
}

impl Search {
    /// A search for these numbers, each given as its digits.
    pub fn new<I>(numbers: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let words = 1_usize << (FILTER_BITS - 6);
        let mut search =
            Self { needles: Vec::new(), heads: HashMap::new(), filter: vec![0; words], longest: HEAD };
        for (number, digits) in numbers.into_iter().enumerate() {
            for (form, bytes) in forms(digits.as_ref()) {
                search.add(Needle { bytes, number, form });
            }
        }
        search
    }

    fn add(&mut self, needle: Needle) {
        let Some(head) = needle.bytes.first_chunk::<HEAD>() else { return };
        let head = head.iter().fold(0, |head, byte| head << 8 | u64::from(*byte));
        let (word, bit) = place(head);
        if let Some(word) = self.filter.get_mut(word) {
            *word |= bit;
        }
        self.longest = self.longest.max(needle.bytes.len());
        self.heads.entry(head).or_default().push(self.needles.len());
        self.needles.push(needle);
    }

    /// Searches bytes.
    pub fn in_bytes(&self, bytes: &[u8]) -> Found {
        let mut found = Found { bytes: to_u64(bytes.len()), ..Found::default() };
        self.scan(bytes, 0, bytes.len(), &mut found);
        found
    }

    /// Searches everything that can be read, in flat memory.
    pub fn in_stream(&self, mut input: impl Read) -> io::Result<Found> {
        let mut found = Found::default();
        let mut held = Vec::with_capacity(CHUNK_BYTES + self.longest);
        loop {
            let before = held.len();
            let chunk = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
            input.by_ref().take(chunk).read_to_end(&mut held)?;
            let at_end = held.len() == before;
            // What begins in the last bytes may go on in the next chunk, where it is looked at again.
            let kept = if at_end { 0 } else { (self.longest - 1).min(held.len()) };
            let done = held.len() - kept;
            self.scan(&held, found.bytes, done, &mut found);
            found.bytes += to_u64(done);
            held.drain(..done);
            if at_end {
                return Ok(found);
            }
        }
    }

    /// Searches every file below a directory, and the names of the files; links are not followed. A file that cannot be read is
    /// an error, one that is gone meanwhile is not.
    pub fn in_directory(&self, directory: &Path) -> io::Result<Searched> {
        let mut searched = Searched::default();
        let mut waiting = vec![directory.to_owned()];
        while let Some(path) = waiting.pop() {
            let Some(metadata) = unless_gone(path.symlink_metadata())? else { continue };
            let name = self.in_bytes(path.as_os_str().as_bytes());
            searched.add(&path, name.hits, name.count);
            if metadata.is_dir() {
                for entry in std::fs::read_dir(&path)? {
                    waiting.push(entry?.path());
                }
            } else if metadata.is_file()
                && let Some(file) = unless_gone(File::open(&path))?
            {
                let found = self.in_stream(file)?;
                searched.files += 1;
                searched.bytes += found.bytes;
                searched.add(&path, found.hits, found.count);
            }
        }
        Ok(searched)
    }

    /// Reports what begins before `end`; `offset` is where the bytes stand in the whole.
    fn scan(&self, bytes: &[u8], offset: u64, end: usize, found: &mut Found) {
        let mut head = 0;
        for (at, byte) in bytes.iter().enumerate() {
            head = (head << 8 | u64::from(*byte)) & HEAD_MASK;
            let (word, bit) = place(head);
            if self.filter.get(word).is_none_or(|word| word & bit == 0) {
                continue;
            }
            let Some(start) = (at + 1).checked_sub(HEAD).filter(|start| *start < end) else { continue };
            for needle in self.heads.get(&head).into_iter().flatten() {
                let Some(needle) = self.needles.get(*needle) else { continue };
                if bytes.get(start..).is_some_and(|rest| rest.starts_with(&needle.bytes)) {
                    found.count += 1;
                    if found.hits.len() < HITS_MAX {
                        let offset = offset + to_u64(start);
                        found.hits.push(Hit { number: needle.number, form: needle.form, offset });
                    }
                }
            }
        }
    }
}

impl Searched {
    fn add(&mut self, path: &Path, hits: Vec<Hit>, count: u64) {
        self.count += count;
        let room = HITS_MAX.saturating_sub(self.hits.len());
        self.hits.extend(hits.into_iter().take(room).map(|hit| (path.to_owned(), hit)));
    }
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("needles", &self.needles.len()).finish_non_exhaustive()
    }
}

/// The bit of the filter that stands for a head (Fibonacci hashing).
fn place(head: u64) -> (usize, u64) {
    let hash = head.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    (usize::try_from(hash >> 6).unwrap_or(0), 1 << (hash & 63))
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every form of a number that is looked for, with its name.
pub fn forms(digits: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = text_forms(digits);
    forms.extend(encoded_forms(digits.as_bytes()));
    forms.extend(binary_forms(digits));
    forms
}

/// As people and programs write it.
fn text_forms(digits: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![
        ("digits", digits.to_owned()),
        ("digits reversed", digits.chars().rev().collect()),
        ("digits reversed in pairs", swapped_pairs(digits)),
    ];
    let (fours, amex): (Vec<usize>, _) = (vec![4; digits.len() / 4], [4, 6]);
    for separator in SEPARATORS {
        forms.push(("groups of digits", grouped(digits, &fours, separator)));
        if (14..=15).contains(&digits.len()) {
            forms.push(("groups of digits", grouped(digits, &amex, separator)));
        }
    }
    let each = |of: &dyn Fn(u8) -> String, separator: &str| {
        digits.bytes().map(of).collect::<Vec<_>>().join(separator)
    };
    for separator in [" ", ",", ", "] {
        forms.push(("single digits", each(&|byte| char::from(byte).to_string(), separator)));
        forms.push(("list of byte values", each(&|byte| byte.to_string(), separator)));
    }
    for separator in ["", " ", ":", "\\x", "%", ", 0x", "\\u00"] {
        forms.push(("hex", each(&|byte| format!("{byte:02x}"), separator)));
    }
    forms.into_iter().map(|(form, text)| (form, text.into_bytes())).collect()
}

fn grouped(digits: &str, groups: &[usize], separator: &str) -> String {
    let mut rest = digits;
    let mut parts = Vec::new();
    for group in groups {
        let Some((part, behind)) = rest.split_at_checked(*group) else { break };
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    parts.retain(|part| !part.is_empty());
    parts.join(separator)
}

fn swapped_pairs(digits: &str) -> String {
    let pairs = digits.as_bytes().chunks(2);
    pairs.flat_map(|pair| pair.iter().rev()).map(|byte| char::from(*byte)).collect()
}

/// As encoders write its text, wherever in what they encode it stands.
fn encoded_forms(digits: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let utf16 = |wide: fn(u16) -> [u8; 2]| digits.iter().flat_map(|b| wide(u16::from(*b))).collect();
    let mut forms = vec![("UTF-16", utf16(u16::to_le_bytes)), ("UTF-16", utf16(u16::to_be_bytes))];
    for shift in 0..3 {
        // No digit gives a character in which the two alphabets of base64 differ.
        forms.push(("base64", shifted(digits, shift, 6, &data_encoding::BASE64_NOPAD)));
    }
    for shift in 0..5 {
        let upper = shifted(digits, shift, 5, &data_encoding::BASE32_NOPAD);
        forms.push(("base32", upper.to_ascii_lowercase()));
        forms.push(("base32", upper));
    }
    forms
}

/// The characters that the digits alone decide when `shift` bytes stand before them.
fn shifted(digits: &[u8], shift: usize, bits: usize, encoding: &data_encoding::Encoding) -> Vec<u8> {
    let mut bytes = vec![0; shift];
    bytes.extend_from_slice(digits);
    let first = (shift * 8).div_ceil(bits);
    let end = bytes.len() * 8 / bits;
    encoding.encode(&bytes).into_bytes().get(first..end).unwrap_or_default().to_vec()
}

/// As binary formats keep it.
fn binary_forms(digits: &str) -> Vec<(&'static str, Vec<u8>)> {
    let values: Vec<u8> = digits.bytes().map(|byte| byte.wrapping_sub(b'0')).collect();
    let mut forms = vec![("digit values", values.clone())];
    // Packed digits may begin in the middle of a byte.
    for from in 0..2 {
        let whole = values.get(from..).unwrap_or_default();
        let (pairs, _) = whole.as_chunks::<2>();
        forms.push(("packed digits", pairs.iter().map(|[high, low]| high << 4 | low).collect()));
        forms.push(("packed digits, swapped", pairs.iter().map(|[high, low]| low << 4 | high).collect()));
    }
    if let Ok(number) = digits.parse::<u64>() {
        let float = digits.parse().map(f64::to_bits).unwrap_or(number);
        for (form, value) in [("integer", number), ("floating point", float)] {
            forms.push((form, value.to_le_bytes().to_vec()));
            forms.push((form, value.to_be_bytes().to_vec()));
        }
        forms.push(("variable-length integer", varint(number)));
        forms.push(("variable-length integer", varint(number.wrapping_shl(1))));
    }
    forms
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or(0));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISA: &str = "4242424242424242";
    const AMEX: &str = "378282246310005";
    const LONG: &str = "6205500000000000004";

    fn forms_found(digits: &str, bytes: &[u8]) -> Vec<&'static str> {
        Search::new([digits]).in_bytes(bytes).hits.iter().map(|hit| hit.form).collect()
    }

    #[test]
    fn each_way_to_leave_a_number_behind_is_found() {
        // Written by hand or by other code than the search's own.
        let number: u64 = AMEX.parse().unwrap();
        let debugged = format!("{:?}", AMEX.as_bytes());
        let wide: Vec<u8> = AMEX.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cases: &[(&str, Vec<u8>)] = &[
            ("digits", format!("x{AMEX}y").into()),
            ("groups of digits", "3782 822463 10005".into()),
            ("groups of digits", "3782-8224-6310-005".into()),
            ("groups of digits", "3782%20822463%2010005".into()),
            ("single digits", "[3,7,8,2,8,2,2,4,6,3,1,0,0,0,5]".into()),
            ("list of byte values", debugged.into()),
            ("hex", data_encoding::HEXLOWER.encode(AMEX.as_bytes()).into()),
            ("hex", data_encoding::HEXUPPER.encode(AMEX.as_bytes()).into()),
            ("hex", "\\x33\\x37\\x38\\x32\\x38\\x32\\x32\\x34\\x36\\x33\\x31\\x30\\x30\\x30\\x35".into()),
            ("UTF-16", wide),
            ("base64", data_encoding::BASE64URL.encode(format!("{{\"n\":\"{AMEX}\"}}").as_bytes()).into()),
            ("base32", data_encoding::BASE32.encode(format!("ab{AMEX}").as_bytes()).into()),
            ("digit values", vec![3, 7, 8, 2, 8, 2, 2, 4, 6, 3, 1, 0, 0, 0, 5]),
            ("packed digits", vec![0x37, 0x82, 0x82, 0x24, 0x63, 0x10, 0x00, 0x5f]),
            ("packed digits", vec![0x03, 0x78, 0x28, 0x22, 0x46, 0x31, 0x00, 0x05]),
            ("packed digits, swapped", vec![0x73, 0x28, 0x28, 0x42, 0x36, 0x01, 0x00, 0xf5]),
            ("integer", number.to_be_bytes().to_vec()),
            ("floating point", 378_282_246_310_005_f64.to_le_bytes().to_vec()),
            ("variable-length integer", postcard::to_stdvec(&number).unwrap()),
            ("variable-length integer", postcard::to_stdvec(&i64::try_from(number).unwrap()).unwrap()),
        ];
        for (form, bytes) in cases {
            for before in 0..6 {
                let text = [&b"~~~~~~"[..before], bytes, b"~~~"].concat();
                assert!(forms_found(AMEX, &text).contains(form), "{form} after {before} bytes");
            }
        }
    }

    #[test]
    fn base64_is_found_wherever_it_begins() {
        for before in 0..7 {
            let text = [&b"abcdefg"[..before], VISA.as_bytes(), b"zz"].concat();
            let encoded = data_encoding::BASE64.encode(&text);
            assert_eq!(forms_found(VISA, encoded.as_bytes()), ["base64"], "after {before} bytes");
        }
    }

    #[test]
    fn what_is_not_the_number_is_not_found() {
        let near = [
            "4242424242424241",
            "424242 4242",
            "4242 4242 4242 424",
            "NDI0MjQyNDI0",
            "tok_0j289144vgj289144vgj289144vgj289",
        ];
        for text in near {
            assert_eq!(forms_found("4000056655665556", text.as_bytes()), [""; 0], "{text}");
        }
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4 << 20)
        .collect();
        assert_eq!(Search::new([VISA, AMEX, LONG]).in_bytes(&noise).count, 0);
    }

    #[test]
    fn a_stream_gives_each_hit_once_wherever_it_is_cut() {
        /// Reads so many bytes at a time.
        struct Trickle<'a>(&'a [u8], usize);
        impl Read for Trickle<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.1.min(buffer.len());
                (&mut self.0).read(&mut buffer[..count])
            }
        }
        let search = Search::new([VISA, LONG]);
        let at = [0, CHUNK_BYTES - 7, CHUNK_BYTES + 20, 2 * CHUNK_BYTES - 19];
        let mut bytes = vec![b'.'; 2 * CHUNK_BYTES];
        for at in at {
            bytes[at..at + LONG.len()].copy_from_slice(LONG.as_bytes());
        }
        for step in [1 << 12, CHUNK_BYTES, usize::MAX] {
            let found = search.in_stream(Trickle(&bytes, step)).unwrap();
            let offsets: Vec<usize> = found.hits.iter().map(|hit| hit.offset as usize).collect();
            assert_eq!((found.bytes as usize, offsets), (bytes.len(), at.to_vec()));
            assert!(found.hits.iter().all(|hit| (hit.number, hit.form) == (1, "digits")));
        }
    }

    #[test]
    fn a_directory_is_searched_with_its_names_and_without_its_links() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("below")).unwrap();
        std::fs::write(at("below/file"), format!("{VISA} and {VISA}")).unwrap();
        std::fs::write(at(&format!("named-{LONG}")), "").unwrap();
        std::fs::write(at("clean"), "4242").unwrap();
        std::os::unix::fs::symlink(at("below"), at("link")).unwrap();
        let searched = Search::new([VISA, LONG]).in_directory(directory.path()).unwrap();
        let names: Vec<_> = searched.hits.iter().map(|(path, hit)| (path.clone(), hit.number)).collect();
        assert_eq!((searched.files, searched.count), (3, 3));
        assert!(names.contains(&(at("below/file"), 0)) && names.contains(&(at(&format!("named-{LONG}")), 1)));
    }

    #[test]
    fn a_hit_does_not_tell_the_number() {
        let search = Search::new([VISA]);
        let found = search.in_bytes(VISA.as_bytes());
        assert!(!format!("{search:?} {found:?}").contains("4242"));
    }
}
