//! Kernels: one or more for each distinct operator, or for all that have a plan in common.

use std::rc::Rc;

use syncbn_abi::{GpuKernel, GpuParameter};
use syncbn_ir::TensorType;
use syncbn_ir::ops::Op;

use super::Lowering;
use crate::LowerError;
use crate::cpu::KernelSource;
use crate::emit::{Blocks, COPY_BYTES, Device, Elem, Emitter, Sharing, THREADS, Work};
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
    /// Its index among the kernels' descriptions.
    pub index: i64,
    /// Whether its code has open numbers.
    pub has_numbers: bool,
}

/// Symbol of the open numbers of the kernel of this index, in host code.
pub fn numbers_symbol(index: i64) -> String {
    format!("numbers_{index}")
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
            let launches = launches.clone();
            for launch in &launches {
                self.note_source(&launch.name, op, label);
            }
            return Ok(launches);
        }
        self.check_size(call)?;
        let number = self.launches.len();
        let mut launches = Vec::new();
        let (mut stage, mut stages) = (0, 1);
        while stage < stages {
            let own_name = match stage {
                0 => format!("{}_{number}", op.name()),
                _ => format!("{}_{number}_{stage}", op.name()),
            };
            let device = self.build(&own_name, stage, call)?;
            stages = device.stages();
            stage += 1;
            if device.work == Work::default() {
                continue;
            }
            let name = device.sharing.kernel.unwrap_or(own_name);
            let numbers = device.sharing.numbers.values();
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
                numbers: numbers.len() as u32,
            });
            self.note_source(&name, op, label);
            let index = self.lowered.kernels.len() as i64 - 1;
            if !numbers.is_empty() {
                self.functions.define_numbers(&numbers_symbol(index), numbers);
            }
            launches.push(Launch {
                name,
                work: device.work,
                blocks: device.blocks,
                index,
                has_numbers: !numbers.is_empty(),
            });
        }
        self.launches.insert(key, launches.clone());
        Ok(launches)
    }

    /// Notes that a node calls a kernel.
    fn note_source(&mut self, kernel: &str, op: &Op, node: &str) {
        let sources = &mut self.lowered.sources;
        match sources.iter_mut().find(|source| source.kernel == kernel) {
            Some(source) if source.nodes.iter().any(|known| known == node) => {}
            Some(source) => source.nodes.push(node.to_string()),
            None => sources.push(KernelSource {
                kernel: kernel.to_string(),
                op: op.name().to_string(),
                nodes: vec![node.to_string()],
            }),
        }
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

    /// Builds the kernel of one stage of an operator, unless it shares the code of another one.
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
        let mut device = Device::new(stage, self.batch_bound, n, scratch);
        let prefix = format!("{} {operands} {overlaps:?}", op.name());
        device.sharing = Sharing::new(&self.shared, prefix);
        e.device = Some(device);
        ops::lower(op, &kernel, &mut e)?;
        e.op("llvm.return", &[], &[], &[]);
        let Some(mut device) = e.device else {
            return Err(LowerError::Internal {
                message: "a kernel lost its state".to_string(),
            });
        };
        device.sharing.close();
        let sharing = &device.sharing;
        if let Some(plan) = &sharing.plan {
            parameters.push(Parameter::Numbers(sharing.numbers.values().len()));
            if sharing.kernel.is_none() {
                Rc::make_mut(&mut self.shared).insert(plan.clone(), name.to_string());
            }
        }
        if device.work != Work::default() && sharing.kernel.is_none() {
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
                numbers: 0,
            });
            let index = self.lowered.kernels.len() as i64 - 1;
            self.update_function(function, name, index)?;
        }
        Ok(())
    }
}
