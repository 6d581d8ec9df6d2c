//! The CUDA driver, opened at run time, and its errors.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    path::Path,
};

use crate::{
    error::{Error, Kind, Result},
    gpu::library,
};

/// Names the driver's library, or a folder that holds it, where it is not found.
const LIBRARY_VARIABLE: &str = "SYNCBN_CUDA_LIBRARY";
/// Where containers and WSL put the driver's library, without telling the loader.
const LIBRARY: library::Wanted = library::Wanted {
    name: "libcuda.so.1",
    variable: LIBRARY_VARIABLE,
    below: &[],
    folders: &[
        "/usr/local/nvidia/lib64",
        "/usr/local/nvidia/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64",
        "/usr/lib/wsl/lib",
    ],
};

/// The oldest driver interface that takes PTX 8.0, that of CUDA 12.0.
const OLDEST_DRIVER: c_int = 12_000;
/// `CUDA_ERROR_OUT_OF_MEMORY`
pub(super) const OUT_OF_MEMORY: c_int = 2;
/// `CUDA_ERROR_NO_DEVICE`
const NO_DEVICE: c_int = 100;
/// `CUDA_ERROR_SYSTEM_DRIVER_MISMATCH`
const DRIVER_MISMATCH: c_int = 803;
/// `CUDA_ERROR_NOT_READY`
pub(super) const NOT_READY: c_int = 600;
/// Errors that a kernel makes: from `CUDA_ERROR_ILLEGAL_ADDRESS` to `CUDA_ERROR_LAUNCH_FAILED`.
const KERNEL_ERRORS: std::ops::RangeInclusive<c_int> = 700..=719;

/// `CUdevice`
pub(super) type Ordinal = c_int;
/// `CUdeviceptr`
pub(super) type Address = u64;
/// `CUcontext`, `CUstream`, `CUevent`, `CUmodule`, `CUfunction`, `CUgraph`, `CUgraphExec`
pub(super) type Handle = *mut c_void;

