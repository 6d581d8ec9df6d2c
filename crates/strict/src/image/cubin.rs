//! Assembled code: an ELF file whose sections `.nv.info.KERNEL` describe the kernels.

use std::collections::BTreeMap;

use object::{
    LittleEndian, Object, ObjectSection,
    elf::{EM_CUDA, FileHeader64, SHT_NOBITS, SectionHeader64},
    read::elf::{ElfFile64, FileHeader, SectionHeader},
};

use super::Kernel;

/// `EIATTR_MAX_THREADS`: three numbers.
const MAX_THREADS: u8 = 0x05;
/// `EIATTR_REQNTID`: three numbers.
const REQUIRED_THREADS: u8 = 0x10;
/// `EIATTR_KPARAM_INFO`: index (4 bytes), ordinal (2), offset (2), then bits of which the size is from bit 18 on.
const PARAMETER: u8 = 0x17;
/// Form of an attribute that is followed by its length and content; all others are 4 bytes.
const WITH_LENGTH: u8 = 4;

/// Bytes of shared memory of each block that the system keeps, from compute capability 8.0 on. Those of sm_90 count them as
/// the kernel's.
const SYSTEM_SHARED: u64 = 1024;

/// The whole ELF file at `image`: its headers and sections say how long it is.
///
/// # Safety
/// A whole ELF file lies there, aligned to 8 bytes.
pub unsafe fn bytes<'a>(image: *const u8) -> &'a [u8] {
    let order = LittleEndian;
    // SAFETY: the file begins with its header.
    let header = unsafe { &*image.cast::<FileHeader64<LittleEndian>>() };
    let (sections, count) = (header.e_shoff(order), u64::from(header.e_shnum(order)));
    let segments = u64::from(header.e_phnum(order)) * u64::from(header.e_phentsize(order));
    let mut end = header.e_phoff(order) + segments;
    end = end.max(sections + count * size_of::<SectionHeader64<LittleEndian>>() as u64);
    for i in 0..count as usize {
        // SAFETY: the table of sections lies in the file, which is aligned as the table is.
        let section = unsafe {
            &*image
                .add(sections as usize)
                .cast::<SectionHeader64<LittleEndian>>()
                .add(i)
        };
        if section.sh_type(order) != SHT_NOBITS {
            end = end.max(section.sh_offset(order) + section.sh_size(order));
        }
    }
    // SAFETY: all of this is the file.
    unsafe { std::slice::from_raw_parts(image, end as usize) }
}

/// The kernels of a cubin.
pub fn read(bytes: &[u8], capability: u32) -> Result<Vec<Kernel>, String> {
    let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(|cause| format!("the cubin: {cause}"))?;
    let header = file.elf_header();
    if header.e_machine(LittleEndian) != EM_CUDA {
        return Err("the ELF file is no device code".to_string());
    }
    // The place of the architecture depends on the format's version.
    let flags = header.e_flags(LittleEndian).0;
    if flags & 0xff != capability && flags >> 8 & 0xff != capability {
        return Err(format!("the cubin's flags {flags:#x} are not for {capability}"));
    }
    let mut kernels = Vec::new();
    for section in file.sections() {
        let name = section.name().unwrap_or_default();
        let Some(name) = name.strip_prefix(".nv.info.") else {
            continue;
        };
        let shared = file.section_by_name(&format!(".nv.shared.{name}"));
        let data = section.data().map_err(|cause| cause.to_string())?;
        let mut kernel = Kernel {
            name: name.into(),
            parameters: Vec::new(),
            threads: None,
            shared: shared.map_or(0, |section| section.size().saturating_sub(SYSTEM_SHARED) as u32),
        };
        describe(data, &mut kernel).ok_or_else(|| format!("the description of {name} is malformed"))?;
        kernels.push(kernel);
    }
    Ok(kernels)
}

/// Reads a kernel's attributes.
fn describe(mut data: &[u8], kernel: &mut Kernel) -> Option<()> {
    let mut parameters = BTreeMap::new();
    while let Some((head, rest)) = data.split_first_chunk::<4>() {
        let [form, attribute, low, high] = *head;
        if form != WITH_LENGTH {
            data = rest;
            continue;
        }
        let (content, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
        data = rest;
        let words: Vec<u32> = content
            .as_chunks()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect();
        match (attribute, words.as_slice()) {
            (PARAMETER, [_, place, bits]) => {
                parameters.insert(place & 0xffff, bits >> 18);
            }
            (MAX_THREADS | REQUIRED_THREADS, [x, y, z]) => kernel.threads = Some(x * y * z),
            (PARAMETER | MAX_THREADS | REQUIRED_THREADS, _) => return None,
            _ => {}
        }
    }
    let in_order = parameters.keys().copied().eq(0..parameters.len() as u32);
    kernel.parameters = parameters.into_values().collect();
    in_order.then_some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_and_unknown_ones_passed_over() {
        let mut data = vec![3, 0x1b, 0xff, 0];
        for (ordinal, size) in [(1u32, 4u32), (0, 8)] {
            data.extend([4, PARAMETER, 12, 0, 0, 0, 0, 0]);
            data.extend(ordinal.to_le_bytes());
            data.extend((size << 18 | 0x1f000).to_le_bytes());
        }
        data.extend([4, MAX_THREADS, 12, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        let mut kernel = Kernel {
            name: "k".into(),
            parameters: Vec::new(),
            threads: None,
            shared: 0,
        };
        describe(&data, &mut kernel).unwrap();
        assert_eq!(kernel.parameters, [8, 4]);
        assert_eq!(kernel.threads, Some(256));
        assert_eq!(describe(&data[..data.len() - 1], &mut kernel), None);
    }
}
