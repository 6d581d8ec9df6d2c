//! Libraries that are opened at run time, and where they are looked for.

use std::{
    ffi::{CStr, OsString, c_char, c_void},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use libloading::os::unix;

/// What was opened, so that leak checkers see that it is still in use.
static OPENED: Mutex<Vec<&'static Opened>> = Mutex::new(Vec::new());

/// An opened library.
#[derive(Debug)]
pub(super) struct Opened {
    /// The library.
    pub library: libloading::Library,
    /// The file, as the loader knows it.
    pub file: PathBuf,
}

/// Opens a library by path, or by name where the loader looks. It stays open as long as the process.
pub(super) fn open(path: &Path) -> Result<&'static Opened, String> {
    // SAFETY: the libraries that are opened are NVIDIA's, whose initialisation is meant to run in any process.
    let library = unsafe { unix::Library::new(path) }.map_err(|cause| cause.to_string())?;
    let handle = library.into_raw();
    // SAFETY: the handle was just given up, and nothing else closes it.
    let library = unsafe { unix::Library::from_raw(handle) }.into();
    let library: &'static Opened = Box::leak(Box::new(Opened {
        library,
        file: file_of(handle).unwrap_or_else(|| path.to_path_buf()),
    }));
    OPENED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(library);
    Ok(library)
}

/// A library, and where it is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The name that the loader knows.
    pub name: &'a str,
    /// Names the library, or a folder that holds it.
    pub variable: &'a str,
    /// Folders below the one of the variable, such as those of a package for Python.
    pub below: &'a [&'a str],
    /// Folders to look in after the loader.
    pub folders: &'a [&'a str],
}

/// What was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// What was to be opened.
    pub what: String,
    /// Why that failed, and where else it was looked for.
    pub notes: Vec<String>,
}

impl Wanted<'_> {
    /// Opens it: the one that `named`, the value of the variable, names, or else the first that is found.
    pub fn find(&self, named: Option<OsString>) -> Result<&'static Opened, Missing> {
        if let Some(named) = named.filter(|named| !named.is_empty()) {
            return self.open_named(Path::new(&named));
        }
        let mut notes = match open(Path::new(self.name)) {
            Ok(library) => return Ok(library),
            Err(cause) => vec![cause],
        };
        let mut without = Vec::new();
        for &folder in self.folders {
            let path = Path::new(folder).join(self.name);
            if !path.exists() {
                without.push(folder);
                continue;
            }
            match open(&path) {
                Ok(library) => return Ok(library),
                Err(cause) => notes.push(cause),
            }
        }
        if !without.is_empty() {
            notes.push(format!("it is not in {} either", without.join(", ")));
        }
        Err(Missing {
            what: self.name.to_string(),
            notes,
        })
    }

    fn open_named(&self, named: &Path) -> Result<&'static Opened, Missing> {
        let path = match named.is_dir() {
            false => named.to_path_buf(),
            true => {
                let below = self.below.iter().map(|folder| named.join(folder).join(self.name));
                let all: Vec<PathBuf> = [named.join(self.name)].into_iter().chain(below).collect();
                let there = all.iter().find(|path| path.exists());
                there.or(all.first()).cloned().unwrap_or_default()
            }
        };
        open(&path).map_err(|cause| Missing {
            what: path.display().to_string(),
            notes: vec![cause, format!("{} names {}", self.variable, named.display())],
        })
    }
}

/// The beginning of `struct link_map` of `link.h`.
#[repr(C)]
struct LinkMap {
    address: usize,
    name: *const c_char,
}

/// The file of an open library, as the loader knows it.
fn file_of(handle: *mut c_void) -> Option<PathBuf> {
    let mut map: *const LinkMap = std::ptr::null();
    // SAFETY: the handle is open, and the loader writes a pointer to what it keeps of it, or nothing.
    let status = unsafe { libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) };
    if status != 0 || map.is_null() {
        return None;
    }
    // SAFETY: it lives as long as the library, which is never closed.
    let name = unsafe { (*map).name };
    if name.is_null() {
        return None;
    }
    // SAFETY: as above, a C string.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    (!name.is_empty()).then(|| PathBuf::from(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted {
        name: "libsyncbn-does-not-exist.so.1",
        variable: "SYNCBN_TEST_LIBRARY",
        below: &["package/lib"],
        folders: &["/nowhere/lib64", "/nowhere/lib"],
    };

    #[test]
    fn what_is_nowhere_says_where_it_was_looked_for() {
        let missing = WANTED.find(None).unwrap_err();
        assert_eq!(missing.what, WANTED.name);
        assert!(missing.notes[0].contains(WANTED.name), "{missing:?}");
        assert_eq!(
            missing.notes[1],
            "it is not in /nowhere/lib64, /nowhere/lib either"
        );
        assert_eq!(
            WANTED.find(Some("".into())).unwrap_err(),
            missing,
            "an empty variable names nothing"
        );
    }

    #[test]
    fn the_variable_names_a_file_or_a_folder_above_it_and_nothing_else_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("package/lib");
        std::fs::create_dir_all(&named).unwrap();
        let file = named.join(WANTED.name);
        std::fs::write(&file, "no library").unwrap();
        for given in [file.as_path(), &named, folder.path()] {
            let missing = WANTED.find(Some(given.into())).unwrap_err();
            assert_eq!(missing.what, file.display().to_string());
            assert_eq!(
                missing.notes[1],
                format!("SYNCBN_TEST_LIBRARY names {}", given.display())
            );
        }
    }

    #[test]
    fn a_folder_whose_file_cannot_be_opened_is_not_one_without_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(WANTED.name), "no library").unwrap();
        let folder = folder.path().display().to_string();
        let notes = |folders: &[&str]| Wanted { folders, ..WANTED }.find(None).unwrap_err().notes;
        let some = notes(&["/nowhere/lib64", &folder]);
        assert!(some[1].contains(&folder), "{some:?}");
        assert_eq!(some[2], "it is not in /nowhere/lib64 either");
        assert_eq!(notes(&[&folder]).len(), 2, "there is no folder without it");
    }

    #[test]
    fn a_library_in_one_of_the_folders_is_opened_and_knows_its_file() {
        // The C library stands in for one of NVIDIA's.
        let path = open(Path::new("libc.so.6")).unwrap().file.clone();
        let folder = path.parent().unwrap().display().to_string();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let wanted = Wanted {
            name: &name,
            folders: &[&folder],
            ..WANTED
        };
        let library = wanted.find(Some((&folder).into())).unwrap();
        assert!(path.is_absolute(), "{}", path.display());
        assert_eq!(library.file.canonicalize().unwrap(), path.canonicalize().unwrap());
    }
}
