//! A GPU that is ready for work: its context, its kernels, its memory.

use std::{
    cell::RefCell,
    ffi::{CString, c_int, c_uint, c_void},
    rc::Rc,
};

use syncbn_abi::GpuKernel;

use super::{
    driver::{Address, Driver, Handle, OUT_OF_MEMORY, Ordinal},
    images,
    properties::Properties,
};
use crate::error::{Error, Result};

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
const FUNCTION_SHARED: c_int = 8;
/// Bytes of shared memory that a block gets without being asked.
const PLAIN_SHARED: u32 = 48 * 1024;
/// `CU_JIT_ERROR_LOG_BUFFER`
const JIT_ERROR_LOG: c_int = 5;
/// `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`
const JIT_ERROR_LOG_BYTES: c_int = 6;

/// The context of a GPU.
pub(in crate::gpu) struct Context {
    pub(super) driver: Driver,
    /// For messages.
    pub(super) name: String,
    device: Ordinal,
    kernels: Vec<(GpuKernel, Handle)>,
    module: Handle,
    allocations: RefCell<Vec<(Address, u64)>>,
}

impl Context {
    /// GPU number `index`, with the kernels of the device code in `images`.
    pub(super) fn open(
        driver: Driver,
        index: usize,
        kernels: Vec<GpuKernel>,
        images: &[u8],
    ) -> Result<Rc<Self>> {
        let properties = Properties::of(&driver, index)?;
        let device = properties.device;
        // SAFETY: each call writes what its type says.
        let retained = unsafe {
            driver.get("cuDevicePrimaryCtxRetain", |to| {
                (driver.retain_context)(to, device)
            })?
        };
        // What was retained is released with this, whatever fails from now on.
        let mut context = Context {
            driver,
            name: properties.name.clone(),
            device,
            kernels: Vec::new(),
            module: std::ptr::null_mut(),
            allocations: RefCell::default(),
        };
        // SAFETY: the context was just retained.
        let status = unsafe { (context.driver.set_context)(retained) };
        context.driver.check(status, "cuCtxSetCurrent")?;
        context.load(kernels, images, &properties)?;
        Ok(Rc::new(context))
    }

    fn load(&mut self, kernels: Vec<GpuKernel>, images: &[u8], properties: &Properties) -> Result<()> {
        let (image, code) = images::choose(
            images,
            properties.compute_capability,
            &self.name,
            images::forced_kind()?,
        )?;
        let mut code = code.to_vec();
        // PTX is a C string.
        code.push(0);
        let mut log = [0u8; 4096];
        let mut options = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void];
        let load = |to| {
            // SAFETY: the code and the log outlive the call, and options and values are two each.
            unsafe {
                let count = options.len() as c_uint;
                (self.driver.load_module)(
                    to,
                    code.as_ptr().cast(),
                    count,
                    options.as_mut_ptr(),
                    values.as_mut_ptr(),
                )
            }
        };
        // SAFETY: the driver writes a handle.
        let module = unsafe { self.driver.get("cuModuleLoadDataEx", load) };
        self.module = module.map_err(|error| {
            let log = log.split(|&byte| byte == 0).next().unwrap_or_default();
            let error = error.note(format!(
                "loading {} for compute capability {} on {}",
                image.kind, image.compute_capability, self.name
            ));
            if log.is_empty() {
                error
            } else {
                error.note(String::from_utf8_lossy(log).trim_end())
            }
        })?;
        for kernel in kernels {
            let function = self.function(&kernel, properties.most_shared)?;
            self.kernels.push((kernel, function));
        }
        Ok(())
    }

    fn function(&self, kernel: &GpuKernel, most_shared: u32) -> Result<Handle> {
        let name = CString::new(kernel.name.as_str()).map_err(|_| Error::internal(kernel.to_string()))?;
        let call = |to| {
            // SAFETY: a module of this context and a C string.
            unsafe { (self.driver.function)(to, self.module, name.as_ptr()) }
        };
        // SAFETY: the driver writes a handle.
        let function = unsafe {
            self.driver
                .get(&format!("cuModuleGetFunction of {kernel}"), call)?
        };
        if kernel.shared > most_shared {
            return Err(Error::environment(format!(
                "{kernel} needs {} bytes of shared memory; {} has {most_shared}",
                kernel.shared, self.name
            )));
        }
        if kernel.shared > PLAIN_SHARED {
            // SAFETY: a function of this context.
            let status = unsafe {
                (self.driver.set_function_attribute)(function, FUNCTION_SHARED, kernel.shared as c_int)
            };
            self.driver
                .check(status, &format!("cuFuncSetAttribute of {kernel}"))?;
        }
        Ok(function)
    }

    /// Device memory, not initialised.
    pub fn allocate(&self, bytes: u64, what: &str) -> Result<Address> {
        let mut address = 0;
        // SAFETY: the driver writes an address.
        let status = unsafe { (self.driver.allocate)(&mut address, bytes.max(1) as usize) };
        if status == OUT_OF_MEMORY {
            return Err(Error::environment(format!(
                "cannot get {bytes} bytes of memory of {} for {what}",
                self.name
            ))
            .help("use a smaller --batch, or more ranks on more GPUs"));
        }
        self.driver.check(status, "cuMemAlloc")?;
        self.allocations.borrow_mut().push((address, bytes));
        Ok(address)
    }

    /// An error unless `[address, address + bytes)` lies in one allocation; `what` names it.
    pub fn check(&self, address: *const u8, bytes: usize, what: &str) -> Result<()> {
        let (address, bytes) = (address as Address, bytes as u64);
        let allocations = self.allocations.borrow();
        let inside = |&(begin, size): &(Address, u64)| {
            address >= begin && address - begin <= size && bytes <= size - (address - begin)
        };
        if bytes == 0 || allocations.iter().any(inside) {
            return Ok(());
        }
        Err(Error::internal(format!(
            "{what} ({bytes} bytes at {address:#x}) lies outside the device's memory"
        )))
    }

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// `parameters` points to the values of the kernel's parameters, and `stream` is one of this context.
    pub unsafe fn launch(
        &self,
        stream: Handle,
        kernel: i64,
        grid: [i64; 3],
        parameters: *const *const c_void,
    ) -> Result<()> {
        let known = usize::try_from(kernel)
            .ok()
            .and_then(|index| self.kernels.get(index));
        let Some((kernel, function)) = known else {
            return Err(Error::internal(format!("the model has no kernel {kernel}")));
        };
        if grid.contains(&0) {
            return Ok(());
        }
        let [Ok(x), Ok(y), Ok(z)] = grid.map(u32::try_from) else {
            return Err(Error::internal(format!("{kernel} has a grid of {grid:?}")));
        };
        // SAFETY: the caller answers for the parameters.
        let status = unsafe {
            (self.driver.launch)(
                *function,
                x,
                y,
                z,
                kernel.block,
                1,
                1,
                kernel.shared,
                stream,
                parameters,
                std::ptr::null(),
            )
        };
        self.driver.check(status, &format!("cuLaunchKernel of {kernel}"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A GPU that has failed refuses these; then the end of the process frees it.
        // SAFETY: everything is this context's, and nothing uses it any more.
        unsafe {
            for (address, _) in self.allocations.take() {
                let _ = (self.driver.free)(address);
            }
            if !self.module.is_null() {
                let _ = (self.driver.unload_module)(self.module);
            }
            let _ = (self.driver.release_context)(self.device);
        }
    }
}
