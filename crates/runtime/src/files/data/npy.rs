//! The header of an npy array, versions 1 to 3 of the format.

use std::io::Read;

/// A longer header is not one of an array of numbers.
const MAX_HEADER: usize = 1 << 20;

/// An element type by numpy's letter and size in bytes: `f4`, `u1`, `b1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// `b` bool, `i` signed, `u` unsigned, `f` float.
    pub letter: u8,
    /// Size in bytes.
    pub bytes: usize,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub element: Type,
    /// Whether the first index runs fastest.
    pub fortran: bool,
    /// Shape.
    pub shape: Vec<u64>,
    /// Bytes of the header itself.
    pub bytes: u64,
}

impl Header {
    /// Number of elements, None on overflow.
    pub fn elements(&self) -> Option<u64> {
        self.shape
            .iter()
            .try_fold(1_u64, |product, size| product.checked_mul(*size))
    }
}

/// Reads a header and leaves `reader` at the first element. Errors are sentences about the array.
pub fn read_header(reader: &mut (impl Read + ?Sized)) -> Result<Header, String> {
    let mut fixed = [0; 8];
    reader
        .read_exact(&mut fixed)
        .map_err(|_| "it is too short for an npy header".to_string())?;
    if &fixed[..6] != b"\x93NUMPY" {
        return Err("it is not an npy array".into());
    }
    let width = if fixed[6] == 1 { 2 } else { 4 };
    let mut length = [0; 4];
    reader
        .read_exact(&mut length[..width])
        .map_err(|_| "its npy header is cut off".to_string())?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(format!("its npy header claims {length} bytes"));
    }
    let mut text = vec![0; length];
    reader
        .read_exact(&mut text)
        .map_err(|_| "its npy header is cut off".to_string())?;
    let text = String::from_utf8_lossy(&text);
    let header = parse(&text).ok_or_else(|| format!("its npy header is malformed: {}", text.trim()))?;
    let element = element_type(header.0).ok_or_else(|| {
        format!(
            "its elements are \"{}\"; only numbers (bool, int, uint, float up to 64 bits) are read",
            header.0
        )
    })?;
    Ok(Header {
        element,
        fortran: header.1,
        shape: header.2,
        bytes: (8 + width + length) as u64,
    })
}

/// The three entries of the header's Python dictionary.
fn parse(text: &str) -> Option<(&str, bool, Vec<u64>)> {
    let after = |key: &str| {
        let start = text.find(&format!("'{key}'"))? + key.len() + 2;
        text[start..].trim_start().strip_prefix(':').map(str::trim_start)
    };
    let descr = after("descr")?;
    // A structured type is a list; its text becomes the name in the error.
    let descr = match descr.strip_prefix('\'') {
        Some(rest) => &rest[..rest.find('\'')?],
        None => &descr[..=descr.find(']')?],
    };
    let fortran = match after("fortran_order")? {
        rest if rest.starts_with("True") => true,
        rest if rest.starts_with("False") => false,
        _ => return None,
    };
    let shape = after("shape")?.strip_prefix('(')?;
    let shape = shape[..shape.find(')')?]
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty());
    Some((
        descr,
        fortran,
        shape.map(|size| size.parse().ok()).collect::<Option<_>>()?,
    ))
}

fn element_type(descr: &str) -> Option<Type> {
    let (order, rest) = descr.split_at_checked(1)?;
    let (letter, bytes) = rest.split_at_checked(1)?;
    let (letter, bytes) = (letter.as_bytes()[0], bytes.parse().ok()?);
    let known = match letter {
        b'b' => bytes == 1,
        b'i' | b'u' => matches!(bytes, 1 | 2 | 4 | 8),
        b'f' => matches!(bytes, 2 | 4 | 8),
        _ => false,
    };
    let ordered = matches!(order, "<" | ">" | "|" | "=");
    (known && ordered).then_some(Type {
        letter,
        bytes,
        big_endian: order == ">",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(version: u8, text: &str) -> Vec<u8> {
        let mut out = b"\x93NUMPY".to_vec();
        out.extend([version, 0]);
        let length = (text.len() as u32).to_le_bytes();
        out.extend(&length[..if version == 1 { 2 } else { 4 }]);
        out.extend(text.as_bytes());
        out
    }

    #[test]
    fn headers_of_all_versions() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 3, 2), }\n";
        for version in [1, 2, 3] {
            let header = read_header(&mut bytes(version, text).as_slice()).unwrap();
            assert_eq!(header.shape, [8, 3, 2]);
            assert_eq!(
                header.element,
                Type {
                    letter: b'f',
                    bytes: 4,
                    big_endian: false
                }
            );
            assert_eq!(header.bytes as usize, bytes(version, text).len());
            assert!(!header.fortran);
        }
        let text = "{'descr': '>i8', 'fortran_order': True, 'shape': (5,), }";
        let header = read_header(&mut bytes(1, text).as_slice()).unwrap();
        assert!(header.fortran && header.element.big_endian);
        assert_eq!(header.shape, [5]);
        let text = "{'descr': '|b1', 'fortran_order': False, 'shape': (), }";
        assert_eq!(
            read_header(&mut bytes(1, text).as_slice()).unwrap().elements(),
            Some(1)
        );
    }

    #[test]
    fn bad_headers_are_errors() {
        for (text, part) in [
            ("{'descr': '<c8', 'fortran_order': False, 'shape': (5,), }", "<c8"),
            (
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (5,), }",
                "('a', '<f4')",
            ),
            ("{'descr': '<f4', 'shape': (5,), }", "malformed"),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (-5,), }",
                "malformed",
            ),
        ] {
            let error = read_header(&mut bytes(1, text).as_slice()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(
            read_header(&mut &b"\x93NUMPY\x01"[..])
                .unwrap_err()
                .contains("too short")
        );
        assert!(
            read_header(&mut &b"PK\x03\x04abcdefg"[..])
                .unwrap_err()
                .contains("not an npy")
        );
        let huge = Header {
            element: Type {
                letter: b'f',
                bytes: 4,
                big_endian: false,
            },
            fortran: false,
            shape: vec![u64::MAX, 3],
            bytes: 0,
        };
        assert_eq!(huge.elements(), None);
    }
}
