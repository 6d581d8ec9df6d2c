//! What the driver says of a GPU before anything runs on it.

use std::ffi::c_int;

use super::driver::{Driver, Ordinal};
use crate::error::Result;

/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`
const MULTIPROCESSORS: c_int = 16;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`
const CAPABILITY_MAJOR: c_int = 75;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR`
const CAPABILITY_MINOR: c_int = 76;
/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`
const MOST_SHARED: c_int = 97;

/// Properties of a GPU.
#[derive(Debug, Clone)]
pub(super) struct Properties {
    pub device: Ordinal,
    pub name: String,
    /// Such as 90 for 9.0.
    pub compute_capability: u32,
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of shared memory that a block may have.
    pub most_shared: u32,
}

impl Properties {
    /// Those of the GPU of this index.
    pub fn of(driver: &Driver, index: usize) -> Result<Self> {
        // SAFETY: each call writes what its type says.
        let device = unsafe { driver.get("cuDeviceGet", |to| (driver.device)(to, index as c_int))? };
        let mut name = [0u8; 256];
        // SAFETY: room for the name and its end.
        let status = unsafe { (driver.device_name)(name.as_mut_ptr().cast(), 255, device) };
        driver.check(status, "cuDeviceGetName")?;
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        // SAFETY: as above.
        let memory =
            unsafe { driver.get::<usize>("cuDeviceTotalMem", |to| (driver.device_memory)(to, device))? };
        let attribute = |attribute: c_int| -> Result<u32> {
            // SAFETY: as above.
            let value = unsafe {
                driver.get::<c_int>("cuDeviceGetAttribute", |to| {
                    (driver.device_attribute)(to, attribute, device)
                })?
            };
            Ok(value as u32)
        };
        Ok(Properties {
            device,
            name: String::from_utf8_lossy(name).into_owned(),
            compute_capability: 10 * attribute(CAPABILITY_MAJOR)? + attribute(CAPABILITY_MINOR)?,
            multiprocessors: attribute(MULTIPROCESSORS)?,
            memory: memory as u64,
            most_shared: attribute(MOST_SHARED)?,
        })
    }
}
