//! Communicators of NCCL.

use std::{
    ffi::{c_int, c_void},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Handle, IN_PROGRESS, NCCL_FAILED, Nccl, UniqueId};
use crate::{
    error::{Error, Kind, Result},
    gpu::{group, stream::AllReduce},
};

/// How long a call that a communicator has not finished is left alone before it is asked again.
const POLL: Duration = Duration::from_micros(50);

/// A rank's part of a communicator.
pub struct Communicator(Arc<Inner>);

struct Inner {
    nccl: Arc<Nccl>,
    communicator: Handle,
    /// Whether the handle has ended. Locked while it ends, and while it is asked for errors.
    aborted: Mutex<bool>,
    /// The ranks of the run that take part.
    peers: Vec<usize>,
}

// SAFETY: NCCL allows `ncclCommAbort` from any thread, and the others are called from the device's thread only.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Communicator {
    /// Joins as member `rank` of `peers`, and waits for all of them. The GPU's context must be current.
    pub(in crate::gpu) fn join(nccl: Arc<Nccl>, id: &[u8], rank: usize, peers: &[usize]) -> Result<Self> {
        let id = id
            .try_into()
            .map_err(|_| Error::internal("a communicator's identifier is malformed"))?;
        let mut communicator = std::ptr::null_mut();
        // SAFETY: NCCL writes a handle.
        let status = unsafe {
            (nccl.functions.init_rank)(
                &mut communicator,
                peers.len() as c_int,
                UniqueId(id),
                rank as c_int,
            )
        };
        if status != IN_PROGRESS {
            nccl.check(status, "ncclCommInitRank")?;
        }
        let inner = Arc::new(Inner {
            nccl,
            communicator,
            aborted: Mutex::new(false),
            peers: peers.to_vec(),
        });
        if let Err(error) = inner.settle(status, "ncclCommInitRank") {
            inner.abort();
            return Err(error);
        }
        Ok(Communicator(inner))
    }

    /// Enqueues a sum over the members on a stream.
    pub(in crate::gpu) fn all_reduce(&self, stream: *mut c_void, call: AllReduce) -> Result<()> {
        let inner = &*self.0;
        // Not locked during the call, which may wait for other ranks.
        inner.living().map(drop)?;
        // SAFETY: whoever generated the call answers for its buffers; stream and communicator are of one device.
        let status = unsafe {
            (inner.nccl.functions.all_reduce)(
                call.send.cast(),
                call.receive.cast(),
                call.count as usize,
                call.data_type,
                call.operation,
                inner.communicator,
                stream,
            )
        };
        let grouped = group::add(&self.0, status == IN_PROGRESS);
        if grouped && status == IN_PROGRESS {
            return Ok(());
        }
        inner.settle(status, "ncclAllReduce")
    }

    /// An error if a collective has failed since it was enqueued.
    pub(in crate::gpu) fn check(&self) -> Result<()> {
        let inner = &*self.0;
        let status = inner.status()?;
        if status == IN_PROGRESS {
            return Ok(());
        }
        inner
            .nccl
            .check(status, "a collective")
            .map_err(|error| error.note(format!("the communicator's ranks are {:?}", inner.peers)))
    }

    /// What ends the communicator from any thread.
    pub(in crate::gpu) fn aborter(&self) -> impl Fn() + Send + 'static {
        let inner = Arc::clone(&self.0);
        move || inner.abort()
    }
}

impl group::Member for Inner {
    fn finish(&self) -> c_int {
        Inner::finish(self, IN_PROGRESS).unwrap_or(NCCL_FAILED)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the communicator from being aborted; an error if it was.
    fn living(&self) -> Result<MutexGuard<'_, bool>> {
        let aborted = self.lock();
        match *aborted {
            false => Ok(aborted),
            true => Err(Error::new(Kind::RankDied, "the communicator was aborted")),
        }
    }

    /// What has become of the calls so far.
    fn status(&self) -> Result<c_int> {
        let _living = self.living()?;
        let mut status = 0;
        // SAFETY: a living communicator; NCCL writes one number.
        let asked = unsafe { (self.nccl.functions.async_error)(self.communicator, &mut status) };
        self.nccl.check(asked, "ncclCommGetAsyncError")?;
        Ok(status)
    }

    /// Waits for the end of a call that returned `status`, where the communicator does not block (as with
    /// `NCCL_COMM_BLOCKING=0`): nothing else may be asked of it before. What has become of the call.
    fn finish(&self, mut status: c_int) -> Result<c_int> {
        while status == IN_PROGRESS {
            std::thread::sleep(POLL);
            status = self.status()?;
        }
        Ok(status)
    }

    /// As [`Inner::finish`]; an error unless the call succeeded.
    fn settle(&self, status: c_int, what: &str) -> Result<()> {
        self.nccl.check(self.finish(status)?, what)
    }

    fn abort(&self) {
        let mut aborted = self.lock();
        if !std::mem::replace(&mut *aborted, true) {
            // SAFETY: a communicator that is not aborted or destroyed yet, and that nobody asks for errors now.
            unsafe { (self.nccl.functions.abort)(self.communicator) };
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.lock() {
            // SAFETY: as in `abort`, and nobody has it any more.
            unsafe { (self.nccl.functions.destroy)(self.communicator) };
        }
    }
}
