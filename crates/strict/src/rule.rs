//! The rules that calls can break.

macro_rules! rules {
    ($($(#[doc = $doc:literal])* $rule:ident $name:literal,)*) => {
        /// What a violation is of. Its name stands after `VIOLATION` in the log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rule { $($(#[doc = $doc])* $rule,)* }

        impl Rule {
            /// The name in the log.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$rule => $name,)* }
            }
        }
    };
}

rules! {
    /// A variable of the stand-in is malformed.
    Setting "setting",
    /// A call before `cuInit`.
    NotInitialised "not-initialised",
    /// A call by a thread without a current context.
    NoContext "no-context",
    /// An argument that no call takes: flags, null, zero bytes.
    Argument "argument",
    /// Something that is no handle, or one of another kind.
    Handle "handle",
    /// A handle of something that was destroyed.
    DeadHandle "dead-handle",
    /// A call that may not be made in a thread that captures, or on a stream that does.
    CallInCapture "call-in-capture",
    /// A capture that begins twice, or ends where it did not begin.
    CaptureState "capture-state",
    /// A stream of a capture whose work nothing at the capture's end waits for.
    Unjoined "unjoined",
    /// A capturing stream and one outside of its capture wait for each other.
    CaptureIsolation "capture-isolation",
    /// Use of an event that was recorded in a capture which has ended.
    CapturedEvent "captured-event",
    /// A wait for an event that was never recorded: it would wait for nothing.
    UnrecordedEvent "unrecorded-event",
    /// Memory outside of all allocations.
    MemoryRange "memory-range",
    /// Memory that is freed twice.
    DoubleFree "double-free",
    /// Memory that is freed while work that uses it is under way.
    FreedInUse "freed-in-use",
    /// A replay of a graph that uses freed memory.
    GraphMemory "graph-memory",
    /// Host memory that changed between a copy's call and the copy.
    PinnedChanged "pinned-changed",
    /// A capture of a copy from or to pageable memory.
    PageableCopy "pageable-copy",
    /// What still lives when its context is released, or a context that is not.
    Leak "leak",
    /// Device code that the driver would not take.
    Image "image",
    /// A kernel that the image does not have.
    NoKernel "no-kernel",
    /// Parameters that are not what the image's own table of the kernel says.
    Parameters "parameters",
    /// A block with more threads than the kernel or the device takes.
    Block "block",
    /// A grid that the device does not take.
    Grid "grid",
    /// More shared memory than a block gets without being asked, or than there is.
    SharedMemory "shared-memory",
    /// Buffers of a collective outside of allocations.
    CollectiveBuffer "collective-buffer",
    /// A type, operation or count that the project does not use.
    CollectiveForm "collective-form",
    /// Ranks that take part in different collectives.
    CollectiveMismatch "collective-mismatch",
    /// A communicator that is destroyed while graphs use it: NCCL would wait for ever.
    CommunicatorInGraph "communicator-in-graph",
    /// A group of calls that is not begun, or not ended.
    Group "group",
}
