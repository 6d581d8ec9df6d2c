//! The object file of what never enters MLIR: initial values, constants and the model's description.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationEncoding, RelocationFlags, RelocationKind, SectionKind,
    SymbolFlags, SymbolKind, SymbolScope,
};
use syncbn_abi::{ALIGNMENT, symbols};

use crate::Error;

/// Named read-only bytes.
pub struct Blob<'a> {
    /// Symbol.
    pub symbol: &'a str,
    /// Symbol of a u64 with the length, if there is one.
    pub length: Option<&'a str>,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// An ELF object that defines the blobs and refers to the runtime's ABI symbol.
pub fn object_file(blobs: &[Blob]) -> Result<Vec<u8>, Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let section = object.add_section(Vec::new(), b".rodata.syncbn".to_vec(), SectionKind::ReadOnlyData);
    let mut define = |name: &str, bytes: &[u8]| {
        let symbol = object.add_symbol(undefined(name));
        // A symbol of size 0 would share its address with the next one.
        let bytes = if bytes.is_empty() { &[0][..] } else { bytes };
        object.add_symbol_data(symbol, section, bytes, ALIGNMENT);
    };
    for blob in blobs {
        define(blob.symbol, blob.bytes);
        if let Some(length) = blob.length {
            define(length, &(blob.bytes.len() as u64).to_le_bytes());
        }
    }
    refer_to(&mut object, syncbn_abi::ABI_SYMBOL)?;
    object.write().map_err(Error::internal)
}

/// A symbol that other objects see; undefined until data is added for it.
fn undefined(name: &str) -> Symbol {
    Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size: 0,
        kind: SymbolKind::Data,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    }
}

/// Makes the link fail unless something defines `name`.
fn refer_to(object: &mut Object, name: &str) -> Result<(), Error> {
    let section = object.add_section(
        Vec::new(),
        b".data.rel.ro.syncbn".to_vec(),
        SectionKind::ReadOnlyDataWithRel,
    );
    let symbol = object.add_symbol(undefined(name));
    let offset = object.append_section_data(section, &[0; 8], 8);
    let flags = RelocationFlags::Generic {
        kind: RelocationKind::Absolute,
        encoding: RelocationEncoding::Generic,
        size: 64,
    };
    object
        .add_relocation(
            section,
            Relocation {
                offset,
                symbol,
                addend: 0,
                flags,
            },
        )
        .map_err(Error::internal)
}

/// Bytes under construction, every piece aligned.
#[derive(Debug, Clone, Default)]
pub struct Bytes {
    /// What has been added.
    pub bytes: Vec<u8>,
    /// Pieces by the hash of their bytes.
    known: BTreeMap<u64, Vec<(u64, usize)>>,
}

impl Bytes {
    /// Appends a piece and returns its offset. A piece that is there already is not added again: the parts of an
    /// executable start from the same values.
    pub fn push(&mut self, piece: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        piece.hash(&mut hasher);
        let known = self.known.entry(hasher.finish()).or_default();
        for &(offset, length) in known.iter() {
            if self.bytes[offset as usize..][..length] == *piece {
                return offset;
            }
        }
        let offset = self.bytes.len().next_multiple_of(ALIGNMENT as usize);
        known.push((offset as u64, piece.len()));
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(piece);
        offset as u64
    }

    /// Writes a piece at an offset, growing as needed.
    pub fn put(&mut self, offset: u64, piece: &[u8]) {
        let end = offset as usize + piece.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset as usize..end].copy_from_slice(piece);
    }
}

/// The symbols of initial values and of the description.
pub fn model_blobs<'a>(data: &'a [u8], description: &'a [u8]) -> [Blob<'a>; 2] {
    [
        Blob {
            symbol: symbols::DATA,
            length: Some(symbols::DATA_LENGTH),
            bytes: data,
        },
        Blob {
            symbol: symbols::MODEL,
            length: Some(symbols::MODEL_LENGTH),
            bytes: description,
        },
    ]
}
