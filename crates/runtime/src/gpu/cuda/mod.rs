//! NVIDIA GPUs behind the CUDA driver, which is opened at run time.

mod context;
mod driver;
mod images;
mod properties;
mod stream;
#[cfg(test)]
mod tests;
mod transfer;

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    rc::Rc,
    sync::Arc,
};

use syncbn_abi::GpuKernel;

pub(super) use self::stream::CudaStream;
#[cfg(test)]
pub(super) use self::tests::fake;
use self::{
    context::Context,
    driver::Driver,
    properties::Properties,
    transfer::{Pinned, Transfer},
};
use super::{
    Gpus,
    device::{Device, Replay},
    nccl::{self, Nccl},
    stream::{self as streams, Communicator, Stream},
    survey::{self, Found, Gpu, Library},
};
use crate::{
    error::{Error, Result},
    gpu::part::GpuPart,
};

/// The GPUs of this machine.
#[unsafe(export_name = "syncbn_rt_cuda")]
pub static GPUS: Gpus = Gpus {
    count,
    open: |part, index| {
        let kernels = part.model.gpu.as_ref().map(|gpu| gpu.kernels.clone());
        Ok(Box::new(CudaDevice::open(
            index,
            kernels.unwrap_or_default(),
            part,
        )?))
    },
    survey: survey::survey,
};

/// The GPU of a rank.
pub struct CudaDevice {
    // In the order in which they are dropped: what is made of a context goes before it.
    communicators: RefCell<Vec<Rc<Communicator>>>,
    streams: RefCell<Vec<Rc<Stream>>>,
    transfer: Transfer,
    pinned: RefCell<Vec<Pinned>>,
    nccl: RefCell<Option<Arc<Nccl>>>,
    collectives: Rc<Cell<u64>>,
    context: Rc<Context>,
}

/// The number of GPUs that this process can use; an error of kind environment if there is no driver, an unusable
/// one, or no GPU.
pub fn count() -> Result<usize> {
    Driver::find()?.devices()
}

/// The driver, and its GPUs with the code of `part` that each would take.
pub(super) fn found(part: &GpuPart) -> Result<(Library, Found<Vec<Found<Gpu>>>)> {
    survey_of(Driver::locate()?, &images::of(part))
}

fn survey_of(driver: Driver, images: &Result<&[u8]>) -> Result<(Library, Found<Vec<Found<Gpu>>>)> {
    let started = driver.start();
    let library = Library {
        file: driver.file().to_path_buf(),
        version: driver.cuda()?,
    };
    driver.check_version()?;
    let gpus = started.and_then(|()| driver.devices()).map(|count| {
        let gpus = (0..count).map(|index| {
            let gpu = Properties::of(&driver, index).map(|gpu| Gpu {
                code: Found::of(code(images, &gpu)),
                name: gpu.name,
                compute_capability: gpu.compute_capability,
                multiprocessors: gpu.multiprocessors,
                memory: gpu.memory,
            });
            Found::of(gpu)
        });
        gpus.collect()
    });
    Ok((library, Found::of(gpus)))
}

/// The code that a GPU would take, such as `cubin for sm_90`.
fn code(images: &Result<&[u8]>, gpu: &Properties) -> Result<String> {
    let images = images.clone()?;
    let (image, _) = images::choose(images, gpu.compute_capability, &gpu.name, images::forced_kind()?)?;
    Ok(format!("{} for sm_{}", image.kind, image.compute_capability))
}

impl CudaDevice {
    /// GPU number `index` of [`count`], with `kernels` from the device code of `part`.
    pub fn open(index: usize, kernels: Vec<GpuKernel>, part: &GpuPart) -> Result<Self> {
        Self::with(Driver::find()?, index, kernels, images::of(part)?, None)
    }

    fn with(
        driver: Driver,
        index: usize,
        kernels: Vec<GpuKernel>,
        images: &[u8],
        nccl: Option<Arc<Nccl>>,
    ) -> Result<Self> {
        let context = Context::open(driver, index, kernels, images)?;
        Ok(CudaDevice {
            communicators: RefCell::default(),
            streams: RefCell::default(),
            transfer: Transfer::new(&context)?,
            pinned: RefCell::default(),
            nccl: RefCell::new(nccl),
            collectives: Rc::default(),
            context,
        })
    }

    /// NCCL, opened when it is first needed.
    fn nccl(&self) -> Result<Arc<Nccl>> {
        if let Some(nccl) = &*self.nccl.borrow() {
            return Ok(Arc::clone(nccl));
        }
        let nccl = Nccl::shared()?;
        self.nccl.replace(Some(Arc::clone(&nccl)));
        Ok(nccl)
    }

