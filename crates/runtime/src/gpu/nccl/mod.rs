//! NCCL, opened at run time.

mod communicator;

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    path::Path,
    sync::{Arc, OnceLock},
};

pub use communicator::Communicator;

use super::{
    group::{self, Group},
    library,
};
use crate::error::{Error, Kind, Result};

/// Names the library, or a folder that holds it, such as Python's site-packages with a wheel of NCCL or of PyTorch.
pub const LIBRARY_VARIABLE: &str = "SYNCBN_NCCL_LIBRARY";
/// Where it is looked for otherwise.
const LIBRARY: library::Wanted = library::Wanted {
    name: "libnccl.so.2",
    variable: LIBRARY_VARIABLE,
    below: &["lib", "nccl/lib", "nvidia/nccl/lib"],
    folders: &[
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/local/cuda/lib64",
        "/usr/local/nvidia/lib64",
    ],
};
/// The oldest version whose communicators can be captured in graphs without limits: 2.11.0.
const OLDEST: c_int = 21_100;
/// `ncclSuccess`.
pub(super) const NCCL_SUCCESS: c_int = 0;
/// `ncclInternalError`: the status of a collective that failed for a reason that the stream knows.
pub(super) const NCCL_FAILED: c_int = 3;
/// `ncclRemoteError`: another rank has failed, or the network to it.
const REMOTE_ERROR: c_int = 6;

/// `ncclInProgress`: a communicator that does not block has not finished yet.
const IN_PROGRESS: c_int = 7;

/// `ncclComm_t`
type Handle = *mut c_void;

/// `ncclUniqueId`
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; 128]);

library::functions! {
    /// What is used of `libnccl`. Every function returns an `ncclResult_t`.
    struct Functions {
        version: "ncclGetVersion" (*mut c_int);
        unique_id: "ncclGetUniqueId" (*mut UniqueId);
        init_rank: "ncclCommInitRank" (*mut Handle, c_int, UniqueId, c_int);
        all_reduce: "ncclAllReduce" (*const c_void, *mut c_void, usize, c_int, c_int, Handle, *mut c_void);
        group_start: "ncclGroupStart" ();
        group_end: "ncclGroupEnd" ();
        async_error: "ncclCommGetAsyncError" (Handle, *mut c_int);
        abort: "ncclCommAbort" (Handle);
        destroy: "ncclCommDestroy" (Handle);
    }
}

/// The text of a status: the one function that returns no status.
type ErrorText = unsafe extern "C" fn(c_int) -> *const c_char;

/// An opened library.
pub struct Nccl {
    functions: Functions,
    error_text: ErrorText,
    file: &'static Path,
}

/// The library of this process, for the functions of generated code that name no communicator.
static OPENED: OnceLock<Arc<Nccl>> = OnceLock::new();

impl Nccl {
    /// The library of this process, opened at the first call: the one that [`LIBRARY_VARIABLE`] names, or the first
    /// that is found.
    pub fn shared() -> Result<Arc<Self>> {
        if let Some(opened) = OPENED.get() {
            return Ok(Arc::clone(opened));
        }
        let library = LIBRARY
            .find(std::env::var_os(LIBRARY_VARIABLE))
            .map_err(|library::Missing { what, notes }| missing(&what, notes))?;
        let nccl = Self::of(library)?;
        Ok(Arc::clone(OPENED.get_or_init(|| Arc::new(nccl))))
    }

    /// Opens a library.
    #[cfg(test)]
    pub(super) fn open(path: &Path) -> Result<Self> {
        let library =
            library::open(path).map_err(|cause| missing(&path.display().to_string(), vec![cause]))?;
        Self::of(library)
    }

    fn of(opened: &'static library::Opened) -> Result<Self> {
        let lacks = |symbol: &str| too_old(&opened.file, &format!("lacks {symbol}"));
        let functions = Functions::load(&opened.library).map_err(lacks)?;
        // SAFETY: the signature is that of NCCL's header.
        let error_text = unsafe { opened.library.get::<ErrorText>(b"ncclGetErrorString\0") };
        let error_text = *error_text.map_err(|_| lacks("ncclGetErrorString"))?;
        let nccl = Nccl {
            functions,
            error_text,
            file: &opened.file,
        };
        let code = nccl.code()?;
        if code < OLDEST {
            return Err(too_old(nccl.file, &format!("is {}", version_of(code))));
        }
        Ok(nccl)
    }

    fn code(&self) -> Result<c_int> {
        let mut version = 0;
        // SAFETY: NCCL writes one number.
        let status = unsafe { (self.functions.version)(&mut version) };
        self.check(status, "ncclGetVersion")?;
        Ok(version)
    }

    /// Its version, such as `2.30.7`.
    pub fn version(&self) -> Result<String> {
        self.code().map(version_of)
    }

