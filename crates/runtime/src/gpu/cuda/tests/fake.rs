//! The driver and NCCL of `fake.c`: each test has its own copy.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
};

use syncbn_abi::GpuKernel;
use tempfile::TempDir;

use super::super::{CudaDevice, driver::Driver};
use crate::{
    error::Result,
    gpu::{library, nccl::Nccl},
};

/// A driver and NCCL of its own.
pub struct Fake {
    _folder: TempDir,
    pub path: PathBuf,
    library: &'static library::Opened,
}

fn compiled() -> &'static Path {
    static COMPILED: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COMPILED.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("fake.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu/cuda/tests/fake.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&path)
            .arg(source)
            .status();
        assert!(status.unwrap().success());
        (folder, path)
    });
    path
}

impl Fake {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("libfake.so");
        std::fs::copy(compiled(), &path).unwrap();
        let library = library::open(&path).unwrap();
        Fake {
            _folder: folder,
            path,
            library,
        }
    }

    fn function<T: Copy>(&self, name: &str) -> T {
        // SAFETY: the tests name the types as in `fake.c`.
        *unsafe { self.library.library.get::<T>(name.as_bytes()) }.unwrap()
    }

    /// The driver's version, and how many GPUs it has.
    pub fn set(&self, version: c_int, devices: c_int) {
        let set: unsafe extern "C" fn(c_int, c_int) = self.function("fake_set");
        // SAFETY: as above.
        unsafe { set(version, devices) };
    }

    /// NCCL's version code.
    pub fn set_nccl(&self, version: c_int) {
        let set: unsafe extern "C" fn(c_int) = self.function("fake_set_nccl");
        // SAFETY: as above.
        unsafe { set(version) };
    }

    /// Lets the next call of a function return `status`.
    pub fn fail(&self, name: &str, status: c_int) {
        let fail: unsafe extern "C" fn(*const c_char, c_int) = self.function("fake_fail");
        let name = CString::new(name).unwrap();
        // SAFETY: as above.
        unsafe { fail(name.as_ptr(), status) };
    }

    /// Lets each call of NCCL be in progress until a communicator has been asked for its state `asked` times, and then
    /// have ended with `status`.
    pub fn unblock(&self, asked: c_int, status: c_int) {
        let unblock: unsafe extern "C" fn(c_int, c_int) = self.function("fake_unblock");
        // SAFETY: as above.
        unsafe { unblock(asked, status) };
    }

    /// Lets streams never end, with this asynchronous error of NCCL.
    pub fn hang(&self, status: c_int) {
        let hang: unsafe extern "C" fn(c_int) = self.function("fake_hang");
        // SAFETY: as above.
        unsafe { hang(status) };
    }

    /// The calls since the last call of this, one a line.
    pub fn calls(&self) -> String {
        let calls: unsafe extern "C" fn() -> *const c_char = self.function("fake_calls");
        let forget: unsafe extern "C" fn() = self.function("fake_forget");
        // SAFETY: as above.
        unsafe {
            let text = CStr::from_ptr(calls()).to_str().unwrap().to_string();
            forget();
            text
        }
    }

    pub(in crate::gpu::cuda) fn driver(&self) -> Result<Driver> {
        Driver::open(&self.path)
    }

    /// GPU 1, with two kernels of which the second has 64 KiB of shared memory.
    pub fn device(&self) -> Result<CudaDevice> {
        let kernel = |name: &str, shared| GpuKernel {
            name: name.to_string(),
            block: 96,
            shared,
            cooperative: false,
            parameters: None,
            numbers: 0,
            nodes: vec!["conv1".to_string()],
        };
        let images = b"{\"images\":[{\"kind\":\"ptx\",\"compute_capability\":80,\"bytes\":4}]}\nCODE";
        let nccl = Some(Arc::new(Nccl::open(&self.path)?));
        CudaDevice::with(
            self.driver()?,
            1,
            vec![kernel("first", 0), kernel("second", 65536)],
            images,
            nccl,
        )
    }
}
