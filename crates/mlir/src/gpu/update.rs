//! The optimisers' updates: one kernel over all trained weights each, and the host function that launches it.

use std::mem::offset_of;

use syncbn_abi::gpu_symbols::{UPDATE_ADAMW, UPDATE_SGD};
use syncbn_abi::{GpuArguments, GpuKernel};
use syncbn_ir::Graph;

use super::Lowering;
use super::join_kernels::Definition;
use super::launches::{Launch, Traffic};
use super::step::launch_kernel;
use crate::emit::{Blocks, COPY_BYTES, Cost, Device, Elem, Emitter, THREADS, Work, ceil, fields};
use crate::host::{Parameter, Step};
use crate::ops;

/// Name of an update among nodes.
const UPDATE: &str = "update";

/// What an update does with each element: arrays that it reads and writes, and operations.
struct PerElement {
    read: u64,
    written: u64,
    flop: u64,
}

/// Weight, gradient and velocity; weight and velocity.
const SGD: PerElement = PerElement {
    read: 3,
    written: 2,
    flop: 8,
};

/// Weight, gradient and both moments; all but the gradient.
const ADAMW: PerElement = PerElement {
    read: 4,
    written: 3,
    flop: 15,
};

impl<'c> Lowering<'c> {
    /// The kernels of the optimisers' updates, which read their arguments from device memory.
    pub(super) fn updates(&mut self) {
        let updates: [(&str, &str, ops::update::Build<'c>, PerElement); 2] = [
            (UPDATE_SGD, "update_sgd", ops::update::sgd, SGD),
            (UPDATE_ADAMW, "update_adamw", ops::update::adamw, ADAMW),
        ];
        for (function, name, build, costs) in updates {
            let parameters = [Parameter::Shared];
            let location = self.functions.unknown();
            let (region, block, arguments) = self.device.body(&parameters, location);
            let device = Device::new(1, [arguments[0]; 2], (1, false));
            let e = Emitter::of_device(self.functions.context, location, block, device);
            let elem = ops::kernel::elem(self.dtype);
            build(&e, arguments[0], elem, (COPY_BYTES / elem.bytes()) as usize);
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
            self.update_function(function, index, &costs);
        }
    }

    fn traffic_of_update(&self, costs: &PerElement) -> Traffic {
        let elements = self.trained_elements as u64;
        let bytes = elements * self.dtype.bytes();
        let (read, written) = (costs.read * bytes, costs.written * bytes);
        Traffic {
            read,
            written,
            least: read + written,
            flop: costs.flop * elements,
            at_once: costs.read * COPY_BYTES as u64,
        }
    }

    /// The host function of an update, which launches one kernel, of this index, over all trained weights.
    fn update_function(&mut self, function: &str, index: i64, costs: &PerElement) {
        let functions = self.functions;
        let empty = Graph::new("update");
        let step = Step::new(&functions, &empty, |e, arguments| {
            e.field(arguments, offset_of!(GpuArguments, constants), Elem::Ptr)
        });
        let [stream, update] = fields!(step.e, step.arguments, GpuArguments, Ptr, [stream, update]);
        let launch = Launch {
            work: Work {
                fixed: ceil(self.trained_elements * self.dtype.bytes() as i64, COPY_BYTES),
                per_sample: 0,
            },
            blocks: Blocks::of_threads(THREADS),
            index,
            traffic: self.traffic_of_update(costs),
            cost: Cost::default(),
        };
        let n = step.frame.n;
        let kernel = &self.lowered.kernels[index as usize];
        launch_kernel(&step.e, (&launch, kernel), stream, n, &[update]);
        let name = kernel.name.clone();
        step.finish(&functions, function, true);
        self.record(&launch, UPDATE, &name);
        self.end_entry_point(function);
    }
}
