//! The optimisers' updates: one kernel over all trained weights each, and the host function that launches it.

use std::mem::offset_of;

use syncbn_abi::gpu_symbols::{UPDATE_ADAMW, UPDATE_SGD};
use syncbn_abi::{GpuArguments, GpuKernel};
use syncbn_ir::Graph;

use super::Lowering;
use super::alike::Definition;
use super::kernel::Launch;
use super::step::{field, launch_kernel};
use crate::emit::{Blocks, COPY_BYTES, Device, Elem, Emitter, THREADS, Work, ceil};
use crate::host::{Parameter, Step};
use crate::ops;

impl<'c> Lowering<'c> {
    /// The kernels of the optimisers' updates, which read their arguments from device memory.
    pub(super) fn updates(&mut self) {
        let updates: [(&str, &str, ops::update::Build<'c>); 2] = [
            (UPDATE_SGD, "update_sgd", ops::update::sgd),
            (UPDATE_ADAMW, "update_adamw", ops::update::adamw),
        ];
        for (function, name, build) in updates {
            let parameters = [Parameter::Shared];
            let location = self.functions.unknown();
            let (region, block, arguments) = self.device.body(&parameters, location);
            let mut e = Emitter::new(self.functions.context, location, block);
            e.index_elem = Elem::I32;
            e.device = Some(Device::new(0, 1, arguments[0], arguments[0]));
            let elem = ops::kernel::elem(self.dtype);
            build(&mut e, arguments[0], elem, (COPY_BYTES / elem.bytes()) as usize);
            e.op("llvm.return", &[], &[], &[]);
            let definition = Definition {
                name: name.to_string(),
                op: name,
                parameters: parameters.to_vec(),
                readonly: vec![true],
                blocks: Blocks::of_threads(THREADS),
                location,
                region,
            };
            definition.define(&self.device);
            self.lowered.kernels.push(GpuKernel {
                name: name.to_string(),
                block: THREADS,
                shared: 0,
                cooperative: false,
                parameters: None,
                numbers: 0,
                nodes: Vec::new(),
            });
            let index = self.lowered.kernels.len() as i64 - 1;
            self.update_function(function, index);
        }
    }

    /// The host function of an update, which launches one kernel, of this index, over all trained weights.
    fn update_function(&mut self, function: &str, index: i64) {
        let functions = self.functions;
        let empty = Graph::new("update");
        let mut step = Step::new(&functions, &empty, |e, arguments| field!(e, arguments, constants));
        let arguments = step.arguments;
        let (stream, update) = (
            field!(step.e, arguments, stream),
            field!(step.e, arguments, update),
        );
        let launch = Launch {
            work: Work {
                fixed: ceil(self.trained_elements * self.dtype.bytes() as i64, COPY_BYTES),
                per_sample: 0,
            },
            blocks: Blocks::of_threads(THREADS),
            index,
        };
        let n = step.frame.n;
        let kernel = &self.lowered.kernels[index as usize];
        launch_kernel(&mut step.e, (&launch, kernel), stream, n, &[update]);
        step.finish(&functions, function);
    }
}