library::functions! {
    /// What is used of `libcuda`. Every function returns a `CUresult`.
    pub(super) struct Functions {
        init: "cuInit" (c_uint);
        driver_version: "cuDriverGetVersion" (*mut c_int);
        error_name: "cuGetErrorName" (c_int, *mut *const c_char);
        error_text: "cuGetErrorString" (c_int, *mut *const c_char);
        device_count: "cuDeviceGetCount" (*mut c_int);
        device: "cuDeviceGet" (*mut Ordinal, c_int);
        device_name: "cuDeviceGetName" (*mut c_char, c_int, Ordinal);
        device_attribute: "cuDeviceGetAttribute" (*mut c_int, c_int, Ordinal);
        device_memory: "cuDeviceTotalMem_v2" (*mut usize, Ordinal);
        retain_context: "cuDevicePrimaryCtxRetain" (*mut Handle, Ordinal);
        release_context: "cuDevicePrimaryCtxRelease_v2" (Ordinal);
        set_context: "cuCtxSetCurrent" (Handle);
        synchronize_context: "cuCtxSynchronize" ();
        allocate: "cuMemAlloc_v2" (*mut Address, usize);
        free: "cuMemFree_v2" (Address);
        fill: "cuMemsetD8Async" (Address, u8, usize, Handle);
        allocate_pinned: "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
        free_pinned: "cuMemFreeHost" (*mut c_void);
        upload: "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle);
        download: "cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Handle);
        create_stream: "cuStreamCreate" (*mut Handle, c_uint);
        destroy_stream: "cuStreamDestroy_v2" (Handle);
        query_stream: "cuStreamQuery" (Handle);
        synchronize_stream: "cuStreamSynchronize" (Handle);
        wait_event: "cuStreamWaitEvent" (Handle, Handle, c_uint);
        create_event: "cuEventCreate" (*mut Handle, c_uint);
        destroy_event: "cuEventDestroy_v2" (Handle);
        record_event: "cuEventRecord" (Handle, Handle);
        synchronize_event: "cuEventSynchronize" (Handle);
        load_module: "cuModuleLoadDataEx" (*mut Handle, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
        unload_module: "cuModuleUnload" (Handle);
        function: "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
        set_function_attribute: "cuFuncSetAttribute" (Handle, c_int, c_int);
        launch: "cuLaunchKernel" (
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle,
            *const *const c_void, *const *const c_void
        );
        begin_capture: "cuStreamBeginCapture_v2" (Handle, c_int);
        end_capture: "cuStreamEndCapture" (Handle, *mut Handle);
        instantiate: "cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
        launch_graph: "cuGraphLaunch" (Handle, Handle);
        destroy_executable: "cuGraphExecDestroy" (Handle);
        destroy_graph: "cuGraphDestroy" (Handle);
    }
}

/// A driver.
pub(super) struct Driver {
    functions: Functions,
    file: &'static Path,
}

impl std::ops::Deref for Driver {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

impl Driver {
    /// Finds, opens and initialises the driver.
    pub fn find() -> Result<Self> {
        Self::locate()?.ready()
    }

    /// Finds and opens the driver. Before [`Driver::start`] it tells its version and nothing else.
    pub fn locate() -> Result<Self> {
        let library = LIBRARY
            .find(std::env::var_os(LIBRARY_VARIABLE))
            .map_err(|missing| {
                let error = no_driver(&missing.what);
                let error = missing.notes.into_iter().fold(error, Error::note);
                error.help(format!(
                    "where there is a driver, let {LIBRARY_VARIABLE} name its libcuda.so.1"
                ))
            })?;
        Self::of(library)
    }

    /// Opens and initialises what stands for `libcuda.so.1`.
    #[cfg(test)]
    pub fn open(path: &Path) -> Result<Self> {
        Self::located(path)?.ready()
    }

    /// Opens what stands for `libcuda.so.1`.
    #[cfg(test)]
    pub fn located(path: &Path) -> Result<Self> {
        let library =
            library::open(path).map_err(|cause| no_driver(&path.display().to_string()).note(cause))?;
        Self::of(library)
    }

    fn of(opened: &'static library::Opened) -> Result<Self> {
        let functions = Functions::load(&opened.library)
            .map_err(|missing| too_old(&opened.file, &format!("lacks {missing}")))?;
        Ok(Driver {
            functions,
            file: &opened.file,
        })
    }

    fn ready(self) -> Result<Self> {
        self.start()?;
        self.check_version()?;
        Ok(self)
    }

    /// Initialises it.
    pub fn start(&self) -> Result<()> {
        // SAFETY: flags must be 0.
        let status = unsafe { (self.init)(0) };
        match status {
            NO_DEVICE => Err(no_device()),
            DRIVER_MISMATCH => Err(self
                .error(status, "cuInit")
                .help("reboot, or reload the NVIDIA kernel module")),
            status => self.check(status, "cuInit"),
        }
    }

    /// An error if it is too old.
    pub fn check_version(&self) -> Result<()> {
        if self.version()? < OLDEST_DRIVER {
            return Err(too_old(self.file, &format!("is for {}", self.cuda()?)));
        }
        Ok(())
    }

    fn version(&self) -> Result<c_int> {
        // SAFETY: the driver writes one number.
        unsafe { self.get("cuDriverGetVersion", |to| (self.driver_version)(to)) }
    }

    /// The latest CUDA that it is for, such as `CUDA 13.0`.
    pub fn cuda(&self) -> Result<String> {
        let version = self.version()?;
        Ok(format!("CUDA {}.{}", version / 1000, version % 1000 / 10))
    }

    /// The file that it was opened from.
    pub fn file(&self) -> &'static Path {
        self.file
    }

    /// The number of GPUs, at least 1.
    pub fn devices(&self) -> Result<usize> {
        // SAFETY: the driver writes one number.
        let count = unsafe { self.get("cuDeviceGetCount", |to| (self.device_count)(to))? };
        usize::try_from(count)
            .ok()
            .filter(|&count| count > 0)
            .ok_or_else(no_device)
    }

    /// An error unless `status` is 0; `what` names the call.
    pub fn check(&self, status: c_int, what: &str) -> Result<()> {
        if status == 0 {
            Ok(())
        } else {
            Err(self.error(status, what))
        }
    }

    /// What a call writes through its pointer.
    ///
    /// # Safety
    /// If the call succeeds it has written a `T`, which may be zero bytes before.
    pub unsafe fn get<T>(&self, what: &str, call: impl FnOnce(*mut T) -> c_int) -> Result<T> {
        let mut value = std::mem::MaybeUninit::zeroed();
        self.check(call(value.as_mut_ptr()), what)?;
        // SAFETY: the caller says so.
        Ok(unsafe { value.assume_init() })
    }

    /// A status as an error.
    pub fn error(&self, status: c_int, what: &str) -> Error {
        let text = |function: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text = std::ptr::null();
            // SAFETY: the driver writes a pointer to a static string, or null.
            let known = unsafe { function(status, &mut text) } == 0 && !text.is_null();
            // SAFETY: as above.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = text(self.error_name).unwrap_or_else(|| format!("error {status}"));
        let explanation = text(self.error_text).unwrap_or_else(|| "unknown to the driver".to_string());
        let kind = if KERNEL_ERRORS.contains(&status) {
            Kind::Internal
        } else {
            Kind::Environment
        };
        Error::new(kind, format!("{what}: {name}: {explanation}"))
    }
}

fn no_driver(what: &str) -> Error {
    Error::environment(format!("no NVIDIA driver: {what} could not be opened"))
}

fn no_device() -> Error {
    Error::environment("there is an NVIDIA driver but no GPU that it can use")
        .help("look at `nvidia-smi`, and at the variable CUDA_VISIBLE_DEVICES")
}

fn too_old(file: &Path, why: &str) -> Error {
    Error::environment(format!("the NVIDIA driver is too old: {} {why}", file.display())).help(format!(
        "install a driver for CUDA 12.0 or later (525 or later), or let {LIBRARY_VARIABLE} name its libcuda.so.1"
    ))
}
