//! Libraries that are opened at run time.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use libloading::Library;

/// What was opened, so that leak checkers see that it is still in use.
static OPENED: Mutex<Vec<&'static Library>> = Mutex::new(Vec::new());

/// Opens a library by path, or by name where the loader looks. It stays open as long as the process.
pub(super) fn open(path: &Path) -> Result<&'static Library, String> {
    // SAFETY: the libraries that are opened are NVIDIA's, whose initialisation is meant to run in any process.
    let library = unsafe { Library::new(path) }.map_err(|cause| cause.to_string())?;
    let library: &'static Library = Box::leak(Box::new(library));
    OPENED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(library);
    Ok(library)
}

/// Declares a structure of functions of a library, all of which return an `int`. `load` gives it, or the name of
/// a function that the library lacks.
macro_rules! functions {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $($field:ident: $symbol:literal ($($argument:ty),* $(,)?);)*
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $name {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> std::ffi::c_int,)*
        }

        impl $name {
            /// Looks the functions up.
            pub fn load(library: &'static libloading::Library) -> Result<Self, &'static str> {
                Ok($name {
                    $($field: {
                        // SAFETY: the signature is that of the library's header.
                        let symbol = unsafe { library.get(concat!($symbol, "\0").as_bytes()) };
                        *symbol.map_err(|_| $symbol)?
                    },)*
                })
            }
        }
    };
}
pub(super) use functions;
