//! Reading a run's stream: bytes in whatever pieces they come, lines out. Nothing is held but the line that is not whole yet.

use serde::Deserialize;

use super::order::{Columns, Read, read_cells, read_json};

/// The longest line, in bytes: as long as the body of a single charge may be.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// A header that names more columns than there are fields and metadata keys.
const CELLS_MAX: usize = 64;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The form of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A JSON object a line.
    Ndjson,
    /// A header and a record a line (RFC 4180).
    Csv,
}

/// The first record of a CSV stream is no header of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header names columns that are not known, or lacks some")]
pub struct BadHeader;

/// Reads a stream.
#[derive(Debug)]
pub struct LineReader {
    form: Form,
    /// The bytes before the first line that may be a byte order mark.
    start: Option<Vec<u8>>,
    record: Record,
    columns: Option<Columns>,
}

/// The line or record that is not whole yet.
#[derive(Debug, Default)]
struct Record {
    /// Cells that are whole; of NDJSON there is none.
    cells: Vec<String>,
    cell: Vec<u8>,
    bytes: usize,
    quoting: Quoting,
    is_malformed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Quoting {
    /// Nothing of the cell has come yet.
    #[default]
    Start,
    Bare,
    Quoted,
    /// A quote inside quotes: the end of them, or half of an escaped one.
    Quote,
}

impl LineReader {
    /// A reader at the start of a stream.
    pub fn new(form: Form) -> Self {
        Self { form, start: Some(Vec::new()), record: Record::default(), columns: None }
    }

    /// Takes the next bytes; gives the lines that are whole now.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Read>) -> Result<(), BadHeader> {
        let mut bytes = bytes;
        while let Some(start) = &mut self.start {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            start.push(*first);
            bytes = rest;
            if BYTE_ORDER_MARK == start.as_slice() {
                self.start = None;
            } else if !BYTE_ORDER_MARK.starts_with(start) {
                let start = self.start.take().unwrap_or_default();
                self.take_all(&start, out)?;
            }
        }
        self.take_all(bytes, out)
    }

    /// The stream ended properly: what is left is the last line.
    pub fn end(&mut self, out: &mut Vec<Read>) -> Result<(), BadHeader> {
        if let Some(start) = self.start.take() {
            self.take_all(&start, out)?;
        }
        if self.record.bytes > 0 {
            self.record.is_malformed |= self.record.quoting == Quoting::Quoted;
            self.finish(out)?;
        }
        if self.form == Form::Csv && self.columns.is_none() { Err(BadHeader) } else { Ok(()) }
    }

