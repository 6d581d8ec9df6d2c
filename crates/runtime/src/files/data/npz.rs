//! npz archives: zip files of npy arrays, stored or deflated.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
};

use syncbn_abi::ElementType;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::npy::{Header, read_header};
use crate::error::{Error, Result};

/// Deflate cannot shrink data more than this.
const DEFLATE_RATIO: u64 = 1040;

/// An open npz archive.
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// Names of the arrays, without `.npy`, and their place in the archive.
    names: Vec<(String, usize)>,
}

/// An array's bytes as they stand in the file.
pub struct Array {
    /// What the header says.
    pub header: Header,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl Archive {
    /// Opens `path` and lists its arrays.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|cause| Error::file("open", path, cause))?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|cause| {
            Error::file(
                "read",
                path,
                format!("it is not a complete npz archive ({cause})"),
            )
            .help("write it with numpy.savez, and check that it was copied whole")
        })?;
        let names = (0..zip.len())
            .filter_map(|place| {
                let name = zip.name_for_index(place)?.ok()?;
                Some((name.strip_suffix(".npy").unwrap_or(&name).to_string(), place))
            })
            .collect();
        Ok(Archive {
            path: path.to_path_buf(),
            zip,
            names,
        })
    }

    /// Names of the arrays, in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the header of array `name`; an error that lists the arrays if there is none.
    pub fn header(&mut self, name: &str) -> Result<Header> {
        self.with_entry(name, |entry, _| read_header(entry))
    }

    /// Reads array `name`. Its size is checked against the archive's before memory is allocated.
    pub fn read(&mut self, name: &str) -> Result<Array> {
        self.with_entry(name, |entry, (size, packed)| {
            let header = read_header(entry)?;
            let wanted = header
                .elements()
                .and_then(|elements| elements.checked_mul(header.element.bytes as u64))
                .ok_or("its shape is too large")?;
            if size.checked_sub(header.bytes) != Some(wanted) {
                return Err(format!(
                    "its shape {} needs {wanted} bytes of data, the archive has {}",
                    shape_text(&header.shape),
                    size.saturating_sub(header.bytes)
                ));
            }
            if size > packed.saturating_mul(DEFLATE_RATIO).saturating_add(DEFLATE_RATIO) {
                return Err("the archive claims more data than it can hold".into());
            }
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(wanted as usize)
                .map_err(|_| format!("there is no memory for its {wanted} bytes"))?;
            entry
                .take(wanted)
                .read_to_end(&mut bytes)
                .map_err(|cause| format!("it is damaged: {cause}"))?;
            if bytes.len() as u64 != wanted {
                return Err("it is cut off".into());
            }
            // Reading to the end makes the zip reader compare the checksum.
            let rest = entry
                .read(&mut [0])
                .map_err(|cause| format!("it is damaged: {cause}"))?;
            if rest != 0 {
                Err("it is longer than it claims".into())
            } else {
                Ok(Array { header, bytes })
            }
        })
    }

    /// Calls `read` with the entry, its size, and its size in the file.
    fn with_entry<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut dyn Read, (u64, u64)) -> Result<T, String>,
    ) -> Result<T> {
        let Some(&(_, place)) = self.names.iter().find(|(known, _)| known == name) else {
            let there: Vec<_> = self.names().map(|name| format!("\"{name}\"")).collect();
            let there = if there.is_empty() {
                "no arrays".into()
            } else {
                there.join(", ")
            };
            return Err(
                Error::user(format!("\"{}\" has no array \"{name}\"", self.path.display()))
                    .note(format!("it holds {there}"))
                    .help(format!("store the array under the name \"{name}\"")),
            );
        };
        let about = |text: String| {
            Error::user(format!(
                "cannot read array \"{name}\" of \"{}\": {text}",
                self.path.display()
            ))
        };
        let mut entry = self
            .zip
            .by_index(place)
            .map_err(|cause| about(cause.to_string()))?;
        let sizes = (entry.size(), entry.compressed_size());
        read(&mut entry, sizes).map_err(about)
    }
}

/// A shape as Python prints it.
pub fn shape_text(shape: &[u64]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!(
            "({})",
            shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Writes arrays (name, element type, shape, little-endian elements in C order) as a stored npz archive.
pub fn write(
    out: impl Write + Seek,
    arrays: &[(&str, ElementType, Vec<u64>, &[u8])],
) -> Result<(), zip::result::ZipError> {
    let mut zip = ZipWriter::new(out);
    for (name, element_type, shape, bytes) in arrays {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(bytes.len() as u64 >= u64::from(u32::MAX) / 2);
        zip.start_file(format!("{name}.npy"), options)?;
        let descr = match element_type {
            ElementType::F32 => "<f4",
            ElementType::F64 => "<f8",
            ElementType::I64 => "<i8",
        };
        let shape = shape_text(shape);
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        // The elements start at a multiple of 64 bytes, as the format asks.
        let padding = 63 - (10 + header.len()) % 64;
        header.extend(std::iter::repeat_n(' ', padding));
        header.push('\n');
        zip.write_all(b"\x93NUMPY\x01\x00")?;
        zip.write_all(&(header.len() as u16).to_le_bytes())?;
        zip.write_all(header.as_bytes())?;
        zip.write_all(bytes)?;
    }
    zip.finish()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deflated_arrays_are_read_and_lists_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let bytes: Vec<u8> = (0..1000_i64).flat_map(i64::to_le_bytes).collect();
        let mut stored = std::io::Cursor::new(Vec::new());
        write(&mut stored, &[("x", ElementType::I64, vec![10, 100], &bytes)]).unwrap();
        let mut plain = ZipArchive::new(stored).unwrap();
        let mut npy = Vec::new();
        plain.by_index(0).unwrap().read_to_end(&mut npy).unwrap();
        let mut deflated = ZipWriter::new(File::create(&path).unwrap());
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for name in ["x.npy", "y.npy"] {
            deflated.start_file(name, options).unwrap();
            deflated.write_all(&npy).unwrap();
        }
        deflated.finish().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < bytes.len() as u64);

        let mut archive = Archive::open(&path).unwrap();
        assert_eq!(archive.names().collect::<Vec<_>>(), ["x", "y"]);
        let array = archive.read("y").unwrap();
        assert_eq!(array.header.shape, [10, 100]);
        assert_eq!(array.header.bytes % 64, 0);
        assert!(array.bytes == bytes);
        let error = archive.read("z").err().unwrap();
        assert!(error.to_string().contains("it holds \"x\", \"y\""), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn damaged_archives_are_errors_or_arrays(
            flips in proptest::collection::vec((0_usize..400, 0_u8..8), 1..4),
            end in 0_usize..600,
        ) {
            let mut bytes = std::io::Cursor::new(Vec::new());
            let data = [7; 24];
            write(&mut bytes, &[("x", ElementType::F32, vec![2, 3], &data)]).unwrap();
            let mut bytes = bytes.into_inner();
            for (place, bit) in flips {
                let place = place % bytes.len();
                bytes[place] ^= 1 << bit;
            }
            bytes.truncate(end);
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&bytes).unwrap();
            if let Ok(mut archive) = Archive::open(file.path())
                && let Ok(array) = archive.read("x")
            {
                let wanted = array.header.elements().unwrap() * array.header.element.bytes as u64;
                proptest::prop_assert_eq!(array.bytes.len() as u64, wanted);
            }
        }
    }

    #[test]
    fn shapes_print_as_in_python() {
        assert_eq!(shape_text(&[]), "()");
        assert_eq!(shape_text(&[3]), "(3,)");
        assert_eq!(shape_text(&[3, 4]), "(3, 4)");
    }
}