    /// The file that it was opened from.
    pub fn file(&self) -> &'static Path {
        self.file
    }

    /// An identifier for `Communicator::join`.
    pub fn unique_id(&self) -> Result<Vec<u8>> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: NCCL writes an identifier.
        self.check(unsafe { (self.functions.unique_id)(&mut id) }, "ncclGetUniqueId")?;
        Ok(id.0.to_vec())
    }

    fn check(&self, status: c_int, what: &str) -> Result<()> {
        if status == NCCL_SUCCESS {
            return Ok(());
        }
        let kind = if status == REMOTE_ERROR {
            Kind::RankDied
        } else {
            Kind::Environment
        };
        Err(Error::new(kind, format!("{what}: {}", self.text(status)))
            .help("set NCCL_DEBUG=INFO to see more"))
    }

    fn text(&self, status: c_int) -> String {
        // SAFETY: NCCL returns a static string.
        let text = unsafe { (self.error_text)(status) };
        if text.is_null() {
            return format!("status {status}");
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// The version of a code of `ncclGetVersion`, which up to 2.8 was 2803 for 2.8.3 and since then is 20903 for 2.9.3.
fn version_of(code: c_int) -> String {
    let (major, minor) = if code < 10_000 {
        (code / 1000, code / 100 % 10)
    } else {
        (code / 10_000, code / 100 % 100)
    };
    format!("{major}.{minor}.{}", code % 100)
}

fn too_old(file: &Path, why: &str) -> Error {
    Error::environment(format!("NCCL is too old: {} {why}", file.display())).help(format!(
        "install NCCL {} or later (libnccl2), or let {LIBRARY_VARIABLE} name its libnccl.so.2",
        version_of(OLDEST)
    ))
}

fn missing(what: &str, notes: Vec<String>) -> Error {
    let error = Error::environment(format!("no NCCL: {what} could not be opened"));
    notes.into_iter().fold(error, Error::note).help(format!(
        "install NCCL 2 (libnccl2), or let {LIBRARY_VARIABLE} name a libnccl.so.2 or a folder that holds it, such as \
         Python's site-packages with nvidia-nccl"
    ))
}

/// Begins a group of calls, if there is a library: emulated collectives happen at once.
pub(super) fn group_start() -> c_int {
    group::begin();
    let status = in_library(|functions| functions.group_start);
    group::note((status != NCCL_SUCCESS).then_some(("ncclGroupStart", status)));
    status
}

/// Ends a group of calls. One that could not begin has its status.
pub(super) fn group_end() -> c_int {
    let group = group::end();
    if let Some((_, status)) = group::failure() {
        return settle(&group, status);
    }
    let status = settle(&group, in_library(|functions| functions.group_end));
    group::note((status != NCCL_SUCCESS).then_some(("ncclGroupEnd", status)));
    status
}

/// Waits for what the communicators of a group have not finished; `status` is that of the group's end. The first
/// status that is not success.
fn settle(group: &Group, status: c_int) -> c_int {
    match status == IN_PROGRESS || (status == NCCL_SUCCESS && group.is_unfinished()) {
        true => group.finish(NCCL_SUCCESS),
        false => status,
    }
}

fn in_library(function: impl FnOnce(&Functions) -> unsafe extern "C" fn() -> c_int) -> c_int {
    let Some(nccl) = OPENED.get() else {
        return NCCL_SUCCESS;
    };
    // SAFETY: it takes nothing.
    unsafe { function(&nccl.functions)() }
}

/// The error of a status that generated code got.
pub(super) fn error_of_status(status: c_int) -> Error {
    let group = group::take_failure().filter(|(_, of_group)| *of_group == status);
    let what = group.map_or("NCCL", |(call, _)| call);
    match OPENED.get().map(|nccl| nccl.check(status, what)) {
        Some(Err(error)) => error,
        _ if status == NCCL_FAILED => Error::internal("a collective failed"),
        _ => Error::internal(format!("a collective failed with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_says_where_it_was_looked_for_and_how_to_get_it() {
        let error = Nccl::open(Path::new("/nowhere/libnccl.so.2")).err().unwrap();
        assert_eq!(error.kind, Kind::Environment);
        assert_eq!(
            error.message,
            "no NCCL: /nowhere/libnccl.so.2 could not be opened"
        );
        assert!(error.to_string().contains(LIBRARY_VARIABLE), "{error}");
    }

    #[test]
    fn codes_of_versions_have_two_forms() {
        for (code, version) in [(2803, "2.8.3"), (20_903, "2.9.3"), (23_007, "2.30.7")] {
            assert_eq!(version_of(code), version);
        }
    }

    #[test]
    fn another_library_is_named_with_what_it_lacks() {
        let error = Nccl::open(Path::new("libc.so.6")).err().unwrap();
        let words = ["NCCL is too old: /", "libc.so.6 lacks ncclGetVersion"];
        for word in words {
            assert!(error.message.contains(word), "{error}");
        }
    }
}