    fn take_all(&mut self, bytes: &[u8], out: &mut Vec<Read>) -> Result<(), BadHeader> {
        match self.form {
            Form::Ndjson => {
                for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                    let (line, whole) = match piece.split_last() {
                        Some((b'\n', line)) => (line, true),
                        Some(_) | None => (piece, false),
                    };
                    self.record.extend(line);
                    if whole {
                        self.finish(out)?;
                    }
                }
            }
            Form::Csv => {
                for byte in bytes {
                    if self.record.take(*byte) {
                        self.finish(out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The record is whole. Blank lines are none.
    fn finish(&mut self, out: &mut Vec<Read>) -> Result<(), BadHeader> {
        let mut record = std::mem::take(&mut self.record);
        let too_long = record.bytes > LINE_BYTES_MAX;
        match self.form {
            Form::Ndjson => {
                if too_long {
                    out.push(Read::fault("line_too_long", None));
                } else if !record.cell.iter().all(u8::is_ascii_whitespace) {
                    out.push(read_json(&record.cell));
                }
            }
            Form::Csv => {
                record.end_cell();
                let blank = record.cells.len() == 1 && record.cells.iter().all(|cell| cell.trim().is_empty());
                match &self.columns {
                    _ if blank && !record.is_malformed && !too_long => {}
                    None if record.is_malformed || too_long => return Err(BadHeader),
                    None => self.columns = Some(Columns::read(&record.cells).ok_or(BadHeader)?),
                    Some(_) if too_long => out.push(Read::fault("line_too_long", None)),
                    Some(_) if record.is_malformed => out.push(Read::fault("malformed_csv", None)),
                    Some(columns) => out.push(read_cells(columns, record.cells)),
                }
            }
        }
        Ok(())
    }
}

impl Record {
    /// Past the limit only the length is kept.
    fn extend(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes <= LINE_BYTES_MAX {
            self.cell.extend_from_slice(bytes);
        }
    }

    /// One byte of CSV; `true` if it ends the record.
    fn take(&mut self, byte: u8) -> bool {
        if byte == b'\n' && self.quoting != Quoting::Quoted {
            return true;
        }
        match (self.quoting, byte) {
            (Quoting::Start, b'"') => {
                self.bytes = self.bytes.saturating_add(1);
                self.quoting = Quoting::Quoted;
            }
            (Quoting::Quoted, b'"') => self.quoting = Quoting::Quote,
            (Quoting::Quote, b'"') => {
                self.quoting = Quoting::Quoted;
                self.extend(b"\"");
            }
            (Quoting::Start | Quoting::Bare | Quoting::Quote, b',') => {
                self.bytes = self.bytes.saturating_add(1);
                self.end_cell();
            }
            (Quoting::Quote, b'\r') => {}
            (Quoting::Quote, _) => {
                self.is_malformed = true;
                self.extend(&[byte]);
            }
            (Quoting::Quoted, _) => self.extend(&[byte]),
            (Quoting::Start | Quoting::Bare, _) => {
                self.quoting = Quoting::Bare;
                self.extend(&[byte]);
            }
        }
        false
    }

    fn end_cell(&mut self) {
        let mut cell = std::mem::take(&mut self.cell);
        if self.quoting == Quoting::Bare && cell.last() == Some(&b'\r') {
            cell.pop();
        }
        self.quoting = Quoting::Start;
        self.is_malformed |= self.cells.len() >= CELLS_MAX;
        match String::from_utf8(cell) {
            Ok(cell) if self.cells.len() < CELLS_MAX => self.cells.push(cell),
            Ok(_) => {}
            Err(_) => {
                self.is_malformed = true;
                self.cells.push(String::new());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "tok_00000000v00000000v00000000v00000";

    fn read(form: Form, pieces: &[&[u8]]) -> Result<Vec<Read>, BadHeader> {
        let (mut reader, mut out) = (LineReader::new(form), Vec::new());
        for piece in pieces {
            reader.push(piece, &mut out)?;
        }
        reader.end(&mut out)?;
        Ok(out)
    }

    fn csv() -> String {
        format!(
            "\u{feff}invoice,token,amount,currency,description,metadata.plan\r\n\
             i-1,{TOKEN},100,USD,\"two \"\"words\"\", and a comma\",gold\r\n\
             \r\n\
             i-2,{TOKEN},200,EUR,\"a line\nin it\",\n\
             i-3,{TOKEN},nine,EUR,,\n\
             i-4,{TOKEN},5,EUR,\"broken\"x,\n\
             i-5,{TOKEN},5,EUR\n\
             i-6,{TOKEN},300,JPY,\u{fc}ber,silver"
        )
    }

    fn ndjson() -> String {
        format!(
            "{{\"invoice\":\"i-1\",\"token\":\"{TOKEN}\",\"amount\":100,\"currency\":\"USD\",\"metadata\":{{\"a\":\"\u{e9}\"}}}}\r\n\
             \n  \n{{\"invoice\":\"i-2\"}}\nno json\n\
             {{\"invoice\":\"i-3\",\"token\":\"{TOKEN}\",\"amount\":7.5,\"currency\":\"USD\"}}\n{{\"invoice\":\"i-4\",\
             \"token\":\"{TOKEN}\",\"amount\":9,\"currency\":\"EUR\",\"initiator\":\"customer\",\"period\":\"2026-11\"}}"
        )
    }

    #[test]
    fn cells_are_quoted_as_rfc_4180_says() {
        let lines = read(Form::Csv, &[csv().as_bytes()]).unwrap();
        assert_eq!(lines.len(), 6);
        let order = |at: usize| lines[at].line.order.as_ref().unwrap();
        assert_eq!(order(0).description.as_deref(), Some("two \"words\", and a comma"));
        assert_eq!(order(0).metadata["plan"], "gold");
        // A line break is a control character, which no description may hold.
        let codes: Vec<_> =
            lines.iter().map(|line| line.line.fault.as_ref().map(|f| f.code.as_str())).collect();
        let wrong =
            [Some("invalid_value"), Some("amount_invalid"), Some("malformed_csv"), Some("malformed_csv")];
        assert_eq!(codes, [vec![None], wrong.to_vec(), vec![None]].concat());
        assert_eq!(order(5).description.as_deref(), Some("\u{fc}ber"));
        assert_eq!((order(5).amount, order(5).currency.as_str()), (300, "JPY"));
    }

    #[test]
    fn a_header_of_other_columns_is_refused() {
        for header in [
            "",
            "invoice,token,amount",
            "invoice,token,amount,currency,cvc",
            "invoice,token,amount,currency,amount",
            "invoice,token,amount,currency,metadata.",
            "\"invoice,token",
        ] {
            assert_eq!(read(Form::Csv, &[header.as_bytes()]), Err(BadHeader), "{header}");
        }
        assert_eq!(read(Form::Csv, &[b"currency,amount,token,invoice"]), Ok(Vec::new()));
    }

    #[test]
    fn a_line_that_is_too_long_is_one_fault_and_takes_no_memory() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        let (mut reader, mut out) = (LineReader::new(Form::Ndjson), Vec::new());
        for _ in 0..1_000 {
            reader.push(&long, &mut out).unwrap();
        }
        assert!(reader.record.cell.capacity() <= 2 * LINE_BYTES_MAX && out.is_empty());
        reader.push(b"\n{}\n", &mut out).unwrap();
        let codes: Vec<_> = out.iter().map(|line| line.line.fault.as_ref().unwrap().code.as_str()).collect();
        assert_eq!(codes, ["line_too_long", "missing_field"]);
    }

    #[test]
    fn every_place_to_cut_gives_the_same_lines() {
        for (form, text) in [(Form::Csv, csv()), (Form::Ndjson, ndjson())] {
            let bytes = text.as_bytes();
            let whole = read(form, &[bytes]).unwrap();
            for at in 0..=bytes.len() {
                let (one, two) = bytes.split_at(at);
                assert_eq!(read(form, &[one, two]).unwrap(), whole, "{form:?} at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(form, &single).unwrap(), whole);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_lines(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(b'{'), Just(b'}'), any::<u8>(),
            ], 0..400),
            size in 1..17_usize,
            is_csv: bool,
        ) {
            let form = if is_csv { Form::Csv } else { Form::Ndjson };
            let bytes = if is_csv { [b"invoice,token,amount,currency\n", bytes.as_slice()].concat() } else { bytes };
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(read(form, &pieces), read(form, &[&bytes]));
        }
    }
}
