//! Device code: the kernels of an image, as its own tables describe them.

mod cubin;
mod ptx;

use std::{ffi::CStr, sync::Arc};

/// Bytes of an address.
const ADDRESS: u32 = 8;

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its symbol.
    pub name: Arc<str>,
    /// Bytes of each parameter.
    pub parameters: Vec<u32>,
    /// Most threads of a block, if it says.
    pub threads: Option<u32>,
    /// Bytes of shared memory that it has without being given any.
    pub shared: u32,
}

impl Kernel {
    /// The number of addresses that the parameters begin with: by the project's convention those of tensors come
    /// first, then `n` (i32) and `total` (i64), then at most one structure of i32. The updates have one address. None if
    /// the parameters have another form.
    pub fn addresses(&self) -> Option<usize> {
        let addresses = self
            .parameters
            .iter()
            .take_while(|&&bytes| bytes == ADDRESS)
            .count();
        match &self.parameters[addresses..] {
            [] if addresses == 1 => Some(1),
            [4, 8] => Some(addresses),
            [4, 8, numbers] if numbers % 4 == 0 => Some(addresses),
            _ => None,
        }
    }
}

/// The kernels of an image for a GPU of a compute capability such as 90, or what is wrong with it.
///
/// # Safety
/// At `image` lies a whole ELF file or a C string.
pub unsafe fn read(image: *const u8, capability: u32) -> Result<Vec<Kernel>, String> {
    if image.is_null() {
        return Err("the image is null".to_string());
    }
    // SAFETY: a C string has at least one byte, and only one that begins as an ELF file is read on.
    let is_elf = unsafe {
        c"\x7fELF"
            .to_bytes()
            .iter()
            .enumerate()
            .all(|(i, byte)| *image.add(i) == *byte)
    };
    let kernels = if is_elf {
        if !(image as usize).is_multiple_of(8) {
            return Err("the cubin is not aligned to 8 bytes".to_string());
        }
        // SAFETY: the caller says that it is whole.
        cubin::read(unsafe { cubin::bytes(image) }, capability)?
    } else {
        // SAFETY: the caller says that it is a C string.
        let text = unsafe { CStr::from_ptr(image.cast()) };
        ptx::read(text.to_str().map_err(|_| "the PTX is no text")?, capability)?
    };
    if kernels.is_empty() {
        return Err("the image has no kernel".to_string());
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_the_form_of_the_convention() {
        let addresses = |parameters: &[u32]| {
            let kernel = Kernel {
                name: "k".into(),
                parameters: parameters.to_vec(),
                threads: None,
                shared: 0,
            };
            kernel.addresses()
        };
        assert_eq!(addresses(&[8, 8, 4, 8]), Some(2));
        assert_eq!(addresses(&[8, 4, 8, 8]), Some(1));
        assert_eq!(addresses(&[8, 4, 8, 20]), Some(1));
        assert_eq!(addresses(&[8]), Some(1));
        for wrong in [&[8, 8][..], &[8, 4], &[8, 4, 8, 20, 4], &[8, 4, 8, 3], &[4]] {
            assert_eq!(addresses(wrong), None, "{wrong:?}");
        }
    }
}
