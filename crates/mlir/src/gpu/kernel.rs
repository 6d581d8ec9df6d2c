//! Kernels: one or more for each distinct operator.

use syncbn_abi::{GpuKernel, GpuParameter};
use syncbn_ir::TensorType;
use syncbn_ir::ops::Op;

use super::Lowering;
use crate::LowerError;
use crate::cpu::KernelSource;
use crate::emit::{Blocks, COPY_BYTES, Device, Elem, Emitter, THREADS, Work};
use crate::host::Parameter;
use crate::ops;
use crate::ops::kernel::{Kernel, Tensor};

/// A launch that an operator needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Symbol of the kernel.
    pub name: String,
    /// What there is to do.
    pub work: Work,
    /// The blocks that do it.
    pub blocks: Blocks,
}

/// An operator on tensors: what kernels are made for.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The operator.
    pub op: &'a Op,
    /// Types of its operands, then of its results.
    pub types: &'a [&'a TensorType],
    /// Number of operands.
    pub operands: usize,
    /// Whether each tensor may overlap another one.
    pub overlaps: &'a [bool],
    /// Name of the node.
    pub label: &'a str,
}

/// What a kernel may touch through a tensor.
fn touched(ty: &TensorType, written: bool) -> GpuParameter {
    let bytes = ty.bytes(1).unwrap_or(0);
    let batch = ty.shape.has_batch();
    GpuParameter {
        bytes: if batch { 0 } else { bytes },
        bytes_per_sample: if batch { bytes } else { 0 },
        written,
    }
}

impl<'c> Lowering<'c> {
    /// The launches for an operator on these types; its kernels are made on first use.
    pub(super) fn launches(&mut self, call: &Call) -> Result<Vec<Launch>, LowerError> {
        let &Call {
            op,
            types,
            operands,
            overlaps,
            label,
        } = call;
        let key = format!("{op:?} {types:?} {overlaps:?}");
        if let Some(launches) = self.launches.get(&key) {
            for source in &mut self.lowered.sources {
                let used = launches.iter().any(|launch| launch.name == source.kernel);
                if used && !source.nodes.iter().any(|node| node == label) {
                    source.nodes.push(label.to_string());
                }
            }
            return Ok(launches.clone());
        }
        self.check_size(call)?;
        let number = self.launches.len();
        let mut launches = Vec::new();
        let (mut stage, mut stages) = (0, 1);
        while stage < stages {
            let name = match stage {
                0 => format!("{}_{number}", op.name()),
                _ => format!("{}_{number}_{stage}", op.name()),
            };
            let device = self.build(&name, stage, call)?;
            stages = device.stages();
            stage += 1;
            if device.work == Work::default() {
                continue;
            }
            self.lowered.scratch = self.lowered.scratch.max(device.scratch_bytes as u64);
            let mut parameters: Vec<GpuParameter> = types
                .iter()
                .enumerate()
                .map(|(i, ty)| touched(ty, i >= operands))
                .collect();
            parameters.push(GpuParameter {
                bytes: device.scratch_bytes as u64,
                bytes_per_sample: 0,
                written: true,
            });
            self.lowered.kernels.push(GpuKernel {
                name: name.clone(),
                block: device.blocks.threads,
                shared: device.blocks.shared,
                cooperative: device.blocks.cooperative,
                parameters: Some(parameters),
            });
            self.lowered.sources.push(KernelSource {
                kernel: name.clone(),
                op: op.name().to_string(),
                nodes: vec![label.to_string()],
            });
            launches.push(Launch {
                name,
                work: device.work,
                blocks: device.blocks,
            });
        }
        self.launches.insert(key, launches.clone());
        Ok(launches)
    }

    /// Kernels count elements in i32, and the number of a thread plus that of all threads must fit too.
    fn check_size(&self, call: &Call) -> Result<(), LowerError> {
        let elements = |ty: &&TensorType| Some(ty.bytes(self.batch_bound as usize)? / ty.dtype.bytes());
        let fits = |ty: &&TensorType| elements(ty).is_some_and(|n| n < 1 << 30);
        match call.types.iter().all(fits) && self.trained_elements < 1 << 30 {
            true => Ok(()),
            false => Err(LowerError::Unsupported(vec![crate::Unsupported {
                node: call.label.to_string(),
                op: call.op.name().to_string(),
                message: "a tensor has 2^30 elements or more at this batch; use a smaller --batch"
                    .to_string(),
            }])),
        }
    }

    /// Builds the kernel of one stage of an operator.
    fn build(&mut self, name: &str, stage: usize, call: &Call) -> Result<Device<'c>, LowerError> {
        let &Call {
            op,
            types,
            operands,
            overlaps,
            label,
        } = call;
        let mut parameters: Vec<Parameter> = overlaps
            .iter()
            .map(|&shared| {
                if shared {
                    Parameter::Shared
                } else {
                    Parameter::Exclusive
                }
            })
            .collect();
        parameters.extend([Parameter::Exclusive, Parameter::Index, Parameter::Size]);
        let location = self.functions.location(label);
        let (region, block, arguments) = self.device.body(&parameters, location);
        let tensor = |i: usize| Tensor {
            ty: types[i].clone(),
            pointer: arguments[i],
        };
        let (n, total, scratch) = (
            arguments[types.len() + 1],
            arguments[types.len() + 2],
            arguments[types.len()],
        );
        let kernel = Kernel {
            operands: (0..operands).map(tensor).collect(),
            results: (operands..types.len()).map(tensor).collect(),
            n,
            total,
            vector_bytes: COPY_BYTES as usize,
            products: self.products,
        };
        let mut e = Emitter::new(self.functions.context, location, block);
        e.index_elem = Elem::I32;
        e.device = Some(Device::new(stage, self.batch_bound, n, scratch));
        ops::lower(op, &kernel, &mut e)?;
        e.op("llvm.return", &[], &[], &[]);
        let Some(device) = e.device else {
            return Err(LowerError::Internal {
                message: "a kernel lost its state".to_string(),
            });
        };
        if device.work != Work::default() {
            let readonly: Vec<bool> = (0..parameters.len())
                .map(|i| i < operands && !overlaps[i])
                .collect();
            self.device
                .define_kernel(name, &parameters, &readonly, device.blocks, region, location);
        }
        Ok(device)
    }

    /// The kernels of the optimisers' updates, which read their arguments from device memory.
    pub(super) fn updates(&mut self) -> Result<(), LowerError> {
        use syncbn_abi::gpu_symbols::{UPDATE_ADAMW, UPDATE_SGD};
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
            let blocks = Blocks::of_threads(THREADS);
            self.device
                .define_kernel(name, &parameters, &[true], blocks, region, location);
            self.lowered.kernels.push(GpuKernel {
                name: name.to_string(),
                block: THREADS,
                shared: 0,
                cooperative: false,
                parameters: None,
            });
            self.update_function(function, name)?;
        }
        Ok(())
    }
}
