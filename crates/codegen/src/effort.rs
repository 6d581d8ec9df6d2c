//! How much LLVM does for each kind of code. Its time is most of a compilation's, and most of `default<O2>` finds
//! nothing to do here: kernels come without stack slots, calls or exceptions, with their vectors and blocks chosen.
//! Each pipeline can be pasted into `opt-22 -passes=...`.

use inkwell::OptimizationLevel;

/// LLVM's passes, and the level of its code generator.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// The passes.
    pub passes: &'static str,
    /// Of instruction selection, scheduling and register allocation.
    pub level: OptimizationLevel,
}

/// Kernels and step functions of the CPU. As [`DEVICE`], without unrolling: kernels come with their blocks chosen, so
/// that it would only copy code. Jump threading, which makes paths of their own through guarded borders, was a third of
/// `default<O2>`'s time; on a busy machine, steps of six networks showed no difference beyond the noise without it.
pub const CPU: Effort = Effort {
    passes: "function(early-cse,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(loop-rotate,licm),\
             loop(indvars,loop-deletion),early-cse,sccp,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(licm))",
    level: OptimizationLevel::Default,
};

/// PTX. What a loop does not change leaves it (`licm`, once more after `instcombine` has split addresses); loops of few
/// turns are unrolled, which ptxas does not do as well; `sccp` finds that indices are not negative, so that they widen
/// for nothing; `div-rem-pairs` leaves one division by a number of the launch where quotient and remainder are wanted.
/// ptxas does the rest. The code generator's higher levels gave the same PTX for ResNet-50, more slowly.
pub const DEVICE: Effort = Effort {
    passes: "function(early-cse,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(loop-rotate,licm),\
             loop(indvars,loop-deletion,loop-unroll-full),loop-unroll<O2>,early-cse,sccp,\
             instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(licm),div-rem-pairs)",
    level: OptimizationLevel::Less,
};

/// The same kernels for the emulator, where a call stands before every access.
pub const EMULATED: Effort = Effort {
    passes: "function(early-cse,instcombine<no-verify-fixpoint>,simplifycfg,loop-mssa(loop-rotate,licm))",
    level: OptimizationLevel::Less,
};

/// Host code of the GPU part: long, without loops, and every few instructions a call that takes microseconds.
pub const HOST: Effort = Effort {
    passes: "function(early-cse)",
    level: OptimizationLevel::None,
};