    /// An error unless `[address, address + bytes)` lies in one allocation of [`Device::pinned`].
    fn check_pinned(&self, address: *const u8, bytes: usize) -> Result<()> {
        if self
            .pinned
            .borrow()
            .iter()
            .any(|pinned| pinned.holds(address, bytes))
        {
            return Ok(());
        }
        Err(Error::internal("a copy's host memory is not the device's"))
    }

    /// Waits for a stream, and meanwhile looks whether a collective has failed, which would never end.
    fn await_stream(&self, stream: &CudaStream) -> Result<()> {
        let communicators = self.communicators.borrow();
        if !communicators.is_empty() {
            while !stream.is_idle()? {
                for communicator in communicators.iter() {
                    communicator.of::<nccl::Communicator>()?.check()?;
                }
                std::thread::yield_now();
            }
        }
        stream.synchronize()
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.context.name.clone()
    }

    fn allocate(&self, bytes: u64, what: &str) -> Result<*mut u8> {
        let place = self.context.allocate(bytes, what)? as *mut u8;
        // SAFETY: the memory was just allocated.
        unsafe { self.transfer.zero(place, bytes as usize)? };
        Ok(place)
    }

    fn upload(&self, to: *mut u8, from: &[u8]) -> Result<()> {
        self.transfer.upload(to, from)
    }

    fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.transfer.download(from, to)
    }

    fn stream(&self) -> Result<*mut c_void> {
        let stream = CudaStream::new(&self.context)?;
        Ok(streams::keep(
            &self.streams,
            Stream::new(stream, &self.collectives),
        ))
    }

    fn synchronize(&self, stream: *mut c_void) -> Result<()> {
        let stream = streams::find(&self.streams, stream)?;
        let outcome = self.await_stream(stream.of::<CudaStream>()?);
        stream.take_failure()?;
        outcome
    }

    fn unique_id(&self) -> Result<Vec<u8>> {
        self.nccl()?.unique_id()
    }

    fn communicator(&self, id: &[u8], rank: usize, peers: &[usize]) -> Result<*mut c_void> {
        let communicator = nccl::Communicator::join(self.nccl()?, id, rank, peers)?;
        Ok(streams::keep(
            &self.communicators,
            Communicator::new(communicator),
        ))
    }

    fn collectives(&self) -> u64 {
        self.collectives.get()
    }

    fn pinned(&self, bytes: u64, what: &str) -> Result<*mut u8> {
        let pinned = Pinned::new(&self.context, bytes, what)?;
        let start = pinned.start;
        self.pinned.borrow_mut().push(pinned);
        Ok(start)
    }

    fn wait(&self, waiting: *mut c_void, signalling: *mut c_void) -> Result<()> {
        let waiting = streams::find(&self.streams, waiting)?;
        waiting.wait_for(&*streams::find(&self.streams, signalling)?);
        waiting.take_failure()
    }

    unsafe fn copy_in(&self, stream: *mut c_void, to: *mut u8, from: *const u8, bytes: usize) -> Result<()> {
        self.context.check(to, bytes, "a copy to the device")?;
        self.check_pinned(from, bytes)?;
        let stream = streams::find(&self.streams, stream)?;
        // SAFETY: the checks say that both lie in memory of the device; the caller answers for the rest.
        unsafe { stream.of::<CudaStream>()?.upload(to, from, bytes) }
    }

    unsafe fn copy_out(&self, stream: *mut c_void, from: *const u8, to: *mut u8, bytes: usize) -> Result<()> {
        self.context.check(from, bytes, "a copy from the device")?;
        self.check_pinned(to, bytes)?;
        let stream = streams::find(&self.streams, stream)?;
        // SAFETY: as above.
        unsafe { stream.of::<CudaStream>()?.download(from, to, bytes) }
    }

    fn capture(
        &self,
        stream: *mut c_void,
        enqueue: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Box<dyn Replay>> {
        let stream = streams::find(&self.streams, stream)?;
        streams::capture(&self.streams, &self.collectives, || {
            stream.of::<CudaStream>()?.capture(|| {
                enqueue()?;
                streams::take_failures(&self.streams)
            })
        })
    }

    fn aborter(&self) -> Box<dyn Fn() + Send> {
        let communicators = self.communicators.borrow();
        let aborters: Vec<_> = communicators
            .iter()
            .filter_map(|communicator| communicator.of::<nccl::Communicator>().ok())
            .map(nccl::Communicator::aborter)
            .collect();
        Box::new(move || aborters.iter().for_each(|abort| abort()))
    }
}
