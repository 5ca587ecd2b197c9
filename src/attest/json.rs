//! The few JSON primitives that canonical forms are written with (RFC 8785): strings, integers, arrays.

use data_encoding::HEXLOWER;
use serde_json::Value;

/// Writes an array.
pub fn write_list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes a JSON string as RFC 8785, 3.2.2.2 says: the two-character escapes where there are any, `\u00xx` in lower case
/// for the other control characters, everything else as it is.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(HEXLOWER.encode(&[*other]).as_bytes());
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// The largest integer that every reader of JSON takes exactly.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Writes a value with its keys sorted (RFC 8785, 3.2.3); `false` if a number in it is no integer that every reader takes exactly.
pub fn write_value(out: &mut Vec<u8>, value: &Value) -> bool {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::String(text) => write_string(out, text),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) if number <= INTEGER_MAX => write_u64(out, number),
            (None, Some(number)) if number.unsigned_abs() <= INTEGER_MAX => {
                out.push(b'-');
                write_u64(out, number.unsigned_abs());
            }
            _ => return false,
        },
        Value::Array(items) => {
            let mut good = true;
            write_list(out, items, |out, item| good &= write_value(out, item));
            return good;
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            out.push(b'{');
            let mut good = true;
            for (at, (key, member)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(out, key);
                out.push(b':');
                good &= write_value(out, member);
            }
            out.push(b'}');
            return good;
        }
    }
    true
}

/// Writes a number in decimal.
pub fn write_u64(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let (mut rest, mut used) = (value, 0);
    for slot in digits.iter_mut().rev() {
        *slot = digit(rest % 10);
        used += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits.iter().skip(digits.len() - used));
}

/// A digit in ASCII; of a greater number its last.
pub fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_spelling() {
        let written = |text: &str| {
            let mut out = Vec::new();
            let good = write_value(&mut out, &serde_json::from_str(text).unwrap());
            good.then(|| String::from_utf8(out).unwrap())
        };
        // The order of keys is that of RFC 8785, 3.2.3: by UTF-16 units, in which U+1F600 comes before U+FB33.
        let sorted = r#"{ "\ufb33": [1, -2, true, null], "\ud83d\ude00": "\u00e9\u000a", "b": {"z": 0, "a": {}}, "a": [] }"#;
        let expected =
            "{\"a\":[],\"b\":{\"a\":{},\"z\":0},\"\u{1f600}\":\"é\\n\",\"\u{fb33}\":[1,-2,true,null]}";
        assert_eq!(written(sorted).as_deref(), Some(expected));
        for number in ["1.5", "9007199254740992", "-9007199254740992", "1e2"] {
            assert_eq!(written(number), None, "{number}");
            assert_eq!(written(&format!("[{{\"a\":{number}}}]")), None);
        }
        assert_eq!(written("9007199254740991").as_deref(), Some("9007199254740991"));
    }
}
