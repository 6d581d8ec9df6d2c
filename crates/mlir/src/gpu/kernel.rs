//! Kernels: one or more for each distinct operator, or for all whose plan or code is alike.

use std::rc::Rc;

use syncbn_abi::{GpuKernel, GpuParameter};
use syncbn_ir::TensorType;

use super::Lowering;
use super::join_kernels::{Definition, join};
use super::launches::Traffic;
use super::schedules::Gpu;
use super::traffic::traffic;
use crate::LowerError;
use crate::emit::{Blocks, COPY_BYTES, Cost, Device, Emitter, Sharing, Signature, Work};
use crate::host::{Call, Parameter};
use crate::ops;
use crate::ops::kernel::Kernel;

/// A launch that an operator needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launch {
    /// What there is to do.
    pub work: Work,
    /// The blocks that do it.
    pub blocks: Blocks,
    /// Index of its kernel's description.
    pub index: i64,
    /// What it moves and computes.
    pub traffic: Traffic,
    /// What its lowering knows of that.
    pub cost: Cost,
}

/// Symbol of the open numbers of the kernel of this index, in host code.
pub fn numbers_symbol(index: i64) -> String {
    format!("numbers_{index}")
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
    /// The launches for an operator on these types, whose kernels were made.
    pub(super) fn launches(&mut self, call: &Call) -> Result<Vec<Launch>, LowerError> {
        let launches = self.launches.get(&call.key()).cloned();
        let launches = launches.ok_or_else(|| LowerError::Internal {
            message: format!("no kernel was made for {}", call.label),
        })?;
        for launch in &launches {
            let kernel = &mut self.lowered.kernels[launch.index as usize];
            if self.noted.insert((launch.index, call.label.to_string())) {
                kernel.nodes.push(call.label.to_string());
            }
            self.sources.note(&kernel.name, call);
        }
        Ok(launches)
    }

    /// Makes the kernels for an operator on these types, unless they were made before.
    pub(super) fn make_kernels(&mut self, call: &Call) -> Result<(), LowerError> {
        let key = call.key();
        if self.launches.contains_key(&key) {
            return Ok(());
        }
        self.check_size(call)?;
        let number = self.launches.len();
        let mut launches = Vec::new();
        let (mut stage, mut stages) = (0, 1);
        while stage < stages {
            let name = match stage {
                0 => format!("{}_{number}", call.op.name()),
                _ => format!("{}_{number}_{stage}", call.op.name()),
            };
            let (device, definition) = self.build(&name, stage, call)?;
            stages = device.stages();
            stage += 1;
            if device.work == Work::default() {
                continue;
            }
            let index = self.describe(name, &device, call);
            self.separate
                .extend(definition.map(|definition| (index, definition)));
            launches.push(Launch {
                work: device.work,
                blocks: device.blocks,
                index: index as i64,
                traffic: traffic(call, &device.cost, self.batch_bound as usize),
                cost: device.cost,
            });
        }
        self.launches.insert(key, launches);
        Ok(())
    }

    /// Describes the kernel of one stage of an operator, whose symbol is `name` unless it shares another one's code: its
    /// index.
    fn describe(&mut self, name: String, device: &Device<'c>, call: &Call) -> usize {
        let scratch = device.scratch_bytes as u64;
        self.lowered.scratch = self.lowered.scratch.max(scratch);
        let tensors = call.types.iter().enumerate();
        let mut parameters: Vec<GpuParameter> =
            tensors.map(|(i, ty)| touched(ty, i >= call.operands)).collect();
        parameters.push(GpuParameter {
            bytes: scratch,
            bytes_per_sample: 0,
            written: true,
        });
        let index = self.lowered.kernels.len();
        self.lowered.kernels.push(GpuKernel {
            name: device.sharing.kernel.clone().unwrap_or(name),
            block: device.blocks.threads,
            shared: device.blocks.shared,
            cooperative: device.blocks.cooperative,
            parameters: Some(parameters),
            numbers: 0,
            nodes: Vec::new(),
        });
        self.give_numbers(index, device.sharing.numbers.values());
        index
    }

    /// Has launches of the kernel of this index come with open numbers.
    fn give_numbers(&mut self, index: usize, numbers: &[i32]) {
        if !numbers.is_empty() {
            self.lowered.kernels[index].numbers = numbers.len() as u32;
            self.functions
                .define_numbers(&numbers_symbol(index as i64), numbers);
        }
    }

    /// Puts the kernels that were made into the module; those that differ in constants only become one.
    pub(super) fn join_kernels(&mut self) {
        let separate = std::mem::take(&mut self.separate);
        for kernel in join(self.functions.context, separate) {
            for (index, numbers) in &kernel.launches {
                self.lowered.kernels[*index]
                    .name
                    .clone_from(&kernel.definition.name);
                self.give_numbers(*index, numbers);
            }
            kernel.definition.define(&self.device);
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
                message: "a tensor has 2^30 elements or more at this batch".to_string(),
                help: "use a smaller --batch".to_string(),
            }])),
        }
    }

    /// Builds the kernel of one stage of an operator. There is none where the stage has nothing to do, or where it shares
    /// the code of another one.
    fn build(
        &mut self,
        name: &str,
        stage: usize,
        call: &Call,
    ) -> Result<(Device<'c>, Option<Definition<'c>>), LowerError> {
        let mut parameters = call.parameters();
        parameters.extend([Parameter::Exclusive, Parameter::Index, Parameter::Size]);
        let location = self.functions.location(call.label);
        let (region, block, arguments) = self.device.body(&parameters, location);
        let (tensors, rest) = arguments.split_at(call.types.len());
        let (scratch, n, total) = (rest[0], rest[1], rest[2]);
        let kernel = Kernel::new(
            call.types,
            call.operands,
            tensors,
            [n, total],
            COPY_BYTES as usize,
        );
        let mut device = Device::new(stage, self.batch_bound, n, scratch);
        let signature = Signature {
            op: call.op.name(),
            operands: call.operands,
            overlaps: call.overlaps.to_vec(),
        };
        device.sharing = Sharing::new(&self.planned, signature);
        let e = Emitter::of_device(self.functions.context, location, block, device);
        ops::lower(call.op, &Gpu(self.products), &kernel, &e)?;
        e.op("llvm.return", &[], &[], &[]);
        let Some(mut device) = e.into_device() else {
            return Err(LowerError::Internal {
                message: "a kernel lost its state".to_string(),
            });
        };
        device.sharing.close();
        let sharing = &device.sharing;
        if let Some(plan) = &sharing.plan {
            parameters.push(Parameter::Numbers(sharing.numbers.values().len()));
            if sharing.kernel.is_none() {
                Rc::make_mut(&mut self.planned).insert(plan.clone(), name.to_string());
            }
        }
        if device.work == Work::default() || sharing.kernel.is_some() {
            return Ok((device, None));
        }
        let definition = Definition {
            name: name.to_string(),
            op: call.op.name(),
            readonly: (0..parameters.len())
                .map(|i| i < call.operands && !call.overlaps[i])
                .collect(),
            parameters,
            blocks: device.blocks,
            location,
            region,
        };
        Ok((device, Some(definition)))
    }
}
